"""Small neural vocoders and a neural codec of our own, trained on the real training speech.

Published vocoders are few and their weights mostly not free; these are ours, and
differing architectures, mel settings, losses and training lengths leave differing
traces. Four architectures:

    vocos  mel -> ConvNeXt blocks at frame rate -> magnitude and phase -> inverse STFT
    nsf    mel + harmonic source and noise, each filtered in the STFT domain by predicted filters
    mbgan  mel -> transposed convolutions and residual blocks -> 4 subbands -> synthesis filterbank
    vq     spectrum -> ConvNeXt encoder -> residual vector quantizers -> ConvNeXt decoder -> inverse STFT

    python vocoder.py --data ../../../../shared/data/speech --run RUN --variant vocos-a --minutes 8
    python vocoder.py ... --variant nsf-a --minutes 6 --plain 0.6
    python vocoder.py ... --variant vocos-b --start vocos-a-gan --minutes 9 --plain 0.6

Some 500 to 800 steps on a CPU are enough for `vocos` and `nsf`: medians of the copies' mel
error by copy_quality.py are 3.0 to 4.9 dB (WORLD 4.3, MelGAN 4.2, Griffin-Lim 1.4). `vq` is
noise after 450 steps (8.4 dB) and `mbgan` was stopped after some 200 (spectral loss 6.0):
both need longer training; no copies were made with them.

RUN gets VARIANT-plain.pt (spectral losses alone) and VARIANT-gan.pt (after the
adversarial phase); `copy_synthesis.py --family vocos --vocoders RUN` uses them.
A run by the clock doesn't repeat exactly; one with `--steps` does, up to rounding.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "train" / "voice_clone"))
from common import RATE, pyworld, read_index  # noqa: E402

LEVEL = 0.07
# n_fft and hop of the mel spectrogram (and of the inverse STFT), bands, highest frequency
VARIANTS = {
    "vocos-a": dict(n_fft=800, hop=200, mels=80, high=8000, dim=192, blocks=6),
    "vocos-b": dict(n_fft=1024, hop=256, mels=100, high=8000, dim=192, blocks=6),
    "nsf-a": dict(n_fft=640, hop=160, mels=64, high=7000, dim=128, blocks=4),
    "nsf-b": dict(n_fft=1024, hop=256, mels=80, high=8000, dim=128, blocks=4),
    "mbgan-a": dict(n_fft=1024, hop=256, mels=80, high=8000, dim=128, rates=(8, 4, 2)),
    "mbgan-b": dict(n_fft=1024, hop=200, mels=100, high=7600, dim=128, rates=(5, 5, 2)),
    "vq-a": dict(n_fft=640, hop=320, dim=160, blocks=3, codebooks=8, entries=512),
    "vq-b": dict(n_fft=512, hop=256, dim=160, blocks=3, codebooks=4, entries=512),
}


def mel_matrix(n_fft: int, bands: int, high: float) -> torch.Tensor:
    """Triangles equally spaced on the HTK mel scale, unit area."""
    def mel(f):
        return 2595 * np.log10(1 + f / 700)

    hz = 700 * (10 ** (np.linspace(mel(30.0), mel(high), bands + 2) / 2595) - 1)
    # narrower than a bin, a triangle could miss every bin
    edges = np.stack([np.minimum(hz[:-2], hz[1:-1] - RATE / n_fft), hz[1:-1], np.maximum(hz[2:], hz[1:-1] + RATE / n_fft)])
    bins = np.arange(n_fft // 2 + 1) * RATE / n_fft
    up = (bins[None] - edges[0][:, None]) / (edges[1] - edges[0])[:, None]
    down = (edges[2][:, None] - bins[None]) / (edges[2] - edges[1])[:, None]
    bank = np.maximum(0, np.minimum(up, down))
    return torch.from_numpy((bank / bank.sum(1, keepdims=True)).astype(np.float32))


def spectrum(x: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    return torch.stft(x, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)


def magnitude(x: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    spec = spectrum(x, n_fft, hop)
    return (spec.real**2 + spec.imag**2 + 1e-9).sqrt()


class Block(nn.Module):
    """ConvNeXt in one dimension."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.spread = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.up, self.down = nn.Linear(dim, 3 * dim), nn.Linear(3 * dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), 0.2))

    def forward(self, x):
        y = self.norm(self.spread(x).transpose(1, 2))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).transpose(1, 2)


