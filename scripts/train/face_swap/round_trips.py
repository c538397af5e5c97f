#!/usr/bin/env python3
"""Sends training reals through a tiny autoencoder once, as material for forgeries.

    round_trips.py --data ../shared/data --work DIR --faces 1600

Decoders of face swaps and of diffusion models leave traces in what they paint; so does this one
(TAEF2 of taesd, MIT: 8 x 8 pixels to 32 numbers and back). Each face is shrunk to a side drawn
between 96 and 192 px, as swap networks work at, encoded, decoded and enlarged again. Writes
round_trips.npy (u8, 224 x 224 RGB), round_trips_source.npy (0 DFDC, 1 UTKFace) and
round_trips_row.npy to DIR, half of each source; only people who are trained on.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from data import Data
from geometry import stretch
from prepare import SIDE

LATENT = 32
SIDES = (96, 128, 160, 192)


def conv(inputs, outputs, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


class Block(nn.Module):
    def __init__(self, pooled=False):
        super().__init__()
        self.conv = nn.Sequential(conv(64, 64), nn.ReLU(), conv(64, 64), nn.ReLU(), conv(64, 64))
        self.pool = None
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(64, 256, 1, bias=False), nn.GroupNorm(4, 256), nn.ReLU(), nn.Conv2d(256, 64, 1, bias=False)
            )

    def forward(self, x):
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


def encoder():
    down = [layer for _ in range(3) for layer in (conv(64, 64, stride=2, bias=False), Block(), Block(), Block())]
    down[-3:] = [Block(True), Block(True), Block(True)]
    return nn.Sequential(conv(3, 64), Block(), *down, conv(64, LATENT))


def decoder():
    def up(*blocks):
        return *blocks, nn.Upsample(scale_factor=2), conv(64, 64, bias=False)

    return nn.Sequential(
        Clamp(),
        conv(LATENT, 64),
        nn.ReLU(),
        *up(Block(True), Block(True), Block(True)),
        *up(Block(), Block(), Block()),
        *up(Block(), Block(), Block()),
        Block(),
        conv(64, 3),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--faces", type=int, default=1600)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    data = Data(args.data, args.work)
    folder = args.data / "generators" / "taesd"
    there, back = encoder(), decoder()
    for model, name in ((there, "encoder"), (back, "decoder")):
        model.load_state_dict(torch.load(folder / f"taef2_{name}.pth", map_location="cpu", weights_only=True))
        model.to(memory_format=torch.channels_last).eval()
    rng = np.random.default_rng(11)
    half = args.faces // 2
    rows = np.concatenate([rng.choice(data.train_reals, half, replace=False), rng.choice(data.utk_train, half, replace=False)])
    sources = np.repeat(np.array([0, 1], np.uint8), half)
    made = np.zeros((len(rows), SIDE, SIDE, 3), np.uint8)
    order = rng.permutation(len(rows))
    errors = []
    with torch.inference_mode():
        for start in range(0, len(rows), 8):
            mine = order[start : start + 8]
            side = int(rng.choice(SIDES))
            faces = [(data.dfdc, data.utk)[sources[i]].images[rows[i]] for i in mine]
            small = np.stack([stretch(np.asarray(face), side, side) for face in faces])
            x = torch.from_numpy(small).permute(0, 3, 1, 2).float().div(255)
            y = back(there(x.contiguous(memory_format=torch.channels_last))).clamp(0, 1)
            errors.append(float((x - y).square().mean()))
            out = (y.permute(0, 2, 3, 1) * 255).round().byte().numpy()
            for i, picture in zip(mine, out):
                made[i] = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            if start % 160 == 0:
                print(f"{start + len(mine)} faces, {-10 * np.log10(np.mean(errors)):.1f} dB", flush=True)
    np.save(args.work / "round_trips_row.npy", rows)
    np.save(args.work / "round_trips_source.npy", sources)
    np.save(args.work / "round_trips.npy", made)


if __name__ == "__main__":
    main()
