"""What gives the classes away without listening: level, silence, length, band limit, bit depth.

    python shortcut_check.py --data ../../../../shared/data/speech --cache CACHE

Gradient-boosted trees and logistic regression on those numbers alone, in
speaker-disjoint cross-validation, once for the raw files and once for what the
training stream hands to the network. An AUC of 0.5 is chance.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data import Cache, read_index, speaker_of
from train import Augment, Sampler

NAMES = [
    "level_db", "peak_db", "dc", "lead_s", "trail_s", "seconds", "roll_off_99", "roll_off_999",
    "above_4k_db", "above_7k_db", "zero_share", "low_bit_share", "distinct_share",
]


def numbers(wave: np.ndarray) -> list[float]:
    """`wave` is int16 or float; bit depth is only looked at in int16."""
    whole = wave if wave.dtype == np.int16 else np.round(wave * 32767).astype(np.int64)
    x = wave.astype(np.float64) / (32768 if wave.dtype == np.int16 else 1)
    dc, x = x.mean(), x - x.mean()
    level = np.sqrt(np.mean(x**2)) + 1e-9
    frames = np.sqrt(np.mean(x[: len(x) // 160 * 160].reshape(-1, 160) ** 2, axis=1))
    loud = np.flatnonzero(frames > frames.max() * 10 ** (-35 / 20))
    power = np.abs(np.fft.rfft(x)) ** 2
    f = np.linspace(0, 8000, len(power))
    share = np.cumsum(power) / power.sum()
    return [
        20 * np.log10(level), 20 * np.log10(np.abs(x).max() + 1e-9), dc, loud[0] / 100, (len(frames) - 1 - loud[-1]) / 100,
        len(x) / 16000, f[np.searchsorted(share, 0.99)], f[np.searchsorted(share, 0.999)],
        10 * np.log10(power[f > 4000].sum() / power.sum() + 1e-12), 10 * np.log10(power[f > 7000].sum() / power.sum() + 1e-12),
        np.mean(whole == 0), np.mean(whole % 2 != 0), len(np.unique(whole)) / len(whole),
    ]


def report(title: str, x: np.ndarray, y: np.ndarray, who: np.ndarray) -> None:
    print(f"{title}: {int((y == 0).sum())} real, {int((y == 1).sum())} fake, {len(set(who))} speakers")
    folds = GroupKFold(5)
    trees = HistGradientBoostingClassifier(max_iter=80, max_leaf_nodes=8, learning_rate=0.08, random_state=0)
    line = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    for name, model in (("trees", trees), ("logistic", line)):
        p = cross_val_predict(model, x, y, groups=who, cv=folds, method="predict_proba")[:, 1]
        print(f"  all numbers, {name}: AUC {roc_auc_score(y, p):.3f}")
    for i, name in enumerate(NAMES):
        if np.ptp(x[:, i]) == 0:
            continue
        p = cross_val_predict(trees, x[:, [i]], y, groups=who, cv=folds, method="predict_proba")[:, 1]
        print(f"    {name} alone: AUC {roc_auc_score(y, p):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=1600)
    args = parser.parse_args()
    torch.set_num_threads(2)

    rows = read_index(args.data)
    report(
        "raw files", np.array([numbers(r["wave"]) for r in rows]),
        np.array([int(r["label"] == "spoof") for r in rows]), np.array([speaker_of(r) for r in rows]),
    )

    sampler, augment = Sampler(Cache(args.cache), 3), Augment(3)
    x, y, who = [], [], []
    while len(x) < args.windows:
        waves, twins, speakers = sampler.batch_with_speakers(20)
        sound = augment(torch.from_numpy(waves), torch.from_numpy(twins)).numpy()
        # what the front end does first
        sound = sound - sound.mean(1, keepdims=True)
        sound *= 0.05 / np.sqrt((sound**2).mean(1, keepdims=True))
        x += [numbers(s) for s in sound]
        y += [0] * 20 + [1] * 20
        who += speakers
    report("training stream", np.array(x), np.array(y), np.array(who))


if __name__ == "__main__":
    main()