class Trunk(nn.Sequential):
    def __init__(self, inputs: int, dim: int, blocks: int, outputs: int) -> None:
        super().__init__(
            nn.Conv1d(inputs, dim, 7, padding=3), *[Block(dim) for _ in range(blocks)],
            nn.GroupNorm(1, dim), nn.Conv1d(dim, outputs, 1),
        )


class Vocoder(nn.Module):
    """Base: what is common to networks that start from a mel spectrogram."""

    def __init__(self, n_fft, hop, mels=0, high=8000.0) -> None:
        super().__init__()
        self.n_fft, self.hop, self.bins = n_fft, hop, n_fft // 2 + 1
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        if mels:
            self.register_buffer("bank", mel_matrix(n_fft, mels, high), persistent=False)

    def mel(self, x):
        return (self.bank @ magnitude(x, self.n_fft, self.hop)).clamp_min(1e-4).log() * 0.5 + 1

    def wave(self, spec, length):
        return torch.istft(spec, self.n_fft, self.hop, window=self.window, length=length)


class Vocos(Vocoder):
    def __init__(self, n_fft, hop, mels, high, dim, blocks) -> None:
        super().__init__(n_fft, hop, mels, high)
        self.trunk = Trunk(mels, dim, blocks, 2 * self.bins)

    def forward(self, x, f0):
        size, phase = self.trunk(self.mel(x)).float().split(self.bins, 1)
        size = size.clamp(max=5.0).exp()
        return self.wave(torch.complex(size * phase.cos(), size * phase.sin()), x.shape[-1]), 0.0


class Nsf(Vocoder):
    """Harmonics of the fundamental and noise, each through a filter that changes from frame to frame."""

    def __init__(self, n_fft, hop, mels, high, dim, blocks) -> None:
        super().__init__(n_fft, hop, mels, high)
        self.trunk = Trunk(mels + 2, dim, blocks, 3 * self.bins)

    def forward(self, x, f0):
        voiced = (f0 > 0).float()
        f = f0.clamp_min(50.0)
        start = torch.rand(len(f), 1)
        turns = ((torch.cumsum(f.double() / RATE, 1) + start) % 1.0).float()
        # closed form of the sum of all harmonics under 7.8 kHz (Dirichlet kernel)
        count = (7800 / f).floor()
        half = np.pi * turns
        kernel = torch.sin((2 * count + 1) * half) / (2 * torch.sin(half) + 1e-6 * (half.sin() == 0)) - 0.5
        pulses = voiced * kernel.clamp(-200, 200) * (2 / count).sqrt()
        s = spectrum(pulses, self.n_fft, self.hop)
        n = spectrum(torch.randn_like(x), self.n_fft, self.hop)
        pitch = torch.stack([voiced[:, :: self.hop], (f[:, :: self.hop] / 150).log()], 1)
        mel = self.mel(x)
        pitch = F.pad(pitch, (0, mel.shape[-1] - pitch.shape[-1]), mode="replicate")
        a, p, b = self.trunk(torch.cat([mel, pitch], 1)).float().split(self.bins, 1)
        a, b = (a - 3).clamp(max=4).exp(), (b - 4).clamp(max=4).exp()
        return self.wave(torch.complex(a * p.cos(), a * p.sin()) * s + b * n, x.shape[-1]), 0.0


