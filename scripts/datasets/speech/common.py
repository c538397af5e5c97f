"""What the speech scripts share: reading the tar shards, levels, splits, manifests."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import resample_poly

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from manifest import require  # noqa: E402

RATE = 16_000


def read_index(data: Path) -> list[dict]:
    """Rows of index.csv with `key` and `wave` (int16), in the shards' order.

    A name stands more than once in spoof.tar (60 of them, other sound each
    time), so rows are matched to tar members by order of appearance.
    """
    require("speech")
    rows = list(csv.DictReader((data / "index.csv").open(newline="", encoding="utf-8")))
    waves: dict[tuple[str, str], list[np.ndarray]] = {}
    for shard in sorted({r["shard"] for r in rows}):
        with tarfile.open(data / shard) as tar:
            for member in tar:
                if not member.isfile():
                    continue
                wave, rate = sf.read(io.BytesIO(tar.extractfile(member).read()), dtype="int16")
                if rate != RATE or wave.ndim != 1:
                    raise ValueError(f"{shard}/{member.name}: {rate} Hz, {wave.ndim} axes")
                waves.setdefault((shard, Path(member.name).name), []).append(wave)
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        name = (row["shard"], Path(row["file"]).name)
        nth = seen.get(name, 0)
        seen[name] = nth + 1
        row["wave"] = waves[name][nth]
        stem = f"{row['shard'].removesuffix('.tar')}/{Path(row['file']).stem}"
        row["key"] = f"{stem}~{nth}" if nth else stem
    return rows


def read_packages(folder: Path) -> list[dict]:
    """Rows of real.py's real.tsv as read_index gives them: shard `packages`, system = the package."""
    with (folder / "real.tsv").open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    for row in rows:
        wave, rate = sf.read(folder / row["file"], dtype="int16")
        if rate != RATE or wave.ndim != 1:
            raise ValueError(f"{folder / row['file']}: {rate} Hz, {wave.ndim} axes")
        row |= {
            "shard": "packages", "label": "bonafide", "system": row["corpus"], "wave": wave,
            "key": "packages/" + row["file"].removesuffix(".flac").replace("/", "-"), "origin_licence": row["licence"],
        }
    return rows


def pyworld():
    """The module. pyworld 0.3.5 asks pkg_resources for its version; new setuptools have it no more."""
    if "pkg_resources" not in sys.modules and importlib.util.find_spec("pkg_resources") is None:
        stub = types.ModuleType("pkg_resources")
        stub.get_distribution = importlib.metadata.distribution
        sys.modules["pkg_resources"] = stub
    import pyworld as module

    return module


def fraction(name: str) -> float:
    """A fixed number in [0, 1) from a name: splits need no stored list."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def libri_split(speaker: str) -> str:
    """LibriSpeech speakers: 60 % train, 15 % dev, 25 % test."""
    x = fraction(f"libri/{speaker}")
    return "train" if x < 0.60 else "dev" if x < 0.75 else "test"


def resample(x: np.ndarray, a: int, b: int) -> np.ndarray:
    if a == b:
        return x
    g = int(np.gcd(a, b))
    return resample_poly(x, b // g, a // g, window=("kaiser", 8.0)).astype(np.float32)


def found(folder: Path, pattern: str) -> Path:
    """The first file of this name under a folder."""
    for path in sorted(folder.rglob(pattern)):
        return path
    raise FileNotFoundError(f"{folder}: no {pattern} in it")


def speech_bounds(wave: np.ndarray, db: float = 35.0, keep: int = 800) -> tuple[int, int]:
    """First sample and end without leading and trailing frames `db` below the loud ones, leaving 50 ms."""
    x = wave.astype(np.float32)
    x = x - x.mean()
    frames = len(x) // 320
    if frames < 5:
        return 0, len(wave)
    rms = np.sqrt(np.mean(x[: frames * 320].reshape(frames, 320) ** 2, axis=1)) + 1e-9
    loud = np.flatnonzero(rms > np.percentile(rms, 95) * 10 ** (-db / 20))
    return max(0, loud[0] * 320 - keep), min(len(wave), (loud[-1] + 1) * 320 + keep)


def trim(wave: np.ndarray) -> np.ndarray:
    start, end = speech_bounds(wave)
    return wave[start:end]


def to_int16(x: np.ndarray, rms: float) -> np.ndarray:
    """Float sound to int16 at a given RMS, without clipping."""
    x = np.asarray(x, np.float64)
    x = x - x.mean()
    x = x * (rms / max(np.sqrt(np.mean(x**2)), 1e-9))
    peak = np.abs(x).max()
    if peak > 0.99:
        x *= 0.99 / peak
    return np.round(x * 32767).astype(np.int16)


def level(wave: np.ndarray) -> float:
    x = wave.astype(np.float64) / 32768
    return float(np.sqrt(np.mean((x - x.mean()) ** 2)))


class Manifest:
    """A TSV that grows line by line, so that a stopped run goes on where it was."""

    FIELDS = [
        "file", "family", "generator", "version", "parameters",
        "source", "speaker", "language", "licence",
    ]

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done: set[str] = set()
        if path.exists():
            with path.open(newline="", encoding="utf-8") as f:
                self.done = {r["file"] for r in csv.DictReader(f, delimiter="\t")}
        new = not path.exists()
        self.file = path.open("a", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, self.FIELDS, delimiter="\t")
        if new:
            self.writer.writeheader()

    def add(self, out: Path, wave: np.ndarray, **row: str) -> None:
        path = out / row["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, wave, RATE, subtype="PCM_16")
        self.writer.writerow(row)
        self.file.flush()
