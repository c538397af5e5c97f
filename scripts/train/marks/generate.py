#!/usr/bin/env python3
"""Makes windows of pictures with marks, erased marks and neither, into a ring that train.py reads.

    generate.py --work WORK --fonts DIR [DIR ...] --split train --size 9000

A window is 384 x 384 RGB. What is done to it, in this order: the picture at a random scale and place
(its own corners and edges preferred); for a part of all windows, whatever comes next, softening as it
is found in real pictures; for a part, a plain frame; for a part, an earlier compression; a mark (left
on, or erased), or an erasure where no mark was, or nothing; then what is common to all: resizing,
sharpening, noise and compression by JPEG, WebP or H.264 with real motion. No step after the erasure
knows whether there was one.

Files in WORK/ring-SPLIT: `windows.npy` u8 [n, 384, 384, 3], `cells.npy` u8 [n, 96, 96] (1: erased, 2:
mark there, 4: mark or not is unknown, 8: erased but nothing shows it, see visible.py, so not to be
learned), `facts.npy` u8 [n, 4] (eraser, compression, source kind, family) and `made`, how many so far.
"""

import argparse
import csv
import sys
import time
from pathlib import Path

import cv2
import numpy as np

import erasers
import marks
import visible

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "datasets"))
from manifest import require  # noqa: E402

SIDE, STRIDE = 384, 4
ERASED, MARK, UNKNOWN, UNCHANGED = 1, 2, 4, 8
NAMES = ["none", *erasers.ERASERS, "migan"]
COMPRESSIONS = ["none", "jpeg", "webp", "h264"]
# Packages by what they hold; the rest are screenshots and diagrams. Left out: comfyui-api has marks
# everywhere, openuniverse-common maps of planets.
PHOTOS = {
    "plasma-workspace-wallpapers", "mate-backgrounds", "ukui-wallpapers", "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04", "lomiri-wallpapers", "sway-backgrounds", "lxqt-themes", "gcompris-qt-data",
    "palapeli-data", "kphotoalbum", "tuxpaint-data", "mypaint-data-extras", "hugin-data", "xfdesktop4-data",
    "gradio", "imgaug", "ultralytics", "stellarium-data",
}
GENERATED = {"comfyui-image", "comfyui-other", "comfyui-assets_01", "comfyui-assets_02"}
LEFT_OUT = {"comfyui-api", "openuniverse-common"}
KINDS = ["photo", "generated", "screen", "face", "synthetic"]
KIND_SHARES = [0.62, 0.2, 0.06, 0.08, 0.04]


class Sources:
    def __init__(self, work, split):
        require("marks", split)
        self.folder, self.by_kind = Path(work) / "pictures", {kind: [] for kind in KINDS[:4]}
        with open(Path(work) / "pictures.tsv", encoding="utf-8") as rows:
            for row in csv.DictReader(rows, delimiter="\t", quoting=csv.QUOTE_NONE):
                package = row["package"]
                # Maps of planets are retouched and stitched themselves.
                if row["split"] != split or package in LEFT_OUT or "/textures/" in row["name"]:
                    continue
                screen = package == "kphotoalbum" and "/demo/" not in row["name"] and "doc" in row["name"]
                kind = "photo" if package in PHOTOS and not screen else "generated" if package in GENERATED else "screen"
                kind = "face" if package in ("utkface", "dfdc") else kind
                size = min(int(row["width"]), int(row["height"]))
                # A wallpaper gives many different windows, a thumbnail of a planet few.
                weight = {"stellarium-data": 0.25, "gcompris-qt-data": 0.7}.get(package, 1.0)
                self.by_kind[kind].append((row["file"], weight * (1.0 + (size >= 700))))

    def pick(self, rng):
        """(RGB, kind, name)"""
        shares = np.array([s if k == "synthetic" or self.by_kind[k] else 0 for k, s in zip(KINDS, KIND_SHARES)])
        kind = KINDS[int(rng.choice(len(KINDS), p=shares / shares.sum()))]
        if kind == "synthetic":
            return synthetic(rng), kind, "synthetic"
        files = self.by_kind[kind]
        weights = np.array([w for _, w in files])
        name = files[int(rng.choice(len(files), p=weights / weights.sum()))][0]
        return read(self.folder / name), kind, name


