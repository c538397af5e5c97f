#!/usr/bin/env python3
"""Takes the speaker network out of the package that carries it.

    pip download --no-deps Resemblyzer==0.1.4
    convert_speaker.py --wheel Resemblyzer-0.1.4-py3-none-any.whl --weights ../../weights

Writes speaker-encoder.safetensors in f16 with the package's licence, and its block of manifest.toml
through scripts/train/publish.py. What is in the wheel is checked by sha256 first. Needs the Python
packages numpy, torch and safetensors.
"""

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

NAME = "speaker-encoder"
FILE = "resemblyzer/pretrained.pt"
SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
LICENCE = "Resemblyzer-0.1.4.dist-info/LICENSE"
META = """network = "ge2e-lstm"
input = "2 s of speech at 16 kHz mono; power in 40 mel bands, see docs/models/speaker.md"
licence = "Apache-2.0"
licence_file = "LICENSE-speaker-encoder.txt"
origin = "Resemblyzer 0.1.4 by Resemble AI, pretrained.pt from PyPI Resemblyzer 0.1.4, sha256 {sha256}; here in f16, the two biases of each layer added up"
training_data = ["LibriSpeech", "VoxCeleb1", "VoxCeleb2"]
"""


def checkpoint(wheel):
    """The tensors of the package, by its names."""
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(FILE)
        licence = archive.read(LICENCE)
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        sys.exit(f"{wheel}: {FILE}: sha256 {found}, expected {SHA256}")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)["model_state"], licence


def tensors(state):
    """Under our names; what only training needs is left out."""
    out = {"output.weight": state["linear.weight"], "output.bias": state["linear.bias"]}
    for layer in range(3):
        out[f"lstm.{layer}.input.weight"] = state[f"lstm.weight_ih_l{layer}"]
        out[f"lstm.{layer}.recurrent.weight"] = state[f"lstm.weight_hh_l{layer}"]
        out[f"lstm.{layer}.input.bias"] = state[f"lstm.bias_ih_l{layer}"] + state[f"lstm.bias_hh_l{layer}"]
    return {name: tensor.half().contiguous() for name, tensor in out.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True, help="the package Resemblyzer 0.1.4")
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--weights", type=Path, default=root / "weights")
    args = parser.parse_args()
    state, licence = checkpoint(args.wheel)
    (args.weights / "LICENSE-speaker-encoder.txt").write_bytes(licence.rstrip() + b"\n")
    with tempfile.TemporaryDirectory() as folder:
        file, meta = Path(folder, f"{NAME}.safetensors"), Path(folder, "meta.toml")
        save_file(tensors(state), file)
        meta.write_text(META.format(sha256=SHA256), encoding="utf-8")
        publish = root / "scripts" / "train" / "publish.py"
        command = [sys.executable, publish, "--name", NAME, "--file", file, "--meta", meta]
        subprocess.run([*command, "--weights", args.weights], check=True)


if __name__ == "__main__":
    main()
