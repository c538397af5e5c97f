#!/usr/bin/env python3
"""Writes what the network of tier `accurate` answers with made-up weights, for the program's test of
its own forward pass.

    golden_vit.py --out ../../../tests/golden/face_swap_accurate.safetensors

Weights and input come from the formula below, which the test (tests/common/vit.rs) has too: hence
the test needs neither the base nor the trained weights. `logits` [2], `cells` [2, 144] and
`features` [2, 1536] are what PyTorch makes of them in f32.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from vit import CELLS, SIZE, FaceSwapNet, ours


def values(name, count):
    """-1..1, by splitmix64 from a seed that is the name's FNV-1a hash."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)


def tensor(file, name, shape):
    """The tensor `name` of the file `base` or `ours`, rounded to f16 as files hold it."""
    u = values(f"{file}/{name}", int(np.prod(shape)))
    if name.endswith("bias"):
        scale, offset = 0.1, 0.0
    elif "norm" in name:
        scale, offset = 0.2, 1.0
    elif "scale" in name:
        scale, offset = 0.3, 0.5
    elif name in ("token", "positions"):
        scale, offset = 1.0, 0.0
    elif name.endswith(".up"):
        scale, offset = 0.1, 0.0
    else:
        scale, offset = 1.7 / float(np.prod(shape[1:])) ** 0.5, 0.0
    made = u * np.float32(scale) + np.float32(offset)
    return torch.from_numpy(made.astype(np.float16).astype(np.float32).reshape(shape))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    model = FaceSwapNet()
    state = model.state_dict()
    state = {
        name: tensor("ours" if ours(name, state) else "base", name, tuple(old.shape))
        for name, old in state.items()
    }
    model.load_state_dict(state)
    model.eval()
    images = torch.from_numpy(values("input", 2 * SIZE * SIZE * 3).reshape(2, SIZE, SIZE, 3)) * 1.5
    with torch.inference_mode():
        taps = model.taps(images.permute(0, 3, 1, 2))
        features = model.features(taps)
        logits, cells = model.both(images.permute(0, 3, 1, 2))
    golden = {"logits": logits, "cells": cells.reshape(2, CELLS**2), "features": features}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in golden.items()}, str(args.out))
    args.out.chmod(0o644)
    print("logits", logits.tolist(), "cells", cells.min().item(), cells.max().item(), "features", features.std().item())


if __name__ == "__main__":
    main()
