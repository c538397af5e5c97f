"""Writes the golden file that the Rust tests compare with: made-up signals, no recordings.

    python golden.py --weights ../../../weights/voice-clone-fast.safetensors \
        --out ../../../tests/golden/voice_clone_fast.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from frontend import SAMPLE_RATE, WINDOW, Frontend
from model import VoiceCloneNet


def signals(seed: int = 20) -> np.ndarray:
    """A gliding harmonic tone in syllables, and a buzz through noise with a low-pass."""
    rng = np.random.default_rng(seed)
    t = np.arange(WINDOW) / SAMPLE_RATE
    f0 = 140 + 30 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    voiced = sum(np.cos(k * phase + k) / k for k in range(1, 45))
    syllables = np.clip(np.sin(2 * np.pi * 2.1 * t), 0, None) ** 0.5
    first = 0.1 * voiced * syllables + 0.002 * rng.standard_normal(WINDOW) + 0.01
    buzz = sum(np.sin(2 * np.pi * 105 * k * t) / k for k in range(1, 30))
    smooth = np.convolve(rng.standard_normal(WINDOW), np.ones(5) / 5, mode="same")
    second = 0.02 * buzz + 0.01 * smooth * (1 + np.sin(2 * np.pi * 4 * t))
    return np.stack([first, second]).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    torch.set_num_threads(1)
    model = VoiceCloneNet()
    state = {k: v.float() for k, v in load_file(args.weights).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or [k for k in missing if not k.endswith("num_batches_tracked")]:
        raise SystemExit(f"the weights do not fit: {missing} {unexpected}")
    model.eval()
    wave = torch.from_numpy(signals())
    with torch.no_grad():
        features = Frontend()(wave)
        output = model(features)
    tensors = {"wave": wave, "features": features, "output": output}
    save_file({k: v.contiguous() for k, v in tensors.items()}, args.out)
    print("features", tuple(features.shape), "output", output.tolist())


if __name__ == "__main__":
    main()
