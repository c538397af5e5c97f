#!/usr/bin/env python3
"""Measures a face-swap tier with the program itself and fits its calibration.

    evaluate.py --data ../shared/data --work DIR --program veriscope --tier fast --weights W --out DIR

Every score comes from `veriscope score --detector face-swap --precropped`. --weights is a folder
like the repository's weights/, whose calibration is set aside: what is fitted here are the raw
scores. Only people the network never saw count: the DFDC validation identities and the held-out
faces of UTKFace. Intervals are 95 % bootstraps over people, because crops of one person are not
independent. Probabilities are calibrated at equal class weight: the share of fakes in the
validation set is no statement about the world. Writes metrics.json, scores.npz and meta.toml (the
tables `metrics` and `calibration`, for publish.py) to --out.
"""

import argparse
import csv
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from data import Data, filmed, jpeg, noise
from geometry import stretch
from prepare import SIDE

FALSE_ALARMS = 0.05
ETHNICITIES = ("white", "black", "asian", "indian", "other")
AGES = ((0, 17), (18, 39), (40, 59), (60, 200))


# ------------------------------------------------------------------------------- degradations


def shrunk(image, share):
    side = round(SIDE * share)
    return stretch(stretch(image, side, side), SIDE, SIDE)


def recolour(image, rng):
    """Contrast, gamma, white balance and saturation, each off by what phones and sites do."""
    level = (np.linspace(0, 1, 256)[:, None] ** rng.choice([0.8, 1.25]) - 0.5) * rng.choice([0.85, 1.15]) + 0.5
    table = np.clip(level * 255 + rng.normal(0, 6, 3), 0, 255).round().astype(np.uint8)
    image = cv2.LUT(image, table[None])
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    keep = rng.choice([0.6, 1.4])
    return cv2.addWeighted(image, keep, grey, 1 - keep, 0)


def recaptured(image, rng):
    """A screen filmed by a phone: its grid of stripes, a slight turn, blur, less contrast, noise."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(2.2, 4.0)
    stripes = 1 + 0.06 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / pitch)
    turned = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), rng.uniform(-3, 3), 1.02)
    image = np.clip(image * stripes[..., None], 0, 255).astype(np.uint8)
    image = cv2.warpAffine(image, turned, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image = cv2.GaussianBlur(image, (0, 0), 0.8)
    image = np.clip((image.astype(np.float32) - 128) * 0.9 + 138, 0, 255).astype(np.uint8)
    return jpeg(noise(image, rng, 3.0), 80)


def cut_border(image, sides):
    left, top, right, bottom = (round(s * SIDE) for s in sides)
    return image[top : SIDE - bottom, left : SIDE - right]


# The middle strength of each degradation, and two errors of framing.
DEGRADATIONS = {
    "jpeg60": lambda image, rng: jpeg(image, 60),
    "half": lambda image, rng: shrunk(image, 0.5),
    "blur": lambda image, rng: cv2.GaussianBlur(image, (0, 0), 1.2),
    "noise": lambda image, rng: noise(image, rng, 5.0),
    "colour": recolour,
    "recapture": recaptured,
    "tight": lambda image, rng: cut_border(image, (0.06, 0.06, 0.06, 0.06)),
    "shifted": lambda image, rng: cut_border(image, (0.08, 0.08, 0, 0)),
}
# Stronger ones, to see where it ends.
STRONG = {
    "jpeg30": lambda image, rng: jpeg(image, 30),
    "quarter": lambda image, rng: shrunk(image, 0.25),
    "blur2": lambda image, rng: cv2.GaussianBlur(image, (0, 0), 2.0),
    "noise10": lambda image, rng: noise(image, rng, 10.0),
}


# ---------------------------------------------------------------------------------- the program


class Program:
    """`veriscope score` with a weights folder whose calibration of the tier is the identity."""

    def __init__(self, program, tier, weights, folder, options):
        self.folder = Path(folder)
        held = self.folder / "weights"
        held.mkdir()
        for file in Path(weights).iterdir():
            if file.name != "manifest.toml":
                (held / file.name).symlink_to(file.resolve())
        text = (Path(weights) / "manifest.toml").read_text(encoding="utf-8")
        head = f"[face-swap-{tier}.calibration]\n"
        before, block = text.split(head)
        block, *after = re.split(r"(?m)^(?=\[)", block, maxsplit=1)
        block = re.sub(r"(?m)^a = .*$", "a = 1.0", re.sub(r"(?m)^b = .*$", "b = 0.0", block))
        (held / "manifest.toml").write_text(before + head + block + "".join(after), encoding="utf-8")
        self.command = [program, "score", "--detector", "face-swap", "--tier", tier, "--weights", str(held), *options]

    def score(self, paths, precropped=True):
        """(scores with NaN where nothing was judged, reasons), in the order of `paths`."""
        listed = self.folder / "list.txt"
        listed.write_text("".join(f"{p}\n" for p in paths), encoding="utf-8")
        command = [*self.command, "--list", str(listed), *(["--precropped"] if precropped else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        rows = list(csv.DictReader(done.stdout.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
        if len(rows) != len(paths):
            raise SystemExit(f"{command[0]} gave {len(rows)} rows for {len(paths)} files (exit {done.returncode})")
        return np.array([float(r["score"] or "nan") for r in rows]), [r["reasons"] for r in rows]

    def score_images(self, images):
        """Scores of pictures in memory, by way of PNG files."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            paths = []
            for i, image in enumerate(images):
                paths.append(Path(folder) / f"{i}.png")
                cv2.imwrite(str(paths[-1]), np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 1])
            found, reasons = self.score(paths)
        if np.isnan(found).any():
            raise SystemExit(f"not scored: {reasons[int(np.isnan(found).argmax())]}")
        return found


