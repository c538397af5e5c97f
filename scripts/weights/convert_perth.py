#!/usr/bin/env python3
"""Takes the detector of the sound watermark PerTh out of the package that carries it.

    pip download --no-deps resemble-perth==1.0.1
    convert_perth.py --wheel resemble_perth-1.0.1-py3-none-any.whl --weights ../../weights

Writes perth.safetensors: the live one of the decoder's three branches (src/models/perth.rs) in f32, as
it is; the encoder, which writes watermarks, is left out. The bytes are the same on
every machine; only a file with the sha256 that manifest.toml gives is put in its place
(--manifest-entry prints what the manifest says of it instead, for publish.py). Nothing of the package
is run. Needs the Python package numpy, and Python 3.11 or newer.
"""

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np

from base_file import checked, run, serialised

NAME = "perth"
FILE = "perth/perth_net/pretrained/implicit/perth_net_250000.pth.tar"
SHA256 = "a15bce457ebc53ce5e6c9c3f11df78cf7ee2bf9cdab0a798902135b4c4027670"
LAYERS = 7

META = f"""network = "{NAME}"
input = "sound at 16 kHz mono; decibels in 128 bins of 0 to 2 kHz, see src/models/perth.rs"
licence = "MIT"
licence_file = "LICENSE-perth.txt"
origin = "the detector of PerTh by Resemble AI, perth_net_250000.pth.tar from PyPI resemble-perth 1.0.1, sha256 {SHA256}"
training_data = ["not published by its authors"]
installed_by = "scripts/setup"
"""


class Checkpoint(pickle.Unpickler):
    """The tensors of a PyTorch checkpoint as arrays. Of what a pickle can ask for it makes only
    these, so that reading one runs nothing."""

    def __init__(self, archive):
        self.archive = archive
        self.root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).rsplit("/", 1)[0]
        super().__init__(io.BytesIO(archive.read(f"{self.root}/data.pkl")))

    def find_class(self, module, name):
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch", "FloatStorage"): np.dtype("<f4"),
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")
        return known[module, name]

    def persistent_load(self, pid):
        _, dtype, key, _, count = pid
        return np.frombuffer(self.archive.read(f"{self.root}/data/{key}"), dtype, count)

    @staticmethod
    def tensor(storage, offset, shape, strides, *_):
        part = storage[offset:]
        return np.lib.stride_tricks.as_strided(part, shape, [s * part.itemsize for s in strides])


def converted(wheel):
    """The bytes of the weights file."""
    with zipfile.ZipFile(wheel) as archive:
        data = checked(wheel, FILE, archive.read(FILE), SHA256)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        state = Checkpoint(archive).load()["model"]
    tensors = {}
    for layer in range(LAYERS):
        for part in ("weight", "bias"):
            tensor = state[f"decoder.normal_layers.{layer}.conv.{part}"]
            tensors[f"{layer}.{part}"] = tensor.astype("<f4")
    return serialised(tensors)


if __name__ == "__main__":
    run(__doc__, NAME, META, "wheel", converted)
