#!/usr/bin/env python3
"""The stripping matrix: labels of every kind put through ordinary operations, what is left of them as
public tools see it, and what veriscope says.

    stripping.py --work FOLDER --shared FOLDER --packages FOLDER --veriscope PROGRAM [--quick] [--jobs N]

Labelled sources (stripping_media.py) and unlabelled originals are put through operations that people and
services apply without a thought of labels, and through the ways in which careless tools take labels off.
What became of a label is found without our readers: exiftool, ffprobe, c2pa-python, the package
invisible-watermark's decoder, and a search of the raw bytes; for marks in the picture by what the
operation did to the mark's box. States:

    intact    reads as in the source, and what binds it to the content holds
    survived  reads, but the binding is broken or a field was changed; a mark that was encoded anew
    residue   no tool reads it, but bytes of it are there; a mark that was erased in its place
    removed   nothing of it is left

`--work` gets everything that is made, one line a case in `made.jsonl` (what is there is not made again),
`rows.jsonl` and `table.md`. The same for the same --seed, but for the random numbers in C2PA signatures.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import math
import random
import shutil
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from stripping_media import Media, Source, decode, ffmpeg, run  # noqa: E402

cv2.setNumThreads(1)
Image.MAX_IMAGE_PIXELS = None
READ = ("intact", "survived")


# Operations. Each gets (source, input, output without suffix, random) and gives the output's path, or
# None where it does not apply.

def same(inp, out):
    return out.with_suffix(inp.suffix)


def copied(inp, out):
    shutil.copyfile(inp, same(inp, out))
    same(inp, out).chmod(0o644)
    return same(inp, out)


def identity(source, inp, out, rng):
    return copied(inp, out)


def exiftool(*args, only=None):
    def operation(source, inp, out, rng):
        # What exiftool can write.
        if inp.suffix not in (only or (".jpg", ".png", ".webp", ".gif", ".tiff", ".tif", ".mp4", ".mov", ".m4a", ".avif")):
            return None
        made = copied(inp, out)
        subprocess.run(["exiftool", "-q", "-m", "-overwrite_original", *args, str(made)], capture_output=True, check=False)
        return made
    return operation


def tool(*command, only, output=None):
    """A program that changes the copy in place, or writes to what follows `output`."""
    def operation(source, inp, out, rng):
        if inp.suffix not in only:
            return None
        made = copied(inp, out)
        done = subprocess.run([*command, str(made), *([*output.split(), str(made) + ".new"] if output else [])], capture_output=True,
                              stdin=subprocess.DEVNULL, check=False)
        if output and Path(str(made) + ".new").exists():
            Path(str(made) + ".new").replace(made)
        if done.returncode:
            raise ValueError((done.stderr or done.stdout).decode("utf-8", "replace"))
        return made
    return operation


def jpegtran(how, *more):
    def operation(source, inp, out, rng):
        if inp.suffix != ".jpg":
            return None
        run("jpegtran", "-copy", how, *more, "-outfile", same(inp, out), inp)
        return same(inp, out)
    return operation


def magick(*args, suffix=None):
    def operation(source, inp, out, rng):
        # This ImageMagick reads no AVIF.
        if source.media != "picture" or inp.suffix == ".avif":
            return None
        made = out.with_suffix(suffix or inp.suffix)
        # The first picture of several.
        run("convert", f"{inp}[0]", *args, made)
        return made
    return operation


def pillow(suffix, form, change=None, **how):
    """Decoded and encoded anew by a program that knows no metadata."""
    def operation(source, inp, out, rng):
        if source.media != "picture":
            return None
        picture = Image.open(inp).convert("RGB")
        if change:
            picture = change(picture, rng)
        # A new picture, since Pillow carries some metadata along.
        clean = Image.fromarray(np.asarray(picture))
        clean.save(out.with_suffix(suffix), form, **how)
        return out.with_suffix(suffix)
    return operation


def screenshot(picture, rng):
    width, height = picture.size
    scale = rng.uniform(0.6, 0.9)
    small = picture.resize((max(8, int(width * scale)), max(8, int(height * scale))), Image.Resampling.BILINEAR)
    screen = Image.new("RGB", (small.width + 160, small.height + 120), (32, 33, 36))
    screen.paste(small, (80, 80))
    return screen


def crop(picture, rng):
    width, height = picture.size
    return picture.crop((int(width * 0.05), int(height * 0.05), int(width * 0.93), int(height * 0.93)))


def upload(picture, rng):
    picture.thumbnail((1080, 1080))
    return picture


def half(picture, rng):
    return picture.resize((max(8, picture.width // 2), max(8, picture.height // 2)), Image.Resampling.LANCZOS)


def caption(picture, rng):
    from PIL import ImageDraw, ImageFont
    pen = ImageDraw.Draw(picture)
    font = ImageFont.truetype("/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc", max(10, picture.height // 14))
    pen.text((picture.width // 10, picture.height * 6 // 7), "Lake trip, May 2024", font=font, fill=(255, 255, 255))
    return picture


def border(picture, rng):
    screen = Image.new("RGB", (picture.width + 40, picture.height + 60), (255, 255, 255))
    screen.paste(picture, (20, 20))
    return screen


def bokeh(picture, rng):
    """As a portrait mode does: all but the middle is blurred."""
    array = np.asarray(picture)
    soft = cv2.GaussianBlur(array, (0, 0), max(2, picture.width / 120))
    y, x = np.mgrid[0:1:picture.height * 1j, 0:1:picture.width * 1j]
    keep = np.clip(1.6 - ((x - 0.5) ** 2 + (y - 0.5) ** 2) * 9, 0, 1)[..., None]
    return Image.fromarray((array * keep + soft * (1 - keep)).astype(np.uint8))


VIDEO = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "24"]
AUDIO = {".mp3": ["-c:a", "libmp3lame"], ".ogg": ["-c:a", "libvorbis"], ".opus": ["-c:a", "libopus"]}
OTHER = {".mp4": ".mkv", ".mov": ".mp4", ".mkv": ".mp4", ".webm": ".mkv", ".flv": ".mp4", ".avi": ".mkv", ".m4a": ".mka",
         ".flac": ".ogg", ".ogg": ".mka", ".opus": ".ogg", ".mp3": ".mkv", ".wav": ".mkv", ".mpg": ".mkv"}


def remux(*args, other=False, trim=None):
    def operation(source, inp, out, rng):
        if source.media == "picture":
            return None
        suffix = OTHER[inp.suffix] if other else inp.suffix
        encode = ["-c", "copy"]
        if other and inp.suffix == ".flac":
            encode = ["-c:a", "flac"]
        if other and inp.suffix == ".avi":
            encode = ["-fflags", "+genpts", "-c", "copy"]
        made = out.with_suffix(suffix)
        if any(a == "-movflags" for a in args) and suffix not in (".mp4", ".mov", ".m4a"):
            return None
        ffmpeg(*(["-fflags", "+genpts"] if inp.suffix == ".avi" else []), *(trim or []), "-i", inp,
               *[a for a in encode if a not in ("-fflags", "+genpts")], *args, made)
        return made
    return operation


def transcode(*args, scale=None):
    def operation(source, inp, out, rng):
        if source.media == "picture":
            return None
        suffix = inp.suffix if inp.suffix != ".mpg" else ".mp4"
        codec = {".webm": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"],
                 ".avi": ["-c:v", "mpeg4", "-q:v", "4", "-c:a", "libmp3lame"]}.get(suffix, VIDEO if source.media == "video" else
                                                                                  AUDIO.get(suffix, []))
        view = ["-vf", scale] if scale and source.media == "video" else []
        made = out.with_suffix(suffix)
        ffmpeg("-i", inp, *codec, *view, *args, made)
        return made
    return operation


def service(source, inp, out, rng):
    """As a platform does: smaller, one format, nothing of the old container."""
    if source.media == "picture":
        return pillow(".jpg", "JPEG", upload, quality=75, subsampling=2)(source, inp, out, rng)
    if source.media == "sound":
        made = out.with_suffix(".m4a")
        ffmpeg("-i", inp, "-map", "0:a", "-map_metadata", "-1", "-c:a", "aac", "-b:a", "96k", made)
        return made
    made = out.with_suffix(".mp4")
    ffmpeg("-i", inp, "-map_metadata", "-1", "-vf", "scale='min(480,iw)':-2", *VIDEO, "-c:a", "aac", "-b:a", "96k",
           "-movflags", "+faststart", made)
    return made


# Careless removal, in place.

def find_all(data, needle):
    at = data.find(needle)
    while at >= 0:
        yield at
        at = data.find(needle, at + 1)


def label_text(data, token):
    """Start and end of the label's JSON text around the token, as it stands in the bytes."""
    at = data.find(token.encode())
    if at < 0:
        return None
    start = max(data.rfind(b"{", 0, at), 0)
    end = data.find(b"}", at)
    return (start, end + 1) if 0 <= start < at < end < at + 2000 else None


