"""Speech for the demo: real recordings joined, and a neural voice reading a text."""

import json
import os
import subprocess
import tempfile

import hibari
import numpy as np
import onnxruntime
import soundfile
from hibari.g2p import G2P
from scipy.signal import resample_poly

RATE = 16000


def read(path):
    samples, rate = soundfile.read(path, dtype="float64")
    if rate != RATE or samples.ndim != 1:
        raise SystemExit(f"{path}: 16 kHz mono expected")
    return samples


def trim(samples, threshold=0.006):
    """Cuts silence off both ends; the threshold is the RMS of 20 ms."""
    step = RATE // 50
    frames = samples[:len(samples) // step * step].reshape(-1, step)
    loud = np.nonzero(np.sqrt((frames ** 2).mean(1)) > threshold)[0]
    return samples[max(loud[0] - 3, 0) * step:(loud[-1] + 4) * step]


def fit(samples, seconds):
    """Exactly `seconds` long: cut with a 30 ms fade, or continued with its own quietest 200 ms."""
    want = int(seconds * RATE)
    if len(samples) >= want:
        out = samples[:want].copy()
        fade = int(0.03 * RATE)
        out[-fade:] *= np.linspace(1, 0, fade)
        return out
    step = RATE // 5
    quiet = min((samples[i:i + step] for i in range(0, len(samples) - step, step // 4)),
                key=lambda s: (s ** 2).mean())
    there_and_back = np.concatenate([quiet, quiet[::-1]])
    return np.concatenate([samples, np.resize(there_and_back, want - len(samples))])


def through_mp3(samples, rate):
    """The same channel as the recordings have been through: MP3 at 64 kbit/s, mono, 22.05 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        wav, mp3, back = (os.path.join(folder, n) for n in ("a.wav", "a.mp3", "b.wav"))
        soundfile.write(wav, samples, rate)
        for command in (["-i", wav, "-ar", "22050", "-c:a", "libmp3lame", "-b:a", "64k", mp3],
                        ["-i", mp3, "-ar", str(RATE), "-c:a", "pcm_s16le", back]):
            subprocess.run(["ffmpeg", "-v", "error", "-y", *command], check=True)
        return read(back)


def speak(model, voice, text, speed=1.0):
    """`text` read by Kokoro; `model` its ONNX file, `voice` its style vectors (f32[510, 256])."""
    with open(os.path.join(os.path.dirname(hibari.__file__), "assets", "vocab.json"), encoding="utf-8") as f:
        vocabulary = json.load(f)
    ids = [0, *[vocabulary[c] for c in G2P()(text) if c in vocabulary], 0]
    styles = np.fromfile(voice, np.float32).reshape(-1, 1, 256)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    onnxruntime.set_seed(1)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wave = session.run(None, {"input_ids": np.array([ids], np.int64), "style": styles[len(ids) - 2],
                              "speed": np.array([speed], np.float32)})[0].ravel()
    return through_mp3(wave, 24000)


def level(samples, like):
    """Scales `samples` to the RMS of `like`."""
    return samples * np.sqrt((like ** 2).mean() / (samples ** 2).mean())


def room(samples, rms=0.0025):
    """Adds a faint noise floor like the recordings', so that a silence of zeros does not give it away."""
    noise = np.random.default_rng(7).standard_normal(len(samples) + 4)
    noise = np.convolve(noise, np.ones(5) / 5, "valid")
    return samples + noise * rms / noise.std()