def read(path):
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise OSError(f"{path} cannot be read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def smooth_field(rng, height, width, cells):
    small = rng.random((cells, max(2, int(cells * width / height)))).astype(np.float32)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def synthetic(rng):
    """Pages, interfaces, plots, flat drawings, gradients, skies, out-of-focus lights."""
    height, width = int(rng.integers(480, 900)), int(rng.integers(600, 1100))
    kind = rng.random()
    light = rng.random() < 0.7
    ground = rng.uniform(225, 255, 3) if light else rng.uniform(10, 60, 3)
    image = np.full((height, width, 3), ground, np.float32).astype(np.uint8)

    def colour():
        return tuple(int(v) for v in rng.integers(0, 256, 3))

    if kind < 0.2:
        # A page or an interface: panels, lines of text, buttons.
        for _ in range(int(rng.integers(0, 7))):
            x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
            cv2.rectangle(image, (x, y), (x + int(rng.integers(40, 400)), y + int(rng.integers(15, 300))), colour(), -1)
        y = int(rng.integers(10, 50))
        while y < height:
            scale = rng.uniform(0.35, 0.9)
            words = "".join(rng.choice(list("abcdefghijklmnoprstuvwy     ,.ABCDEIMNT0123456789"), int(rng.integers(8, 80))))
            ink = (40, 40, 40) if light else (215, 215, 215)
            cv2.putText(image, words, (int(rng.integers(5, 80)), y), int(rng.choice([0, 2, 3, 4])), scale, ink, 1, cv2.LINE_AA)
            y += int(rng.uniform(24, 60) * scale) + 8
    elif kind < 0.32:
        for _ in range(int(rng.integers(2, 6))):
            x = np.linspace(40, width - 20, 300)
            y = height / 2 + np.cumsum(rng.normal(0, height / 90, 300))
            cv2.polylines(image, [np.stack([x, y], 1).astype(np.int32)], False, colour(), int(rng.integers(1, 4)), cv2.LINE_AA)
        for x in range(40, width, int(rng.integers(40, 120))):
            cv2.line(image, (x, 0), (x, height), (200, 200, 200) if light else (80, 80, 80), 1)
    elif kind < 0.55:
        # Flat drawing.
        for _ in range(int(rng.integers(5, 40))):
            points = (rng.normal(0, rng.uniform(20, 200), (int(rng.integers(3, 8)), 2)) + rng.uniform(0, 1, 2) * (width, height)).astype(np.int32)
            cv2.fillPoly(image, [cv2.convexHull(points)], colour(), cv2.LINE_AA)
            if rng.random() < 0.5:
                cv2.polylines(image, [cv2.convexHull(points)], True, (20, 20, 20), int(rng.integers(1, 5)), cv2.LINE_AA)
    elif kind < 0.78:
        # Gradients and skies, with grain or without.
        cells = int(rng.integers(2, 5))
        planes = [smooth_field(rng, height, width, cells) * rng.uniform(40, 200) + rng.uniform(0, 120) for _ in range(3)]
        field = np.stack(planes, -1)
        if rng.random() < 0.5:
            clouds = smooth_field(rng, height, width, 8) + 0.5 * smooth_field(rng, height, width, 20)
            field += np.clip(clouds - 0.8, 0, None)[..., None] * 150
        field += rng.normal(0, rng.uniform(0, 5) if rng.random() < 0.7 else 0, field.shape)
        image = np.clip(field, 0, 255).astype(np.uint8)
    else:
        # Lights out of focus over a soft ground.
        image = np.clip(smooth_field(rng, height, width, 3)[..., None] * rng.uniform(20, 90, 3), 0, 255).astype(np.uint8)
        for _ in range(int(rng.integers(10, 60))):
            layer = image.copy()
            centre, radius = (int(rng.integers(0, width)), int(rng.integers(0, height))), int(rng.integers(6, 60))
            cv2.circle(layer, centre, radius, tuple(int(v) for v in rng.integers(60, 256, 3)), -1, cv2.LINE_AA)
            image = cv2.addWeighted(layer, 0.5, image, 0.5, 0)
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 3))
        if rng.random() < 0.7:
            image = np.clip(image + rng.normal(0, rng.uniform(0.5, 5), image.shape), 0, 255).astype(np.uint8)
    return image


