"""Trains a voice-clone network on a cache made by `data.py`.

    python train.py --tier fast --cache CACHE --run RUN --steps 3000
    python train.py --tier fast --cache CACHE --run RUN --steps 3000 --resume
    python train.py --tier accurate --cache CACHE --run RUN --steps 1500 \
        --base ../../../weights/whisper-tiny-encoder.safetensors

Tier `fast` is model.py, tier `accurate` is whisper.py, whose base scripts/setup installs.
A batch is made of pairs: one real and one fake window. Where the fake is a copy
of a recording, the real one is, mostly, that recording, cut at the same place
and sent through the same codec, room, filter and noise: then only the vocoder
tells them apart. Of some such pairs the fake is the recording with a stretch of
the copy in it, so that tier `accurate` learns where in a window the fake is; as
many real windows have a stretch of the same clip from elsewhere, so that a cut
alone says nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import threading
import time
from collections import defaultdict
from pathlib import Path
from queue import Queue

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

import model as fast
import whisper as accurate
from data import Cache, centre, window_of
from frontend import SAMPLE_RATE, WINDOW

TIERS = {"fast": fast, "accurate": accurate}
PEAK = {"fast": 4e-3, "accurate": 5e-4}  # rates

SPLICED = 0.25  # how often a twin is fake in a part of the window only, and a real window is cut
SPLICE = (0.8, 0.6)  # a part is at least so many seconds, at most this share of the window
FADE = 160  # samples
LOCAL = 0.5  # weight of the tokens' loss beside the window's
TWIN = 0.75  # how often a copy's partner is its own recording
CROPS = [(0.7, 38_400), (0.3, WINDOW)]  # share of batches, samples: shorter ones cost less
ROOM = 16_000  # samples that reverberation may run on


def weight(clips: list[dict]) -> float:
    """How often a corpus or a family is drawn: by the square root of what there is of it, so that the
    large ones don't drown the small ones and the small ones are not learnt by heart."""
    return math.sqrt(len(clips))


def joined(outside: np.ndarray, inside: np.ndarray, start: int, end: int) -> np.ndarray:
    """`inside` from `start` to `end`, `outside` elsewhere, faded into each other."""
    at = np.arange(len(outside))
    share = np.clip(np.minimum(at - start, end - at) / FADE + 0.5, 0, 1)
    return (outside * (1 - share) + inside * share).astype(outside.dtype)