class Residual(nn.Module):
    """The residual block of HiFi-GAN with two kernel sizes, summed."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Conv1d(dim, dim, k, padding=(k // 2) * d, dilation=d) for d in (1, 3)) for k in (3, 7)
        )

    def forward(self, x):
        out = 0.0
        for branch in self.layers:
            y = x
            for layer in branch:
                y = y + layer(F.leaky_relu(y, 0.1))
            out = out + y
        return out * 0.5


class MultiBand(Vocoder):
    def __init__(self, n_fft, hop, mels, high, dim, rates) -> None:
        super().__init__(n_fft, hop, mels, high)
        layers: list[nn.Module] = [nn.Conv1d(mels, dim, 7, padding=3)]
        for r in rates:
            layers += [
                nn.LeakyReLU(0.1),
                nn.ConvTranspose1d(dim, dim // 2, 2 * r, r, r // 2 + r % 2, output_padding=r % 2),
                Residual(dim // 2),
            ]
            dim //= 2
        self.net = nn.Sequential(*layers, nn.LeakyReLU(0.1), nn.Conv1d(dim, 4, 7, padding=3))
        self.register_buffer("bands", cosine_filterbank(), persistent=False)

    def forward(self, x, f0):
        y = self.net(self.mel(x)).float()
        y = F.conv_transpose1d(y, 4 * self.bands, stride=4, padding=30)[:, 0]
        # frame t stands for samples around t*hop, the convolutions' t-th block begins there
        y = F.pad(y, (0, max(0, x.shape[-1] - y.shape[-1])))
        return y[:, : x.shape[-1]], 0.0


def cosine_filterbank(taps: int = 62, cutoff: float = 0.142, beta: float = 9.0) -> torch.Tensor:
    """Synthesis filters of a 4-band pseudo-QMF bank (Kaiser prototype, as in multi-band MelGAN)."""
    n = np.arange(taps + 1) - taps / 2
    prototype = cutoff * np.sinc(cutoff * n) * np.kaiser(taps + 1, beta)
    k = np.arange(4)[:, None]
    bank = 2 * prototype * np.cos((2 * k + 1) * np.pi / 8 * n - (-1.0) ** k * np.pi / 4)
    return torch.from_numpy(bank.astype(np.float32))[:, None]


class Quantizer(nn.Module):
    """Residual vector quantizers; code books learn by the commitment loss in both directions."""

    def __init__(self, dim: int, codebooks: int, entries: int, width: int = 16) -> None:
        super().__init__()
        self.into = nn.ModuleList(nn.Linear(dim, width) for _ in range(codebooks))
        self.back = nn.ModuleList(nn.Linear(width, dim) for _ in range(codebooks))
        self.books = nn.ParameterList(nn.Parameter(torch.randn(entries, width)) for _ in range(codebooks))

    def forward(self, x):
        x = x.transpose(1, 2)
        out, loss, rest = 0.0, 0.0, x
        # in training the later quantizers are dropped at random, as in SoundStream
        count = int(torch.randint(2, len(self.books) + 1, ())) if self.training else len(self.books)
        for into, back, book in zip(self.into[:count], self.back, self.books):
            z = into(rest)
            unit, units = F.normalize(z, dim=-1), F.normalize(book, dim=-1)
            code = units[(unit @ units.T).argmax(-1)]
            loss = loss + ((unit.detach() - code) ** 2).mean() + 0.25 * ((unit - code.detach()) ** 2).mean()
            y = back(unit + (code - unit).detach())
            out, rest = out + y, rest - y
        return out.transpose(1, 2), loss


class Codec(Vocoder):
    def __init__(self, n_fft, hop, dim, blocks, codebooks, entries) -> None:
        super().__init__(n_fft, hop)
        self.encoder = Trunk(3 * self.bins, dim, blocks, dim)
        self.quantizer = Quantizer(dim, codebooks, entries)
        self.trunk = Trunk(dim, dim, blocks + 1, 2 * self.bins)

    def forward(self, x, f0):
        spec = spectrum(x, self.n_fft, self.hop)
        size = (spec.real**2 + spec.imag**2 + 1e-8).sqrt()
        z = self.encoder(torch.cat([size.log() * 0.4 + 1, spec.real / size.sqrt(), spec.imag / size.sqrt()], 1))
        z, loss = self.quantizer(z.float())
        size, phase = self.trunk(z).float().split(self.bins, 1)
        size = size.clamp(max=5.0).exp()
        return self.wave(torch.complex(size * phase.cos(), size * phase.sin()), x.shape[-1]), loss


def build(variant: str) -> Vocoder:
    kind = {"vocos": Vocos, "nsf": Nsf, "mbgan": MultiBand, "vq": Codec}[variant.split("-")[0]]
    return kind(**VARIANTS[variant])


class Discriminators(nn.Module):
    """Spectrograms at two resolutions (UnivNet) and two periods (HiFi-GAN), small."""

    RESOLUTIONS, PERIODS = (320, 1024), (3, 5)

    def __init__(self) -> None:
        super().__init__()

        def stack(channels, kernel, stride, first):
            sizes = [first, *channels]
            return nn.ModuleList(
                [nn.Conv2d(a, b, kernel, stride, (kernel[0] // 2, kernel[1] // 2)) for a, b in zip(sizes, sizes[1:])]
                + [nn.Conv2d(sizes[-1], 1, (3, 1), padding=(1, 0))]
            )

        self.spectral = nn.ModuleList(stack((8, 16, 16), (5, 3), (2, 2), 1) for _ in self.RESOLUTIONS)
        self.periodic = nn.ModuleList(stack((8, 16, 32), (5, 1), (3, 1), 1) for _ in self.PERIODS)

    def forward(self, x):
        maps = []
        for n, net in zip(self.RESOLUTIONS, self.spectral):
            maps.append(self.run(net, magnitude(x, n, n // 4).log()[:, None] * 0.3 + 0.5))
        for p, net in zip(self.PERIODS, self.periodic):
            y = x[:, : x.shape[1] // p * p]
            maps.append(self.run(net, 5 * y.reshape(len(x), 1, -1, p)))
        return maps

    @staticmethod
    def run(net, y):
        out = []
        for layer in net[:-1]:
            y = F.leaky_relu(layer(y), 0.1)
            out.append(y)
        return [*out, net[-1](y)]


BANKS = {n: mel_matrix(n, b, 8000.0) for n, b in ((256, 24), (512, 48), (1024, 80), (2048, 120))}


def spectral_loss(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Log mel and log magnitude at several resolutions, and spectral convergence."""
    loss = 0.0
    for n, bank in BANKS.items():
        a, b = magnitude(y, n, n // 4), magnitude(x, n, n // 4)
        loss = loss + F.l1_loss((bank @ a).clamp_min(1e-4).log(), (bank @ b).clamp_min(1e-4).log())
        if n < 2048:
            loss = loss + 0.5 * F.l1_loss(a.clamp_min(1e-3).log(), b.clamp_min(1e-3).log())
            loss = loss + 0.3 * (a - b).norm() / b.norm()
    return loss


def pitch_of(x: np.ndarray) -> np.ndarray:
    """Fundamental frequency for each sample, 0 where unvoiced (WORLD's DIO)."""
    world = pyworld()
    x = x.astype(np.float64)
    f0, t = world.dio(x, RATE)
    f0 = world.stonemask(x, f0, t, RATE)
    at = np.arange(len(x)) / RATE
    voiced = f0[np.minimum((at * 200 + 0.5).astype(int), len(f0) - 1)] > 0
    # between voiced frames the pitch is interpolated, across unvoiced ones it is held
    known = np.flatnonzero(f0 > 0)
    if len(known) == 0:
        return np.zeros(len(x), np.float32)
    return (np.interp(at, t[known], f0[known]) * voiced).astype(np.float32)


def normalise(wave: np.ndarray) -> np.ndarray:
    x = wave.astype(np.float32) / 32768
    x = x - x.mean()
    return x * (LEVEL / max(float(np.sqrt(np.mean(x**2))), 1e-5))


def load(path: Path) -> Vocoder:
    net = build(path.stem.rsplit("-", 1)[0])
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.train(False)


def resynthesize(net: Vocoder, x: np.ndarray, seed: int) -> np.ndarray:
    """x: float sound at 16 kHz; gives as many samples."""
    torch.manual_seed(seed)
    f0 = pitch_of(x) if isinstance(net, Nsf) else np.zeros(len(x), np.float32)
    x = x * (LEVEL / max(float(np.sqrt(np.mean(x**2))), 1e-5))
    with torch.no_grad():
        y, _ = net(torch.from_numpy(x)[None], torch.from_numpy(f0)[None])
    return y[0].numpy()


def training_waves(data: Path) -> list[np.ndarray]:
    """Real speech that the detector may train on, and nothing else."""
    from data import corpus_and_split

    rows = [r for r in read_index(data) if r["label"] == "bonafide"]
    return [normalise(r["wave"]) for r in rows if corpus_and_split(r)[1] == "train"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--variant", required=True, choices=list(VARIANTS))
    parser.add_argument("--start", default="", help="snapshot whose fitting weights are taken over")
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--plain", type=float, default=0.5, help="share of the training before the adversarial phase")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.minutes and not args.steps:
        parser.error("--minutes or --steps is needed")
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    waves = training_waves(args.data)
    pitch = [pitch_of(w) if args.variant.startswith("nsf") else np.zeros_like(w) for w in waves]
    size = int(args.seconds * RATE) // 1600 * 1600
    net, judge = build(args.variant), Discriminators()
    if args.start:
        old = torch.load(args.run / f"{args.start}.pt", map_location="cpu", weights_only=True)
        mine = net.state_dict()
        fit = {k: v for k, v in old.items() if k in mine and mine[k].shape == v.shape}
        net.load_state_dict({**mine, **fit})
        print(json.dumps({"taken over": len(fit), "of": len(mine)}))
    opt = torch.optim.AdamW(net.parameters(), args.lr, betas=(0.8, 0.99), weight_decay=0.01)
    opt_judge = torch.optim.AdamW(judge.parameters(), 5e-4, betas=(0.8, 0.99), weight_decay=0.01)
    args.run.mkdir(parents=True, exist_ok=True)
    begin, step, sums, plain_saved = time.time(), 0, np.zeros(3), False
    while True:
        done = step / args.steps if args.steps else (time.time() - begin) / (60 * args.minutes)
        adversarial = done >= args.plain
        if adversarial and not plain_saved:
            torch.save(net.state_dict(), args.run / f"{args.variant}-plain.pt")
            plain_saved = True
        if done >= 1:
            break
        for group in opt.param_groups:
            group["lr"] = args.lr * min(1.0, (step + 1) / 50) * (1 - 0.9 * done)
        picks = rng.integers(len(waves), size=args.batch)
        cuts = [(i, int(rng.integers(len(waves[i]) - size))) for i in picks if len(waves[i]) > size + 1]
        gain = 10 ** (rng.uniform(-8, 4, (len(cuts), 1)) / 20).astype(np.float32)
        x = torch.from_numpy(np.stack([waves[i][a : a + size] for i, a in cuts]) * gain)
        f0 = torch.from_numpy(np.stack([pitch[i][a : a + size] for i, a in cuts]))
        y, extra = net(x, f0)
        loss = main_loss = spectral_loss(y, x)
        if torch.is_tensor(extra):
            loss = loss + extra
        if adversarial:
            true, false = judge(x), judge(y.detach())
            cost = sum(F.relu(1 - t[-1]).mean() + F.relu(1 + f[-1]).mean() for t, f in zip(true, false))
            opt_judge.zero_grad()
            cost.backward()
            opt_judge.step()
            sums[1] += float(cost.detach())
            false = judge(y)
            fool = sum(-f[-1].mean() for f in false)
            match = sum(
                F.l1_loss(b, a.detach()) / (a.detach().abs().mean() + 1e-4)
                for t, f in zip(true, false) for a, b in zip(t[:-1], f[:-1])
            )
            loss = 2 * loss + 0.3 * fool + 0.15 * match
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        opt.step()
        step += 1
        sums[0] += float(main_loss.detach())
        sums[2] += float(extra)
        if step % 50 == 0:
            spectral, cost, extra = sums / 50
            line = {"step": step, "s": round(time.time() - begin), "spectral": spectral, "judge": cost, "quantizer": extra}
            print(json.dumps(line), flush=True)
            sums[:] = 0
    torch.save(net.state_dict(), args.run / f"{args.variant}-gan.pt")


if __name__ == "__main__":
    main()
