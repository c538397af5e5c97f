#!/usr/bin/env python3
"""Trains a face-swap network.

    MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_ARENA_MAX=2 \
    train.py --tier fast --data ../shared/data --work DIR --base efficientnet-lite0-57934424.pth --epochs 1.6

Needs the arrays of prepare.py in DIR. An epoch is one pass over the DFDC fakes. Tier `fast` is
model.py, tier `accurate` is vit.py. Writes to --out: checkpoint.pt (everything that --resume
needs), log.jsonl, and face-swap-TIER.safetensors, the running average of the weights in f16. The
loss is cross entropy, plus --margin times the cross entropy of each pair's order, plus --mask times
that of the mask's cells. The last weights are what counts: none are picked by their validation
score, so that the validation figures are not flattered.
"""

import argparse
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

import model as fast
import vit as accurate
from data import Data, to_tensor

TIERS = {"fast": fast, "accurate": accurate}


def learning_rate(step, share, peak, warm):
    """A linear start over `warm` steps, and a cosine down to nothing over the run."""
    return peak * min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))) + 1e-6


def progress(step, steps, started, deadline):
    """The share of the run that is done: of its steps, or of its time where that ends sooner."""
    share = step / steps
    if deadline is not None:
        share = max(share, (time.time() - started) / max(1.0, deadline - started))
    return share


def groups(model, decay):
    """Weight decay for the convolutions' weights only."""
    tuned = [p for p in model.parameters() if p.requires_grad]
    wide = [p for p in tuned if p.ndim > 1]
    narrow = [p for p in tuned if p.ndim <= 1]
    return [{"params": wide, "weight_decay": decay}, {"params": narrow, "weight_decay": 0.0}]


def freeze(model, blocks):
    """Holds the stem and the first blocks as they are, statistics included; 0 holds nothing."""
    if blocks:
        for part in (model.stem, *model.blocks[:blocks]):
            part.eval()
            part.requires_grad_(False)


@torch.inference_mode()
def fit_head(model, data, args, batches):
    """Starts the frozen trunk's head as a logistic regression on training batches, strongly
    regularised: the tuning then begins from what the base can tell by itself."""
    model.eval()
    found, labels = [], []
    for step in range(batches):
        images, mine, _, _ = data.batch(args.seed + 1000, step, args.pairs, accurate.SIZE, accurate.CELLS)
        with half(model):
            found.append(model.features(model.taps(to_tensor(images, next(model.parameters()).device))).float().cpu())
        labels.append(mine)
    x, y = torch.cat(found).double().numpy(), np.concatenate(labels)
    mean, spread = x.mean(0), x.std(0) + 1e-6
    fit = LogisticRegression(C=0.003, max_iter=300).fit((x - mean) / spread, y)
    weight = fit.coef_[0] / spread
    model.classifier.weight.copy_(torch.from_numpy(weight)[None])
    model.classifier.bias.fill_(float(fit.intercept_[0] - weight @ mean))


