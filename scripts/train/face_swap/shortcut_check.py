#!/usr/bin/env python3
"""Can the classes be told apart without looking at a face?

    shortcut_check.py --data ../shared/data --work DIR

A logistic regression and boosted trees see only file facts (size, quantisation tables, sampling,
header length) or only global picture statistics (colour, spread, sharpness), and are cross-validated
over people. For the files as they come, and for the batches that training shows. Near 0.5 is good;
whatever is far above is a shortcut that the network could take in place of looking for forgery.
"""

import argparse
import csv
import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data import Data
from prepare import decode, read_members


def file_facts(data):
    image = Image.open(io.BytesIO(data))
    tables = [v for _, table in sorted(image.quantization.items()) for v in table[:8]]
    tables = (tables + [0] * 16)[:16]
    return [len(data), data.find(b"\xff\xda"), image.layers, *image.layer[0][1:3], *tables]


def picture_facts(rgb):
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return [
        *rgb.reshape(-1, 3).mean(0),
        *rgb.reshape(-1, 3).std(0),
        np.log1p(cv2.Laplacian(grey, cv2.CV_32F).var()),
        np.log1p(np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0)).mean()),
        np.log1p(np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1)).mean()),
    ]


def report(name, facts, labels, groups):
    facts, labels = np.array(facts, np.float64), np.array(labels)
    models = {
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        "trees": HistGradientBoostingClassifier(max_iter=120, random_state=0),
    }
    for kind, model in models.items():
        found = cross_val_predict(
            model, facts, labels, groups=groups, cv=GroupKFold(5), method="predict_proba"
        )[:, 1]
        print(f"{name:<34} {kind:<7} n {len(labels):>6}  AUC {roc_auc_score(labels, found):.3f}", flush=True)


def stream(data, args, prefix=""):
    """What the pictures of the training batches give away; a prefix leaves the DFDC pairs out."""
    kinds = np.repeat(["dfdc", "blend", "utk"], 2 * np.array(args.pairs))
    facts, labels, kind, pair = [], [], [], []
    for step in range(args.batches):
        images, truth, _, _ = data.batch(args.seed, step, args.pairs)
        facts += [picture_facts(image) for image in images]
        labels += list(truth > 0.5)
        kind += list(kinds)
        # Both members of a pair stay in one fold.
        pair += [step * len(images) + i // 2 for i in range(len(images))]
    facts, labels, kind, pair = map(np.array, (facts, labels, kind, pair))
    if not prefix:
        report("training stream, all", facts, labels, pair)
    for name in ("blend", "utk") if prefix else ("dfdc", "blend", "utk"):
        mine = kind == name
        report(f"{prefix}training stream, {name} pairs", facts[mine], labels[mine], pair[mine])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--pairs", type=int, nargs=3, default=(10, 2, 4))
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", help="look only at forgeries of these of data.SHARES' kinds, one by one")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.kinds is not None:
        data = Data(args.data, args.work)
        made = set(data.shares)
        for kind in args.kinds:
            if kind not in made:
                parser.error(f"no files for {kind!r}; there are files for {sorted(made)}")
            data.shares = {kind: 1.0}
            stream(data, args, f"{kind}, ")
        return
    folder = args.data / "faces"
    with open(folder / "dfdc.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "train"]
    files, pictures = [None] * len(rows), [None] * len(rows)
    for row, data in read_members(folder, [(r["shard"], r["file"]) for r in rows]):
        files[row], pictures[row] = file_facts(data), picture_facts(decode(data))
    labels = [r["label"] == "fake" for r in rows]
    people = np.array([int(r["identity"]) for r in rows])
    report("DFDC as it comes, file facts", files, labels, people)
    report("DFDC as it comes, picture facts", pictures, labels, people)

    stream(Data(args.data, args.work), args)


if __name__ == "__main__":
    main()