def fill(byte, keep=0):
    """The label's text is overwritten; `keep` bytes of it are left."""
    def operation(source, inp, out, rng):
        if "aigc" not in source.systems:
            return None
        data = bytearray(inp.read_bytes())
        if inp.suffix in (".ogg", ".opus"):
            return None  # The page's checksum would make the file unreadable.
        spot = label_text(data, source.systems["aigc"])
        if spot is None:
            return None
        start, end = spot[0] + keep, spot[1]
        data[start:end] = bytes([byte]) * (end - start)
        made = same(inp, out)
        made.write_bytes(data)
        return made
    return operation


def rename(source, inp, out, rng):
    """The structure that holds the label is declared unused, as editors do that edit in place."""
    data = bytearray(inp.read_bytes())
    token = source.systems.get("aigc", "").encode()
    if "c2pa" in source.systems:
        token = b"jumdc2pa"
    elif "iptc" in source.systems:
        token = b"trainedAlgorithmicMedia"
    at = data.find(token) if token else -1
    if at < 0:
        return None
    before = bytes(data[:at])
    suffix = inp.suffix
    if suffix in (".mp4", ".mov", ".m4a", ".avif"):
        # The innermost box that an editor would drop, walked from the top.
        spot = box_around(data, at, (b"udta", b"uuid", b"XMP_", b"meta") if suffix != ".avif" else (b"uuid", b"jumb"))
        if spot is None:
            return None
        data[spot:spot + 4] = b"free"
    elif suffix in (".wav", ".avi", ".webp"):
        names = (b"XMP ", b"C2PA") if suffix == ".webp" else (b"AIGC", b"LIST", b"C2PA")
        spots = [before.rfind(n) for n in names]
        if max(spots) < 0 or at - max(spots) > 1 << 20:
            return None
        data[max(spots):max(spots) + 4] = b"JUNK"
    elif suffix in (".mkv", ".webm"):
        spot = before.rfind(b"\x12\x54\xc3\x67")
        if spot < 0:
            return None
        length = next(n for n in range(1, 9) if data[spot + 4] >> (8 - n))
        size = int.from_bytes(data[spot + 4:spot + 4 + length], "big") - (1 << (7 * length))
        if length > 5:
            data[spot:spot + 1] = b"\xec"
            size += 3
            data[spot + 1:spot + 4 + length] = ((1 << (7 * 8)) + size + length - 5).to_bytes(8, "big") + bytes(length - 5)
        else:
            width = length + 3
            data[spot:spot + 4 + length] = b"\xec" + ((1 << (7 * width)) + size).to_bytes(width, "big")
    elif suffix == ".mp3" or b"GEOB" in before:
        # A frame of zeros is where padding begins.
        spot = max(before.rfind(b"TXXX"), before.rfind(b"GEOB"))
        if spot < 0:
            return None
        data[spot:spot + 4] = bytes(4)
    elif suffix == ".flac" and data.startswith(b"fLaC"):
        blocks, spot = 0, 4
        while blocks < 64 and data[spot] & 0x7F != 4 and not data[spot] & 0x80:
            spot += 4 + int.from_bytes(data[spot + 1:spot + 4], "big")
            blocks += 1
        if data[spot] & 0x7F != 4:
            return None
        data[spot] = data[spot] & 0x80 | 1
    elif suffix == ".jpg":
        # The segment becomes one that no reader knows.
        spots = [s for s in (before.rfind(b"\xff\xe1"), before.rfind(b"\xff\xeb")) if s >= 0]
        if not spots:
            return None
        data[max(spots) + 1] = 0xEF
    else:
        return None
    made = same(inp, out)
    made.write_bytes(data)
    return made


