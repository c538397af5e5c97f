"""Made-up weights, by a formula that the program's tests (tests/common/vit.rs) have too."""

import numpy as np
import torch


def values(name, count):
    """-1..1, by splitmix64 from a seed that is the name's FNV-1a hash."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)


def tensor(file, name, shape):
    """The tensor `name` of the file `base` or `ours`, rounded to f16 as files hold it."""
    u = values(f"{file}/{name}", int(np.prod(shape)))
    if name.endswith("bias"):
        scale, offset = 0.1, 0.0
    elif "norm" in name:
        scale, offset = 0.2, 1.0
    elif "scale" in name:
        scale, offset = 0.3, 0.5
    elif name in ("token", "positions"):
        scale, offset = 1.0, 0.0
    elif name.endswith(".up"):
        scale, offset = 0.1, 0.0
    else:
        scale, offset = 1.7 / float(np.prod(shape[1:])) ** 0.5, 0.0
    made = u * np.float32(scale) + np.float32(offset)
    return torch.from_numpy(made.astype(np.float16).astype(np.float32).reshape(shape))
