"""Writes the averaged weights of a run as f16 safetensors.

    python export.py --tier fast --run RUN --out voice-clone-fast.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from train import TIERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="fast", choices=TIERS)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--last", action="store_true", help="the last weights, not their average")
    args = parser.parse_args()
    kept = torch.load(args.run / "last.pt", map_location="cpu", weights_only=True)
    state = TIERS[args.tier].f16_rounded(kept["model" if args.last else "average"])
    save_file(state, args.out)
    args.out.chmod(0o644)
    print(f"{args.out}: step {kept['step']}, {sum(t.numel() for t in state.values())} numbers")


if __name__ == "__main__":
    main()
