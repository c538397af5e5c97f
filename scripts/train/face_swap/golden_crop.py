"""Writes tests/golden/face_crop.safetensors: crops that geometry.py cuts out of a synthetic
picture, for the program to cut the same.

    python golden_crop.py --out ../../../tests/golden/face_crop.safetensors
"""

import argparse

import cv2
import numpy as np
from safetensors.numpy import save_file

import geometry


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    out = parser.parse_args().out
    rng = np.random.default_rng(7)
    # Smooth structure and fine noise, so that both wrong framing and wrong filtering show.
    coarse = cv2.resize(rng.uniform(0, 255, (12, 16, 3)).astype(np.float32), (320, 240), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)
    # x, y, w, h: shrinking, enlarging, shrinking along one axis only, and over two edges.
    boxes = np.array(
        [[20.3, 10.7, 180.2, 220.9], [100.5, 90.5, 47.1, 60.2], [60.0, 100.0, 200.0, 110.0], [-30.0, 150.0, 120.0, 140.0]],
        np.float32,
    )
    crops = np.stack([geometry.cut(picture, geometry.crop_rectangle(*map(float, box))) for box in boxes])
    save_file({"picture": picture, "boxes": boxes, "crops": crops}, out)


if __name__ == "__main__":
    main()
