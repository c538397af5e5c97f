#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets: small real files of every container that ffmpeg writes, with
and without labels, the test files of C2PA and of AI services without most of their pixels, and values
of labels. Needs ffmpeg and a veriscope program; nothing is kept in the repository.

    fuzz/seed.py --veriscope PROGRAM [--provenance FOLDER] OUT
"""
import argparse
import json
import os
import pathlib
import random
import struct
import subprocess
import tempfile

CODE = "001191110102MACQD9K64010000"
AIGC = json.dumps({"Label": "1", "ContentProducer": CODE, "ProduceID": "made/p-1", "ReservedCode1": "",
                   "ContentPropagator": "", "PropagateID": "", "ReservedCode2": ""}, separators=(",", ":"))
XMP = ('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
       'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
       'xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
       'xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="self#jumbf=/c2pa/urn:uuid:1">'
       '<TC260:AIGC>%s</TC260:AIGC><Iptc4xmpExt:DigitalSourceType>'
       'http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>'
       '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>' % AIGC.replace('"', "&quot;"))
# Family, name, arguments of ffmpeg behind its two inputs.
V, A = ["-map", "0:v"], ["-map", "1:a"]
KINDS = [
    ("bmff", "x264.mp4", ["-c:v", "libx264", "-c:a", "aac"]),
    ("bmff", "fast.mp4", ["-c:v", "libx264", "-movflags", "+faststart"]),
    ("bmff", "fragmented.mp4", ["-c:v", "libx264", "-movflags", "frag_keyframe+empty_moov"]),
    ("bmff", "dash.mp4", [*V, "-c:v", "libx265", "-x265-params", "log-level=0", "-movflags", "dash+global_sidx"]),
    ("bmff", "mpeg4.mov", ["-c:v", "mpeg4", "-c:a", "pcm_s16le", "-t", "0.1"]),
    ("bmff", "sound.m4a", [*A, "-c:a", "aac"]),
    ("bmff", "small.3gp", [*V, "-c:v", "h263", "-s", "128x96"]),
    ("bmff", "still.avif", [*V, "-c:v", "libaom-av1", "-frames:v", "1", "-cpu-used", "8"]),
    ("matroska", "x264.mkv", ["-c:v", "libx264", "-c:a", "libopus"]),
    ("matroska", "vp9.webm", [*V, "-c:v", "libvpx-vp9", "-deadline", "realtime"]),
    ("matroska", "live.mkv", ["-c:v", "mpeg4", "-c:a", "libmp3lame", "-live", "1"]),
    ("matroska", "sound.mka", [*A, "-c:a", "flac", "-t", "0.05"]),
    ("riff", "short.wav", [*A, "-t", "0.02"]),
    ("riff", "rf64.wav", [*A, "-t", "0.02", "-rf64", "always"]),
    ("riff", "mpeg4.avi", ["-c:v", "mpeg4", "-c:a", "libmp3lame"]),
    ("riff", "x264.avi", [*V, "-c:v", "libx264"]),
    ("riff", "lossy.webp", [*V, "-c:v", "libwebp", "-frames:v", "1"]),
    ("riff", "moving.webp", [*V, "-c:v", "libwebp_anim"]),
    ("png", "rgb.png", [*V, "-frames:v", "1"]),
    ("png", "moving.apng", [*V, "-f", "apng"]),
    ("jpeg", "plain.jpg", [*V, "-frames:v", "1"]),
    ("gif_tiff", "moving.gif", [*V]),
    ("gif_tiff", "packed.tiff", [*V, "-frames:v", "1"]),
    ("gif_tiff", "raw.tiff", [*V, "-frames:v", "1", "-compression_algo", "raw", "-s", "16x16"]),
    ("flv_mpegts", "x264.flv", ["-c:v", "libx264", "-c:a", "aac"]),
    ("flv_mpegts", "old.flv", [*V, "-c:v", "flv"]),
    ("flv_mpegts", "x264.ts", ["-c:v", "libx264", "-c:a", "aac", "-metadata", "service_name=AIGC"]),
    ("flv_mpegts", "blu.m2ts", ["-c:v", "libx264", "-f", "mpegts", "-mpegts_m2ts_mode", "1"]),
    ("mp3_xiph", "v23.mp3", [*A, "-c:a", "libmp3lame", "-id3v2_version", "3"]),
    ("mp3_xiph", "v24.mp3", [*A, "-c:a", "libmp3lame", "-id3v2_version", "4", "-write_id3v1", "1"]),
    ("mp3_xiph", "bare.mp3", [*A, "-c:a", "libmp3lame", "-id3v2_version", "0"]),
    ("mp3_xiph", "short.flac", [*A, "-c:a", "flac", "-t", "0.05"]),
    ("mp3_xiph", "vorbis.ogg", [*A, "-c:a", "libvorbis"]),
    ("mp3_xiph", "opus.opus", [*A, "-c:a", "libopus"]),
    ("mp3_xiph", "theora.ogv", [*V, "-c:v", "libtheora"]),
    ("mp3_xiph", "flac.oga", [*A, "-c:a", "flac", "-t", "0.05"]),
]
MOST = 24 << 10


def make(folder, veriscope):
    """(family, name, bytes) of every kind: plain, with ffmpeg's metadata, labelled, propagated."""
    ffmpeg = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", "testsrc=d=0.3:s=32x32:r=10",
              "-f", "lavfi", "-i", "sine=d=0.3:r=16000"]
    for family, name, how in KINDS:
        plain = folder / name
        subprocess.run([*ffmpeg, *how, "-shortest", plain], check=True)
        yield family, name, plain.read_bytes()
        tagged = folder / f"tagged-{name}"
        subprocess.run([*ffmpeg, *how, "-shortest", "-metadata", f"AIGC={AIGC}", "-metadata", "title=a title",
                        "-metadata", "comment=parameters Steps: 20", *(["-movflags", "+use_metadata_tags"]
                        if family == "bmff" and "-movflags" not in how and "avif" not in name else []), tagged], check=True)
        yield family, tagged.name, tagged.read_bytes()
        labelled, spread = folder / f"labelled-{name}", folder / f"spread-{name}"
        add = [veriscope, "label", "add", plain, "--output", labelled, "--label", "1", "--producer", CODE,
               "--produce-id", "made/p-1"]
        # What cannot be written (AVIF, MPEG-TS) is not.
        if subprocess.run(add, capture_output=True).returncode == 0:
            yield family, labelled.name, labelled.read_bytes()
            propagate = [veriscope, "label", "propagate", labelled, "--output", spread, "--propagator", CODE,
                         "--propagate-id", "q-2"]
            if subprocess.run(propagate, capture_output=True).returncode == 0:
                yield family, spread.name, spread.read_bytes()


