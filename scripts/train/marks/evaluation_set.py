#!/usr/bin/env python3
"""Whole pictures and clips of the validation sources, on which evaluate.py measures.

    evaluation_set.py --work WORK --fonts DIR [DIR ...]

`WORK/evaluation/*.png` (the pixels that a decoder gives) and `cases.jsonl`, one line a case: files (one
for a picture, eight for a clip), source, kind, family, eraser, compression, boxes, by how many bits the
fine differences in the box are other than they would be without mark and eraser (`shows`). Each
eraser is tried on `--each` pictures, each in one of six compressions; unmarked pictures and pictures
with their mark left on go through the same, and so do some that `generate.soften` made soft in parts. Places and sizes of marks as services use them:
the lower right corner mostly. MI-GAN's erasures are windows of 512 x 512 out of migan-val.npz, and as
many untouched ones.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

import erasers
import generate
import marks
import visible

COMPRESSIONS = {
    "none": lambda image, rng: image,
    "jpeg 85-97": lambda image, rng: generate.jpeg(image, rng.uniform(85, 97)),
    "jpeg 50-80": lambda image, rng: generate.jpeg(image, rng.uniform(50, 80)),
    "webp 60-90": lambda image, rng: generate.webp(image, rng.uniform(60, 90)),
    "half size, jpeg 80": lambda image, rng: generate.jpeg(half(image), 80),
    "h264 crf 23-28": lambda image, rng: generate.h264([even(image)] * 3, rng.uniform(23, 28))[-1],
}


def alike(rng, compression, *images):
    """The same compression for all."""
    seed = int(rng.integers(1 << 60))
    return [COMPRESSIONS[compression](image, np.random.default_rng(seed)) for image in images]


def half(image):
    return cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)


def even(image):
    return np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])


class Task:
    """One mark at one place of a picture of this size, and the box that is erased for it."""

    def __init__(self, rng, fonts, height, width):
        short = min(height, width)
        for _ in range(20):
            self.mark = marks.draw(rng, fonts, max(10.0, short * rng.uniform(0.02, 0.06)))
            h, w = self.mark[1].shape
            if w < 0.5 * width and h < 0.25 * height:
                break
        margin = int(short * rng.uniform(0.01, 0.05)) + 2
        xs, ys = {"left": margin, "middle": (width - w) // 2, "right": width - w - margin}, {"top": margin, "bottom": height - h - margin}
        place = rng.random()
        if place < 0.9:
            column = rng.choice(list(xs), p=[0.2, 0.15, 0.65])
            row = rng.choice(list(ys), p=[0.25, 0.75])
            self.x, self.y = xs[column], ys[row]
        else:
            self.x, self.y = int(rng.integers(2, max(3, width - w - 2))), int(rng.integers(2, max(3, height - h - 2)))
        grow = [int(v) for v in rng.integers(1, max(3, h // 4), 4)]
        self.box = (max(self.x - grow[0], 2), max(self.y - grow[1], 2), min(self.x + w + grow[2], width - 2), min(self.y + h + grow[3], height - 2))
        self.seed = int(rng.integers(1 << 60))

    def glyphs(self, shape):
        full = np.zeros(shape[:2], np.uint8)
        h, w = self.mark[1].shape
        x0, y0, x1, y1 = max(self.x, 0), max(self.y, 0), min(self.x + w, shape[1]), min(self.y + h, shape[0])
        full[y0:y1, x0:x1] = (self.mark[1][y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x] > 0.08) * np.uint8(255)
        return full[self.box[1] : self.box[3], self.box[0] : self.box[2]]

    def carry_out(self, image, family, eraser):
        """The picture with the mark, or with the mark erased."""
        if family == "none":
            return image
        out = image.copy()
        marks.lay(out, self.mark, self.x, self.y)
        if family == "erased":
            out = erasers.ERASERS[eraser](out, self.box, self.glyphs(image.shape), np.random.default_rng(self.seed))
        return out


def scaled(rng, image, kind):
    native = min(image.shape[:2])
    top = min(1080, 1.1 * native) if kind != "face" else 2 * native
    short = float(np.exp(rng.uniform(np.log(min(400, top)), np.log(top))))
    scale = short / native
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return even(image[:1600, :1600])


def clip(rng, image, tasks, family, eraser, count=8, apart=3):
    """Every third of 24 frames of a pan over the picture, after H.264."""
    height, width = (min(s, m) // 2 * 2 for s, m in zip(image.shape[:2], (540, 960)))
    spare = image.shape[1] - width, image.shape[0] - height
    speed = rng.normal(0, rng.choice([0.7, 2.5]), 2)
    zoom = 1 + abs(rng.normal(0, 0.003))
    x, y = rng.uniform(0, spare[0] + 1e-6), rng.uniform(0, spare[1] + 1e-6)
    task, frames, clean = tasks(height, width), [], []
    for i in range(count * apart):
        scale = zoom**i
        matrix = np.float32([[scale, 0, width / 2 - scale * (x + width / 2 + speed[0] * i)], [0, scale, height / 2 - scale * (y + height / 2 + speed[1] * i)]])
        frame = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        clean.append(frame)
        frames.append(task.carry_out(frame, family, eraser))
    crf = rng.uniform(20, 30)
    frames, shows = generate.h264(frames, crf)[::apart], 0.0
    if family == "erased":
        clean = generate.h264(clean, crf)[::apart]
        shows = float(np.mean([visible.between(a, b, task.box) for a, b in zip(clean, frames)]))
    return frames, task, shows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--fonts", required=True, nargs="+")
    parser.add_argument("--each", type=int, default=44)
    parser.add_argument("--unmarked", type=int, default=400)
    parser.add_argument("--marked", type=int, default=200)
    parser.add_argument("--clips", type=int, default=72)
    parser.add_argument("--seed", type=int, default=2026)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rng, fonts = np.random.default_rng(args.seed), marks.Fonts(args.fonts)
    sources = generate.Sources(args.work, "val")
    folder = args.work / "evaluation"
    folder.mkdir(exist_ok=True)
    names = list(erasers.ERASERS)
    work = [("erased", e) for e in names for _ in range(args.each)]
    work += [("softened", "none")] * (args.unmarked // 4)
    work += [("none", "none")] * args.unmarked + [("mark", "none")] * args.marked
    work = [("picture", *w) for w in work]
    video = ["delogo", "delogo", "blur", "mosaic", "telea", "clone"]
    work += [("clip", "erased", video[i % len(video)]) for i in range(args.clips // 2)]
    work += [("clip", "none", "none")] * (args.clips // 3) + [("clip", "mark", "none")] * (args.clips - args.clips // 2 - args.clips // 3)
    work = [work[i] for i in rng.permutation(len(work))]
    with open(folder / "cases.jsonl", "w", encoding="utf-8") as out:

        def write(case, images):
            case["files"] = []
            for i, image in enumerate(images):
                file = f"{case['id']:05d}-{i}.png"
                cv2.imwrite(str(folder / file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
                case["files"].append(file)
            print(json.dumps(case), file=out, flush=True)

        number = 0
        for form, family, eraser in work:
            image, kind, source = sources.pick(rng)
            image = scaled(rng, image, kind)
            if source == "synthetic":
                # Each is another picture.
                source = f"synthetic-{number}"
            if family == "softened":
                image, family = generate.soften(rng, image), "none"
                kind = "softened"
            case = {"id": number, "form": form, "source": source, "kind": kind, "family": family, "eraser": eraser}
            number += 1
            if form == "clip":
                frames, task, shows = clip(rng, image, lambda h, w: Task(rng, fonts, h, w), family, eraser)
                case |= {"compression": "h264 clip", "boxes": [task.box] if family == "erased" else [], "shows": shows}
                write(case, frames)
                continue
            if rng.random() < 0.5:
                image = generate.jpeg(image, rng.uniform(75, 97))
            task = Task(rng, fonts, *image.shape[:2])
            changed = task.carry_out(image, family, eraser)
            choices = [c for c in COMPRESSIONS if c != "half size, jpeg 80" or min(image.shape[:2]) >= 560]
            compression = choices[int(rng.integers(len(choices)))]
            (clean, changed), shows = alike(rng, compression, image, changed), 0.0
            scale = 0.5 if compression.startswith("half") else 1.0
            boxes = [[v * scale for v in task.box]] if family == "erased" else []
            if boxes:
                shows = visible.between(clean, changed, boxes[0])
            write(case | {"compression": compression, "boxes": boxes, "shows": shows}, [changed])
        with np.load(args.work / "migan-val.npz") as data:
            choices = [c for c in COMPRESSIONS if not c.startswith("half")]
            for i, (before, after, boxes) in enumerate(zip(data["before"], data["after"], data["boxes"])):
                boxes = [[int(v) for v in b] for b in boxes if b[2] > b[0]]
                compression = choices[int(rng.integers(len(choices)))]
                pair = alike(rng, compression, before, after)
                shows = max(visible.between(*pair, box) for box in boxes)
                for family, image in (("none", pair[0]), ("erased", pair[1])):
                    case = {"id": number, "form": "picture", "source": f"migan-{i}", "kind": "photo", "family": family}
                    number += 1
                    case |= {"eraser": "migan" if family == "erased" else "none", "compression": compression}
                    case |= {"boxes": boxes if family == "erased" else [], "shows": shows if family == "erased" else 0.0}
                    write(case, [image])
    print(number, "cases")


if __name__ == "__main__":
    main()
