#!/usr/bin/env python3
"""Writes input and output of the exported network, for the program's test of its own forward pass.

    golden.py --weights ../../../weights/face-swap-fast.safetensors \
              --out ../../../tests/golden/face_swap_fast.safetensors

`input` [2, 3, 144, 144] f32 is synthetic (smooth waves and noise from a fixed seed) and already
normalised; `output` [2], `cells` [2, 9, 9] and `features` [2, 464] f32 are what the f16-rounded
weights make of it, computed in f32; `distance` [2] is the domain model's, in its own unit.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from heads import distance
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
    model = load_export(args.weights)
    with torch.inference_mode():
        logits, cells = model.both(images)
        _, _, features = model.inside(images)
    golden = {
        "input": images,
        "output": logits,
        "cells": cells,
        "features": features,
        "distance": torch.from_numpy(distance(load_file(str(args.weights)), features)),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, str(args.out))
    args.out.chmod(0o644)
    print("logits", logits.tolist())


if __name__ == "__main__":
    main()
