#!/usr/bin/env python3
"""Golden numbers for src/bench/metrics, from the reference implementations.

    golden_metrics.py --asvspoof5 DIR --asvspoof2021 DIR

Writes tests/golden/bench_auc_ap.bin and tests/golden/bench_metrics.json. Trials are made by formula
(`case`), which tests/bench.rs repeats; only the references' results are kept.

--asvspoof5: evaluation-package/ of github.com/asvspoof-challenge/asvspoof5 (calculate_modules.py).
--asvspoof2021: eval-package/ of github.com/asvspoof-challenge/2021 (eval_metrics.py).
Python packages: numpy, scikit-learn (AUC, AP, isotonic regression, Brier score), a_dcf 0.0.4
(compute_a_det_curve, normalize), avdeepfake1m 0.0.4 (ap_ar_1d, from its compiled part alone).

ECE, AURC, DeLong and the hull's EER have no reference package here: they are computed from their
definitions, in the plainest way (every pair, every bin, every prefix), not as Veriscope does.
"""

import argparse
import importlib.util
import json
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

GOLDEN = Path(__file__).resolve().parents[2] / "tests/golden"
MASK = (1 << 64) - 1
AUC_AP_CASES, CASES, LOCALIZATIONS = 10_000, 100, 20
# AUC and AP are kept as whole multiples of this: 0.125e-9 off at most.
STEP = 1 / 4_000_000_000


