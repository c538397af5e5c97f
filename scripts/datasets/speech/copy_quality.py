"""How close copies are to their recordings, family by family.

    python copy_quality.py --data ../../../../shared/data/speech --gen GEN --families fargan,hifigan --limit 40

Medians over the clips: mel error (mean absolute difference of 80 log mel bands, dB),
log-spectral distance (dB), lag (ms, from band envelopes) and how many lie beyond
5 ms, length ratio, level difference (dB), offset, and the share of energy above
7 kHz of copy and recording (dB), which tells a band limit.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from common import RATE, read_index
from copy_synthesis import envelopes, mel_matrix, stft_mag

BANK = mel_matrix(RATE, 1024, 80, 0.0, 8000.0)


def lag_ms(y: np.ndarray, x: np.ndarray) -> int:
    a, b = envelopes(x), envelopes(y)
    size = 2 * a.shape[1]
    cross = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size).sum(0)
    lags = np.r_[-150:151]
    return int(lags[np.argmax(cross[lags])])


def measure(y: np.ndarray, x: np.ndarray) -> list[float]:
    ratio, offset = len(y) / len(x), float(np.abs(y.mean()))
    n = min(len(x), len(y))
    x, y = x[:n] - x[:n].mean(), y[:n] - y[:n].mean()
    gap = 20 * np.log10(np.sqrt(np.mean(y**2)) / np.sqrt(np.mean(x**2)))
    x, y = x / np.sqrt(np.mean(x**2)) * 0.07, y / np.sqrt(np.mean(y**2)) * 0.07
    a, b = (stft_mag(torch.from_numpy(v), 1024, 256, 1024) for v in (x, y))
    loud = a.square().mean(0) > 1e-3 * a.square().mean()
    a, b = a[:, loud], b[:, loud]
    mel = 20 * ((BANK @ a).clamp_min(1e-5).log10() - (BANK @ b).clamp_min(1e-5).log10()).abs().mean()
    lsd = (20 * (a.clamp_min(1e-3).log10() - b.clamp_min(1e-3).log10())).square().mean(0).sqrt().mean()
    high = [float(10 * torch.log10(v[448:].square().sum() / v.square().sum() + 1e-9)) for v in (b, a)]
    return [float(mel), float(lsd), abs(lag_ms(y, x)), ratio, gap, offset, *high]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gen", type=Path, required=True)
    parser.add_argument("--families", required=True)
    parser.add_argument("--limit", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    real = {r["key"]: r["wave"] for r in read_index(args.data) if r["label"] == "bonafide"}
    print("family\tvariant\tclips\tmel dB\tLSD dB\tlag ms\tover 5 ms\tlength\tlevel dB\toffset\tabove 7k\tabove 7k real")
    for family in args.families.split(","):
        with (args.gen / f"{family}.tsv").open(newline="", encoding="utf-8") as f:
            rows = list(csv.DictReader(f, delimiter="\t"))
        rows = rows[:: max(1, len(rows) // args.limit)]
        variants: dict[str, list[list[float]]] = {}
        for row in rows:
            y, _ = sf.read(args.gen / row["file"], dtype="int16")
            x = real[row["source"]][: int(8.2 * RATE)]
            figures = measure(y.astype(np.float32) / 32768, x.astype(np.float32) / 32768)
            variants.setdefault("all", []).append(figures)
            if row["parameters"].startswith(("vocos-", "nsf-", "mbgan-", "vq-")):
                variants.setdefault(row["parameters"].split(":")[0], []).append(figures)
        for name, figures in variants.items():
            m = np.median(figures, axis=0)
            far = np.mean(np.array(figures)[:, 2] > 5)
            cells = [f"{m[0]:.2f}", f"{m[1]:.2f}", f"{m[2]:.0f}", f"{far:.2f}", f"{m[3]:.4f}", f"{m[4]:.2f}", f"{m[5]:.5f}"]
            print(family, name, len(figures), *cells, f"{m[6]:.1f}", f"{m[7]:.1f}", sep="\t", flush=True)


if __name__ == "__main__":
    main()