def short_jpeg(data):
    """The JPEG with segments of at most 3,000 bytes and hardly any picture."""
    out, at = [data[:2]], 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        size = struct.unpack(">H", data[at + 2:at + 4])[0]
        body = data[at + 4:at + 2 + size][:3000]
        out.append(data[at:at + 2] + struct.pack(">H", len(body) + 2) + body)
        at += 2 + size
    return b"".join(out) + data[at:at + 100] + b"\xff\xd9"


def short_png(data):
    """The PNG with chunks of at most 6,000 bytes and 50 bytes of pixels; readers check no CRC."""
    out, at = [data[:8]], 8
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size][:50 if kind == b"IDAT" else 6000]
        if kind != b"IDAT" or b"IDAT" not in b"".join(p[4:8] for p in out[1:]):
            out.append(struct.pack(">I4s", len(body), kind) + body + b"\0\0\0\0")
        at += 12 + size
    return b"".join(out)


def box(kind, *bodies):
    body = b"".join(bodies)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def heif():
    """An HEIF with an XMP and an EXIF item."""
    xmp = XMP.encode()
    exif = b"\0\0\0\0" + tiff()
    infe = [box(b"infe", struct.pack(">IHH4s", 2 << 24, n, 0, kind), b"\0", mime)
            for n, kind, mime in [(1, b"av01", b""), (2, b"mime", b"application/rdf+xml\0\0"), (3, b"Exif", b"")]]
    def meta(base):
        iloc = struct.pack(">IBBH", 0, 0x44, 0, 2)
        iloc += struct.pack(">HHHII", 2, 0, 1, base, len(xmp)) + struct.pack(">HHHII", 3, 0, 1, base + len(xmp), len(exif))
        return box(b"meta", b"\0\0\0\0", box(b"hdlr", b"\0" * 8, b"pict", b"\0" * 13), box(b"pitm", b"\0\0\0\0\0\1"),
                   box(b"iloc", iloc), box(b"iinf", struct.pack(">IH", 0, 3), *infe))
    ftyp = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    return ftyp + meta(len(ftyp) + len(meta(0)) + 8) + box(b"mdat", xmp, exif)


def tiff(big=False):
    """A TIFF directory with XMP, ImageDescription, Software and an EXIF directory with UserComment."""
    xmp, text = XMP.encode(), b'AIGC{"Label":"1","ContentProducer":"p","ProduceID":"q"}\0'
    values = [(0x10E, 2, text), (0x131, 2, b"Ideogram AI\0"), (0x2BC, 1, xmp), (0x9286, 7, b"ASCII\0\0\0" + text)]
    head, entry = (8, 12) if not big else (16, 20)
    at = head + (6 if not big else 16) + entry * len(values)
    entries, bodies = b"", b""
    for tag, kind, body in values:
        entries += struct.pack("<HHII" if not big else "<HHQQ", tag, kind, len(body), at + len(bodies))
        bodies += body
    if big:
        return struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(values)) + entries + bytes(8) + bodies
    return struct.pack("<2sHIH", b"II", 42, 8, len(values)) + entries + bytes(4) + bodies


