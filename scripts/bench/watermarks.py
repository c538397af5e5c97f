#!/usr/bin/env python3
"""Marks pictures and speech with the packages that write invisible watermarks, and counts what
`veriscope scan` reads of them, and of pictures and sound without a mark.

    pip download --no-deps invisible-watermark==0.2.0 resemble-perth==1.0.1
    watermarks.py pictures --wheel invisible_watermark-0.2.0-py3-none-any.whl --photos FOLDER… --plain FOLDER… --out OUT
    watermarks.py sound --wheel resemble_perth-1.0.1-py3-none-any.whl --speech FOLDER… --plain FOLDER… --out OUT
    watermarks.py music --wheel resemble_perth-1.0.1-py3-none-any.whl --speech FOLDER… --plain FOLDER…

Photos of at least 256 by 256 pixels are marked with each message in each way of writing (bytes;
floating-point numbers; those with red and blue swapped) and kept as PNG and JPEG. Pictures below
`--plain` may be smaller: nine of one size become one. Speech is marked at 24 kHz, as Chatterbox does,
then taken through codecs, noise and cuts. `--scan` counts what is in OUT already and marks nothing. `music` asks PerTh's own package of music
without a mark, and of speech over what it takes for marked.
Needs opencv-python, numpy and PyWavelets for pictures, what scripts/weights/golden_perth.py
needs and soundfile for sound, and the commands ffmpeg and veriscope.
"""

import argparse
import collections
import importlib.util
import json
import random
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np


def bits_of(text):
    return [int(b) for b in np.unpackbits(np.frombuffer(text, np.uint8))]


def digits(number, width=0):
    return [int(b) for b in f"{number:0{width}b}"]


MESSAGES = {
    "Stable Diffusion XL": digits(0xB3EC907BB19E),
    "FLUX": digits(0x2AFE879CF52E),
    "FLUX with its zeros": digits(0x2AFE879CF52E, 48),
    "Stable Diffusion 1": bits_of(b"StableDiffusionV1"),
    "Stable Diffusion 2": bits_of(b"SDV2"),
    "InvokeAI": bits_of(b"InvokeAI"),
    "MindONE": digits(0xB296919BB0B1BA),
}
QUALITIES = (95, 90, 85)


def mark_picture(write, rgb, bits, way):
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    encoder = write(bits, wmLen=len(bits))
    if way == "bytes":
        return encoder.encode(bgr)[..., ::-1]
    taken = np.ascontiguousarray(rgb if way == "swapped" else bgr).astype(np.float32)
    out = encoder.encode(taken)
    return np.clip(out if way == "swapped" else out[..., ::-1], 0, 255).round().astype(np.uint8)