def box_around(data, at, kinds):
    """Where the type of the innermost of these boxes around byte `at` stands."""
    found, start, end = None, 0, len(data)
    while True:
        cursor, inner = start, None
        while cursor + 8 <= end:
            size = struct.unpack(">I", data[cursor:cursor + 4])[0]
            size = size if size >= 8 else end - cursor
            if cursor <= at < cursor + size:
                inner = (cursor, min(cursor + size, end))
                break
            cursor += size
        if inner is None:
            return found
        kind = bytes(data[inner[0] + 4:inner[0] + 8])
        if kind in kinds and (found is None or kind != b"meta"):
            found = inner[0] + 4
        if kind not in (b"moov", b"udta", b"trak", b"meta", b"moof"):
            return found
        start, end = inner[0] + 8, inner[1]


def tear(source, inp, out, rng):
    """A C2PA store is cut short in its place: only its head is left."""
    if "c2pa" not in source.systems:
        return None
    data = bytearray(inp.read_bytes())
    at = data.find(b"jumdc2pa")
    if at < 0:
        return None
    length = struct.unpack(">I", data[at - 12:at - 8])[0]
    if inp.suffix == ".jpg":
        # All but the first segment goes.
        cursor, out_bytes, seen = 2, bytearray(data[:2]), 0
        while data[cursor] == 0xFF and data[cursor + 1] not in (0xDA, 0xD9):
            size = struct.unpack(">H", data[cursor + 2:cursor + 4])[0] + 2
            if data[cursor + 1] != 0xEB or seen == 0:
                out_bytes += data[cursor:cursor + size]
            seen += data[cursor + 1] == 0xEB
            cursor += size
        if seen < 2:
            return None
        data = out_bytes + data[cursor:]
    else:
        data[at + 200:at - 12 + length] = bytes(max(0, length - 212))
    made = same(inp, out)
    made.write_bytes(data)
    return made


def drop_store(source, inp, out, rng):
    """Only the C2PA store goes; XMP and everything else stays. The file gets a pointer to it first, as
    many producers write one."""
    if "c2pa" not in source.systems or inp.suffix != ".jpg":
        return None
    data = inp.read_bytes()
    cursor, made = 2, bytearray(data[:2])
    pointer = b"dcterms:provenance" in data
    while data[cursor] == 0xFF and data[cursor + 1] not in (0xDA, 0xD9):
        size = struct.unpack(">H", data[cursor + 2:cursor + 4])[0] + 2
        if data[cursor + 1] != 0xEB:
            made += data[cursor:cursor + size]
        cursor += size
    if not pointer:
        return None
    same(inp, out).write_bytes(bytes(made) + data[cursor:])
    return same(inp, out)