# ----------------------------------------------------------------------------------- statistics


def equal_error_rate(labels, values):
    order = np.argsort(-values, kind="stable")
    fake = labels[order]
    hit, alarm = np.cumsum(fake) / fake.sum(), np.cumsum(~fake) / (~fake).sum()
    at = np.argmin(np.abs(1 - hit - alarm))
    return float((1 - hit[at] + alarm[at]) / 2)


def bootstrap(people, statistic, rounds=1000, seed=0):
    """[value, low, high] of statistic(rows) over resampled people."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(people == p) for p in np.unique(people)]
    values = []
    for _ in range(rounds):
        chosen = rng.integers(0, len(rows), len(rows))
        value = statistic(np.concatenate([rows[i] for i in chosen]))
        if np.isfinite(value):
            values.append(value)
    low, high = np.percentile(values, [2.5, 97.5])
    return [round(float(v), 4) for v in (statistic(np.arange(len(people))), low, high)]


def class_weights(labels):
    """Each class weighs a half."""
    return np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())


def platt(values, labels):
    """a, b of p = sigmoid(a * score + b) at equal class weight, all but unregularised."""
    fit = LogisticRegression(C=1e6, max_iter=1000)
    fit.fit(values[:, None], labels, sample_weight=class_weights(labels) * len(labels))
    return float(fit.coef_[0, 0]), float(fit.intercept_[0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def calibration_error(p, labels, bins=15):
    """Expected calibration error over bins of equal weight."""
    weight = class_weights(labels)
    order = np.argsort(p, kind="stable")
    place = np.minimum((np.cumsum(weight[order]) - weight[order] / 2) * bins, bins - 1).astype(int)
    error = 0.0
    for b in range(bins):
        mine = order[place == b]
        if len(mine):
            w = weight[mine]
            error += abs(np.sum(w * p[mine]) - np.sum(w * labels[mine]))
    return float(error)


def brier(p, labels):
    return float(np.sum(class_weights(labels) * (p - labels) ** 2))


def halves(people, labels, seed=0):
    """People in two halves, dealt by size so that both have fakes enough."""
    unique = np.unique(people)
    fakes = np.array([labels[people == p].sum() for p in unique])
    order = unique[np.lexsort((np.random.default_rng(seed).random(len(unique)), -fakes))]
    first = np.isin(people, order[[i for i in range(len(order)) if i % 4 in (0, 3)]])
    return first, ~first


def left_out(values, labels, people):
    """Each person's probabilities by a calibration fitted on all the others."""
    p = np.empty(len(values))
    for person in np.unique(people):
        mine = people == person
        a, b = platt(values[~mine], labels[~mine])
        p[mine] = sigmoid(a * values[mine] + b)
    return p


