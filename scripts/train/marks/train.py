#!/usr/bin/env python3
"""Trains the network on the windows that generate.py keeps making.

    train.py --work WORK --run WORK/run --minutes 48

AdamW, the learning rate by the clock (warm-up, then a cosine to zero at `--minutes`), running average
of the weights. `RUN/last.pt` every two minutes; `--resume` goes on from it, with the time that was
spent already. Loss: cross-entropy of both channels in each 4 x 4 cell, erased cells weighing
`--positive`; the channel of marks counts 0.3; plus 0.3 times 1 - the Dice coefficient of the erased
cells over the batch.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import net
from generate import ERASED, MARK, NAMES, SIDE, STRIDE, UNCHANGED, UNKNOWN

CROP = 256


class Ring:
    def __init__(self, work, split):
        self.folder = Path(work) / f"ring-{split}"
        self.windows, self.cells, self.facts = (
            np.load(self.folder / f"{n}.npy", mmap_mode="r") for n in ("windows", "cells", "facts")
        )

        self.unlearned = set()

    def filled(self):
        return min(int((self.folder / "made").read_text()), len(self.windows))

    def batch(self, rng, count):
        """(f32 [n, 3, 256, 256], u8 [n, 64, 64]); cells that begin in padding are 255."""
        side = CROP // STRIDE
        images, grids = np.empty((count, CROP, CROP, 3), np.uint8), np.empty((count, side, side), np.uint8)
        # In steps of 8 pixels, as the blocks of JPEG.
        spare, step = (SIDE - CROP) // 8, 8 // STRIDE
        for i, at in enumerate(np.sort(rng.integers(0, self.filled(), count))):
            whole = self.cells[at]
            inside = np.argwhere(whole & ERASED) // step if rng.random() < 0.85 else []
            if len(inside):
                # Where something was erased the crop has it, or most windows would teach nothing.
                cell = inside[int(rng.integers(len(inside)))]
                y, x = (int(rng.integers(max(0, min(spare, c - CROP // 8 + 1)), min(spare, c) + 1)) for c in cell)
            else:
                y, x = (int(rng.integers(0, spare + 1)) for _ in range(2))
            image = self.windows[at, y * 8 : y * 8 + CROP, x * 8 : x * 8 + CROP]
            grid = whole[y * step : y * step + side, x * step : x * step + side]
            if rng.random() < 0.5:
                image, grid = image[:, ::-1], grid[:, ::-1]
            if rng.random() < 0.25:
                image, grid = image[::-1], grid[::-1]
            if rng.random() < 0.15:
                image, grid = image.transpose(1, 0, 2), grid.T
            if rng.random() < 0.2:
                image = image[..., rng.permutation(3)]
            images[i], grids[i] = image, grid
            if self.facts[at, 0] in self.unlearned:
                grids[i] |= (grids[i] & ERASED) * UNCHANGED
            if rng.random() < 0.3:
                # Padding as the network sees it at run time.
                h, w = (CROP - int(rng.integers(0, 64)) for _ in range(2))
                images[i, h:] = images[i, h - 1]
                images[i, :, w:] = images[i, :, w - 1 : w]
                grids[i, -(-h // STRIDE) :], grids[i, :, -(-w // STRIDE) :] = 255, 255
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5, torch.from_numpy(grids)


def loss_of(logits, grids, positive):
    counts = grids != 255
    erased = ((grids & ERASED) > 0) & counts
    mark = ((grids & MARK) > 0) & counts
    use = (counts & ((grids & UNCHANGED) == 0)).float()
    use_mark = (counts & ((grids & UNKNOWN) == 0)).float()
    target = erased.float()
    first = F.binary_cross_entropy_with_logits(logits[:, 0], target, weight=use * (1 + (positive - 1) * target), reduction="sum") / use.sum()
    second = F.binary_cross_entropy_with_logits(logits[:, 1], mark.float(), weight=use_mark, reduction="sum") / use_mark.sum()
    p = torch.sigmoid(logits[:, 0]) * use
    dice = (2 * (p * target).sum() + 1) / ((p + target * use).sum() + 1)
    return first + 0.3 * second + 0.3 * (1 - dice), (first.item(), second.item(), dice.item())


@torch.inference_mode()
def validate(model, ring, most=600):
    """Cell figures of the validation ring: area under the precision-recall curve of both channels, and
    the highest logit of windows where nothing was erased."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, targets, marks_p, marks_t, best, has, kinds = [], [], [], [], [], [], []
    for at in range(0, min(ring.filled(), most), 20):
        images = torch.from_numpy(np.ascontiguousarray(ring.windows[at : at + 20])).permute(0, 3, 1, 2).float() / 255 - 0.5
        grids = np.asarray(ring.cells[at : at + 20])
        logits = model(images.contiguous(memory_format=torch.channels_last)).float().numpy()
        use = (grids & UNCHANGED) == 0
        scores.append(logits[:, 0][use])
        targets.append((grids & ERASED)[use] > 0)
        use = (grids & UNKNOWN) == 0
        marks_p.append(logits[:, 1][use])
        marks_t.append((grids & MARK)[use] > 0)
        best += list(logits[:, 0].reshape(len(grids), -1).max(1))
        has += [bool(((g & ERASED) > 0).any()) for g in grids]
        kinds += list(ring.facts[at : at + 20, 0])
    best, has, kinds = np.array(best), np.array(has), np.array(kinds)
    limit = np.quantile(best[~has], 0.99)
    return {
        "erased_ap": float(average_precision_score(np.concatenate(targets), np.concatenate(scores))),
        "mark_ap": float(average_precision_score(np.concatenate(marks_t), np.concatenate(marks_p))),
        "window_auc": float(roc_auc_score(has, best)),
        "hit_at_1": float((best[has] > limit).mean()),
        "by_eraser": {NAMES[k]: round(float((best[kinds == k] > limit).mean()), 2) for k in np.unique(kinds) if k},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--minutes", type=float, default=48)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--positive", type=float, default=4.0)
    parser.add_argument("--average", type=float, default=0.999)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--every", type=float, default=5, help="minutes between validations")
    parser.add_argument("--leave-out", nargs="*", default=[], help="erasers whose cells teach neither way")
    parser.add_argument("--warm", type=Path, help="start from the averaged weights of another run's last.pt")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    args.run.mkdir(parents=True, exist_ok=True)
    rings = {split: Ring(args.work, split) for split in ("train", "val")}
    rings["train"].unlearned = {NAMES.index(name) for name in args.leave_out}
    model = net.MarkNet().to(memory_format=torch.channels_last)
    if args.warm:
        model.load_state_dict(torch.load(args.warm, weights_only=False)["average"])
    average = net.MarkNet().eval().to(memory_format=torch.channels_last)
    average.load_state_dict(model.state_dict())
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1]
    plain = [p for n, p in model.named_parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}], lr=args.lr)
    step, spent = 0, 0.0
    if args.resume:
        kept = torch.load(args.run / "last.pt", weights_only=False)
        model.load_state_dict(kept["model"])
        average.load_state_dict(kept["average"])
        optimizer.load_state_dict(kept["optimizer"])
        step, spent = kept["step"], kept["spent"]
    rng = np.random.default_rng(1000 + step)
    began, saved, validated, sums, seen = time.time() - spent, time.time(), time.time(), np.zeros(3), 0

    def keep():
        state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state | {"step": step, "spent": time.time() - began}, args.run / "last.tmp")
        (args.run / "last.tmp").replace(args.run / "last.pt")

    log = open(args.run / "log.jsonl", "a", encoding="utf-8")
    while (part := (time.time() - began) / (60 * args.minutes)) < 1:
        rate = args.lr * min(1, (step + 1) / 300) * 0.5 * (1 + np.cos(np.pi * part))
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, grids = rings["train"].batch(rng, args.batch)
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        loss, parts = loss_of(logits.float(), grids, args.positive)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            decay = min(args.average, (1 + step) / (10 + step))
            for mine, new in zip(average.state_dict().values(), model.state_dict().values()):
                if mine.dtype.is_floating_point:
                    mine.lerp_(new, 1 - decay)
                else:
                    mine.copy_(new)
        sums, seen = sums + parts, seen + 1
        if step % 50 == 0:
            figures = dict(zip(("erased", "mark", "dice"), (round(float(v), 4) for v in sums / seen)))
            print(json.dumps({"step": step, "minutes": round((time.time() - began) / 60, 2), "lr": round(rate, 6)} | figures), file=log, flush=True)
            sums, seen = np.zeros(3), 0
        if time.time() - validated > 60 * args.every:
            print(json.dumps({"step": step, "val": validate(average, rings["val"])}), file=log, flush=True)
            validated = time.time()
        if time.time() - saved > 120:
            keep()
            saved = time.time()
    keep()
    print(json.dumps({"step": step, "val": validate(average, rings["val"]), "done": True}), file=log, flush=True)
    net.export(average.state_dict(), args.run / "label-strip-marks.safetensors")


if __name__ == "__main__":
    main()