def ape(data):
    item = b"AIGC\0" + AIGC.encode()
    item = struct.pack("<II", len(item) - 5, 0) + item
    foot = b"APETAGEX" + struct.pack("<IIII", 2000, len(item) + 32, 1, 0) + bytes(8)
    return data + item + foot


def values():
    """(place, value) as the target `values` takes them."""
    label = AIGC.encode()
    wrapped = b'{"AIGC":' + label + b"}"
    for place in (0, 4, 5, 8, 9, 10):
        for text in (label, wrapped, json.dumps(AIGC).encode(), b"AIGC" + label, label.replace(b'"1"', b"1"),
                     label[:60], label.replace(b"ProduceID", b"Label"), b"[" * 300 + b"]" * 300, label + label):
            yield place, text
    for place in (1, 6, 9, 10, 11):
        yield place, XMP.encode()
        yield place, XMP.replace("<TC260:AIGC>", "<TC260:AIGC><TC260:AIGC>").encode("utf-16")
        yield place, XMP.replace("TC260:AIGC>", "aigc:AIGC>").encode()
    yield 8, b"http://ns.adobe.com/xap/1.0/\0" + XMP.encode()
    for place in (2, 7):
        yield place, tiff()
    yield 3, box(b"jumb", box(b"jumd", b"c2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\x03c2pa\0"),
                 box(b"jumb", box(b"jumd", b"c2ma\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\x03urn:uuid:1\0"),
                     b"digitalsourcetype/trainedAlgorithmicMedia"))
    yield 4, b"a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Model: sd"
    yield 5, b'{"3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20}}}'
    yield 10, box(b"keys", b"\0\0\0\0\0\0\0\1", box(b"mdta", b"AIGC")) + box(b"ilst", label)
    yield 10, b"jumb\0\0\0\x1ejumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\x03c2pa\0"
    yield 9, b'\0\0{"genAIType":1}SEFT'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--veriscope", required=True)
    parser.add_argument("--provenance", type=pathlib.Path, default=os.environ.get("VERISCOPE_PROVENANCE"),
                        help="folder with C2PA test files and files of AI services (c2pa-*.jpg, aigc-*.png …)")
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    files = []
    with tempfile.TemporaryDirectory() as folder:
        files += make(pathlib.Path(folder), args.veriscope)
    if args.provenance:
        for path in sorted(pathlib.Path(args.provenance).iterdir()):
            if path.suffix == ".jpg":
                files.append(("jpeg", path.name, short_jpeg(path.read_bytes())))
            elif path.suffix == ".png":
                files.append(("png", path.name, short_png(path.read_bytes())))
    jpegs = [data for family, name, data in files if name == "plain.jpg"]
    for data in jpegs:
        def segment(body):
            return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
        files.append(("jpeg", "xmp.jpg", segment(b"http://ns.adobe.com/xap/1.0/\0" + XMP.encode())))
        files.append(("jpeg", "exif.jpg", segment(b"Exif\0\0" + tiff())))
        files.append(("jpeg", "behind.jpg", data + XMP.encode() + b'AIGC{"Label":"1"}'))
    files += [("mp3_xiph", f"ape-{name}", ape(data)) for family, name, data in files if name == "bare.mp3"]
    files += [("bmff", "items.heic", heif()), ("gif_tiff", "tags.tiff", tiff()), ("gif_tiff", "big.tiff", tiff(True))]
    rng = random.Random(1)
    for family, name, data in files:
        if len(data) > MOST:
            print(f"left out, {len(data)} bytes: {name}")
            continue
        targets = [(family, data), ("write", data)]
        # A hole early, where structures are, or late; of every size.
        for scale in (100, 230, 255):
            at = rng.randrange(min(len(data), 2000))
            targets.append(("holes", data + struct.pack("<HBHB", at, scale, rng.randrange(1 << 16), rng.randrange(64))))
        for number, (target, body) in enumerate(targets):
            (args.out / target).mkdir(parents=True, exist_ok=True)
            (args.out / target / f"{number}-{name}").write_bytes(body)
    (args.out / "values").mkdir(parents=True, exist_ok=True)
    for number, (place, value) in enumerate(values()):
        (args.out / "values" / f"{number}").write_bytes(bytes([place]) + value)
    print({path.name: len(list(path.iterdir())) for path in sorted(args.out.iterdir())})


if __name__ == "__main__":
    main()