def soften(rng, image):
    """What makes real pictures soft or flat in places without anything being erased."""
    kind = rng.random()
    height, width = image.shape[:2]
    if kind < 0.3:
        # A background out of focus behind a sharp subject, or a lens that is sharp in one place only.
        field = smooth_field(rng, height, width, int(rng.integers(2, 5)))
        field = np.clip((field - rng.uniform(0.3, 0.6)) * rng.uniform(1.5, 5) + 0.5, 0, 1)[..., None]
        soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(1.5, 9))
        out = image * field + soft * (1 - field)
    elif kind < 0.5:
        out = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 3))
    elif kind < 0.65:
        out = cv2.bilateralFilter(image, 7, rng.uniform(15, 50), 5)
    elif kind < 0.75:
        out = cv2.medianBlur(image, int(rng.choice([3, 5])))
    elif kind < 0.85:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        out = image * np.clip(1 - (x**2 + y**2) * rng.uniform(0.1, 0.5), 0, 1)[..., None]
    elif kind < 0.93:
        # Motion of the camera.
        side = int(rng.integers(3, 12))
        kernel = np.zeros((side, side), np.float32)
        cv2.line(kernel, (0, int(rng.integers(0, side))), (side - 1, int(rng.integers(0, side))), 1)
        out = cv2.filter2D(image, -1, kernel / kernel.sum())
    else:
        # Bars: black, or a blurred enlargement, along a whole side.
        out = image.copy()
        size, where = int(rng.uniform(0.06, 0.3) * height), rng.random()
        bar = cv2.GaussianBlur(image, (0, 0), 15) if rng.random() < 0.4 else np.zeros_like(image)
        if where < 0.65:
            out[:size] = bar[:size] if where < 0.4 else out[:size]
            out[-size:] = bar[-size:]
        else:
            out[:, :size] = bar[:, :size]
    return np.clip(out, 0, 255).astype(np.uint8)


def framed(rng, image):
    """The picture on a plain ground, as in a screenshot, a slide or a page: one to four margins."""
    out, (height, width) = image.copy(), image.shape[:2]
    kind = rng.random()
    ground = np.full(3, rng.integers(0, 60) if kind < 0.5 else rng.integers(225, 256) if kind < 0.8 else 0)
    if kind >= 0.8:
        ground = rng.integers(0, 256, 3)
    sides = rng.permutation(4)[: int(rng.integers(1, 5))]
    for side in sides:
        margin = int(rng.uniform(0.03, 0.3) * (height if side < 2 else width))
        at = [np.s_[:margin], np.s_[-margin:], np.s_[:, :margin], np.s_[:, -margin:]][side]
        out[at] = ground
    return out


def grain(rng, image, most=6.0):
    noise = rng.normal(0, rng.uniform(0.5, most), image.shape[:2] + ((3,) if rng.random() < 0.5 else (1,)))
    if rng.random() < 0.4:
        noise = cv2.GaussianBlur(noise, (0, 0), 0.6).reshape(noise.shape) * 1.5
    return np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)