def cut(source, inp, out, rng):
    """The download broke off: the last tenth is missing. No removal."""
    data = inp.read_bytes()
    same(inp, out).write_bytes(data[:len(data) * 9 // 10])
    return same(inp, out)


# Erasing marks in the picture. Each changes an array in a box or under a mask.

def mosaic(array, box, mask, rng):
    x, y, w, h = box
    cell = max(4, h // 4)
    patch = array[y:y + h, x:x + w]
    small = cv2.resize(patch, (max(1, w // cell), max(1, h // cell)), interpolation=cv2.INTER_AREA)
    array[y:y + h, x:x + w] = cv2.resize(small, (w, h), interpolation=cv2.INTER_NEAREST)


def blur(array, box, mask, rng):
    x, y, w, h = box
    k = max(3, h // 2) | 1
    array[y:y + h, x:x + w] = cv2.blur(cv2.blur(array[y:y + h, x:x + w], (k, k)), (k, k))


def inpaint_box(array, box, mask, rng):
    inpaint(array, box, "box", cv2.INPAINT_TELEA)


def inpaint_glyphs(array, box, mask, rng):
    inpaint(array, box, mask, cv2.INPAINT_NS)


def inpaint(array, box, mask, method):
    x, y, w, h = box
    top, left = max(0, y - 24), max(0, x - 24)
    part = array[top:y + h + 24, left:x + w + 24]
    hole = np.zeros(part.shape[:2], np.uint8)
    if isinstance(mask, str):
        hole[y - top:y - top + h, x - left:x - left + w] = 255
    else:
        grown = cv2.dilate((mask > 0).astype(np.uint8) * 255, np.ones((7, 7), np.uint8))
        hole = grown[top:y + h + 24, left:x + w + 24].copy()
    array[top:y + h + 24, left:x + w + 24] = cv2.inpaint(np.ascontiguousarray(part), hole, 4, method)


def clone(array, box, mask, rng):
    """The patch above it, or below, is copied over the mark."""
    x, y, w, h = box
    source = y - h - 2 if y - h - 2 >= 0 else y + h + 2
    array[y:y + h, x:x + w] = array[source:source + h, x:x + w].copy()


def solid(array, box, mask, rng):
    x, y, w, h = box
    array[y:y + h, x:x + w] = array[y:y + h, x:x + w].reshape(-1, 3).mean(axis=0)


def grown(box, size, rng):
    """The box as a careful hand draws it: a few pixels larger, within the picture, even."""
    x, y, w, h = box
    pad = rng.randrange(2, 6)
    x0, y0 = max(1, x - pad), max(1, y - pad)
    x1, y1 = min(size[0] - 1, x + w + pad), min(size[1] - 1, y + h + pad)
    return x0, y0, x1 - x0, y1 - y0


def erase(how, suffix, form, after=None, **save):
    def operation(source, inp, out, rng):
        if source.box is None or source.media != "picture":
            return None
        array = cv2.imread(str(inp))
        box = grown(source.box, (array.shape[1], array.shape[0]), rng)
        if how == "delogo":
            part = out.with_suffix(".erased.png")
            ffmpeg("-i", inp, "-vf", "format=rgb24,delogo=x={}:y={}:w={}:h={}".format(*box), "-frames:v", "1", part)
            array = cv2.imread(str(part))
            part.unlink()
        else:
            how(array, box, cv2.imread(str(source.mask), 0), rng)
        picture = Image.fromarray(array[..., ::-1])
        if after:
            picture = after(picture, rng)
        made = out.with_suffix(suffix)
        picture.save(made, form, **save)
        return made, box if after is None else scaled(box, array.shape, picture.size)
    return operation


def scaled(box, shape, size):
    fx, fy = size[0] / shape[1], size[1] / shape[0]
    return tuple(round(v * f) for v, f in zip(box, (fx, fy, fx, fy)))


def erase_video(how):
    def operation(source, inp, out, rng):
        if source.box is None or source.media != "video":
            return None
        size = Image.open(source.mask).size
        box = x, y, w, h = grown(source.box, size, rng)
        made = out.with_suffix(".mp4")
        area = f"crop={w}:{h}:{x}:{y}"
        graphs = {"delogo": f"delogo=x={x}:y={y}:w={w}:h={h}",
                  "boxblur": f"split[a][b];[b]{area},boxblur={max(2, h // 4)}:2:{max(1, h // 10)}:2[c];[a][c]overlay={x}:{y}",
                  "mosaic": f"split[a][b];[b]{area},scale={max(1, w // 10)}:{max(1, h // 10)},scale={w}:{h}:flags=neighbor[c];"
                            f"[a][c]overlay={x}:{y}"}
        if how in graphs:
            ffmpeg("-i", inp, "-vf", graphs[how], *VIDEO, "-c:a", "copy", made)
            return made, box
        mask = cv2.imread(str(source.mask), 0)
        video = cv2.VideoCapture(str(inp))
        rate = video.get(cv2.CAP_PROP_FPS)
        writer = subprocess.Popen(
            ["ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size[0]}x{size[1]}",
             "-r", f"{rate}", "-i", "-", *VIDEO, "-pix_fmt", "yuv420p", str(made)], stdin=subprocess.PIPE)
        while True:
            there, frame = video.read()
            if not there:
                break
            how(frame, box, mask, rng)
            writer.stdin.write(frame.tobytes())
        writer.stdin.close()
        if writer.wait():
            raise RuntimeError("ffmpeg could not encode the erased clip")
        return made, box
    return operation


def crop_video(source, inp, out, rng):
    if source.media != "video":
        return None
    made = out.with_suffix(".mp4")
    ffmpeg("-i", inp, "-vf", "crop=trunc(iw*0.9/2)*2:trunc(ih*0.86/2)*2:0:0", *VIDEO, "-c:a", "copy", made)
    return made


def cut_mark(source, inp, out, rng):
    """The strip with the mark is cut off."""
    if source.box is None or source.media != "picture":
        return None
    picture = Image.open(inp)
    _, y, _, h = source.box
    upper = y + h / 2 < picture.height / 2
    picture.crop((0, y + h + 4, *picture.size) if upper else (0, 0, picture.width, y - 4)).save(out.with_suffix(".jpg"), quality=92)
    return out.with_suffix(".jpg")


# name, operation, what becomes of a mark in the picture ("" where nothing is known)
BYTES = [
    ("as it is", identity), ("exiftool -all=", exiftool("-all=")), ("exiftool title", exiftool("-XMP-dc:Title=A title")),
    ("exiftool XMP only", exiftool("-XMP:all=")), ("jpegtran -copy none", jpegtran("none")),
    ("jpegtran -copy all", jpegtran("all", "-progressive")), ("convert", magick("-quality", "90")),
    ("convert -strip", magick("-strip", "-quality", "90")), ("convert to PNG", magick(suffix=".png")),
    ("ffmpeg copy", remux()), ("ffmpeg copy, no metadata", remux("-map_metadata", "-1")),
    ("ffmpeg copy, all tags", remux("-movflags", "+use_metadata_tags")),
    ("ffmpeg faststart", remux("-movflags", "+faststart+use_metadata_tags")),
    ("ffmpeg fragments", remux("-movflags", "frag_keyframe+empty_moov+use_metadata_tags")),
    ("ffmpeg trim", remux(trim=["-ss", "0.5"])), ("other container", remux(other=True)), ("transcode", transcode()),
    ("transcode, no metadata", transcode("-map_metadata", "-1")), ("upload", service), ("broken off", cut),
]
PIXELS = [
    ("save as JPEG", pillow(".jpg", "JPEG", quality=88)), ("save as WebP", pillow(".webp", "WEBP", quality=82, method=2)),
    ("save as PNG", pillow(".png", "PNG")), ("screenshot", pillow(".png", "PNG", screenshot)),
    ("crop", pillow(".jpg", "JPEG", crop, quality=90)), ("resize", pillow(".jpg", "JPEG", half, quality=90)),
]
CARELESS = [
    ("zeros in place", fill(0)), ("blanks in place", fill(32)), ("head left", fill(0, keep=40)), ("renamed in place", rename),
    ("store torn", tear), ("store dropped", drop_store),
]
# Editors that take metadata off, each as its manual says.
EDITORS = [
    ("mkvpropedit", tool("mkvpropedit", "--tags", "all:", "--delete", "title", only=(".mkv", ".webm"))),
    ("metaflac", tool("metaflac", "--remove-all-tags", only=(".flac",))),
    ("AtomicParsley", tool("AtomicParsley", only=(".mp4", ".m4a", ".mov"), output="--metaEnema --output")),
    ("exiv2 rm", tool("exiv2", "rm", only=(".jpg", ".png", ".webp", ".tiff"))),
    ("id3v2 -D", tool("id3v2", "-D", only=(".mp3",))),
]
ERASE = [
    ("delogo", erase("delogo", ".png", "PNG")), ("delogo, JPEG", erase("delogo", ".jpg", "JPEG", quality=90)),
    ("box blur, JPEG", erase(blur, ".jpg", "JPEG", quality=92)), ("mosaic, JPEG", erase(mosaic, ".jpg", "JPEG", quality=90)),
    ("inpaint box", erase(inpaint_box, ".png", "PNG")), ("inpaint box, JPEG", erase(inpaint_box, ".jpg", "JPEG", quality=90)),
    ("inpaint glyphs, JPEG", erase(inpaint_glyphs, ".jpg", "JPEG", quality=90)),
    ("clone, JPEG", erase(clone, ".jpg", "JPEG", quality=90)), ("fill, JPEG", erase(solid, ".jpg", "JPEG", quality=90)),
    ("inpaint box, upload", erase(inpaint_box, ".jpg", "JPEG", half, quality=80)),
    ("video delogo", erase_video("delogo")), ("video box blur", erase_video("boxblur")), ("video mosaic", erase_video("mosaic")),
    ("video inpaint", erase_video(inpaint_box)),
]
GONE = [("mark cut off", cut_mark), ("video crop", crop_video)]
INNOCENT = [
    ("caption", pillow(".jpg", "JPEG", caption, quality=90)), ("border", pillow(".jpg", "JPEG", border, quality=90)),
    ("portrait blur", pillow(".jpg", "JPEG", bokeh, quality=90)), ("video crop", crop_video),
]


def plan(media, quick, seed):
    """(source, name, operation, truth for a mark) of every case."""
    cases = []
    for source in media.labelled():
        for name, operation in BYTES + CARELESS + EDITORS + (PIXELS[:1] + PIXELS[3:4]):
            cases.append((source, name, operation, ""))
    for source in list(media.watermarked()) + list(media.rhythm()):
        for name, operation in BYTES[:1] + BYTES[6:8] + BYTES[-5:-1] + PIXELS:
            cases.append((source, name, operation, ""))
    for source in list(media.marked_pictures()) + list(media.marked_clips()):
        for name, operation in [("as it is", identity), ("transcode", transcode()), ("upload", service), *PIXELS[:4], *PIXELS[5:]]:
            cases.append((source, name, operation, "intact" if name == "as it is" else "survived"))
        for name, operation in ERASE:
            cases.append((source, name, operation, "residue"))
        for name, operation in GONE:
            # A crop of a video leaves marks at the other edges.
            if name != "video crop" or source.box[1] + source.box[3] > 0.9 * Image.open(source.mask).height:
                cases.append((source, name, operation, "removed"))
    for source in media.unlabelled():
        rng = random.Random(f"{seed}/{source.name}")
        pictures = [o for o in BYTES[1:] if not o[0].startswith(("ffmpeg", "transcode", "other"))] + PIXELS + INNOCENT[:3]
        streams = [o for o in BYTES[1:] if not o[0].startswith(("jpegtran", "convert"))] + INNOCENT[3:]
        # Of a picture's operations some; of the fewer films all.
        chosen = rng.sample(pictures, 7) if source.media == "picture" else streams
        cases += [(source, name, operation, "") for name, operation in [BYTES[0]] + chosen + EDITORS]
    if quick:
        cases = [c for c in cases if zlib.crc32(f"{c[0].name}/{c[1]}".encode()) % 8 == 0]
    return cases


def make(case, folder, seed):
    source, name, operation, truth = case
    key = hashlib.sha256(f"{seed}/{source.name}/{name}".encode()).hexdigest()[:16]
    started = time.monotonic()
    row = {"key": key, "source": source.name, "operation": name, "media": source.media, "systems": sorted(source.systems),
           "negative": source.negative, "mark": truth, "path": None}
    try:
        made = operation(source, source.path, folder / key, random.Random(f"{seed}/{key}"))
    except (subprocess.CalledProcessError, OSError, ValueError, RuntimeError, cv2.error) as error:
        # An operation that cannot do this container is no case; the reason stays in the record.
        detail = getattr(error, "stderr", b"") or str(error).encode()
        row["failed"] = detail.decode("utf-8", "replace")[-300:]
        made = None
    box = source.box
    if isinstance(made, tuple):
        made, box = made
    if made and made.exists() and made.stat().st_size:
        row.update(path=made.name, box=box, seconds=round(time.monotonic() - started, 2))
    return row


# What is left of a label, without our readers.

def texts_of(paths):
    """Everything that exiftool and ffprobe show of each file, as one text."""
    shown = collections.defaultdict(str)
    for at in range(0, len(paths), 200):
        batch = paths[at:at + 200]
        out = subprocess.run(["exiftool", "-json", "-a", "-u", "-G1", "-m", "-api", "largefilesupport=1", *map(str, batch)],
                             capture_output=True, check=False).stdout
        for entry in json.loads(out or b"[]"):
            shown[Path(entry["SourceFile"]).name] += "\n".join(
                # What it shows of unused space is no label that anybody reads.
                f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in entry.items() if "junk" not in k.lower())
    for path in paths:
        if path.suffix in (".png", ".jpg", ".webp", ".gif", ".tiff", ".tif", ".avif"):
            continue
        out = subprocess.run(["ffprobe", "-v", "quiet", "-of", "json", "-show_format", "-show_streams", str(path)],
                             capture_output=True, check=False).stdout
        probed = json.loads(out or b"{}")
        for part in [probed.get("format", {}), *probed.get("streams", [])]:
            shown[path.name] += "\n".join(f"{k}={v}" for k, v in part.get("tags", {}).items() if k != "JUNK")
        if path.suffix in (".wav", ".avi"):
            shown[path.name] += riff_text(path.read_bytes())
    return shown


def riff_text(data, start=12, end=None):
    """Chunks `AIGC`, which neither tool shows."""
    text, end = "", min(end or len(data), len(data))
    while start + 8 <= end:
        kind, size = struct.unpack("<4sI", data[start:start + 8])
        if kind == b"AIGC":
            text += "AIGC=" + data[start + 8:start + 8 + size].decode("utf-8", "replace")
        if kind == b"LIST" and data[start + 8:start + 12] == b"INFO":
            text += riff_text(data, start + 12, start + 8 + size)
        start += 8 + size + size % 2
    return text


def raw_of(path):
    """The file's bytes, with what is packed in PNG text unpacked."""
    data = path.read_bytes()
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        at, more = 8, b""
        while at + 8 <= len(data):
            size, kind = struct.unpack(">I4s", data[at:at + 8])
            body = data[at + 8:at + 8 + size]
            if kind in (b"zTXt", b"iTXt"):
                for spot in list(find_all(body[:200], b"\x78"))[:8]:
                    try:
                        more += zlib.decompressobj().decompress(body[spot:], 1 << 20)
                    except zlib.error:
                        pass
            if kind in (b"tEXt", b"zTXt") and body.startswith(b"Raw profile type"):
                hexed = (more[-(1 << 20):] or body).split(b"\n")
                more += bytes.fromhex("".join(l.decode("latin1") for l in hexed if set(l) <= set(b"0123456789abcdef") and len(l) % 2 == 0))
            at += 12 + size
        data += more
    return data


def state_of(row, source, path, shown, c2pa_before, packages):
    """System to state."""
    states = {}
    raw = None
    for system, known in source.systems.items():
        if system == "visible":
            states[system] = row["mark"]
            continue
        if system == "explicit-audio":
            # Every operation of the matrix keeps all sound but the trim, which keeps half of the label.
            states[system] = "intact" if row["operation"] == "as it is" else "survived"
            continue
        if system == "watermark":
            picture = cv2.imread(str(path))
            right = decode(packages, picture)[known] if picture is not None and min(picture.shape[:2]) >= 64 else 0
            states[system] = ("intact" if row["operation"] == "as it is" else "survived") if right >= 44 else "removed"
            continue
        raw = raw if raw is not None else raw_of(path)
        if system == "c2pa":
            state = c2pa_state(path)
            if state is not None:
                states[system] = "intact" if state == c2pa_before else "survived"
            else:
                left = b"jumdc2pa" in raw or b"jumdc2ma" in raw or b"provenance" in raw and b"jumbf=" in raw
                states[system] = "residue" if left else "removed"
        elif system == "aigc":
            if known in shown and "ContentProducer" in shown:
                states[system] = "intact" if row["whole"] else "survived"
            else:
                left = known.encode() in raw or b"AIGC" in raw or known.encode("utf-16-le") in raw
                states[system] = "residue" if left else "removed"
        elif system == "iptc":
            found = any("DigitalSourceType" in line and known in line for line in shown.splitlines())
            states[system] = "intact" if found else "residue" if known.encode() in raw else "removed"
        else:
            states[system] = "intact" if known in shown else "residue" if known.encode() in raw else "removed"
    return states


def c2pa_state(path):
    """Validation state and failures as c2pa-python tells them; none where it sees no manifest."""
    import c2pa
    try:
        with c2pa.Reader(str(path)) as reader:
            told = json.loads(reader.json())
    except Exception:  # noqa: BLE001: its errors have no common type, and all mean that nothing was read
        return None
    active = told.get("validation_results", {}).get("activeManifest") or {}
    failures = sorted(f["code"] for f in active.get("failure", []) if f["code"] != "signingCredential.untrusted")
    return told.get("validation_state") != "Invalid" or "expired" in "".join(failures), tuple(failures)


# What veriscope says.

def ask(veriscope, command, paths, jobs):
    found = {}
    for at in range(0, len(paths), 400):
        out = subprocess.run([str(veriscope), *map(str, command), "--format", "jsonl", "--jobs", str(jobs), *map(str, paths[at:at + 400])],
                             capture_output=True, check=False, stdin=subprocess.DEVNULL)
        reports = [json.loads(line) for line in out.stdout.splitlines()]
        # Code 1 says that a file could not be read whole; each has a report all the same.
        if out.returncode > 1 or len(reports) != len(paths[at:at + 400]):
            sys.exit(f"{veriscope} {command[0]} ended with {out.returncode} and {len(reports)} reports: {out.stderr[-2000:].decode()}")
        for report in reports:
            found[Path(report.get("path") or report["media"]["path"]).name] = report
    return found


def judged(report):
    """labels, evidence, probability and verdict of either kind of report."""
    if "label_strip" in report:
        strip = report["label_strip"] or {}
    else:
        segments = [s for s in report["segments"] if s["detector"] == "label-strip"]
        strip = max(segments, key=lambda s: s["probability"] or 0, default={})
    return report["labels"], report["strip_evidence"], strip.get("probability"), strip.get("verdict")


def overlap(a, b):
    x = max(0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    y = max(0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return x * y / (a[2] * a[3] + b[2] * b[3] - x * y)


def region(piece):
    r = piece.get("region")
    return (r["x"], r["y"], r["w"], r["h"]) if r else None


def said(row, source, report):
    """System to one of read, located, flagged, nothing."""
    labels, evidence, probability, _ = judged(report)
    flagged = probability is not None and probability >= 0.5
    answers = {}
    for system, known in source.systems.items():
        if system == "visible":
            seen = [l for l in labels if region(l) and l["system"].startswith("explicit")]
            # Where the operation changed the picture's size the box is not known; a text that was read is.
            moved = row["operation"] in ("resize", "screenshot", "upload")
            read = any(moved or overlap(region(l), row["box"]) >= 0.3 for l in seen) and row["mark"] != "residue"
        else:
            of = [l for l in labels if l["system"] == system and l["place"] != "file"]
            # Content is cut at 4 KiB and texts before it; the key alone tells where it is longer.
            read = any(known in l["content"] or system != "aigc" for l in of)
        located = row["box"] and any(e["kind"] == "erased_mark" and region(e) and overlap(region(e), row["box"]) >= 0.5
                                     for e in evidence)
        answers[system] = "read" if read else "located" if located else "flagged" if flagged else "nothing"
    return answers, flagged, bool(located) if row["box"] else False


def wilson(hits, n):
    """The 95 % interval of a share."""
    if not n:
        return 0.0, 1.0
    z, p = 1.959964, hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), (middle + half) / (1 + z * z / n)


def share(name, rows, hit):
    hits, n = sum(bool(hit(r)) for r in rows), len(rows)
    low, high = wilson(hits, n)
    value = f"{100 * hits / n:.1f} %" if n else "none"
    return f"| {name} | {hits} of {n} | {value} | {100 * low:.1f} to {100 * high:.1f} % |"


def table(rows):
    lines = ["| system | operation | files | intact | survived | residue | removed | read | located | flagged | nothing |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    groups = collections.OrderedDict()
    for row in rows:
        for system, state in row["states"].items():
            groups.setdefault((system, row["operation"]), []).append((state, row["said"][system]))
        if row["negative"]:
            groups.setdefault(("none", row["operation"]), []).append(("removed", "flagged" if row["flagged"] else "nothing"))
    for (system, operation), pairs in sorted(groups.items()):
        states, answers = collections.Counter(p[0] for p in pairs), collections.Counter(p[1] for p in pairs)
        counts = [states[s] if system != "none" else "" for s in ("intact", "survived", "residue", "removed")]
        counts += [answers[s] for s in ("read", "located", "flagged", "nothing")]
        lines.append(f"| {system} | {operation} | {len(pairs)} | {' | '.join(str(c or '') for c in counts)} |")
    return lines


def sums(rows):
    def of(states, systems=None, but=()):
        return [(r, s) for r in rows for s, state in r["states"].items()
                if state in states and (systems is None or s in systems) and s not in but]
    lines = ["| sum | counts | share | 95 % interval |", "| --- | --- | --- | --- |"]
    read = lambda p: p[0]["said"][p[1]] == "read"
    for system in sorted({s for r in rows for s in r["states"]}):
        lines.append(share(f"{system}: read where it survived", of(READ, {system}), read))
    metadata = {"aigc", "c2pa", "iptc", "generator-trace"}
    lines.append(share("in metadata, read where they survived", of(READ, metadata), read))
    # A broken download is no removal, and what breaks off with the file is not held against the label.
    removals = lambda pairs: [p for p in pairs if p[0]["operation"] != "broken off"]
    for system in sorted(metadata):
        if of(("residue",), {system}):
            lines.append(share(f"{system}: flagged, or read, where a trace is left", removals(of(("residue",), {system})),
                               lambda p: p[0]["flagged"] or read(p)))
    erased = of(("residue",), {"visible"})
    left = removals(of(("residue",), {"aigc", "c2pa", "iptc"}))
    lines.append(share("labels in metadata, flagged where a trace is left", left, lambda p: p[0]["flagged"]))
    lines.append(share("the same, flagged or read although no other tool reads it", left, lambda p: p[0]["flagged"] or read(p)))
    for media in ("picture", "video"):
        some = [p for p in erased if p[0]["media"] == media]
        lines.append(share(f"marks erased in a {media}, located (IoU 0.5)", some, lambda p: p[0]["located"]))
        lines.append(share(f"marks erased in a {media}, flagged", some, lambda p: p[0]["flagged"]))
    lines.append(share("removed without a trace, flagged", of(("removed",), but={"watermark"}), lambda p: p[0]["flagged"]))
    negatives = [r for r in rows if r["negative"]]
    lines.append(share("never labelled, flagged", negatives, lambda r: r["flagged"]))
    lines.append(share("never labelled, any evidence", negatives, lambda r: r["kinds"]))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("work", "shared", "packages", "veriscope"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="one case of eight")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=30, help="no case is begun after that; a later run goes on (30)")
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    folder = args.work / "cases"
    folder.mkdir(parents=True, exist_ok=True)
    media = Media(args.work, args.shared, args.packages, args.seed, args.veriscope)
    cases = plan(media, args.quick, args.seed)
    record = args.work / "made.jsonl"
    made = {r["key"]: r for r in map(json.loads, record.read_text().splitlines())} if record.exists() else {}
    sources = {c[0].name: c[0] for c in cases}

    def one(case):
        key = hashlib.sha256(f"{args.seed}/{case[0].name}/{case[1]}".encode()).hexdigest()[:16]
        if key in made and (not made[key]["path"] or (folder / made[key]["path"]).exists()):
            return made[key], False
        if time.monotonic() > until:
            return None, False
        return make(case, folder, args.seed), True

    with record.open("a") as log, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        rows = []
        for row, new in pool.map(one, cases):
            if row is None:
                continue
            if new:
                print(json.dumps(row), file=log, flush=True)
            if row["path"]:
                rows.append(row)
    late = time.monotonic() > until
    print(f"{len(rows)} files of {len(cases)} cases{', out of time: run again to go on' if late else ''}", file=sys.stderr)

    paths = [folder / r["path"] for r in rows]
    known = {}
    truth_file = args.work / "truth.jsonl"
    if truth_file.exists():
        known = {r["key"]: r for r in map(json.loads, truth_file.read_text().splitlines())}
    todo = [r for r in rows if r["key"] not in known and not r["negative"]]
    shown = texts_of([folder / r["path"] for r in todo])
    original = texts_of(sorted({sources[r["source"]].path for r in todo if "aigc" in r["systems"]}))
    before = {}
    with truth_file.open("a") as log:
        for row in todo:
            source = sources[row["source"]]
            row["whole"] = True
            if "aigc" in source.systems:
                want = label_in(original[source.path.name], source.systems["aigc"])
                row["whole"] = want is not None and want in shown[row["path"]]
            if "c2pa" in source.systems and source.name not in before:
                before[source.name] = c2pa_state(source.path)
            states = state_of(row, source, folder / row["path"], shown[row["path"]], before.get(source.name), args.packages)
            known[row["key"]] = {"key": row["key"], "states": states}
            print(json.dumps(known[row["key"]]), file=log, flush=True)
    print("asking veriscope", file=sys.stderr)
    inspected = ask(args.veriscope, ["inspect"], paths, args.jobs)
    pixels = [folder / r["path"] for r in rows if r["negative"] or set(r["systems"]) & {"visible", "watermark", "explicit-audio"}]
    weights = Path(__file__).resolve().parents[2] / "weights"
    scanned = ask(args.veriscope, ["scan", "--detectors", "label-strip", "--weights", weights], pixels, args.jobs)
    for row in rows:
        report = scanned.get(row["path"])
        if report is None or report["status"] == "failed":
            report = inspected[row["path"]]
        row["states"] = known[row["key"]]["states"] if not row["negative"] else {}
        row["said"], row["flagged"], row["located"] = said(row, sources[row["source"]], report)
        row["kinds"] = sorted({e["kind"] for e in report["strip_evidence"]})
        row["probability"] = judged(report)[2]
        row["unread"] = [r["code"] for r in report.get("reasons", [])]
    with (args.work / "rows.jsonl").open("w") as out:
        for row in rows:
            print(json.dumps(row), file=out)
    lines = sums(rows) + [""] + table(rows)
    (args.work / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def label_in(text, token):
    """The label's JSON in a text."""
    at = text.find(token)
    start, end = text.rfind("{", 0, at), text.find("}", at)
    return text[start:end + 1] if at >= 0 and start >= 0 and end >= 0 else None


if __name__ == "__main__":
    main()
