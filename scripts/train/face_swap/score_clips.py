#!/usr/bin/env python3
"""A look, not a statistic: every clip of a folder at two frames a second.

    score_clips.py --clips ../shared/data/clips --weights W --yunet Y --metrics metrics.json

The largest face of a frame is cut by geometry.py and scored. Prints per clip: frames with a face,
mean logit, its spread, and mean calibrated probability.
"""

import argparse
import csv
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from evaluate import sigmoid
from geometry import YuNet, crop_rectangle, cut
from model import load_export
from train import scores

DETECT = 640


def crops(path, yunet, per_second):
    video = cv2.VideoCapture(str(path))
    rate = video.get(cv2.CAP_PROP_FPS) or 25
    index, due, found, seen = 0, 0.0, [], 0
    while video.grab():
        if index >= due:
            due += rate / per_second
            ok, frame = video.retrieve()
            if not ok:
                break
            seen += 1
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            scale = min(1, DETECT / max(frame.shape[:2]))
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            faces = yunet.faces(small)
            if len(faces):
                x, y, w, h = max(faces, key=lambda f: f[2] * f[3])[:4] / scale
                found.append((cut(frame, crop_rectangle(x, y, w, h)), min(w, h)))
        index += 1
    return seen, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", required=True, type=Path)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--yunet", required=True, type=Path)
    parser.add_argument("--metrics", required=True, type=Path, help="of evaluate.py, for a and b")
    parser.add_argument("--per-second", type=float, default=2)
    args = parser.parse_args()
    torch.set_num_threads(2)
    cv2.setNumThreads(1)
    model, yunet = load_export(args.weights), YuNet(args.yunet)
    fitted = json.loads(args.metrics.read_text(encoding="utf-8"))
    with open(args.clips / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    print("| clip | face | frames | with a face | face px | mean logit | spread | mean probability |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        seen, found = crops(args.clips / row["file"], yunet, args.per_second)
        if not found:
            print(f"| {row['file']} | {row['face']} | {seen} | 0 | | | | |")
            continue
        logits = scores(model, np.stack([f[0] for f in found]), "cpu")
        p = sigmoid(fitted["platt_a"] * logits + fitted["platt_b"])
        size = np.median([f[1] for f in found])
        print(
            f"| {row['file']} | {row['face']} | {seen} | {len(found)} | {size:.0f} | {logits.mean():+.2f}"
            f" | {logits.std():.2f} | {p.mean():.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