class Sampler:
    """Draws pairs of int16 windows, balanced over corpora, families and speakers."""

    def __init__(self, cache: Cache, seed: int, left_out: tuple[str, ...] = ()) -> None:
        self.cache = cache
        self.size = WINDOW
        self.rng = np.random.default_rng(seed)
        train = [c for c in cache.clips if c["split"] == "train"]
        self.by_key = {c["key"]: c for c in train}
        self.real, fake = defaultdict(list), defaultdict(lambda: defaultdict(list))
        for clip in train:
            if clip["label"] == 0:
                self.real[clip["corpus"]].append(clip)
            elif clip["family"] not in left_out:
                # copies are drawn by corpus too, so that they speak like the real ones
                fake[clip["family"]][clip["corpus"]].append(clip)
        self.fake = {family: dict(groups) for family, groups in fake.items()}
        self.real_weights = {k: weight(v) for k, v in self.real.items()}
        self.fake_weights = {f: weight([c for v in g.values() for c in v]) for f, g in self.fake.items()}

    def pick(self, weights: dict[str, float]) -> str:
        names = list(weights)
        p = np.array([weights[n] for n in names])
        return names[self.rng.choice(len(names), p=p / p.sum())]

    def real_clip(self) -> dict:
        clips = self.real[self.pick(self.real_weights)]
        return clips[self.rng.integers(len(clips))]

    def channel(self, clip: dict) -> str:
        names = list(clip["at"])
        return names[0] if self.rng.random() < 0.4 else names[self.rng.integers(1, len(names))]

    def crop(self, clip: dict, channel: str, where: float) -> np.ndarray:
        wave = self.cache.wave(clip, channel)
        return window_of(wave, int(where * max(0, len(wave) - self.size)), self.size)

    def pair(self) -> tuple[np.ndarray, np.ndarray, bool, list[str]]:
        groups = self.fake[self.pick(self.fake_weights)]
        clips = groups[self.pick({k: weight(v) for k, v in groups.items()})]
        fake = clips[self.rng.integers(len(clips))]
        where, channel = self.rng.random(), self.channel(fake)
        twin = bool(fake["source"]) and self.rng.random() < TWIN
        real = self.by_key[fake["source"]] if twin else self.real_clip()
        at = (channel, where) if twin else (self.channel(real), self.rng.random())
        return self.crop(real, *at), self.crop(fake, channel, where), twin, [real["speaker"], fake["speaker"]]

    def batch_with_speakers(self, pairs: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """int16 [2 * pairs, size], the real ones first; which pairs are twins; who speaks."""
        drawn = [self.pair() for _ in range(pairs)]
        waves = np.stack([d[0] for d in drawn] + [d[1] for d in drawn])
        twins = np.array([d[2] for d in drawn])
        return waves, twins, [d[3][0] for d in drawn] + [d[3][1] for d in drawn]

    def splice(self, waves: np.ndarray, twins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Makes some twins fake in a part only, and cuts some real windows; in place. Returns which pairs
        it touched, [pairs], and from where to where each window is fake, [2 * pairs, 2] samples."""
        half, size = len(twins), waves.shape[1]
        spans = np.array([[0, 0]] * half + [[0, size]] * half)
        touched = np.zeros(half, bool)
        for i in range(half):
            part = int(self.rng.uniform(SPLICE[0] * SAMPLE_RATE, SPLICE[1] * size))
            start = int(self.rng.integers(0, size - part))
            kind = self.rng.random()
            if kind < SPLICED and twins[i]:
                waves[half + i] = joined(waves[i], waves[half + i], start, start + part)
                spans[half + i] = start, start + part
                touched[i] = True
            elif kind > 1 - SPLICED:
                waves[i] = joined(waves[i], np.roll(waves[i], size // 2), start, start + part)
                touched[i] = True
        return touched, spans

    def batch(self, pairs: int) -> tuple[np.ndarray, np.ndarray]:
        return self.batch_with_speakers(pairs)[:2]


class Augment:
    """Channels for both classes alike; twins get the very same one."""

    def __init__(self, seed: int, size: int = WINDOW) -> None:
        self.g = torch.Generator().manual_seed(seed)
        self.size, self.padded = size, size + ROOM
        self.freq = torch.fft.rfftfreq(self.padded, 1 / SAMPLE_RATE)

    def rand(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self.g)

    def like_twins(self, x: torch.Tensor, twins: torch.Tensor) -> torch.Tensor:
        half = len(twins)
        shape = [half] + [1] * (x.dim() - 1)
        return torch.cat([x[:half], torch.where(twins.view(shape), x[:half], x[half:])])

    def filters(self, n: int) -> torch.Tensor:
        """Smooth random colour, then a random low-pass and high-pass: [n, bins]."""
        knots = 12
        gain = (self.rand(n, 1, knots) - 0.5) * 2 * (2 + 8 * self.rand(n, 1, 1)) * (self.rand(n, 1, 1) < 0.6)
        db = F.interpolate(gain, size=len(self.freq), mode="linear", align_corners=True)[:, 0]
        cut = 3400 + 4600 * self.rand(n, 1)
        cut = torch.where(self.rand(n, 1) < 0.4, cut, torch.full_like(cut, 9000.0))
        slope = 0.02 + 0.3 * self.rand(n, 1)  # dB for each Hz above
        db = db - ((self.freq - cut).clamp_min(0) * slope).clamp_max(90)
        low = 350 * self.rand(n, 1) * (self.rand(n, 1) < 0.3)
        db = db - ((low - self.freq).clamp_min(0) * 0.1)
        return 10 ** (db / 20)

    def rooms(self, n: int) -> torch.Tensor:
        """Spectra of decaying noise behind a direct sound: [n, bins]."""
        length = 12_800
        t = torch.arange(length) / SAMPLE_RATE
        t60 = 0.1 + 0.7 * self.rand(n, 1)
        tail = torch.randn(n, length, generator=self.g) * torch.exp(-6.9 * t / t60)
        tail[:, : int(0.002 * SAMPLE_RATE)] = 0
        tail = tail / tail.square().sum(1, keepdim=True).sqrt()
        direct_to_room = 10 ** (-(3 + 15 * self.rand(n, 1)) / 20)
        tail = tail * direct_to_room
        tail[:, 0] = 1.0
        return torch.fft.rfft(tail, self.padded)

    def noise(self, n: int) -> torch.Tensor:
        """Noise of a random slope between white and brown, [n, size], RMS 1."""
        white = torch.fft.rfft(torch.randn(n, self.size, generator=self.g))
        f = torch.linspace(0, 1, white.shape[1]).clamp_min(0.002)
        colour = f ** (-(1.2 * self.rand(n, 1) - 0.1))
        x = torch.fft.irfft(white * colour, self.size)
        return x / x.square().mean(1, keepdim=True).sqrt()

    def stretch(self, waves: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Speed and pitch together, by resampling in the frequency domain, then cut or repeated."""
        out = waves.clone()
        for i in torch.nonzero(factor != 1).flatten().tolist():
            size = int(self.size * float(factor[i])) // 200 * 200
            spectrum = torch.fft.rfft(waves[i])
            y = torch.fft.irfft(F.pad(spectrum, (0, max(0, size // 2 + 1 - len(spectrum))))[: size // 2 + 1], size) * (size / self.size)
            out[i] = torch.cat([y, y])[: self.size]
        return out

    def __call__(self, waves: torch.Tensor, twins: torch.Tensor, unstretched: torch.Tensor | None = None) -> torch.Tensor:
        """`unstretched`, [pairs]: where times have to stay as they are."""
        n = len(waves)
        x = waves.float() / 32768
        x = x - x.mean(1, keepdim=True)

        steps = torch.tensor([0.9, 0.94, 0.97, 1.03, 1.06, 1.1])
        factor = steps[(self.rand(n) * 6).long().clamp_max(5)]
        factor = torch.where(self.rand(n) < 0.3, factor, torch.ones(n))
        if unstretched is not None:
            factor[torch.cat([unstretched, unstretched])] = 1
        x = self.stretch(x, self.like_twins(factor, twins))

        drive = self.like_twins((self.rand(n, 1) < 0.08) * (5 + 25 * self.rand(n, 1)), twins)
        x = torch.where(drive > 0, torch.tanh(x * drive) / drive.clamp_min(1), x)

        response = self.filters(n).to(torch.complex64)
        roomy = self.rand(n) < 0.2
        if roomy.any():
            response[roomy] = response[roomy] * self.rooms(int(roomy.sum()))
        response = self.like_twins(response, twins)
        x = torch.fft.irfft(torch.fft.rfft(x, self.padded) * response, self.padded)[:, : self.size]

        level = x.square().mean(1, keepdim=True).sqrt()
        loud = self.rand(n, 1) < 0.35
        snr = torch.where(loud, 6 + 24 * self.rand(n, 1), 30 + 30 * self.rand(n, 1))
        noise = self.noise(n)
        # every fifth time, other voices in place of noise; drawn from both classes
        babble = self.rand(n, 1) < 0.2
        others = x.roll(3, 0) + x.roll(7, 0) + x.roll(11, 0)
        others = others / others.square().mean(1, keepdim=True).sqrt().clamp_min(1e-6)
        noise = torch.where(babble & loud, others, noise)
        snr = torch.where(babble & loud, snr + 5, snr)
        snr, noise = self.like_twins(snr, twins), self.like_twins(noise, twins)
        return x + noise * level * 10 ** (-snr / 20)


def mask(features: torch.Tensor, frontend: nn.Module, g: torch.Generator) -> torch.Tensor:
    """Bands and stretches of time left out."""
    x = features.clone()
    for i in range(len(x)):
        for axis, widest in ((-2, frontend.MASK_BANDS), (-1, frontend.MASK_FRAMES)):
            if torch.rand(1, generator=g) < 0.5:
                w = int(torch.randint(1, widest, (1,), generator=g))
                s = int(torch.randint(0, x.shape[axis] - w, (1,), generator=g))
                x[i].narrow(axis, s, w).zero_()
    return x


class Stream:
    """Batches of features made ahead in threads; batch k is the same whatever the timing."""

    def __init__(self, cache: Cache, frontend: type, pairs: int, seed: int, first: int, threads: int, left_out: tuple[str, ...] = (), last=None) -> None:
        self.cache, self.frontend, self.pairs, self.seed, self.left_out = cache, frontend, pairs, seed, left_out
        self.queues = [Queue(maxsize=3) for _ in range(threads)]
        self.first, self.last = first, last
        for i, queue in enumerate(self.queues):
            threading.Thread(target=self.work, args=(first + i, threads, queue), daemon=True).start()

    def work(self, k: int, step: int, queue: Queue) -> None:
        frontend = self.frontend()
        sampler = Sampler(self.cache, 0, self.left_out)
        while self.last is None or k < self.last:
            sampler.rng = np.random.default_rng([self.seed, k])
            sampler.size = int(sampler.rng.choice([c for _, c in CROPS], p=[p for p, _ in CROPS]))
            augment = Augment(self.seed * 1_000_003 + k, sampler.size)
            waves, twins = sampler.batch(self.pairs)
            touched, spans = sampler.splice(waves, twins)
            with torch.no_grad():
                sound = augment(torch.from_numpy(waves), torch.from_numpy(twins), torch.from_numpy(touched))
                features = mask(frontend(sound), frontend, augment.g)
            queue.put((features, torch.from_numpy(spans)))
            k += step

    def batch(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features, and from where to where each window is fake, [n, 2] samples."""
        return self.queues[(k - self.first) % len(self.queues)].get()


def eer(real: np.ndarray, fake: np.ndarray) -> float:
    """Equal error rate of scores of which the higher mean fake."""
    scores = np.concatenate([real, fake])
    labels = np.concatenate([np.zeros(len(real)), np.ones(len(fake))])[np.argsort(scores, kind="stable")]
    missed = np.cumsum(labels) / len(fake)
    alarms = 1 - np.cumsum(1 - labels) / len(real)
    at = np.argmin(np.abs(missed - alarms))
    return float((missed[at] + alarms[at]) / 2)


@torch.no_grad()
def score(model: nn.Module, waves: list[np.ndarray], device: str, batch: int = 16) -> np.ndarray:
    model.eval()
    frontend = model.frontend().to(device)
    out = []
    for i in range(0, len(waves), batch):
        x = torch.from_numpy(np.stack(waves[i : i + batch])).to(device)
        x = x.float() / 32768 if x.dtype == torch.int16 else x.float()
        out.append(model(frontend(x)).float().cpu().numpy())
    return np.concatenate(out)


def dev_report(model: nn.Module, cache: Cache, device: str) -> dict:
    clips = [c for c in cache.clips if c["split"] == "dev"]
    report = {}
    if not clips:
        return report
    for channel in ("clean", "opus_16k", "g711"):
        s = score(model, [centre(cache.wave(c, channel)) for c in clips], device)
        real = np.array([c["label"] == 0 for c in clips])
        report[f"dev_{channel}"] = round(eer(s[real], s[~real]), 4)
        if channel == "clean":
            for family in sorted({c["family"] for c in clips if c["label"]}):
                member = np.array([c["family"] == family for c in clips])
                report[f"dev_{family}"] = round(eer(s[real], s[member]), 4)
    return report


def kept_tokens(features: torch.Tensor, share: float, step: int) -> torch.Tensor:
    """Which tokens are shown, [n, k]: hiding some (after PatchDropout, arXiv 2208.07220) makes steps
    faster, and no single cue enough."""
    tokens = features.shape[-1] // 2
    order = torch.rand(len(features), tokens, generator=torch.Generator().manual_seed(step)).argsort(1)
    return order[:, : max(1, round(share * tokens))].sort(1).values.to(features.device)


def fake_tokens(spans: torch.Tensor, tokens: int) -> torch.Tensor:
    """Which tokens are fake, [n, tokens] of 0 and 1; a token is centred on its first sample."""
    at = torch.arange(tokens, device=spans.device) * accurate.TOKEN
    return ((at >= spans[:, :1]) & (at < spans[:, 1:])).float()


@torch.inference_mode()
def fit_head(model: accurate.VoiceCloneNet, stream: Stream, device: str, batches: int) -> None:
    """Starts the head as a logistic regression on the frozen base's features, strongly regularised:
    the tuning then begins from what the base can tell by itself."""
    model.eval()
    found, labels = [], []
    for k in range(batches):
        x = stream.batch(k)[0].to(device)
        with torch.autocast(device, torch.bfloat16):
            found.append(model.embed(x).float().cpu())
        labels.append(np.repeat([0, 1], len(x) // 2))
    x, y = torch.cat(found).double().numpy(), np.concatenate(labels)
    mean, spread = x.mean(0), x.std(0) + 1e-6
    fit = LogisticRegression(C=0.003, max_iter=300).fit((x - mean) / spread, y)
    weight = fit.coef_[0] / spread
    model.classifier.weight.copy_(torch.from_numpy(weight)[None])
    model.classifier.bias.fill_(float(fit.intercept_[0] - weight @ mean))
    print(json.dumps({"head": "fitted", "windows": len(y), "accuracy_on_them": round(float(fit.score((x - mean) / spread, y)), 4)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="fast", choices=TIERS)
    parser.add_argument("--base", type=Path, help="accurate: the weights that scripts/setup installs")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--pairs", type=int, default=20, help="of windows in a batch")
    parser.add_argument("--lr", type=float, help="peak rate; default: 4e-3 for fast, 5e-4 for accurate")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=0, help="stop cleanly after so long; the schedule follows the clock then")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--keep", type=float, default=1.0, help="accurate: share of the tokens shown until --keep-until")
    parser.add_argument("--keep-until", type=float, default=0.7, help="share of the run")
    parser.add_argument("--head-batches", type=int, default=60, help="accurate: batches that the head starts from")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--average", type=float, default=0.998, help="what each step keeps of the running average")
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints and looks at the dev clips")
    parser.add_argument("--leave-out", nargs="*", default=[], help="generator families that this run is not to hear: the dev clips then tell how it does on them")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.run.mkdir(parents=True, exist_ok=True)
    cache = Cache(args.cache)
    unknown = set(args.leave_out) - {c["family"] for c in cache.clips}
    if unknown:
        parser.error(f"no clip in {args.cache} is of {', '.join(sorted(unknown))}")
    net, peak = TIERS[args.tier], args.lr or PEAK[args.tier]
    model = net.VoiceCloneNet(dropout=args.dropout)
    checkpoint = args.run / "last.pt"
    if args.tier == "accurate":
        if args.base is None:
            parser.error("tier accurate needs --base")
        accurate.load_base(model, args.base)
    model = model.to(device, memory_format=torch.channels_last)
    if args.tier == "accurate" and not (args.resume and checkpoint.exists()):
        # Batches of a stream of their own, which training doesn't see again.
        fit_head(model, Stream(cache, model.frontend, args.pairs, args.seed + 1000, 0, 1, tuple(args.leave_out), args.head_batches), device, args.head_batches)
    average = net.VoiceCloneNet(dropout=args.dropout).to(device, memory_format=torch.channels_last)
    average.load_state_dict(model.state_dict())
    tuned = [p for p in model.parameters() if p.requires_grad]
    decay = [p for p in tuned if p.dim() > 1]
    plain = [p for p in tuned if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}], lr=peak)
    step, spent = 0, 0.0
    if args.resume and checkpoint.exists():
        kept = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(kept["model"])
        average.load_state_dict(kept["average"])
        optimizer.load_state_dict(kept["optimizer"])
        step, spent = kept["step"], kept["spent"]
        if "rng" in kept:  # checkpoints of older versions have none; it is for dropout only
            torch.set_rng_state(kept["rng"].cpu())

    def save() -> None:
        state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent, "rng": torch.get_rng_state()}
        torch.save(state, f"{checkpoint}.new")
        os.replace(f"{checkpoint}.new", checkpoint)

    stream = Stream(cache, model.frontend, args.pairs, args.seed, step, 1, tuple(args.leave_out))
    target = torch.cat([torch.zeros(args.pairs), torch.ones(args.pairs)]).to(device)
    smooth = target * 0.94 + 0.03
    log = (args.run / "log.jsonl").open("a")
    began, losses, hits = time.time() - spent, [], []
    progress = spent / (60 * args.minutes) if args.minutes else step / args.steps
    while progress < 1:
        spent = time.time() - began
        progress = min(1.0, spent / (60 * args.minutes)) if args.minutes else (step + 1) / args.steps
        rate = progress / 0.1 if progress < 0.1 else 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))
        for group in optimizer.param_groups:
            group["lr"] = peak * max(rate, 0.002)
        x, spans = stream.batch(step)
        x = x.to(device)
        model.train()
        shown = ()
        if args.tier == "accurate" and args.keep < 1 and progress < args.keep_until:
            shown = (kept_tokens(x, args.keep, step),)
        with torch.autocast(device, torch.bfloat16):
            logits, local = model.both(x, *shown) if args.tier == "accurate" else (model(x), None)
        logits = logits.float()
        loss = F.binary_cross_entropy_with_logits(logits, smooth)
        if local is not None:
            fake = fake_tokens(spans.to(device), x.shape[-1] // 2)
            fake = fake.gather(1, shown[0]) if shown else fake
            loss = loss + LOCAL * F.binary_cross_entropy_with_logits(local.float(), 0.03 + 0.94 * fake)
        # a fake has to stand above the real one beside it
        loss = loss + 0.3 * F.softplus(logits[: args.pairs] - logits[args.pairs :]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        step += 1
        keep = min(args.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for a, b in zip(average.state_dict().values(), model.state_dict().values()):
                if a.dtype.is_floating_point:
                    a.lerp_(b, 1 - keep)
                else:
                    a.copy_(b)
        losses.append(float(loss.detach()))
        hits.append(float(((logits > 0) == (target > 0.5)).float().mean()))
        if step % 50 == 0 or step % args.every == 0:
            line = {"step": step, "progress": round(progress, 4), "loss": round(float(np.mean(losses)), 4), "accuracy": round(float(np.mean(hits)), 4), "seconds": round(spent)}
            losses, hits = [], []
            if step % args.every == 0:
                line |= dev_report(average, cache, device)
                save()
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
    save()
    print(json.dumps({"step": step} | dev_report(average, cache, device)), flush=True)


if __name__ == "__main__":
    main()
