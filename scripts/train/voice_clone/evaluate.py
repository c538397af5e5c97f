"""Scores the test clips and writes metrics, calibration and per-clip scores.

    python evaluate.py --cache CACHE --weights ../../../weights/voice-clone-fast.safetensors --out RUN/eval
    python evaluate.py --cache CACHE --weights RUN/voice-clone-accurate.safetensors \
        --base ../../../weights/whisper-tiny-encoder.safetensors --out RUN/large
    python evaluate.py --cache CACHE --scores RUN/large/scores.tsv RUN/eval/scores.tsv --out RUN/both

With --base the weights are those of tier `accurate`. --scores takes the scores.tsv of earlier runs over the
same cache in the place of a network: the score is the mean logit of both networks, as the program takes it,
the first one's counting --share times.

One window a clip (its centre). Higher scores mean fake. Intervals are 95 %
bootstrap intervals over speakers (over clips where the speaker is not known).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from data import HELD_OUT, TEST_CODECS, Cache, centre
from model import VoiceCloneNet
from train import eer, score
from whisper import load_export

REPEATS = 500


def load(weights: Path) -> VoiceCloneNet:
    model = VoiceCloneNet()
    model.load_state_dict({k: v.float() for k, v in load_file(weights).items()}, strict=False)
    return model.eval().to(memory_format=torch.channels_last)


def noisy(wave: np.ndarray, index: int, snr: float = 10.0) -> np.ndarray:
    """Noise halfway between white and pink, at 10 dB under the speech."""
    rng = np.random.default_rng(index)
    spectrum = np.fft.rfft(rng.standard_normal(len(wave)))
    spectrum *= np.linspace(0, 1, len(spectrum)).clip(0.002) ** -0.25
    noise = np.fft.irfft(spectrum, len(wave))
    x = wave.astype(np.float64) / 32768
    x = x + noise * np.sqrt(np.mean(x**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
    return x.astype(np.float32)


def auc(real: np.ndarray, fake: np.ndarray) -> float:
    order = np.concatenate([real, fake])
    ranks = np.empty(len(order))
    ranks[np.argsort(order, kind="stable")] = np.arange(1, len(order) + 1)
    return float((ranks[len(real) :].sum() - len(fake) * (len(fake) + 1) / 2) / (len(real) * len(fake)))


class Groups:
    """Scores by speaker, to be drawn again with replacement."""

    def __init__(self, scores: np.ndarray, speakers: list[str]) -> None:
        parts = defaultdict(list)
        for s, who in zip(scores, speakers):
            parts[who].append(s)
        self.parts = [np.array(v) for v in parts.values()]
        self.all = np.concatenate(self.parts)

    def again(self, rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([self.parts[i] for i in rng.integers(len(self.parts), size=len(self.parts))])


def interval(statistic, *groups: Groups) -> list[float]:
    rng = np.random.default_rng(1)
    value = statistic(*[g.all for g in groups])
    draws = [statistic(*[g.again(rng) for g in groups]) for _ in range(REPEATS)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return [round(float(v), 4) for v in (value, low, high)]


def platt(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """a and b of sigmoid(a * score + b) by Newton's method, with Platt's softened targets."""
    a, b = 1.0, 0.0
    n1, n0 = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    def loss(a: float, b: float) -> float:
        z = a * scores + b
        return float(weights @ (np.logaddexp(0, z) - target * z))

    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(a * scores + b, -40, 40)))
        x = np.stack([scores, np.ones_like(scores)])
        grad = x @ (weights * (p - target))
        hess = (x * (weights * p * (1 - p))) @ x.T + 1e-9 * np.eye(2)
        da, db = np.linalg.solve(hess, grad)
        # A full step can overshoot from far away and then never come back.
        while loss(a - da, b - db) > loss(a, b) and abs(da) + abs(db) > 1e-9:
            da, db = da / 2, db / 2
        a, b = a - da, b - db
        if abs(da) + abs(db) < 1e-9:
            break
    return float(a), float(b)


def class_weights(labels: np.ndarray, strata: list[str]) -> np.ndarray:
    """Both classes weigh the same, and so do the corpora or families in each."""
    w = np.zeros(len(labels))
    names = np.array(strata)
    for label in (0, 1):
        kinds = sorted(set(names[labels == label]))
        for kind in kinds:
            member = (labels == label) & (names == kind)
            w[member] = 0.5 / len(kinds) / member.sum()
    return w * len(labels)


def ece(p: np.ndarray, labels: np.ndarray, w: np.ndarray, bins: int = 10) -> float:
    which = np.minimum((p * bins).astype(int), bins - 1)
    total = 0.0
    for k in range(bins):
        m = which == k
        if m.any():
            total += abs(np.sum(w[m] * (p[m] - labels[m])))
    return float(total / w.sum())


def cllr(p: np.ndarray, labels: np.ndarray, w: np.ndarray) -> float:
    logit = np.log(p / (1 - p))
    one, zero = labels == 1, labels == 0
    fake = np.sum(w[one] * np.log2(1 + np.exp(-logit[one]))) / w[one].sum()
    real = np.sum(w[zero] * np.log2(1 + np.exp(logit[zero]))) / w[zero].sum()
    return float((fake + real) / 2)


def scored_before(files: list[Path], share: float, keys: list[str]) -> dict[str, np.ndarray]:
    """The weighted mean of earlier runs' scores by channel, the first one's counting `share` times."""
    shares = np.array([share, *([1.0] * (len(files) - 1))])
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for path in files:
        with path.open(newline="") as f:
            rows = list(csv.DictReader(f, delimiter="\t"))
        if [row["key"] for row in rows] != keys:
            raise SystemExit(f"{path}: not the scores of this cache's test clips")
        for channel in ("clean", *TEST_CODECS, "noise_10db"):
            found[channel].append(np.array([float(row[channel]) for row in rows]))
    return {channel: shares @ np.array(v) / shares.sum() for channel, v in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--scores", type=Path, nargs="+", help="scores.tsv of one network, or of two that are heard together")
    parser.add_argument("--base", type=Path, help="the base that the weights are a difference to")
    parser.add_argument("--share", type=float, default=1.0, help="how often the first of --scores counts to the other's once")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(2)
    args.out.mkdir(parents=True, exist_ok=True)
    cache = Cache(args.cache)
    if (args.weights is None) == (args.scores is None):
        parser.error("either --weights or --scores")
    clips = [c for c in cache.clips if c["split"] == "test"]
    if args.scores:
        scores = scored_before(args.scores, args.share, [c["key"] for c in clips])
    else:
        model = load_export(args.weights, args.base) if args.base else load(args.weights)
        scores = {"clean": score(model, [centre(cache.wave(c)) for c in clips], "cpu")}
        for codec in TEST_CODECS:
            scores[codec] = score(model, [centre(cache.wave(c, codec)) for c in clips], "cpu")
        scores["noise_10db"] = score(model, [noisy(centre(cache.wave(c)), i) for i, c in enumerate(clips)], "cpu")
    with (args.out / "scores.tsv").open("w", newline="") as f:
        writer = csv.writer(f, delimiter="\t")
        writer.writerow(["key", "label", "corpus", "family", "speaker", *scores])
        for i, c in enumerate(clips):
            writer.writerow([c["key"], c["label"], c["corpus"], c["family"], c["speaker"], *(f"{scores[k][i]:.4f}" for k in scores)])

    def groups(channel: str, test) -> Groups:
        chosen = [i for i, c in enumerate(clips) if test(c)]
        return Groups(scores[channel][chosen], [clips[i]["speaker"] for i in chosen])

    def real(c):
        return c["label"] == 0

    def unheard(c):
        return c["label"] == 1 and c["family"] in HELD_OUT

    def heard(c):
        return c["label"] == 1 and c["family"] not in HELD_OUT

    result: dict = {"clips": {}, "eer": {}, "auc": {}, "channels": {}, "false_alarms": {}}
    everyone = groups("clean", real)
    result["eer"]["unheard_pooled"] = interval(eer, everyone, groups("clean", unheard))
    result["auc"]["unheard_pooled"] = interval(auc, everyone, groups("clean", unheard))
    natural = groups("clean", lambda c: unheard(c) and c["family"] != "lyra")
    result["eer"]["unheard_without_lyra"] = interval(eer, everyone, natural)
    result["auc"]["unheard_without_lyra"] = interval(auc, everyone, natural)
    result["eer"]["heard_pooled_unheard_speakers"] = interval(eer, everyone, groups("clean", heard))
    result["auc"]["heard_pooled_unheard_speakers"] = interval(auc, everyone, groups("clean", heard))
    libri = groups("clean", lambda c: real(c) and c["corpus"] == "librispeech")
    home = groups("clean", lambda c: heard(c) and c["corpus"] == "librispeech")
    result["eer"]["home_librispeech_copies"] = interval(eer, libri, home)
    for family in sorted({c["family"] for c in clips if c["label"]}):
        member = groups("clean", lambda c: c["family"] == family)
        kind = "unheard" if family in HELD_OUT else "heard"
        result["eer"][f"{kind}:{family}"] = interval(eer, everyone, member)
        result["auc"][f"{kind}:{family}"] = interval(auc, everyone, member)
        result["clips"][family] = len(member.all)
    pages = {
        "page_flashspeech": ("modern:flashspeech", {"flashspeech", "dddm_vc", "pflow", "yourtts"}),
        "page_indextts2": ("modern:indextts2", {"indextts2", "indextts2_wog", "indextts2_wos2m", "sparktts"}),
    }
    for name, (corpus, families) in pages.items():
        own = groups("clean", lambda c: real(c) and c["corpus"] == corpus)
        result["eer"][name] = interval(eer, own, groups("clean", lambda c: c["family"] in families))
    for channel in scores:
        a, b = groups(channel, real), groups(channel, unheard)
        result["channels"][channel] = {
            "unheard_eer": interval(eer, a, b),
            "unheard_auc": interval(auc, a, b),
            "heard_eer": interval(eer, a, groups(channel, heard)),
        }

    home_real = [i for i, c in enumerate(clips) if real(c) and c["corpus"] == "librispeech"]
    threshold = float(np.quantile(scores["clean"][home_real], 0.95))
    result["false_alarms"]["threshold_at_5pct_librispeech"] = round(threshold, 4)
    for corpus in sorted({c["corpus"] for c in clips if real(c)}):
        member = groups("clean", lambda c: real(c) and c["corpus"] == corpus)
        result["false_alarms"][corpus] = interval(lambda s: np.mean(s > threshold), member)
        result["clips"][f"real:{corpus}"] = len(member.all)
    for channel in scores:
        result["false_alarms"][f"librispeech/{channel}"] = round(float(np.mean(scores[channel][home_real] > threshold)), 4)
    result["detected_at_that_threshold"] = {
        "unheard": interval(lambda s: np.mean(s > threshold), groups("clean", unheard)),
        "heard": interval(lambda s: np.mean(s > threshold), groups("clean", heard)),
    }

    # calibration: held-out reals against held-out families, clean and through codecs
    used = [i for i, c in enumerate(clips) if real(c) or unheard(c)]
    channels = list(scores)
    s = np.concatenate([scores[k][used] for k in channels])
    chosen = [clips[i] for _ in channels for i in used]
    y = np.array([c["label"] for c in chosen])
    strata = [c["corpus"] if c["label"] == 0 else c["family"] for c in chosen]
    w = class_weights(y, strata)
    a, b = platt(s, y, w)
    # halves that share neither family nor real corpus
    part = {}
    for kinds in (sorted({t for t, l in zip(strata, y) if l == 0}), sorted({t for t, l in zip(strata, y) if l == 1})):
        part |= {kind: n % 2 for n, kind in enumerate(kinds)}
    part |= {"indextts2": 0, "indextts2_wog": 0, "indextts2_wos2m": 0}
    half = np.array([part[t] for t in strata])
    p = np.zeros(len(s))
    for k in (0, 1):
        fit = half != k
        wf = class_weights(y[fit], [t for t, m in zip(strata, fit) if m])
        ak, bk = platt(s[fit], y[fit], wf)
        p[half == k] = 1 / (1 + np.exp(-(ak * s[half == k] + bk)))
    p = p.clip(1e-6, 1 - 1e-6)
    p_all = 1 / (1 + np.exp(-(a * s + b)))
    flagged = {l: float(np.sum(w[(y == l) & (p_all > 0.5)]) / np.sum(w[y == l])) for l in (0, 1)}
    result["calibration"] = {
        "a": round(a, 6), "b": round(b, 6), "windows": len(s),
        "ece_cross_fitted": round(ece(p, y, w), 4), "cllr_cross_fitted": round(cllr(p, y, w), 4),
        "false_alarms_at_half": round(flagged[0], 4), "detected_at_half": round(flagged[1], 4),
    }
    for q in (0.05, 0.01):
        cut = float(np.quantile(p_all[(y == 0)], 1 - q))
        result["calibration"][f"probability_at_{q:g}_false_alarms"] = round(cut, 4)
        result["calibration"][f"detected_at_{q:g}_false_alarms"] = round(float(np.mean(p_all[y == 1] > cut)), 4)
    (args.out / "metrics.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
