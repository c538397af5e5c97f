#!/usr/bin/env python3
"""Gathers pictures without marks out of unpacked packages, once, for generate.py.

    prepare.py --work WORK --from plasma-workspace-wallpapers=DIR gcompris-qt-data=DIR gradio=X.whl ...

Takes JPEG, PNG and WebP files of folders, the same out of zip archives (wheels) and, by their
signatures, out of Qt resource files (.rcc). Pictures under 256 px, nearly uniform or seen before (by a
64-bit difference hash, so that a picture kept in several sizes stays in one split) are left out; short
sides over 1,080 px are reduced. `WORK/pictures.tsv` lists them: file, package, name inside it, size,
split. A fifth of the pictures, by hash, is for validation. `--skip FILE` names pictures that a person
saw a mark, a border or a screenshot in, one `package/name` a line.
"""

import argparse
import hashlib
import zipfile
from pathlib import Path

import cv2
import numpy as np

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
LEAST, MOST = 256, 1080
MAGIC = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82", b"RIFF": None}


def carved(data):
    """Pictures inside a file of many; (offset, bytes). Qt keeps pictures as they are."""
    for magic, end in MAGIC.items():
        at = data.find(magic)
        while at >= 0:
            following = data.find(magic, at + 4)
            if end is None:
                size = int.from_bytes(data[at + 4 : at + 8], "little") + 8
                if data[at + 8 : at + 12] == b"WEBP":
                    yield at, data[at : at + size]
            else:
                # Up to 8 MiB: a decoder stops at the picture's own end.
                yield at, data[at : at + (8 << 20)]
            at = following


def found(package, path):
    """(name, bytes) of every picture of a package."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_symlink() or not file.is_file():
                continue
            if file.suffix.lower() in SUFFIXES:
                yield str(file.relative_to(path)), file.read_bytes()
            elif file.suffix == ".rcc":
                for at, data in carved(file.read_bytes()):
                    yield f"{file.relative_to(path)}@{at}", data
    else:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if Path(name).suffix.lower() in SUFFIXES:
                    yield name, archive.read(name)


def difference_hash(image):
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (9, 8), interpolation=cv2.INTER_AREA).astype(int)
    return np.packbits(small[:, 1:] > small[:, :-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--from", dest="origins", required=True, nargs="+", metavar="PACKAGE=PATH")
    parser.add_argument("--skip", type=Path)
    parser.add_argument("--most", type=int, default=260, help="pictures taken of one package")
    args = parser.parse_args()
    skipped = set(args.skip.read_text().split("\n")) if args.skip else set()
    target = args.work / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    rows, seen = [], np.zeros((0, 8), np.uint8)
    for origin in args.origins:
        package, path = origin.split("=", 1)
        pictures = list(found(package, Path(path)))
        # Large files first (the largest of several sizes is the one kept), then evenly over the rest.
        pictures.sort(key=lambda picture: -len(picture[1]))
        taken = 0
        for name, data in pictures:
            if taken >= args.most:
                break
            if len(data) < 12000 or f"{package}/{name}" in skipped:
                continue
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if image is None or min(image.shape[:2]) < LEAST or max(image.shape[:2]) > 12000:
                continue
            if image[::4, ::4].std() < 8:
                continue
            mark = difference_hash(image)
            if len(seen) and np.unpackbits(seen ^ mark, axis=1).sum(1).min() <= 5:
                continue
            seen = np.vstack([seen, mark])
            scale = MOST / min(image.shape[:2])
            if scale < 1:
                image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            if max(image.shape[:2]) > 2600:
                image = image[:2600, :2600]
            digest = hashlib.sha256(mark.tobytes()).hexdigest()
            file = f"{package}-{digest[:12]}.jpg"
            ok, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 96, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111])
            if not ok:
                continue
            (target / file).write_bytes(encoded)
            split = "val" if int(digest[:8], 16) % 5 == 0 else "train"
            rows.append((file, package, name, image.shape[1], image.shape[0], split))
            taken += 1
        print(package, taken, flush=True)
    with open(args.work / "pictures.tsv", "w", encoding="utf-8") as out:
        print("file", "package", "name", "width", "height", "split", sep="\t", file=out)
        for row in rows:
            print(*row, sep="\t", file=out)


if __name__ == "__main__":
    main()