def quantile_threshold(real_scores):
    """The score above which FALSE_ALARMS of these reals lie."""
    return float(np.quantile(real_scores, 1 - FALSE_ALARMS))


def toml(value):
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    return repr(value)


def unpack(data, rows, folder):
    """The crops' own files, as the data set has them."""
    folder.mkdir()
    paths = []
    with tarfile.open(data / "faces" / "dfdc-val-0.tar") as archive:
        for i, row in enumerate(rows):
            paths.append(folder / f"{i}.jpg")
            paths[-1].write_bytes(archive.extractfile(row["file"]).read())
    return paths


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--program", required=True)
    parser.add_argument("--tier", required=True, choices=("fast", "accurate"))
    parser.add_argument("--weights", required=True, type=Path, help="a folder with manifest.toml")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--every", type=int, default=1, help="degrade every so many-th validation crop only")
    parser.add_argument("--strong", action="store_true", help="the stronger degradations too")
    parser.add_argument("options", nargs="*", help="more options of veriscope score, behind --")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = Data(args.data, args.work)
    with tempfile.TemporaryDirectory() as folder:
        measure(args, data, Program(args.program, args.tier, args.weights, folder, args.options))


def measure(args, data, program):
    metrics = {}

    def note(name, value):
        metrics[name] = value
        print(f"{name:<36} {value}", flush=True)

    # DFDC, validation people
    labels, people = data.fake[data.val], data.dfdc.person[data.val]
    with open(args.data / "faces" / "dfdc.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    clean, _ = program.score(unpack(args.data, [rows[i] for i in data.val], program.folder / "val"))
    note("val_reals", int((~labels).sum()))
    note("val_fakes", int(labels.sum()))
    note("val_identities", int(len(np.unique(people))))

    def auc(rows, values):
        return roc_auc_score(labels[rows], values[rows]) if 0 < labels[rows].sum() < len(rows) else np.nan

    note("val_frame_auc", bootstrap(people, lambda r: auc(r, clean)))
    note("val_frame_eer", bootstrap(people, lambda r: equal_error_rate(labels[r], clean[r])))
    note("val_frame_ap", bootstrap(people, lambda r: average_precision_score(labels[r], clean[r])))
    # One threshold for everything below, from undegraded DFDC reals
    threshold = quantile_threshold(clean[~labels])
    note("val_hit_rate_at_threshold", bootstrap(people, lambda r: float((clean[r][labels[r]] > threshold).mean())))

    # Falls are paired: the degraded crops against the same ones as they come.
    some = np.arange(0, len(labels), args.every)
    crops = [np.asarray(data.dfdc.images[i]) for i in data.val[some]]
    kinds = DEGRADATIONS | (STRONG if args.strong else {})
    kept = {}
    for kind in ("h264", *kinds):
        rng = np.random.default_rng(0)
        images = filmed(crops, 30) if kind == "h264" else [kinds[kind](image, rng) for image in crops]
        found = np.full(len(labels), np.nan)
        found[some] = program.score_images(images)
        kept[kind] = found
        real = ~labels[some]
        note(f"val_frame_auc_{kind}", bootstrap(people[some], lambda r: auc(some[r], found)))
        note(f"val_frame_auc_fall_{kind}", bootstrap(people[some], lambda r: auc(some[r], clean) - auc(some[r], found)))
        note(f"val_false_alarms_{kind}", bootstrap(people[some], lambda r: float((found[some[r]][real[r]] > threshold).mean())))

    # UTKFace, people never trained on: false alarms in all and by group, and our own forgeries
    held = data.utk_held_out
    utk = program.score_images([np.asarray(data.utk.images[i]) for i in held])
    alarm = (utk > threshold).astype(float)
    note("utkface_false_alarms", bootstrap(held, lambda r: float(alarm[r].mean())))
    rows = [data.utk_rows[i] for i in held]
    race = np.array([int(r["ethnicity_0white_1black_2asian_3indian_4other"]) for r in rows])
    sex = np.array([int(r["sex_0m_1f"]) for r in rows])
    age = np.array([int(r["age"]) for r in rows])
    groups = {f"utkface_false_alarms_{n}": race == i for i, n in enumerate(ETHNICITIES)}
    groups |= {"utkface_false_alarms_male": sex == 0, "utkface_false_alarms_female": sex == 1}
    groups |= {f"utkface_false_alarms_age_{a}_{min(b, 116)}": (age >= a) & (age <= b) for a, b in AGES}
    for name, mine in groups.items():
        mine = alarm[mine]
        note(name, bootstrap(np.arange(len(mine)), lambda r: float(mine[r].mean())))
    rng = np.random.default_rng(0)
    pairs = [data.forged_pair(data.utk, held, i, rng) for i in held]
    both = [program.score_images([p[side] for p in pairs]) for side in (0, 1)]
    truth, values = np.repeat([False, True], len(held)), np.concatenate(both)
    owners = np.concatenate([held, held])
    note("utkface_own_forgeries_auc", bootstrap(owners, lambda r: roc_auc_score(truth[r], values[r])))

    # Calibration: each person's by all the others', and by halves to see how far it carries
    p = left_out(clean, labels, people)
    note("calibration_left_out_ece", bootstrap(people, lambda r: calibration_error(p[r], labels[r])))
    note("calibration_left_out_brier", bootstrap(people, lambda r: brier(p[r], labels[r])))
    for name, (fit, test) in zip("ab", (halves(people, labels), halves(people, labels)[::-1])):
        a, b = platt(clean[fit], labels[fit])
        p = sigmoid(a * clean[test] + b)
        note(f"calibration_half_{name}_platt_a", round(a, 4))
        note(f"calibration_half_{name}_platt_b", round(b, 4))
        note(f"calibration_half_{name}_ece", round(calibration_error(p, labels[test]), 4))
        note(f"calibration_half_{name}_brier", round(brier(p, labels[test]), 4))
        note(f"calibration_half_{name}_auc", round(float(roc_auc_score(labels[test], p)), 4))
        cut = quantile_threshold(clean[fit][~labels[fit]])
        note(f"calibration_half_{name}_false_alarms", round(float((clean[test][~labels[test]] > cut).mean()), 4))
    a, b = platt(clean, labels)
    note("platt_a", round(a, 4))
    note("platt_b", round(b, 4))
    note("threshold_score", round(threshold, 4))
    note("threshold_probability", round(float(sigmoid(a * threshold + b)), 4))

    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    np.savez(args.out / "scores.npz", val=clean, val_labels=labels, val_people=people, utk=utk, **kept)
    shipped = {k: v for k, v in metrics.items() if k.startswith(("val_", "utkface_", "calibration_"))}
    lines = [
        "[metrics]",
        *(f"{k} = {toml(v)}" for k, v in shipped.items()),
        "",
        "[calibration]",
        'method = "platt"',
        f"a = {metrics['platt_a']}",
        f"b = {metrics['platt_b']}",
        f"threshold = {metrics['threshold_probability']}",
        'fitted_on = "all DFDC validation identities, classes weighted equally"',
    ]
    (args.out / "meta.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
