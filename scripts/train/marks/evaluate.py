#!/usr/bin/env python3
"""Thresholds, Platt line and figures of a trained network, on what evaluation_set.py made.

    evaluate.py --work WORK --weights X.safetensors --out WORK/evaluated

Writes `meta.toml` for publish.py, `figures.json` and `tables.md`. Intervals: 95 %, bootstrap over source
pictures. Thresholds are those that locate most erasures (a region with IoU >= 0.5) while at most 1 % of
the unmarked pictures and at most 1 % of those with their mark left on have any region. They are chosen
on all sources for the manifest; the figures are measured on one half of the sources each with the
thresholds of the other half. Clips: mean logits of eight pictures, the same thresholds.

Erasures that left the fine differences of their box as they were (`shows` under visible.LEAST) are not
counted: nothing is there to be found.

The trivial classifier beside it: in each 8 x 8 pixels the logarithm of the mean square of a second
derivative in 12 x 12 such cells around over that in 3 x 3, with thresholds chosen in the same way.
"""

import argparse
import json
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import torch

import net
import visible
from erasers import ERASERS
from generate import read
from regions import iou, regions

FALSE_ALARMS = 0.01


def softness(picture):
    """The trivial classifier: f32 [rows, columns] as the network's, higher where it is softer than around."""
    gray = net.reduced(picture) @ np.float32([0.299, 0.587, 0.114])
    energy = cv2.filter2D(gray, -1, np.float32([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])) ** 2
    rows, columns = -(-gray.shape[0] // 8), -(-gray.shape[1] // 8)
    cells = cv2.resize(energy, (columns, rows), interpolation=cv2.INTER_AREA)
    ratio = np.log((cv2.blur(cells, (13, 13)) + 0.5) / (cv2.blur(cells, (3, 3)) + 0.5))
    rows, columns = (-(-side // net.STRIDE) for side in gray.shape)
    return ratio.repeat(2, 0).repeat(2, 1)[:rows, :columns]


def case_logits(model, folder, case):
    pictures = [read(folder / file) for file in case["files"]]
    found = [net.logits(model, picture) for picture in pictures]
    trivial = np.mean([softness(picture) for picture in pictures], 0)
    return np.mean(found, 0), trivial, pictures[0].shape[:2]


def boxes_of(task):
    """(score, box) of every box that `regions` finds at `low`."""
    logits, low, size = task
    return [(score, box) for box, score in regions(logits, low, -1e9, *size)]


class Judged:
    """Boxes of every case at every `low` of a grid."""

    def __init__(self, cases, maps, sizes, lows, threads):
        self.cases, self.lows = cases, lows
        with multiprocessing.Pool(threads) as pool:
            self.found = [pool.map(boxes_of, [(m, low, size) for m, size in zip(maps, sizes)], 16) for low in lows]
        self.still = np.array([c["form"] == "picture" for c in cases])
        # Pictures that a program made soft in parts are judged, but choose no threshold.
        self.family = np.array([c["family"] if c["kind"] != "softened" else "softened" for c in cases])
        # An erasure that left the fine differences as they were cannot be seen by anybody.
        self.traced = np.array([c["shows"] >= visible.LEAST for c in cases])

    def scores(self, at, which):
        return np.array([max((s for s, _ in self.found[at][i]), default=-1e9) for i in which])

    def located(self, at, high, i):
        return any(s >= high and max(iou(box, b) for b in self.cases[i]["boxes"]) >= 0.5 for s, box in self.found[at][i])

    def choose(self, which, rate=FALSE_ALARMS):
        """(share located, index of low, high) on these cases at this rate of false alarms."""
        best = (-1.0, 0, 0.0)
        erased = [i for i in which if self.still[i] and self.family[i] == "erased" and self.traced[i]]
        for at, low in enumerate(self.lows):
            highs = [low]
            for family in ("none", "mark"):
                scores = np.sort(self.scores(at, [i for i in which if self.still[i] and self.family[i] == family]))[::-1]
                allowed = int(rate * len(scores))
                # Just above the first that may not be flagged.
                highs.append(scores[allowed] + 1e-3)
            high = float(max(highs))
            share = float(np.mean([self.located(at, high, i) for i in erased]))
            if share > best[0]:
                best = (share, at, high)
        return best


def interval(values, sources, rng, rounds=1000):
    """[mean, low, high]; sources are drawn again, not cases."""
    values, names = np.asarray(values, float), sorted(set(sources))
    index = {n: k for k, n in enumerate(names)}
    group = np.array([index[s] for s in sources])
    sums, counts = np.bincount(group, values, len(names)), np.bincount(group, minlength=len(names))
    means = []
    for _ in range(rounds):
        weight = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        if weight @ counts:
            means.append(weight @ sums / (weight @ counts))
    return [round(float(v), 4) for v in (values.mean(), *np.quantile(means, [0.025, 0.975]))]


def platt(scores, labels):
    """a, b of the log-odds ratio, both classes weighing the same; pictures without any component are in
    the classes' sizes, so the line is the ratio of having this score, not of having any."""
    from sklearn.linear_model import LogisticRegression

    has = ~np.isnan(scores)
    weights = np.where(labels, 1 / labels.sum(), 1 / (~labels).sum())
    fit = LogisticRegression(C=1e6).fit(scores[has, None], labels[has], sample_weight=weights[has] * len(labels))
    return float(fit.coef_[0, 0]), float(fit.intercept_[0])


def cross_figures(judged, halves, rng):
    """Figures on each half with the thresholds of the other."""
    hit, alarm, thresholds = np.zeros(len(judged.cases)), np.zeros(len(judged.cases)), []
    flagged = np.zeros(len(judged.cases))
    for mine, other in ((0, 1), (1, 0)):
        _, at, high = judged.choose([i for i in range(len(judged.cases)) if halves[i] == other])
        thresholds.append((judged.lows[at], high))
        for i in np.flatnonzero(halves == mine):
            alarm[i] = any(s >= high for s, _ in judged.found[at][i])
            if judged.family[i] == "erased":
                hit[i] = judged.located(at, high, i)
                flagged[i] = alarm[i]
    return hit, flagged, alarm, thresholds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, default=1 << 30, help="only so many cases")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.work / "evaluation"
    cases = [json.loads(line) for line in open(folder / "cases.jsonl", encoding="utf-8")][: args.most]
    model, maps, trivial, sizes = net.load(args.weights), [], [], []
    for case in cases:
        logits, soft, size = case_logits(model, folder, case)
        maps.append(logits[0])
        trivial.append(soft)
        sizes.append(size)
    rng = np.random.default_rng(3)
    sources = sorted({c["source"] for c in cases})
    half = dict(zip(rng.permutation(sources), np.arange(len(sources)) % 2))
    halves = np.array([half[c["source"]] for c in cases])
    judged = Judged(cases, maps, sizes, [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0], args.threads)
    plain = Judged(cases, trivial, sizes, [0.5, 1.0, 2.0], args.threads)
    everything = range(len(cases))
    _, at, high = judged.choose(everything)
    low = judged.lows[at]

    figures, tables = {}, []
    hit, flagged, alarm, thresholds = cross_figures(judged, halves, rng)
    plain_hit, plain_flagged, plain_alarm, plain_thresholds = cross_figures(plain, halves, rng)
    by = lambda key, value: np.array([c[key] == value for c in cases])
    unmarked = judged.family == "none"
    source_of = np.array([c["source"] for c in cases])
    still, erased, traced = judged.still, judged.family == "erased", judged.traced

    def add(name, values, mask):
        if mask.sum():
            figures[name] = interval(values[mask], source_of[mask], rng)
            return f"{int(mask.sum())} | " + " | ".join(f"{v:.3f}" for v in figures[name])
        return "0 | – | – | –"

    tables.append("| erased by | pictures | located (IoU >= 0.5) | low | high | flagged at all | local variance, located |\n| --- | --- | --- | --- | --- | --- | --- |")
    for eraser in [*ERASERS, "migan"]:
        mask = still & erased & traced & by("eraser", eraser)
        if mask.sum():
            row = add(f"located_{eraser.replace('-', '_')}", hit, mask)
            tables.append(f"| {eraser} | {row} | {flagged[mask].mean():.3f} | {plain_hit[mask].mean():.3f} |")
    mask = still & erased & traced
    row = add("located_pictures", hit, mask)
    add("flagged_pictures", flagged, mask)
    tables.append(f"| all | {row} | {flagged[mask].mean():.3f} | {plain_hit[mask].mean():.3f} |")
    figures["local_variance_located_pictures"] = interval(plain_hit[mask], source_of[mask], rng)
    figures["pictures_without_trace"] = int((still & erased & ~traced).sum())

    tables.append("\n| compression | erased | located | low | high |\n| --- | --- | --- | --- | --- |")
    for compression in sorted({c["compression"] for c in cases if c["form"] == "picture"}):
        mask = still & erased & traced & by("compression", compression)
        tables.append(f"| {compression} | {add('located_' + compression.replace(' ', '_').replace(',', ''), hit, mask)} |")

    tables.append("\n| erased box's height, px | erased | located | low | high |\n| --- | --- | --- | --- | --- |")
    heights = np.array([c["boxes"][0][3] - c["boxes"][0][1] if c["boxes"] else 0 for c in cases])
    for least, most in ((0, 16), (16, 24), (24, 40), (40, 64), (64, 999)):
        mask = still & erased & traced & (heights >= least) & (heights < most)
        tables.append(f"| {least}–{most} | {add(f'located_height_{least}_{most}', hit, mask)} |")

    tables.append("\n| nothing erased | pictures | flagged | low | high | local variance |\n| --- | --- | --- | --- | --- | --- |")
    for name, mask in (
        ("false_alarms_unmarked", still & unmarked),
        ("false_alarms_mark_left_on", still & by("family", "mark")),
        *((f"false_alarms_{k}", still & ~erased & by("kind", k)) for k in ("photo", "generated", "screen", "face", "synthetic", "softened")),
    ):
        tables.append(f"| {name} | {add(name, alarm, mask)} | {plain_alarm[mask].mean() if mask.sum() else float('nan'):.3f} |")

    tables.append("\n| clips, eight pictures | clips | share | low | high |\n| --- | --- | --- | --- | --- |")
    for name, values, mask in (
        ("clips_located", hit, ~still & erased & traced),
        ("clips_flagged", flagged, ~still & erased & traced),
        ("clips_false_alarms", alarm, ~still & ~erased),
        *((f"clips_located_{e.replace('-', '_')}", hit, ~still & erased & traced & by("eraser", e)) for e in ERASERS),
    ):
        if mask.sum():
            tables.append(f"| {name} | {add(name, values, mask)} |")

    tables.append("\n| false alarms allowed | located, network | located, local variance |\n| --- | --- | --- |")
    for rate in (0.01, 0.05, 0.1, 0.2):
        tables.append(f"| {rate:.0%} | {judged.choose(everything, rate)[0]:.3f} | {plain.choose(everything, rate)[0]:.3f} |")

    # The line: only boxes that reach `high`, as the program sees them, would leave a handful of
    # negatives; so `high` is not asked for here.
    scores = np.array([max((s for s, _ in judged.found[at][i]), default=np.nan) for i in everything])
    use = still & (~erased | traced) & (judged.family != "softened")
    a, b = platt(scores[use], erased[use])
    left_out = []
    for mine, other in ((0, 1), (1, 0)):
        fit = platt(scores[use & (halves == other)], erased[use & (halves == other)])
        left_out.append([round(v, 3) for v in fit])
    figures["platt_by_half"] = left_out
    figures["thresholds_by_half"] = [[float(v) for v in t] for t in thresholds]
    figures["local_variance_thresholds_by_half"] = [[float(v) for v in t] for t in plain_thresholds]
    figures["region_low"], figures["region_high"] = float(low), round(high, 4)
    figures["a"], figures["b"] = a, b
    counted = [score for score in judged.scores(at, everything) if score >= high]
    figures["scores_of_counted_regions"] = [round(float(v), 3) for v in np.quantile(counted or [0.0], [0, 0.05, 0.5, 0.95, 1])]
    (args.out / "figures.json").write_text(json.dumps(figures, indent=1))
    (args.out / "tables.md").write_text("\n".join(tables) + "\n", encoding="utf-8")
    kept = {k: v for k, v in figures.items() if isinstance(v, list) and len(v) == 3 and k != "scores_of_counted_regions" and "height" not in k}
    lines = [
        'network = "mark-net"',
        'input = "RGB picture, upright, reduced by the box mean of k x k pixels, k = max(1, floor(short side / 720)), padded to multiples of 64; 14 local energies of each 4 x 4 pixels; see docs/models/label-strip-marks.md"',
        'licence = "MIT OR Apache-2.0"',
        'origin = "trained from scratch by this project, scripts/train/marks"',
        'training_data = ["wallpapers and pictures of Debian packages, see datasets/marks.toml", "previews in the packages comfyui-workflow-templates-media (MIT), pictures made by AI mostly", "UTKFace and DFDC training faces (research use), a minor share", "marks and erasures made by scripts/train/marks"]',
        "\n[metrics]",
        f"region_low = {low}",
        f"region_high = {high:.4f}",
        *(f"{k} = {v}" for k, v in kept.items()),
        "\n[calibration]",
        'method = "platt"',
        f"a = {a:.4f}",
        f"b = {b:.4f}",
        "threshold = 0.5",
        'fitted_on = "validation pictures of scripts/train/marks/evaluation_set.py, both classes weighted equally; score = mean logit of the best region; the regions\' thresholds are region_low and region_high under metrics"',
    ]
    (args.out / "meta.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print((args.out / "tables.md").read_text())
    print(json.dumps({k: figures[k] for k in ("region_low", "region_high", "a", "b", "thresholds_by_half", "platt_by_half", "scores_of_counted_regions", "pictures_without_trace")}))


if __name__ == "__main__":
    main()
