"""Writes the averaged weights of a run as f16 safetensors.

    python export.py --run RUN --out voice-clone-fast.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from model import f16_rounded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--last", action="store_true", help="the last weights, not their average")
    args = parser.parse_args()
    kept = torch.load(args.run / "last.pt", map_location="cpu", weights_only=True)
    state = f16_rounded(kept["model" if args.last else "average"])
    save_file(state, args.out)
    print(f"{args.out}: step {kept['step']}, {sum(t.numel() for t in state.values())} numbers")


if __name__ == "__main__":
    main()