class Random:
    """SplitMix64."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) % n


def case(seed, most):
    """Scores (higher means fake) and truth; ties are common, and every score is a multiple of 2^-16."""
    random = Random(seed)
    n = 4 + random.below(most - 3)
    levels = (2, 5, 20, 100, 1 << 16)[random.below(5)]
    lead = random.below(levels)
    scores, fake = [], []
    for i in range(n):
        f = random.below(2) == 1 if i > 1 else i == 0
        level = random.below(levels) + (random.below(lead + 1) if f else 0)
        scores.append((level << 16) // (2 * levels) / 65536)
        fake.append(f)
    return np.array(scores), np.array(fake)


def auc_ap():
    values = []
    for seed in range(AUC_AP_CASES):
        scores, fake = case(seed, 64)
        values += [roc_auc_score(fake, scores), average_precision_score(fake, scores)]
    return struct.pack(f"<{len(values)}I", *(round(v / STEP) for v in values))


def min_cllr(bonafide, spoof):
    """Cllr after isotonic regression (which pools equal scores) at equal priors."""
    scores = np.concatenate((bonafide, spoof))
    truth = np.concatenate((np.ones(len(bonafide)), np.zeros(len(spoof))))
    weight = np.where(truth == 1, 1 / len(bonafide), 1 / len(spoof))
    p = IsotonicRegression().fit_transform(scores, truth, sample_weight=weight)
    with np.errstate(divide="ignore"):
        cost = np.where(truth == 1, -np.log2(np.maximum(p, 1e-300)), -np.log2(np.maximum(1 - p, 1e-300)))
    return (cost[truth == 1].mean() + cost[truth == 0].mean()) / 2


def eer_hull(bonafide, spoof):
    """The largest over all priors of the smallest mean of miss and false alarm weighed by it."""
    thresholds = np.concatenate(([-np.inf], np.unique(np.concatenate((bonafide, spoof))), [np.inf]))
    points = [((bonafide < t).mean(), (spoof >= t).mean()) for t in thresholds]
    miss, alarm = np.array(points).T
    best = 0.0
    for i, (m1, f1) in enumerate(points):
        # Priors at which two thresholds cost the same, beside those at which one error counts alone.
        for m2, f2 in points[i + 1 :]:
            d = (m1 - m2) - (f1 - f2)
            if d:
                p = -(f1 - f2) / d
                if 0 <= p <= 1:
                    best = max(best, (p * miss + (1 - p) * alarm).min())
    return best


def ece(p, fake):
    total = 0.0
    for b in range(15):
        low, high = b / 15, (b + 1) / 15
        inside = (p > low) & (p <= high) | (p == 0) & (b == 0)
        if inside.any():
            total += inside.sum() * abs(p[inside].mean() - fake[inside].mean())
    return total / len(p)


def aurc(scores, fake, threshold):
    wrong, distance = (scores >= threshold) != fake, abs(scores - threshold)
    return float(np.mean([wrong[distance >= d].mean() for d in distance]))


def delong(a, b, fake):
    def shares(scores):
        f, r = scores[fake][:, None], scores[~fake][None, :]
        won = (f > r) + (f == r) / 2
        return won.mean(axis=1), won.mean(axis=0)

    (va, wa), (vb, wb) = shares(a), shares(b)
    s = np.cov(va, vb) / fake.sum() + np.cov(wa, wb) / (~fake).sum()
    return float(va.mean() - vb.mean()), float(np.sqrt(max(s[0, 0] + s[1, 1] - 2 * s[0, 1], 0)))


def detection(m, e, a_dcf):
    p = 0.05
    costs = {"Pspoof": p, "Ptar": (1 - p) * 0.99, "Pnon": (1 - p) * 0.01, "Cmiss": 1, "Cfa": 10,
             "Cfa_spoof": 10, "Cmiss_asv": 1, "Cfa_asv": 10, "Cmiss_cm": 1, "Cfa_cm": 10}
    rows = []
    for seed in range(CASES):
        raw, fake = case(1_000_000 + seed, 120)
        # ASVspoof's direction: higher means bona fide; a spread that suits log-likelihood ratios.
        scores = -(raw - 0.5) * 8
        bonafide, spoof = scores[~fake], scores[fake]
        eer, frr, far, thresholds, _ = m.compute_eer(bonafide, spoof)
        row = {
            "eer_asvspoof": eer,
            "eer_hull": eer_hull(bonafide, spoof),
            "min_dcf": m.compute_mindcf(frr, far, thresholds, p, 1, 10)[0],
            "act_dcf": m.compute_actDCF(bonafide, spoof, p, 1, 10)[0],
            "cllr": m.calculate_CLLR(bonafide, spoof),
            "min_cllr": min_cllr(bonafide, spoof),
            "brier": brier_score_loss(fake, raw),
            "ece": ece(raw, fake),
            "aurc": aurc(raw, fake, 0.5),
        }
        # A speaker verifier: trial i of a second case is target, nontarget or spoof by turns.
        asv, _ = case(2_000_000 + seed, 120)
        asv[::3] += 0.25
        asv = np.concatenate((asv, [1.0, 0.0, 0.5]))
        trials = [asv[k::3] for k in range(3)]
        _, *_, threshold = m.compute_eer(trials[0], trials[1])
        rates = m.obtain_asv_error_rates(*trials, threshold)
        pfa, pmiss, pmiss_spoof, pfa_spoof = rates
        row["asv"] = [pmiss, pfa, pfa_spoof]
        if np.unique(scores).size >= 3 and pfa_spoof > 0:
            row["min_tdcf"] = min(e.compute_tDCF(bonafide, spoof, pfa, pmiss, pfa_spoof, costs, False)[0])
            row["min_tdcf_legacy"] = min(m.compute_tDCF(bonafide, spoof, pfa, pmiss, pmiss_spoof, costs, False)[0])
        far_asv, far_cm, miss, _ = a_dcf.compute_a_det_curve(*trials)
        model = a_dcf.CostModel()
        cost = (model.Cmiss * model.Ptrg * np.array(miss) + model.Cfa_asv * model.Pnontrg * np.array(far_asv)
                + model.Cfa_cm * model.Pspf * np.array(far_cm))
        row["min_adcf"] = min(a_dcf.normalize(cost, model))
        # A second detector on the same trials.
        other = Random(3_000_000 + seed)
        second = raw + np.array([other.below(5) / 16 for _ in raw])
        row["delong"] = delong(raw, second, fake)
        rows.append({k: [float(x) for x in v] if isinstance(v, (list, tuple)) else float(v) for k, v in row.items()})
    return rows


def localization(ap_ar_1d):
    """Files with up to three stretches and up to 60 proposals near them, times in 1/32 s. Every file has
    a proposal: the package 0.0.4 fails on empty lists."""
    rows = []
    for seed in range(LOCALIZATIONS):
        random = Random(4_000_000 + seed)
        truth, proposals = [], {}
        for number in range(5 + random.below(40)):
            stretches = []
            for k in range(random.below(4)):
                start = 160 * k + random.below(60)
                stretches.append([start / 32, (start + 8 + random.below(80)) / 32])
            rows_of_file = []
            for _ in range(1 + random.below(60)):
                if stretches and random.below(4):
                    start, end = (int(32 * t) for t in stretches[random.below(len(stretches))])
                    start, end = start + random.below(9), end + random.below(9)
                else:
                    start = random.below(500)
                    end = start + 4 + random.below(90)
                rows_of_file.append([random.below(1000) / 1024, start / 32, end / 32])
            rows_of_file.sort(key=lambda row: -row[0])
            truth.append({"file": f"{number}.mp4", "fake_segments": stretches})
            proposals[f"{number}.mp4"] = rows_of_file
        with tempfile.TemporaryDirectory() as folder:
            paths = [str(Path(folder) / name) for name in ("proposals.json", "truth.json")]
            for path, what in zip(paths, (proposals, truth)):
                Path(path).write_text(json.dumps(what))
            found = ap_ar_1d(*paths, "file", "fake_segments", 1.0, [0.5, 0.75, 0.9, 0.95], [50, 30, 20, 10, 5],
                             [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
        # The package's thresholds come back as single-precision numbers, in any order.
        rows.append({
            "ap": [v for _, v in sorted(found["ap"].items())],
            "ar": [v for _, v in sorted(found["ar"].items(), reverse=True)],
        })
    return rows


def compiled_evaluation():
    """avdeepfake1m's compiled module, without the package around it, whose import wants much else."""
    package = Path(importlib.util.find_spec("avdeepfake1m").origin).parent
    spec = importlib.util.spec_from_file_location("_evaluation", next(package.glob("_evaluation.*.so")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--asvspoof5", required=True)
    arguments.add_argument("--asvspoof2021", required=True)
    options = arguments.parse_args()
    sys.path[:0] = [options.asvspoof5, options.asvspoof2021]
    import calculate_modules
    import eval_metrics
    from a_dcf import a_dcf
    ap_ar_1d = compiled_evaluation().ap_ar_1d

    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "bench_auc_ap.bin").write_bytes(auc_ap())
    golden = {"detection": detection(calculate_modules, eval_metrics, a_dcf), "localization": localization(ap_ar_1d)}
    text = "{\n" + ",\n".join(
        f' "{name}": [\n' + ",\n".join("  " + json.dumps(row) for row in rows) + "\n ]" for name, rows in golden.items()
    ) + "\n}\n"
    (GOLDEN / "bench_metrics.json").write_text(text)


if __name__ == "__main__":
    main()
