#!/usr/bin/env python3
"""Writes the golden file that the program's test compares with: a made-up picture, no photograph.

    golden.py --weights ../../../weights/label-strip-marks.safetensors \
              --out ../../../tests/golden/label_strip_marks.safetensors

`picture` u8 [140, 200, 3]: waves, fixed noise, a blurred box and a bright bar. `logits` f32 [2, 18, 25]:
what the f16-rounded weights make of it, in f32. Neither side is a multiple of 64 or 8, so the padding
is tried, too. `large_logits` f32 [2, 19, 19]: every fifth cell on both axes of what it makes of
[1443, 1461, 3] (k = 2), which the test makes of `picture` itself, as `tiled` does.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import net

HEIGHT, WIDTH = 140, 200


def picture(seed=7):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    planes = []
    for channel in range(3):
        wave = 60 * np.sin(x / (9 + channel)) * np.cos(y / (14 - channel)) + 25 * np.sin((x + 2 * y) / 3.1)
        planes.append(128 + wave + rng.normal(0, 12, wave.shape))
    image = np.stack(planes, -1)
    image[88:120, 120:184] = image[88:120, 120:184].mean((0, 1)) + 0.1 * (image[88:120, 120:184] - 128)
    image[16:24, 20:90] = 235
    return np.clip(image, 0, 255).round().astype(np.uint8)


def tiled(small, height=1443, width=1461):
    """`small` repeated over height/2 x width/2, each pixel then a 2 x 2 box; odd sides repeat the last."""
    rows = np.minimum(np.arange(height) // 2, height // 2 - 1) % small.shape[0]
    columns = np.minimum(np.arange(width) // 2, width // 2 - 1) % small.shape[1]
    return small[rows][:, columns]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, image = net.load(args.weights), picture()
    golden = {
        "picture": torch.from_numpy(image),
        "logits": torch.from_numpy(net.logits(model, image)),
        "large_logits": torch.from_numpy(net.logits(model, tiled(image))[:, ::5, ::5]).contiguous(),
    }
    save_file(golden, str(args.out))
    args.out.chmod(0o644)
    for name, tensor in golden.items():
        print(name, tuple(tensor.shape), float(tensor.float().min()), float(tensor.float().max()))


if __name__ == "__main__":
    main()
