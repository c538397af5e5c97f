#!/usr/bin/env python3
"""Writes input and output of the exported network, for the program's test of its own forward pass.

    golden.py --weights ../../../weights/face-swap-fast.safetensors \
              --out ../../../tests/golden/face_swap_fast.safetensors

`input` [2, 3, 144, 144] f32 is synthetic (smooth waves and noise from a fixed seed) and already
normalised; `output` [2] f32 are the logits of the f16-rounded weights, computed in f32.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from model import MEAN, SIZE, STD, load_export


def synthetic(seed=20240):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    images = np.empty((2, 3, SIZE, SIZE), np.float32)
    for image in images:
        for channel in image:
            wave = sum(
                np.sin(2 * np.pi * (rng.uniform(-6, 6) * x + rng.uniform(-6, 6) * y) + rng.uniform(0, 6))
                for _ in range(4)
            )
            channel[:] = np.clip(0.5 + 0.12 * wave + rng.normal(0, 0.05, wave.shape), 0, 1)
    mean, std = (np.array(v, np.float32)[None, :, None, None] for v in (MEAN, STD))
    return torch.from_numpy((images - mean) / std)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    images = synthetic()
    with torch.inference_mode():
        logits = load_export(args.weights)(images)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({"input": images.contiguous(), "output": logits.contiguous()}, str(args.out))
    args.out.chmod(0o644)
    print("logits", logits.tolist())


if __name__ == "__main__":
    main()
