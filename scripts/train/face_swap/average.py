#!/usr/bin/env python3
"""The mean of the weights of two or more exported networks, one trained on from the other.

    average.py --weights A.safetensors B.safetensors --out C.safetensors
    average.py ... --batches 100 --data ../shared/data --work DIR

Along one fine-tuning the mean of two stages mostly does better on unseen people than either
(arXiv 2203.05482, 2109.01903), and costs nothing when it runs. A tensor that only some of the files
have (the mask's) is the mean over those; those of the domain model, which belongs to one network, are
left out (heads.py fits both anew). Every network weighs the same: nothing is tuned here.

The mean of the batch norms' statistics is not what the mean network's layers put out. --batches
measures them again on this many batches made as train.py makes them (arXiv 1803.05407), every batch
weighing the same; all other tensors stay as they are. For the weights that ship it did not help, see
the model card.
"""

import argparse
from pathlib import Path

import cv2
import torch
from safetensors.torch import load_file

from data import Data, to_tensor
from model import FaceSwapNet, export


@torch.no_grad()
def measure_statistics(model, batches):
    """Running mean and variance of every batch norm, anew, over `batches` (network inputs)."""
    model.eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            # Without a momentum PyTorch takes the plain mean over all batches.
            layer.momentum = None
            layer.train()
    for batch in batches:
        model.both(batch)
    model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, type=Path, nargs="+")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--batches", type=int, default=0, help="training batches to measure the batch norms on; 0 keeps the mean of their statistics")
    parser.add_argument("--data", type=Path, help="with --batches")
    parser.add_argument("--work", type=Path, help="the folder of prepare.py, with --batches")
    parser.add_argument("--pairs", type=int, nargs=3, default=(10, 2, 4), help="as in train.py")
    parser.add_argument("--seed", type=int, default=5, help="of the batches; one that no training had")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.batches < 0 or (args.batches and not (args.data and args.work)):
        parser.error("--batches is a number of batches, and needs --data and --work")
    states = [load_file(str(path)) for path in args.weights]
    names = sorted(n for n in set().union(*states) if not n.startswith("domain."))
    mean = {n: torch.stack([s[n].float() for s in states if n in s]).mean(0) for n in names}
    if args.batches:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(1)
        data = Data(args.data, args.work)
        model = FaceSwapNet()
        missing, unexpected = model.load_state_dict(mean, strict=False)
        missing = [n for n in missing if not n.endswith("num_batches_tracked") and not n.startswith("mask.")]
        if missing or unexpected:
            parser.error(f"--weights do not fit: {missing}, {unexpected}")
        model = model.to(memory_format=torch.channels_last)
        measure_statistics(
            model,
            (to_tensor(data.batch(args.seed, step, args.pairs)[0], "cpu") for step in range(args.batches)),
        )
        mean = {n: t for n, t in model.state_dict().items() if n in mean}
    export(mean, args.out)


if __name__ == "__main__":
    main()