def half(model):
    """bf16 products where that is faster: for the transformer, not for convolutions on the CPU."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=isinstance(model, accurate.FaceSwapNet))


def kept_patches(masks, share, generator):
    """Which patches are shown, and the mask's cells of these: hiding patches (PatchDropout,
    arXiv 2208.07220) makes steps faster, and no single cue enough."""
    cells = masks.flatten(1)
    keep = torch.rand(cells.shape, generator=generator).argsort(1)[:, : round(share * cells.shape[1])]
    return keep.to(masks.device), cells.gather(1, keep.to(masks.device))


@torch.inference_mode()
def scores(model, images, device, batch=64):
    model.eval()
    with half(model):
        parts = [model(to_tensor(images[i : i + batch], device)) for i in range(0, len(images), batch)]
    return torch.cat(parts).float().cpu().numpy()


def save(path, value):
    """By rename, so that a killed run leaves the checkpoint before it."""
    torch.save(value, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", required=True, choices=TIERS)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path, help="the folder of prepare.py")
    parser.add_argument("--base", required=True, type=Path, help="pretrained weights of the trunk; for `accurate` what scripts/setup installs")
    parser.add_argument("--out", type=Path, help="default: --work")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--pairs", type=int, nargs=3, default=(10, 2, 4), help="dfdc, blend, utk pairs in a batch")
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--decay", type=float, default=0.03)
    parser.add_argument("--smoothing", type=float, default=0.05)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--start", type=Path, nargs="+", help="checkpoints of other runs; this one begins with the mean of their averaged weights")
    parser.add_argument("--start-with", default="average", choices=("average", "model"))
    parser.add_argument("--begun", type=float, default=0.0, help="the share of the schedule that the run of --start has used up")
    parser.add_argument("--warm", type=int, default=150, help="steps of the linear start")
    parser.add_argument("--freeze", type=int, default=0, help="this many first blocks, and the stem, are not trained")
    parser.add_argument("--margin", type=float, default=0.2)
    parser.add_argument("--mask", type=float, default=0.5)
    parser.add_argument("--keep", type=float, default=1.0, help="accurate: share of the patches shown until --keep-until")
    parser.add_argument("--keep-until", type=float, default=0.7, help="share of the run")
    parser.add_argument("--head-batches", type=int, default=120, help="accurate: batches that the head starts from")
    parser.add_argument("--look", type=int, default=500, help="steps between looks at the validation people")
    parser.add_argument("--minutes", type=float, help="wall time after which the run ends, whatever its steps")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    out = args.out or args.work
    out.mkdir(parents=True, exist_ok=True)
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)

    data = Data(args.data, args.work)
    steps = round(args.epochs * (len(data.train_fakes) // args.pairs[0]))
    net = TIERS[args.tier]
    model = net.FaceSwapNet()
    net.load_base(model, args.base)
    if args.start:
        states = [torch.load(path, map_location="cpu", weights_only=True)[args.start_with] for path in args.start]
        state = {
            name: torch.stack([s[name] for s in states]).mean(0) if first.is_floating_point() else first
            for name, first in states[0].items()
        }
        missing, unexpected = model.load_state_dict(state, strict=False)
        if unexpected or any(not m.startswith("mask.") for m in missing):
            parser.error(f"{args.start} do not fit: {missing}, {unexpected}")
    model = model.to(device, memory_format=torch.channels_last)
    average = net.FaceSwapNet().to(device, memory_format=torch.channels_last)
    checkpoint = out / "checkpoint.pt"
    if args.tier == "accurate" and not args.start and not (args.resume and checkpoint.exists()):
        fit_head(model, data, args, args.head_batches)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(groups(model, args.decay), lr=args.lr)
    step, began = 0, time.time()
    if args.resume and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"].cpu())
        step, began = saved["step"], saved["began"]
    deadline = None if args.minutes is None else began + 60 * args.minutes

    val = np.stack([data.dfdc.crop(i, net.SIZE) for i in data.val])
    val_labels = data.fake[data.val]
    log = open(out / "log.jsonl", "a", encoding="utf-8")
    started, first, recent = time.time(), step, []
    with ThreadPoolExecutor(1) as loader:
        ahead = [
            loader.submit(data.batch, args.seed, s, args.pairs, net.SIZE, net.CELLS) for s in range(step, min(step + 3, steps))
        ]
        done = progress(step, steps, began, deadline)
        # The look that ends the loop is the one that saves.
        while done < 1:
            images, labels, masks, known = ahead.pop(0).result()
            if step + 3 < steps:
                ahead.append(loader.submit(data.batch, args.seed, step + 3, args.pairs, net.SIZE, net.CELLS))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, args.begun + (1 - args.begun) * done, args.lr, args.warm)
            target = torch.from_numpy(labels).to(device)
            target = target * (1 - args.smoothing) + args.smoothing / 2
            model.train()
            freeze(model, args.freeze)
            altered = torch.from_numpy(masks).to(device)
            with half(model):
                if args.tier == "accurate" and args.keep < 1 and done < args.keep_until:
                    keep, altered = kept_patches(altered, args.keep, torch.Generator().manual_seed(step))
                    logits, cells = model.both(to_tensor(images, device), keep)
                else:
                    logits, cells = model.both(to_tensor(images, device))
            logits, cells = logits.float(), cells.float()
            loss = cross_entropy(logits, target)
            order = torch.nn.functional.softplus(logits[0::2] - logits[1::2]).mean()
            where = cross_entropy(cells[known], altered[known])
            whole = loss + args.margin * order + args.mask * where
            optimizer.zero_grad(set_to_none=True)
            whole.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            step += 1
            # A young average would otherwise be made of the base weights.
            keep = min(args.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for mine, new in zip(average.state_dict().values(), model.state_dict().values()):
                    if mine.is_floating_point():
                        mine.lerp_(new, 1 - keep)
            recent.append([loss.item(), where.item(), *pairs_in_order(logits, args.pairs)])
            done = progress(step, steps, began, deadline)
            if step % args.every == 0 or done >= 1:
                means = np.mean(recent, 0)
                line = {
                    "step": step,
                    "share": round(done, 3),
                    "loss": round(float(means[0]), 4),
                    "mask_loss": round(float(means[1]), 4),
                    "pairs_in_order": [round(float(v), 3) for v in means[2:]],
                    "images_per_s": round((step - first) * len(labels) / (time.time() - started), 1),
                }
                if step % args.look == 0 or done >= 1:
                    found = scores(average, val, device)
                    line["val_auc"] = round(float(roc_auc_score(val_labels, found)), 4)
                print(json.dumps(line), flush=True)
                log.write(json.dumps(line) + "\n")
                log.flush()
                recent = []
                state = {
                    "model": model.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "rng": torch.get_rng_state(),
                    "step": step,
                    "began": began,
                }
                save(checkpoint, state)
                net.export(average.state_dict(), out / f"face-swap-{args.tier}.safetensors")


def pairs_in_order(logits, pairs):
    """The share of pairs of each kind whose forged member scores higher."""
    margin = (logits[1::2] - logits[0::2]).detach().cpu()
    return [(part > 0).float().mean().item() if len(part) else 0.0 for part in margin.split(list(pairs))]


if __name__ == "__main__":
    main()
