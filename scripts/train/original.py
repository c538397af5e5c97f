"""What the golden scripts of published networks share: made-up numbers, arguments, timing."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np


def lcg(seed: int, count: int) -> np.ndarray:
    """Whole numbers that look random; the program's tests make the same (tests/common/mod.rs)."""
    state, values = (seed * 2654435761 + 1) % 2**32, np.empty(count, np.uint32)
    for i in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        values[i] = state
    return values


def arguments(doc: str, checkpoints: str) -> argparse.ArgumentParser:
    """A copy of the authors' program, their checkpoints, and the file to write."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, required=True)
    parser.add_argument(checkpoints, type=Path, required=True)
    parser.add_argument("--out", type=Path)
    return parser


def load(path: Path, name: str) -> ModuleType:
    """A file of the authors' program as a module of another name."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def timed(ask: Callable[[int], object], rounds: int) -> str:
    """The median time of `ask(0)` to `ask(rounds - 1)`, after one that does not count."""
    ask(0)
    times = []
    for i in range(rounds):
        start = time.process_time(), time.perf_counter()
        ask(i)
        times.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    cpu, wall = np.median(times, axis=0)
    return f"{wall:.3f} s a window, {cpu:.3f} s of processor time (median of {rounds})"
