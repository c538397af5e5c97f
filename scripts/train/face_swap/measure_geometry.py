#!/usr/bin/env python3
"""Where the four fractions of geometry.py come from.

    measure_geometry.py --data ../shared/data --yunet face_detection_yunet_2023mar.onnx

Two independent measurements, quartiles of each:
border     a DFDC crop inside a border, at several sizes: YuNet's box against the crop's edges. What
           the border looks like moves the box (a repeated edge reads as more forehead).
landmarks  where eyes and mouth lie in DFDC crops, against where they lie in YuNet's own box in
           frames of video, with real surroundings. The border does not matter here, and heights of
           eyes and mouth fix top and bottom. (UTKFace is no use for this: its pictures end at the
           forehead, which squeezes YuNet's box.)
"""

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np

from geometry import YuNet
from prepare import SIDE, decode, read_members

BORDER = 112
# DFDC boxes are taller than wide and were stretched; this undoes it before YuNet looks.
ASPECT = 0.76


def quartiles(name, values):
    low, middle, high = np.percentile(values, [25, 50, 75])
    print(f"  {name:<24} {low:+.3f} {middle:+.3f} {high:+.3f}")
    return middle


def heights(face, top, height):
    """Eye and mouth height, as shares of a rectangle's."""
    points = (face[4:14].reshape(5, 2)[:, 1] - top) / height
    return points[:2].mean(), points[3:].mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--yunet", required=True, type=Path)
    parser.add_argument("--count", type=int, default=400)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    yunet = YuNet(args.yunet)
    rng = np.random.default_rng(0)
    folder = args.data / "faces"
    with open(folder / "dfdc.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [rows[i] for i in rng.choice(len(rows), args.count, replace=False)]
    crops = [decode(d) for _, d in read_members(folder, [(r["shard"], r["file"]) for r in chosen])]

    in_crop = []
    for border in ("grey", "repeated"):
        for side in (60, 100, 160, 224):
            found = []
            for crop in crops:
                how = cv2.BORDER_CONSTANT if border == "grey" else cv2.BORDER_REPLICATE
                padded = cv2.copyMakeBorder(crop, *(BORDER,) * 4, how, value=(128, 128, 128))
                scale = side / SIDE
                wide, high = side * ASPECT, side
                size = round(padded.shape[1] * scale * ASPECT), round(padded.shape[0] * scale)
                faces = yunet.faces(cv2.resize(padded, size, interpolation=cv2.INTER_AREA))
                if len(faces) == 0:
                    continue
                left, top = BORDER * scale * ASPECT, BORDER * scale
                x, y, w, h = faces[0, :4]
                found.append(
                    ((x - left) / w, (y - top) / h, (left + wide - x - w) / w, (top + high - y - h) / h)
                )
                if border == "grey" and side == 160:
                    in_crop.append(heights(faces[0], top, high))
            print(f"border {border}, crop height {side} px: {len(found)} of {len(crops)} found")
            for name, values in zip(("left", "top", "right", "bottom"), zip(*found)):
                quartiles(name, values)

    by_clip = []
    for path in sorted((args.data / "clips").glob("*.mp*")):
        video = cv2.VideoCapture(str(path))
        found = []
        # Every twelfth frame of the first ten seconds or so.
        for index in range(300):
            if not video.grab():
                break
            if index % 12 == 0:
                frame = cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB)
                scale = min(1, 640 / max(frame.shape[:2]))
                faces = yunet.faces(cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
                if len(faces):
                    found.append(heights(faces[0], faces[0, 1], faces[0, 3]))
        if found:
            by_clip.append(np.median(found, 0))
    print("landmarks, heights as shares")
    crop_eyes, crop_mouth = (
        quartiles(f"{n} in DFDC crop", v) for n, v in zip(("eyes", "mouth"), zip(*in_crop))
    )
    box_eyes, box_mouth = (
        quartiles(f"{n} in box, {len(by_clip)} clips", v) for n, v in zip(("eyes", "mouth"), zip(*by_clip))
    )
    # Two points seen in both frames fix the crop's top and height in box heights.
    height = (box_mouth - box_eyes) / (crop_mouth - crop_eyes)
    top = box_eyes - crop_eyes * height
    print(f"  -> top {-top:+.3f}, bottom {top + height - 1:+.3f}")


if __name__ == "__main__":
    main()
