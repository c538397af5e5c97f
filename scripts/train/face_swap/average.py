#!/usr/bin/env python3
"""The mean of the weights of two or more exported networks, one trained on from the other.

    average.py --weights A.safetensors B.safetensors --out C.safetensors

Along one fine-tuning the mean of two stages mostly does better on unseen people than either
(arXiv 2203.05482, 2109.01903), and costs nothing when it runs. A tensor that only some of the files
have (the mask's) is the mean over those. Every network weighs the same: nothing is tuned here.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from model import export


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, type=Path, nargs="+")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    states = [load_file(str(path)) for path in args.weights]
    names = sorted(set().union(*states))
    mean = {n: torch.stack([s[n].float() for s in states if n in s]).mean(0) for n in names}
    export(mean, args.out, masked="mask.weight" in mean)


if __name__ == "__main__":
    main()
