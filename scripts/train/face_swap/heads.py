#!/usr/bin/env python3
"""Fits what is read off a finished network beside its logit, and writes a copy that has it.

    heads.py --tier fast --data ../shared/data --work DIR --out DIR

- The mask's head (model.py), on the frozen trunk, by the cross entropy of the cells of the forged
  crops of training batches, beginning from their mean map. Tier `fast` only: `accurate` trains its
  mask with the network.
- The domain model: a Gaussian around the features of training crops of both classes, each brought to
  length 1. Its covariance is that of the first 64 principal components, and the same in all other
  directions: domain.mean [F], domain.basis [64, F] and, as one over standard deviations, domain.scale
  [64] and domain.rest [1]. The distance is Mahalanobis'; the threshold is what 1 % of the undegraded
  reals of the validation people exceed.

All other tensors stay as they are, bit by bit. Writes to --out the weights and meta.toml for
publish.py (the manifest's entry with the new threshold), and prints what share of strange pictures
(strange.py) is flagged. How well the mask does says evaluate_mask.py.
"""

import argparse
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

import model as fast
import vit as accurate
from data import Data, to_tensor
from geometry import stretch
from strange import KINDS

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts/train"))
from publish import key, toml_value  # noqa: E402

COMPONENTS = 64
FLAGGED = 0.01
MASK_EPOCHS = 10
MASK_LR = 2e-3
STRANGE = 100


@torch.inference_mode()
def looked_at(tier, model, images):
    """Logits [N], what the mask is read off (f16; None for `accurate`) and the features [N, F]."""
    parts = []
    for i in range(0, len(images), 32):
        x = to_tensor(images[i : i + 32], "cpu")
        if tier == "fast":
            logits, seen, features = model.inside(x)
            parts.append((logits, seen.half(), features))
        else:
            features = model.features(model.taps(x))
            parts.append((model.classifier(features).squeeze(1), None, features))
    logits, seen, features = zip(*parts)
    return torch.cat(logits).numpy(), None if seen[0] is None else torch.cat(seen), torch.cat(features)


