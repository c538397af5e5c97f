#!/usr/bin/env python3
"""Trains the face-swap network.

    MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_ARENA_MAX=2 \
    train.py --data ../shared/data --work DIR --base efficientnet-lite0-57934424.pth --epochs 1.6

Needs the arrays of prepare.py in DIR. An epoch is one pass over the DFDC fakes. Writes to --out:
checkpoint.pt (everything that --resume needs), log.jsonl, and face-swap-fast.safetensors, the
running average of the weights in f16. The last weights are what counts: none are picked by their
validation score, so that the validation figures are not flattered.
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
from sklearn.metrics import roc_auc_score

from data import Data, to_tensor
from model import FaceSwapNet, export, load_base


def learning_rate(step, steps, peak, warm):
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) + 1e-6


def groups(model, decay):
    """Weight decay for the convolutions' weights only."""
    wide = [p for p in model.parameters() if p.ndim > 1]
    narrow = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": wide, "weight_decay": decay}, {"params": narrow, "weight_decay": 0.0}]


@torch.inference_mode()
def scores(model, images, device, batch=64):
    model.eval()
    parts = [model(to_tensor(images[i : i + batch], device)) for i in range(0, len(images), batch)]
    return torch.cat(parts).float().cpu().numpy()


def save(path, value):
    """By rename, so that a killed run leaves the checkpoint before it."""
    torch.save(value, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path, help="the folder of prepare.py")
    parser.add_argument("--base", required=True, type=Path, help="ImageNet weights of the trunk")
    parser.add_argument("--out", type=Path, help="default: --work")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--pairs", type=int, nargs=3, default=(10, 2, 4), help="dfdc, blend, utk pairs in a batch")
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--decay", type=float, default=0.03)
    parser.add_argument("--smoothing", type=float, default=0.05)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints and looks")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
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
    model = FaceSwapNet()
    load_base(model, args.base)
    model = model.to(device, memory_format=torch.channels_last)
    average = FaceSwapNet().to(device, memory_format=torch.channels_last)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(groups(model, args.decay), lr=args.lr)
    checkpoint = out / "checkpoint.pt"
    step = 0
    if args.resume and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"].cpu())
        step = saved["step"]

    val = np.stack([data.dfdc.crop(i) for i in data.val])
    val_labels = data.fake[data.val]
    log = open(out / "log.jsonl", "a", encoding="utf-8")
    started, first, recent = time.time(), step, []
    with ThreadPoolExecutor(1) as loader:
        ahead = [
            loader.submit(data.batch, args.seed, s, args.pairs) for s in range(step, min(step + 3, steps))
        ]
        while step < steps:
            images, labels = ahead.pop(0).result()
            if step + 3 < steps:
                ahead.append(loader.submit(data.batch, args.seed, step + 3, args.pairs))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, args.lr, warm=150)
            target = torch.from_numpy(labels).to(device)
            target = target * (1 - args.smoothing) + args.smoothing / 2
            model.train()
            logits = model(to_tensor(images, device))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            step += 1
            # A young average would otherwise be made of the base weights.
            keep = min(args.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for mine, new in zip(average.state_dict().values(), model.state_dict().values()):
                    if mine.is_floating_point():
                        mine.lerp_(new, 1 - keep)
            recent.append([loss.item(), *pairs_in_order(logits, args.pairs)])
            if step % args.every == 0 or step == steps:
                found = scores(average, val, device)
                means = np.mean(recent, 0)
                line = {
                    "step": step,
                    "of": steps,
                    "loss": round(float(means[0]), 4),
                    "pairs_in_order": [round(float(v), 3) for v in means[1:]],
                    "val_auc": round(float(roc_auc_score(val_labels, found)), 4),
                    "images_per_s": round((step - first) * len(labels) / (time.time() - started), 1),
                }
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
                }
                save(checkpoint, state)
                export(average.state_dict(), out / "face-swap-fast.safetensors")


def pairs_in_order(logits, pairs):
    """The share of pairs of each kind whose forged member scores higher."""
    margin = (logits[1::2] - logits[0::2]).detach().cpu()
    return [(part > 0).float().mean().item() if len(part) else 0.0 for part in margin.split(list(pairs))]


if __name__ == "__main__":
    main()