def jpeg(image, quality, full_chroma=False):
    factor = 0x111111 if full_chroma else 0x221111
    flags = [cv2.IMWRITE_JPEG_QUALITY, int(quality), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def webp(image, quality):
    _, data = cv2.imencode(".webp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, int(quality)])
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def h264(frames, crf, preset="veryfast", gop=250):
    """RGB frames through x264 and back."""
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        stream.options = {"crf": str(int(crf)), "preset": preset, "g": str(gop), "threads": "1"}
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as source:
        source.streams.video[0].thread_type = "NONE"
        return [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]


def compress(rng, image, kind):
    if kind == "jpeg":
        return jpeg(image, rng.uniform(50, 98), rng.random() < 0.2)
    if kind == "webp":
        return webp(image, rng.uniform(50, 95))
    return image


class Plan:
    """What happens to one window: decided before its pixels are looked at, so that several frames can
    have it done to them alike."""

    def __init__(self, rng, fonts, short, family, side):
        """`short`: the picture's short side; `side`: the window's, both in pixels of the moment."""
        self.seed, self.family, self.side = int(rng.integers(1 << 62)), family, side
        # Letters of 1.8 to 7.5 % of the short side, never unreadably small.
        height = max(9.0, short * float(np.exp(rng.uniform(np.log(0.018), np.log(0.075)))))
        self.mark = marks.draw(rng, fonts, height)
        self.eraser = str(rng.choice(list(erasers.SHARES), p=list(erasers.SHARES.values())))
        self.under = rng.random() < 0.55
        self.second = rng.random() < 0.12
        self.extra = marks.draw(rng, fonts, height * rng.uniform(0.7, 1.3), caption=rng.random() < 0.5)
        self.with_extra = rng.random() < {"erased": 0.22, "mark": 0.15, "none": 0.0}[family]
        h, w = self.mark[1].shape
        where = rng.random()
        margin = int(rng.uniform(0.005, 0.06) * short)
        limit_x, limit_y = max(1, side - w), max(1, side - h)
        self.x, self.y = int(rng.integers(0, limit_x)), int(rng.integers(0, limit_y))
        if where < 0.55:
            # In the corner that the window has in common with the picture, if any; train.py turns it.
            self.x, self.y = limit_x - margin, limit_y - margin
        elif where < 0.7:
            self.y = limit_y - margin
        grow = [int(v) for v in rng.integers(0, max(3, int(height * 0.35)), 4)]
        self.grow = grow


def box_of(plan, x, y):
    h, w = plan.mark[1].shape
    g = plan.grow
    box = (max(x - g[0], 2), max(y - g[1], 2), min(x + w + g[2], plan.side - 2), min(y + h + g[3], plan.side - 2))
    return box if box[2] - box[0] >= 14 and box[3] - box[1] >= 10 else None


def carry_out(plan, fonts, image):
    """(changed image, list of (bits, box))"""
    rng = np.random.default_rng(plan.seed)
    image, done = image.copy(), []
    if plan.family == "mark":
        box = marks.lay(image, plan.mark, plan.x, plan.y)
        if box:
            done.append((MARK, box))
    elif plan.family == "erased":
        places = [(plan.x, plan.y)]
        if plan.second:
            places.append((plan.side - plan.x - plan.mark[1].shape[1], max(4, plan.y - int(rng.integers(60, 250)))))
        for x, y in places:
            box = box_of(plan, x, y)
            if box is None or any(overlap(box, other) for _, other in done):
                continue
            before, glyphs = image.copy(), None
            if plan.under:
                marks.lay(image, plan.mark, x, y)
                full = np.zeros(image.shape[:2], np.uint8)
                h, w = plan.mark[1].shape
                x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, plan.side), min(y + h, plan.side)
                full[y0:y1, x0:x1] = (plan.mark[1][y0 - y : y1 - y, x0 - x : x1 - x] > 0.08) * np.uint8(255)
                glyphs = full[box[1] : box[3], box[0] : box[2]]
            image = erasers.ERASERS[plan.eraser](image, box, glyphs, rng)
            at = np.s_[box[1] : box[3], box[0] : box[2]]
            change = np.abs(image[at].astype(np.int16) - before[at]).mean()
            done.append((ERASED | (UNCHANGED if change < 1.0 else 0), box))
    if plan.with_extra:
        for _ in range(4):
            x, y = (int(rng.integers(0, max(1, plan.side - s))) for s in (plan.extra[1].shape[1], plan.extra[1].shape[0]))
            box = (x, y, x + plan.extra[1].shape[1], y + plan.extra[1].shape[0])
            if not any(overlap(box, other) for _, other in done):
                box = marks.lay(image, plan.extra, x, y)
                if box:
                    done.append((MARK, box))
                break
    return image, done


def overlap(a, b):
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def cells(done, scale, size=SIDE, known=True):
    """Bits of each 4 x 4 cell: covered at least half by a box."""
    grid = np.zeros((size // STRIDE, size // STRIDE), np.uint8)
    if not known:
        grid |= UNKNOWN
    start = np.arange(size // STRIDE) * STRIDE
    for bits, box in done:
        x0, y0, x1, y1 = (v * scale for v in box)
        cover_x = np.clip(np.minimum(start + STRIDE, x1) - np.maximum(start, x0), 0, STRIDE)
        cover_y = np.clip(np.minimum(start + STRIDE, y1) - np.maximum(start, y0), 0, STRIDE)
        inside = np.outer(cover_y, cover_x) >= STRIDE * STRIDE / 2
        grid[inside] |= bits
        if bits & MARK:
            grid[inside] &= ~np.uint8(UNKNOWN)
    return grid


def placed(rng, image, short, side):
    """The picture at the scale at which its short side is `short`, and where the window is cut. The
    window lies in a corner or at an edge in two of three cases."""
    scale = max(short / min(image.shape[:2]), (side + 2) / min(image.shape[:2]))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    if abs(scale - 1) > 0.02:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=method)
    spare_y, spare_x = image.shape[0] - side, image.shape[1] - side
    where = rng.random()
    x, y = int(rng.integers(0, spare_x + 1)), int(rng.integers(0, spare_y + 1))
    if where < 0.45:
        x, y = spare_x, spare_y
    elif where < 0.65:
        y = spare_y
    return image, x, y


def picture_window(rng, fonts, source, kind, family, ready=None):
    """One window of a still picture: (RGB, cells, eraser, compression). `ready`: (before, after, boxes)
    of an erasure made elsewhere, of which a window is taken."""
    factor = 1.0 if rng.random() < 0.65 else float(rng.uniform(0.5, 1.0))
    side = min(int(np.ceil(SIDE / factor / 2)) * 2, 768)
    factor = SIDE / side
    eraser = "none"
    if ready is not None:
        window, boxes = ready
        factor, side = 1.0, SIDE
        done = boxes
        image = window
        if family == "erased":
            eraser = "migan"
        if rng.random() < 0.3:
            image = grain(rng, image, 2.5)
    else:
        native = min(source.shape[:2])
        top = min(1.15 * native, 1080) if kind != "face" else 2.4 * native
        short = float(np.exp(rng.uniform(np.log(min(400, top)), np.log(top)))) / factor
        image, x, y = placed(rng, source, min(short, 1.3 * top), side)
        short = min(image.shape[:2])
        image = image[y : y + side, x : x + side]
        if rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
        if rng.random() < 0.12:
            image = soften(rng, image)
        if rng.random() < 0.2:
            image = grain(rng, image)
        if rng.random() < 0.1:
            image = framed(rng, image)
        if rng.random() < 0.5:
            image = jpeg(image, rng.uniform(70, 98)) if rng.random() < 0.8 else webp(image, rng.uniform(70, 95))
        plan = Plan(rng, fonts, short, family, side)
        image, done = carry_out(plan, fonts, image)
        eraser = plan.eraser if family == "erased" and done else "none"
    # From here on nothing differs between the families.
    compression = str(rng.choice(["none", "jpeg", "webp"], p=[0.16, 0.68, 0.16]))
    early = rng.random() < 0.5
    if early:
        image = compress(rng, image, compression)
    if factor < 1:
        method = cv2.INTER_AREA if rng.random() < 0.6 else cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
        image = cv2.resize(image, (SIDE, SIDE), interpolation=method)
    if rng.random() < 0.1:
        soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 1.5))
        image = cv2.addWeighted(image, 1 + (s := rng.uniform(0.2, 0.8)), soft, -s, 0)
    if rng.random() < 0.1:
        image = grain(rng, image, 3)
    if not early or rng.random() < 0.2:
        image = compress(rng, image, compression)
    known = kind in ("photo", "face")
    return image, cells(done, factor, known=known), eraser, compression


def video_windows(rng, fonts, source, kind, family, count=3):
    """Windows out of frames of a pan over the picture, the mark or its erasure standing still."""
    native = min(source.shape[:2])
    top = min(1.1 * native, 1080) if kind != "face" else 2.4 * native
    short = float(np.exp(rng.uniform(np.log(min(440, top)), np.log(top))))
    image, x, y = placed(rng, source, max(short, SIDE + 30), SIDE)
    if rng.random() < 0.1:
        image = soften(rng, image)
    frames_n = int(rng.integers(6, 11))
    speed = rng.normal(0, rng.choice([0.0, 0.8, 3.0]), 2)
    zoom = 1 + rng.normal(0, 0.002) if rng.random() < 0.4 else 1.0
    sensor = rng.random() < 0.4
    level = rng.uniform(0.5, 4)
    before = rng.uniform(70, 95) if rng.random() < 0.5 else None
    plan = Plan(rng, fonts, min(image.shape[:2]), family, SIDE)
    frames, done = [], []
    for i in range(frames_n):
        scale = zoom**i
        # The window's middle stays the zoom's.
        matrix = np.array([[scale, 0, SIDE / 2 - scale * (x + SIDE / 2 + speed[0] * i)], [0, scale, SIDE / 2 - scale * (y + SIDE / 2 + speed[1] * i)]], np.float32)
        frame = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        if sensor:
            frame = np.clip(frame + rng.normal(0, level, frame.shape[:2] + (1,)), 0, 255).astype(np.uint8)
        if before is not None:
            frame = jpeg(frame, before)
        frame, done = carry_out(plan, fonts, frame)
        frames.append(frame)
    decoded = h264(frames, rng.uniform(18, 32), str(rng.choice(["ultrafast", "veryfast", "fast"], p=[0.15, 0.6, 0.25])))
    grid = cells(done, 1.0, known=kind in ("photo", "face"))
    eraser = plan.eraser if family == "erased" and done else "none"
    picks = sorted(rng.choice(len(decoded), min(count, len(decoded)), replace=False))
    return [(decoded[i], grid, eraser, "h264") for i in picks]


class Ready:
    """Pairs that migan.py made: 512 x 512 windows and the same with boxes painted anew."""

    def __init__(self, work, split):
        self.path = Path(work) / f"migan-{split}.npz"
        self.count, self.seen = 0, -1.0
        self.refresh()

    def refresh(self):
        if self.path.exists() and self.path.stat().st_mtime > self.seen:
            self.seen = self.path.stat().st_mtime
            with np.load(self.path) as data:
                self.before, self.after, self.boxes = data["before"], data["after"], data["boxes"]
            self.count = len(self.before)

    def window(self, rng, family):
        i = int(rng.integers(self.count))
        x, y = (int(v) for v in rng.integers(0, 512 - SIDE + 1, 2))
        image = (self.after if family == "erased" else self.before)[i][y : y + SIDE, x : x + SIDE]
        done = []
        if family == "erased":
            for x0, y0, x1, y1 in self.boxes[i]:
                box = (max(int(x0) - x, 0), max(int(y0) - y, 0), min(int(x1) - x, SIDE), min(int(y1) - y, SIDE))
                if x1 > x0 and box[2] - box[0] > 4 and box[3] - box[1] > 4:
                    at = np.s_[box[1] + y : box[3] + y, box[0] + x : box[2] + x]
                    change = np.abs(self.after[i][at].astype(np.int16) - self.before[i][at]).mean()
                    done.append((ERASED | (UNCHANGED if change < 1.0 else 0), box))
        return image, done


FAMILIES = ("erased", "mark", "none")
FAMILY_SHARES = (0.54, 0.14, 0.32)


def stream(work, fonts, split, seed):
    """Endless (RGB, cells, eraser, compression, kind, family)."""
    rng, sources, ready = np.random.default_rng(seed), Sources(work, split), Ready(work, split)
    while True:
        ready.refresh()
        source, kind, _ = sources.pick(rng)
        for _ in range(4):
            family = str(rng.choice(FAMILIES, p=FAMILY_SHARES))
            if rng.random() < 0.11:
                for window in video_windows(rng, fonts, source, kind, family):
                    yield *window, kind, family
            elif ready.count and family != "mark" and rng.random() < 0.09:
                yield *picture_window(rng, fonts, None, "generated", family, ready.window(rng, family)), "photo", family
            else:
                yield *picture_window(rng, fonts, source, kind, family), kind, family


def note(folder, made):
    """By rename: train.py reads it at any moment."""
    (folder / "made.tmp").write_text(str(made))
    (folder / "made.tmp").replace(folder / "made")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--fonts", required=True, nargs="+")
    parser.add_argument("--split", choices=["train", "val"], default="train")
    parser.add_argument("--size", type=int, default=9000, help="windows that the ring holds (0.45 MB each)")
    parser.add_argument("--total", type=int, default=1 << 40, help="stop after this many")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    folder = args.work / f"ring-{args.split}"
    folder.mkdir(parents=True, exist_ok=True)
    made = int((folder / "made").read_text()) if (folder / "made").exists() else 0
    arrays = []
    for name, shape in (("windows", (SIDE, SIDE, 3)), ("cells", (SIDE // STRIDE, SIDE // STRIDE)), ("facts", (4,))):
        path = folder / f"{name}.npy"
        mode = "r+" if path.exists() else "w+"
        arrays.append(np.lib.format.open_memmap(path, mode, np.uint8, (args.size, *shape)))
    windows, grids, facts = arrays
    began, first = time.time(), made
    for window, grid, eraser, compression, kind, family in stream(args.work, marks.Fonts(args.fonts), args.split, args.seed + made):
        at = made % args.size
        for place, apart in visible.beside(window, grid & ERASED, STRIDE):
            if apart < visible.LEAST:
                grid[place] |= UNCHANGED
        windows[at], grids[at] = window, grid
        facts[at] = NAMES.index(eraser), COMPRESSIONS.index(compression), KINDS.index(kind), FAMILIES.index(family)
        made += 1
        if made % 50 == 0:
            note(folder, made)
            if made % 500 == 0:
                print(f"{made} windows, {(made - first) / (time.time() - began):.1f}/s", flush=True)
        if made >= args.total:
            break
    note(folder, made)


if __name__ == "__main__":
    main()
