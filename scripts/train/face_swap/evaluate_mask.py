#!/usr/bin/env python3
"""How well a network's mask finds where a face was altered, on people never trained on.

    evaluate_mask.py --tier fast --data ../shared/data --work DIR --weights face-swap-fast.safetensors

For the DFDC validation fakes whose original shows the same frame, and for forgeries made here of
held-out UTKFace faces: over the cells of the grid (9 x 9; accurate: 12 x 12), those altered by more than a half against
those altered by less than a tenth, the AUC within each forged picture (the mean over those with at least three cells of either kind) and
over the cells of all of them, and the mean of the cells' probabilities in altered and unaltered
cells and in the untouched pictures. A map that only knows where faces are altered as a rule (the
mean truth over these very pictures) is the yardstick beside it.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.metrics import roc_auc_score

import model as fast
import vit as accurate
from data import Data, difference, to_tensor
from geometry import stretch


@torch.inference_mode()
def cells(model, images):
    parts = [model.both(to_tensor(images[i : i + 64], "cpu"))[1] for i in range(0, len(images), 64)]
    return torch.cat(parts).sigmoid().numpy()


def within(truth, found):
    """The mean over pictures of the AUC over a picture's cells."""
    values = []
    for altered, cells in zip(truth, found):
        clear = (altered > 0.5) | (altered < 0.1)
        if min((altered > 0.5).sum(), (altered < 0.1).sum()) >= 3:
            values.append(roc_auc_score(altered[clear] > 0.5, cells[clear]))
    return np.mean(values)


def report(name, net, model, triples):
    truth = np.stack([stretch(mask[..., 0], net.CELLS, net.CELLS) for _, _, mask in triples])
    real, forged = (cells(model, np.stack([stretch(t[side], net.SIZE, net.SIZE) for t in triples])) for side in (0, 1))
    usual = np.broadcast_to(truth.mean(0), truth.shape)
    clear = (truth > 0.5) | (truth < 0.1)
    print(
        f"{name:<28} n {len(triples):>5}  within {within(truth, forged):.3f}"
        f"  usual place {within(truth, usual):.3f}  all cells {roc_auc_score(truth[clear] > 0.5, forged[clear]):.3f}"
        f"  usual place {roc_auc_score(truth[clear] > 0.5, usual[clear]):.3f}"
        f"  altered {forged[truth > 0.5].mean():.3f}  unaltered {forged[truth < 0.1].mean():.3f}"
        f"  in reals {real.mean():.3f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", required=True, choices=("fast", "accurate"))
    parser.add_argument("--base", type=Path, help="accurate: DINOv2's weights")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    data = Data(args.data, args.work)
    if args.tier == "fast":
        net, model = fast, fast.load_export(args.weights).to(memory_format=torch.channels_last)
    else:
        net, model = accurate, accurate.load_export(args.weights, args.base)
    triples = []
    for fake, real in data.val_originals.items():
        pair = np.asarray(data.dfdc.images[real]), np.asarray(data.dfdc.images[fake])
        mask = difference(*pair)
        if mask is not None:
            triples.append((*pair, mask))
    report("DFDC, validation people", net, model, triples)
    rng = np.random.default_rng(0)
    held = data.utk_held_out
    report("own forgeries, UTKFace", net, model, [data.forged_pair(data.utk, held, i, rng) for i in held[::2]])


if __name__ == "__main__":
    main()
