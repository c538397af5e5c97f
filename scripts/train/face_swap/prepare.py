#!/usr/bin/env python3
"""Decodes the data once into memory-mapped arrays, so that training decodes no JPEG.

    prepare.py --data ../shared/data --work DIR --yunet face_detection_yunet_2023mar.onnx

Writes to DIR, one row a face, in the order of the csv: dfdc.npy and utk.npy (u8, 224 x 224 RGB) and
dfdc_points.npy and utk_points.npy (f32, YuNet's five landmarks in pixels of that square; NaN where
no face was found). UTKFace is cut by the geometry of the program, from a box that is put right
where the picture's edge squeezes it.
"""

import argparse
import csv
import tarfile
from pathlib import Path

import cv2
import numpy as np

from geometry import YuNet, crop_rectangle, cut

SIDE = 224
BORDER = 112
# Heights of eyes and mouth in YuNet's box where the face has its surroundings (medians over clips,
# measure_geometry.py).
EYES, MOUTH = 0.384, 0.736


def decode(data):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_members(folder, wanted):
    """(row, bytes) for (shard, file) pairs, shard by shard in the tar's own order."""
    places = {pair: row for row, pair in enumerate(wanted)}
    for shard in sorted({shard for shard, _ in wanted}):
        with tarfile.open(folder / shard) as tar:
            for member in tar:
                row = places.get((shard, member.name))
                if row is not None:
                    yield row, tar.extractfile(member).read()


def dfdc_points(image, yunet):
    """Landmarks of a tight crop: YuNet needs surroundings, so a grey border lends them."""
    padded = cv2.copyMakeBorder(
        image, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_CONSTANT, value=(128, 128, 128)
    )
    # Half the size is enough for landmarks and four times as fast.
    faces = yunet.faces(cv2.resize(padded, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    if len(faces) == 0:
        return None
    return faces[0, 4:14].reshape(5, 2) * 2 - BORDER


def utk_face(image, yunet):
    """(rectangle, landmarks) of the best face, both in pixels of the picture, or None.

    UTKFace pictures end at the forehead, so YuNet's box ends there too, a tenth lower than it
    would in a frame. Its top and height are taken from the landmarks instead."""
    faces = yunet.faces(image)
    if len(faces) == 0:
        return None
    x, y, w, h = faces[0, :4]
    points = faces[0, 4:14].reshape(5, 2)
    eyes, mouth = points[:2, 1].mean(), points[3:, 1].mean()
    higher = (mouth - eyes) / (MOUTH - EYES)
    # A face lying on its side has no height between eyes and mouth.
    if 0.8 * w < higher < 2 * w:
        y, h = eyes - EYES * higher, higher
    return crop_rectangle(x, y, w, h), points


def framed(image, rectangle, points):
    """The rectangle as a square, and the landmarks in that square."""
    x0, y0, x1, y1 = rectangle
    return cut(image, rectangle, SIDE), (points - (x0, y0)) * SIDE / np.array([x1 - x0, y1 - y0])


def utk_crop(image, yunet):
    """(crop, landmarks in it) of the best face, or None."""
    found = utk_face(image, yunet)
    return None if found is None else framed(image, *found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--yunet", required=True, type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    faces = args.data / "faces"
    args.work.mkdir(parents=True, exist_ok=True)
    yunet = YuNet(args.yunet)

    def arrays(name, rows):
        images = np.lib.format.open_memmap(
            args.work / f"{name}.npy", "w+", np.uint8, (rows, SIDE, SIDE, 3)
        )
        return images, np.full((rows, 5, 2), np.nan, np.float32)

    with open(faces / "dfdc.csv", newline="") as file:
        wanted = [(r["shard"], r["file"]) for r in csv.DictReader(file)]
    images, points = arrays("dfdc", len(wanted))
    for row, data in read_members(faces, wanted):
        images[row] = decode(data)
        found = dfdc_points(images[row], yunet)
        if found is not None:
            points[row] = found
    images.flush()
    np.save(args.work / "dfdc_points.npy", points)
    print(f"dfdc: {len(points)} crops, landmarks in {int(np.isfinite(points[:, 0, 0]).sum())}")

    with open(faces / "utkface.csv", newline="") as file:
        names = [r["file"] for r in csv.DictReader(file)]
    # Which of the two shards holds a file is not in the csv.
    places = {name: row for row, name in enumerate(names)}
    images, points = arrays("utk", len(names))
    for shard in ("utkface.tar", "utkface2.tar"):
        with tarfile.open(faces / shard) as tar:
            for member in tar:
                row = places.get(Path(member.name).name)
                if row is not None:
                    found = utk_crop(decode(tar.extractfile(member).read()), yunet)
                    if found is not None:
                        images[row], points[row] = found
    images.flush()
    np.save(args.work / "utk_points.npy", points)
    print(f"utk: {len(points)} pictures, a face in {int(np.isfinite(points[:, 0, 0]).sum())}")


if __name__ == "__main__":
    main()