def pictures(args):
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(args.wheel) as archive:
            file = archive.extract("imwatermark/maxDct.py", folder)
        spec = importlib.util.spec_from_file_location("maxDct", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    number = 0
    for path in files(args.photos):
        bgr = cv2.imread(str(path))
        if bgr is None or bgr.shape[0] * bgr.shape[1] < 65536:
            continue
        for name, bits in MESSAGES.items():
            for way in ("bytes", "floats", "swapped"):
                marked = mark_picture(module.EmbedMaxDct, bgr[..., ::-1], bits, way)[..., ::-1]
                for kind in ("PNG", *QUALITIES):
                    target = args.out / f"{name}, {kind}" / f"{number}-{way}"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if kind == "PNG":
                        cv2.imwrite(f"{target}.png", marked)
                    else:
                        cv2.imwrite(f"{target}.jpg", marked, [cv2.IMWRITE_JPEG_QUALITY, kind])
        number += 1
    plain = args.out / "without"
    plain.mkdir(parents=True, exist_ok=True)
    waiting = collections.defaultdict(list)
    for i, path in enumerate(files(args.plain)):
        bgr = cv2.imread(str(path))
        if bgr is None:
            continue
        if bgr.shape[0] * bgr.shape[1] < 65536:
            same = waiting[bgr.shape]
            same.append(bgr)
            if len(same) < 9:
                continue
            bgr = np.concatenate([np.concatenate(same[k : k + 3], 1) for k in (0, 3, 6)], 0)
            same.clear()
        cv2.imwrite(str(plain / f"{i}.png"), bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def sound(args):
    import librosa
    import soundfile
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "weights"))
    from golden_perth import package

    rng = np.random.default_rng(1)
    chosen = files(args.speech)
    random.Random(1).shuffle(chosen)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        torch.set_num_threads(1)
        perth = package(args.wheel, Path(folder))
        for number, path in enumerate(chosen[: args.clips]):
            wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
            wave = librosa.resample(wave.mean(1)[: 30 * rate], orig_sr=rate, target_sr=24000)
            marked = perth.apply_watermark(wave, 24000).astype(np.float32)
            noise = rng.standard_normal(marked.size).astype(np.float32) * np.sqrt((marked**2).mean())
            faster = librosa.resample(marked, orig_sr=26400, target_sr=24000)
            kept = {
                "WAV": marked,
                "8 kHz": librosa.resample(marked, orig_sr=24000, target_sr=8000),
                "cut": marked[9999:-5555],
                "a tenth as loud": marked / 10,
                "noise 20 dB": marked + noise / 10,
                "noise 10 dB": marked + noise * 10**-0.5,
                "1.1 times as fast": faster,
            }
            for kind, samples in kept.items():
                target = args.out / kind / f"{number}.wav"
                target.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(target, samples, 8000 if kind == "8 kHz" else 24000)
            for kind, end, options in (
                ("MP3 64k", "mp3", ["-b:a", "64k"]),
                ("AAC 64k", "m4a", ["-b:a", "64k"]),
                ("Opus 24k", "opus", ["-c:a", "libopus", "-b:a", "24k"]),
                ("Opus 16k", "opus", ["-c:a", "libopus", "-b:a", "16k"]),
            ):
                target = args.out / kind / f"{number}.{end}"
                target.parent.mkdir(parents=True, exist_ok=True)
                source = args.out / "WAV" / f"{number}.wav"
                subprocess.run(["ffmpeg", "-y", "-loglevel", "error", "-i", source, *options, target], check=True)
    plain = args.out / "without"
    plain.mkdir(parents=True, exist_ok=True)
    for i, path in enumerate(files(args.plain)):
        (plain / f"{i}{path.suffix}").symlink_to(path.resolve())


def music(args):
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "weights"))
    from golden_perth import package

    def read(path):
        command = ["ffmpeg", "-loglevel", "error", "-i", path, "-t", "300", "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
        return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.float32)

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        torch.set_num_threads(1)
        perth = package(args.wheel, Path(folder))
        count, taken = 0, []
        for path in files(args.plain):
            wave = read(path)
            for window in wave[: wave.size // 64000 * 64000].reshape(-1, 64000):
                if not window.any():
                    continue
                count += 1
                if perth.get_watermark(window, 16000, round=False) >= 0.9:
                    taken.append(window)
        print(f"{len(taken)} of {count} windows of 4 s at or above 0.9")
        chosen = files(args.speech)
        rng = random.Random(1)
        for ratio in (0, 10, 20):
            scores = []
            for window in taken:
                for path in rng.sample(chosen, 2):
                    speech = np.resize(read(path), 64000)
                    gain = np.sqrt((speech**2).mean() / (window**2).mean() / 10 ** (ratio / 10))
                    scores.append(perth.get_watermark(speech + gain * window, 16000, round=False))
            print(f"speech {ratio} dB over them: {sum(s >= 0.9 for s in scores)} of {len(scores)}")


def files(folders):
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def scan(args):
    """For each folder below OUT how many files have a watermark, and which."""
    command = [args.veriscope, "scan", "--detectors", "label-strip", "--format", "jsonl", args.out]
    found = collections.defaultdict(list)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            report = json.loads(line)
            if report["status"] == "failed":
                continue
            marks = [l["content"].split(":")[0] for l in report["labels"] if l["system"] == "watermark"]
            found[Path(report["media"]["path"]).parent.name].append(marks)
    for folder, marks in sorted(found.items()):
        names = collections.Counter(name for names in marks for name in names)
        print(f"{folder}: {sum(map(bool, marks))} of {len(marks)} read", dict(names))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("pictures", "sound", "music"))
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--speech", type=Path, nargs="*", default=[])
    parser.add_argument("--plain", type=Path, nargs="*", default=[])
    parser.add_argument("--clips", type=int, default=100, help="how many clips of speech are marked")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("--veriscope", default="veriscope")
    args = parser.parse_args()
    if args.kind == "music":
        music(args)
        return
    if args.out is None:
        parser.error("--out is missing")
    if not args.scan:
        {"pictures": pictures, "sound": sound}[args.kind](args)
    scan(args)


if __name__ == "__main__":
    main()