def fit_mask(seen, masks, seed):
    """A fast.Mask on what the trunk put out. Inputs are scaled to like spread while it learns;
    not shifted, so that the zeros of the padding stay what they are."""
    torch.manual_seed(seed)
    head = fast.Mask()
    spread = seen.float().std((0, 2, 3)) + 1e-6
    mean = masks.mean(0)
    head.prior.data = torch.log((mean + 0.02) / (1.02 - mean))
    steps = MASK_EPOCHS * (len(seen) // 64)
    optimizer = torch.optim.AdamW(head.parameters(), MASK_LR, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MASK_LR, total_steps=steps)
    for step in range(steps):
        if step % (len(seen) // 64) == 0:
            order = torch.randperm(len(seen))
        rows = order[step % (len(seen) // 64) * 64 :][:64]
        x = torch.nn.functional.dropout2d(seen[rows].float() / spread[:, None, None], 0.1)
        loss = cross_entropy(head(x), masks[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"mask: {len(seen)} crops, loss of the last batch {loss.item():.3f}", flush=True)
    head.conv.weight.data /= spread[None, :, None, None]
    return {f"mask.{n}": t.detach().half() for n, t in head.state_dict().items()}


def unit(features):
    return features / features.norm(dim=1, keepdim=True)


def fit_domain(features):
    x = unit(features.double())
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T.cov())
    rest = values[:-COMPONENTS].mean()
    return {
        "domain.mean": mean.half(),
        "domain.basis": vectors[:, -COMPONENTS:].flip(1).T.contiguous().half(),
        "domain.scale": values[-COMPONENTS:].flip(0).rsqrt().half(),
        "domain.rest": rest.rsqrt()[None].half(),
    }


def distance(domain, features):
    """As the program computes it."""
    mean, basis, scale, rest = (domain[f"domain.{n}"].float() for n in ("mean", "basis", "scale", "rest"))
    off = unit(features) - mean
    along = off @ basis.T
    beside = (off.square().sum(1) - along.square().sum(1)).clamp(min=0)
    return ((along * scale).square().sum(1) + beside * rest.square()).sqrt().numpy()


def report_domain(tier, model, domain, data, size, calibration):
    """The threshold; prints what it does to validation people, UTKFace and strange pictures."""
    def measured(images):
        logits, _, features = looked_at(tier, model, images)
        return logits, distance(domain, features)

    fake = data.fake[data.val]
    logits, far = measured(np.stack([data.dfdc.crop(i, size) for i in data.val]))
    threshold = float(np.quantile(far[~fake], 1 - FLAGGED))
    odds = calibration["a"] * logits + calibration["b"]
    wrong = (odds > np.log(calibration["threshold"] / (1 - calibration["threshold"]))) != fake
    out = far > threshold
    print(f"threshold {threshold:.3f}, median of validation reals {np.median(far[~fake]):.3f}")
    print(f"flagged: reals {out[~fake].mean():.3f}, fakes {out[fake].mean():.3f}")
    print(f"wrong at the threshold: flagged {wrong[out].mean():.3f} of {out.sum()}, others {wrong[~out].mean():.3f}")
    for share in (0.02, 0.05, 0.1):
        rim = far > np.quantile(far, 1 - share)
        print(
            f"farthest {share:.0%}: AUC {roc_auc_score(fake[rim], logits[rim]):.3f}, wrong {wrong[rim].mean():.3f};"
            f" the others {roc_auc_score(fake[~rim], logits[~rim]):.3f}, {wrong[~rim].mean():.3f}"
        )
    _, utk = measured(np.stack([data.utk.crop(i, size) for i in data.utk_held_out]))
    print(f"UTKFace, held out: flagged {(utk > threshold).mean():.3f}", flush=True)
    rows = np.random.default_rng(3).permutation(data.val[~fake])[:STRANGE]
    for kind, make in KINDS.items():
        rng = np.random.default_rng(4)
        made = [stretch(np.ascontiguousarray(make(np.asarray(data.dfdc.images[r]), rng)), size, size) for r in rows]
        logits, far = measured(np.stack(made))
        odds = calibration["a"] * logits + calibration["b"]
        print(
            f"{kind:<18} flagged {(far > threshold).mean():.2f}, median {np.median(far) / threshold:.2f} times the"
            f" threshold, log-odds {odds.mean():+.2f} with spread {odds.std():.2f}",
            flush=True,
        )
    return threshold


def meta_text(entry, threshold):
    """meta.toml: what the manifest says, but for what publish.py works out itself."""
    plain = {k: v for k, v in entry.items() if not isinstance(v, dict) and k not in ("file", "sha256", "bytes")}
    tables = {k: v for k, v in entry.items() if isinstance(v, dict)}
    tables["domain"] = {
        "threshold": round(threshold, 4),
        "fitted_on": "features of training crops; threshold: 1 % of the undegraded reals of the DFDC validation identities",
    }
    lines = [f"{key(k)} = {toml_value(v)}" for k, v in plain.items()]
    for name, table in tables.items():
        lines += ["", f"[{key(name)}]", *(f"{key(k)} = {toml_value(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", required=True, choices=("fast", "accurate"))
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path, help="the folder of prepare.py")
    parser.add_argument("--weights", type=Path, help="default: those that ship")
    parser.add_argument("--base", type=Path, help="accurate: the base's weights")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--batches", type=int, default=125, help="training batches to fit on")
    parser.add_argument("--pairs", type=int, nargs=3, default=(10, 2, 4), help="as in train.py")
    parser.add_argument("--seed", type=int, default=77, help="of the batches; one that no training had")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    name = f"face-swap-{args.tier}"
    weights = args.weights or ROOT / f"weights/{name}.safetensors"
    net = fast if args.tier == "fast" else accurate
    model = net.load_export(weights) if args.tier == "fast" else net.load_export(weights, args.base)
    entry = tomllib.loads((ROOT / "weights/manifest.toml").read_text(encoding="utf-8"))[name]

    data = Data(args.data, args.work)
    features, seen, masks = [], [], []
    for step in range(args.batches):
        images, labels, altered, known = data.batch(args.seed, step, args.pairs, net.SIZE, net.CELLS)
        _, mine, looked = looked_at(args.tier, model, images)
        features.append(looked)
        if mine is not None:
            forged = known & (labels > 0.5)
            seen.append(mine[torch.from_numpy(forged)])
            masks.append(torch.from_numpy(altered[forged]).float())
    fitted = fit_mask(torch.cat(seen), torch.cat(masks), args.seed) if seen else {}
    fitted |= fit_domain(torch.cat(features))
    kept = {n: t for n, t in load_file(str(weights)).items() if not n.startswith("domain.")}
    if seen:
        kept = {n: t for n, t in kept.items() if not n.startswith("mask.")}
    if any(not torch.isfinite(t).all() for t in fitted.values()):
        raise ValueError("a fitted tensor does not fit into f16")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / weights.name
    save_file({**kept, **{n: t.contiguous() for n, t in fitted.items()}}, str(path))
    path.chmod(0o644)
    threshold = report_domain(args.tier, model, fitted, data, net.SIZE, entry["calibration"])
    (args.out / "meta.toml").write_text(meta_text(entry, threshold), encoding="utf-8")


if __name__ == "__main__":
    main()
