#!/usr/bin/env python3
"""Writes what the network of tier `accurate` answers with made-up weights, for the program's test of
its own forward pass.

    golden_vit.py --out ../../../tests/golden/face_swap_accurate.safetensors

Weights and input come from the formula of ../made_up.py, which the test (tests/common/vit.rs) has
too: hence the test needs neither the base nor the trained weights. `logits` [2], `cells` [2, 144] and
`features` [2, 1536] are what PyTorch makes of them in f32.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from vit import CELLS, SIZE, FaceSwapNet, ours

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from made_up import tensor, values  # noqa: E402


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
