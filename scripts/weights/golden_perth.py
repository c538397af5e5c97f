#!/usr/bin/env python3
"""Writes what PerTh's own package answers to made-up sound, marked by it and not.

    golden_perth.py --wheel resemble_perth-1.0.1-py3-none-any.whl --out ../../tests/golden

The package's code does all of it: marks the sound and reads it (librosa, torchaudio, PyTorch in f32).
Needs the Python packages librosa, numpy, PyYAML, safetensors, setuptools<81, torch and torchaudio,
and what golden_third_party.py imports.
"""

import argparse
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file


def package(wheel, folder):
    """The package's watermarker. It reads its weights from a folder, so the wheel is unpacked."""
    # The installed torchaudio may be built for another CUDA than torch; no GPU is used.
    torch.version.cuda = None
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    sys.path.insert(0, str(folder))
    from perth.perth_net.perth_net_implicit.perth_watermarker import PerthImplicitWatermarker

    return PerthImplicitWatermarker()


def main():
    from golden_third_party import speech_like

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True)
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--out", type=Path, default=root / "tests" / "golden")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        perth = package(args.wheel, Path(folder))
        plain = speech_like(seed=5)[:32000]
        marked = perth.apply_watermark(plain, 16000)
        waves = [plain, marked, np.float32(0.6) * plain + np.float32(0.4) * marked]
        # Half of it silent to the last bit.
        waves.append(np.where(np.arange(32000) < 16000, marked, 0))
        # As files hold it, and the Rust side too.
        waves = np.round(np.clip(np.stack(waves), -1, 1) * 32767).astype(np.float32) / np.float32(32768)
        scores = [perth.get_watermark(wave, 16000, round=False) for wave in waves]
        # Of another length than the rest.
        odd = perth.get_watermark(waves[1][3:-4444], 16000, round=False)
    print("scores", scores, odd)
    tensors = {
        "wave": waves,
        "score": np.array(scores, np.float32),
        "odd": np.array([odd], np.float32),
    }
    save_file(tensors, args.out / "perth.safetensors")


if __name__ == "__main__":
    main()
