"""Media, labels and marks of the stripping matrix (stripping.py): what is labelled, and with what."""

import datetime
import json
import random
import struct
import subprocess
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFont

CODE = "001191110102MACQD9K64010000"
AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
# Of the package invisible-watermark's users, as their pipelines set them.
MESSAGES = {"flux": "001010101111111010000111100111001111010100101110",
            "sdxl": "101100111110110010010000011110111011000110011110"}
FONTS = ["/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc", "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc"]


@dataclass
class Source:
    """A file and what is known of it. `systems` names what it carries and what tells it."""

    name: str
    path: Path
    media: str  # picture, video, sound
    systems: dict = field(default_factory=dict)
    box: tuple | None = None  # x, y, w, h of the visible mark
    mask: Path | None = None  # its pixels
    negative: bool = False


def run(*command, **more):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL, **more)


def ffmpeg(*args):
    run("ffmpeg", "-v", "error", "-nostdin", "-y", *args)


def once(path, make):
    """Makes a file where it is not there, whole or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".part-{path.name}")
        make(part)
        part.rename(path)
    return path


def token(name):
    """What identifies a source's label: no other bytes of the matrix hold it."""
    return f"vmx{zlib.crc32(name.encode()):08x}{zlib.crc32(name[::-1].encode()):08x}"


def aigc(produce_id):
    return json.dumps({"Label": "1", "ContentProducer": CODE, "ProduceID": produce_id, "ReservedCode1": "",
                       "ContentPropagator": "", "PropagateID": "", "ReservedCode2": ""}, separators=(",", ":"))


def xmp(properties, attributes=""):
    return ('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
            'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
            'xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" xmlns:dcterms="http://purl.org/dc/terms/" '
            f'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"{attributes}>{properties}'
            '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>').encode()


class Media:
    """Everything that the matrix starts from, made below `work`; the same for the same seed."""

    def __init__(self, work, shared, packages, seed, veriscope):
        self.work, self.shared, self.packages = work, shared, packages
        self.seed, self.veriscope = seed, veriscope
        self.rng = random.Random(seed)

    # Unlabelled media.

    def photos(self):
        """(name, path of a PNG) of photographs up to 1280 pixels wide, none of which any network was
        trained on."""
        found = []
        samples = Path(skimage.__file__).parent / "data"
        files = [samples / n for n in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png",
                                       "rocket.jpg", "hubble_deep_field.jpg", "gravel.png")]
        files += sorted((self.packages / "sklearn").rglob("*.jpg"))
        files += [p for p in (Path("/usr/share/backgrounds/gnome") / f"{n}.webp" for n in ("pixels-l", "wood-d")) if p.exists()]
        for path in files:
            def make(out, path=path):
                picture = Image.open(path).convert("RGB")
                picture.thumbnail((1280, 1280))
                picture.save(out, "PNG")
            found.append((path.stem, once(self.work / "base" / f"{path.stem}.png", make)))
        for path in sorted((self.shared / "clips").glob("real-*.mp4"))[:6]:
            out = once(self.work / "base" / f"{path.stem}.png",
                       lambda out, path=path: ffmpeg("-ss", "1", "-i", path, "-frames:v", "1", "-f", "apng", out))
            found.append((path.stem, out))
        return found

    def clips(self, seconds=3):
        """(name, path) of short clips with what sound they have, at most 640 pixels wide."""
        for path in sorted((self.shared / "clips").glob("real-*.mp4")):
            yield path.stem, once(self.work / "base" / f"{path.stem}.mp4", lambda out, path=path: ffmpeg(
                "-i", path, "-t", seconds, "-vf", "scale='min(640,iw)':-2", "-c:v", "libx264", "-preset", "veryfast",
                "-crf", "18", "-c:a", "aac", "-f", "mp4", out))

    def speech(self, count):
        """Paths of sentences."""
        return self.members(self.shared / "speech/librispeech.tar", count)

    def members(self, tar, count):
        folder = self.work / "base" / tar.stem
        if not folder.exists() or len(list(folder.iterdir())) < count:
            folder.mkdir(parents=True, exist_ok=True)
            with tarfile.open(tar) as archive:
                names = sorted(m.name for m in archive if m.isfile())
                step = max(1, len(names) // count)
                for name in names[::step][:count]:
                    (folder / Path(name).name).write_bytes(archive.extractfile(name).read())
        return sorted(folder.iterdir())[:count]

    # Labelled media.

    CONTAINERS = [  # name, media, arguments of ffmpeg
        ("a.mp4", "video", ["-c", "copy"]), ("fragmented.mp4", "video", ["-c", "copy", "-movflags", "frag_keyframe+empty_moov"]),
        ("a.mov", "video", ["-c", "copy"]), ("a.mkv", "video", ["-c", "copy"]),
        ("a.webm", "video", ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"]),
        ("a.avi", "video", ["-c:v", "mpeg4", "-c:a", "libmp3lame"]), ("a.flv", "video", ["-c", "copy"]),
        ("a.m4a", "sound", ["-c:a", "aac"]), ("a.wav", "sound", []), ("a.mp3", "sound", ["-c:a", "libmp3lame"]),
        ("a.flac", "sound", []), ("a.ogg", "sound", ["-c:a", "libvorbis"]), ("a.opus", "sound", ["-c:a", "libopus"]),
        ("a.png", "picture", []), ("a.jpg", "picture", []), ("a.webp", "picture", ["-quality", "80"]),
        ("a.gif", "picture", []), ("a.tiff", "picture", []), ("a.avif", "picture", ["-c:v", "libaom-av1", "-cpu-used", "8"]),
    ]

    def plain(self):
        """(name, media, path) of one small unlabelled file a container."""
        clip = once(self.work / "base" / "short.mp4", lambda out: ffmpeg(
            "-i", next(p for n, p in self.clips() if n == "real-r2"), "-t", "1.5", "-vf", "scale=320:-2", "-c:v", "libx264",
            "-preset", "veryfast", "-c:a", "aac", "-f", "mp4", out))
        sentence = self.speech(12)[0]
        photo = dict(self.photos())["china"]
        small = once(self.work / "base" / "small.png", lambda out: Image.open(photo).resize((320, 213)).save(out, "PNG"))
        for name, media, how in self.CONTAINERS:
            given = {"video": clip, "sound": sentence, "picture": small}[media]
            more = ["-t", "3"] if media == "sound" else ["-frames:v", "1"] if media == "picture" else []
            yield name, media, once(self.work / "plain" / name, lambda out: ffmpeg(
                "-i", given, *more, *how, "-bitexact", *self.format(name), out))

    @staticmethod
    def format(name):
        """ffmpeg's -f for a name whose suffix it cannot see."""
        formats = {"mkv": "matroska", "m4a": "ipod", "tiff": "image2", "jpg": "image2", "png": "apng", "webp": "webp"}
        suffix = Path(name).suffix[1:]
        return ["-f", formats.get(suffix, suffix)] if suffix not in ("tiff", "jpg", "png") else ["-f", "image2", "-update", "1"]

    def labelled(self):
        """Every label that stands in metadata."""
        yield from self.aigc()
        yield from self.c2pa()
        yield from self.iptc()
        yield from self.traces()

    def aigc(self):
        for name, media, path in self.plain():
            key = f"aigc-add-{name}"
            out = self.work / "sources" / key
            def add(part):
                run(self.veriscope, "label", "add", path, "--output", part, "--label", "1", "--producer", CODE,
                    "--produce-id", token(key))
            if not name.endswith(".avif"):
                yield Source(key, once(out, add), media, {"aigc": token(key)})
            # What ffmpeg writes of a key that it does not know.
            if name.split(".")[1] in ("mp4", "mov", "mkv", "webm", "mp3", "flac", "ogg", "opus", "flv"):
                key = f"aigc-ffmpeg-{name}"
                flags = ["-movflags", "use_metadata_tags"] if name in ("a.mp4", "a.mov") else \
                        ["-movflags", "frag_keyframe+empty_moov+use_metadata_tags"] if "mp4" in name else []
                yield Source(key, once(self.work / "sources" / key, lambda part: ffmpeg(
                    "-i", path, "-c", "copy", *flags, "-metadata", f"AIGC={aigc(token(key))}", *self.format(name), part)),
                    media, {"aigc": token(key)})
            if name.split(".")[1] in ("jpg", "png", "webp", "gif", "tiff", "mp4", "mov", "avif") and name != "fragmented.mp4":
                key = f"aigc-xmp-{name}"
                packet = xmp(f"<TC260:AIGC>{aigc(token(key)).replace(chr(34), '&quot;')}</TC260:AIGC>")
                yield Source(key, self.with_xmp(key, path, packet), media, {"aigc": token(key)})
        for path in sorted((self.shared / "provenance").glob("aigc-*.png")):
            known = {"aigc-doubao": "e3578014edd949debed102781a8c26f7", "aigc-jimeng": "2ef232d44c0c406985fdf6b21c858961"}
            yield Source(path.name, path, "picture", {"aigc": known[path.stem]})

    def with_xmp(self, key, path, packet):
        def make(part):
            side = part.with_suffix(".xmp")
            side.write_bytes(packet)
            part.write_bytes(path.read_bytes())
            run("exiftool", "-q", "-overwrite_original", f"-xmp<={side}", part)
            side.unlink()
        return once(self.work / "sources" / key, make)

    def iptc(self):
        for name, media, path in self.plain():
            if name.split(".")[1] in ("jpg", "png", "webp", "gif", "tiff", "mp4", "mov", "avif") and name != "fragmented.mp4":
                key = f"iptc-{name}"
                packet = xmp(f"<Iptc4xmpExt:DigitalSourceType>{AI}</Iptc4xmpExt:DigitalSourceType>")
                yield Source(key, self.with_xmp(key, path, packet), media, {"iptc": "trainedAlgorithmicMedia"})

    def traces(self):
        texts = {
            "webui": ("parameters", "a cat, {token}\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, "
                                    "Size: 512x512, Model hash: 6ce0161689, Model: v1-5"),
            "comfyui": ("prompt", '{{"3": {{"class_type": "KSampler", "inputs": {{"seed": 1, "steps": 20, "note": "{token}"}}}}}}'),
            "job": ("hf-job-id", "{token}"),
        }
        plain = {name: path for name, _, path in self.plain()}
        for kind, (keyword, text) in texts.items():
            key = f"trace-{kind}.png"
            def make(part):
                payload = b"tEXt" + keyword.encode() + b"\0" + text.format(token=token(key)).encode()
                data = plain["a.png"].read_bytes()
                chunk = struct.pack(">I", len(payload) - 4) + payload + struct.pack(">I", zlib.crc32(payload))
                part.write_bytes(data[:33] + chunk + data[33:])
            yield Source(key, once(self.work / "sources" / key, make), "picture", {"generator-trace": token(key)})
        exif = {
            "ideogram": ["-EXIF:Make=Ideogram AI", "-EXIF:ImageDescription={token}"],
            "webui-exif": ["-EXIF:UserComment=a cat {token}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"],
            "reve": ["-EXIF:Software=reve.com {token}"],
        }
        for kind, tags in exif.items():
            for suffix in ("jpg", "webp", "tiff"):
                key = f"trace-{kind}.{suffix}"
                def make(part):
                    part.write_bytes(plain[f"a.{suffix}"].read_bytes())
                    run("exiftool", "-q", "-overwrite_original", *(t.format(token=token(key)) for t in tags), part)
                known = "Ideogram AI" if kind == "ideogram" else token(key)
                yield Source(key, once(self.work / "sources" / key, make), "picture", {"generator-trace": known})
        grok = self.shared / "provenance/grok.jpg"
        yield Source("grok.jpg", grok, "picture", {"generator-trace": "Signature: "})

    def c2pa(self):
        for path in sorted((self.shared / "provenance").glob("c2pa-C*.jpg")) + [self.shared / "provenance/firefly.png"]:
            yield Source(path.name, path, "picture", {"c2pa": ""})
        import c2pa
        chain, key_pem = self.certificate()
        info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=key_pem, ta_url=None)
        manifest = {"claim_generator_info": [{"name": "stripping-matrix", "version": "1"}], "title": "matrix", "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": AI}]}}]}
        for name, media, path in self.plain():
            if name.split(".")[1] in ("jpg", "png", "webp", "gif", "tiff", "avif", "mp4", "mov", "m4a", "wav", "mp3", "flac", "avi") \
                    and name != "fragmented.mp4":
                key = f"c2pa-{name}"
                def make(part):
                    with_suffix = part.with_name(part.name + path.suffix)
                    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest) as builder:
                        builder.sign_file(str(path), str(with_suffix), signer)
                    with_suffix.rename(part)
                try:
                    yield Source(key, once(self.work / "sources" / key, make), media, {"c2pa": ""})
                except c2pa.C2paError as error:
                    print(f"not signed: {key}: {error}")

    def certificate(self):
        """A chain of two certificates of our own and the signer's key, in PEM."""
        chain, key = self.work / "sources/chain.pem", self.work / "sources/key.pem"
        if not key.exists():
            from cryptography import x509
            from cryptography.hazmat.primitives import hashes, serialization
            from cryptography.hazmat.primitives.asymmetric import ec
            from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
            def name(text):
                return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Stripping matrix"),
                                  x509.NameAttribute(NameOID.COMMON_NAME, text)])
            start = datetime.datetime(2026, 1, 1)
            root_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
            def build(subject, public, ca):
                usage = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                                       "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
                usage["key_cert_sign" if ca else "digital_signature"] = True
                made = x509.CertificateBuilder().subject_name(subject).issuer_name(name("Root")).public_key(public)
                made = made.serial_number(x509.random_serial_number()).not_valid_before(start)
                made = made.not_valid_after(start + datetime.timedelta(days=3650))
                made = made.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
                made = made.add_extension(x509.KeyUsage(**usage), critical=True)
                made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
                made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
                if not ca:
                    made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
                return made.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
            pems = build(name("Signer"), leaf_key.public_key(), False) + build(name("Root"), root_key.public_key(), True)
            chain.parent.mkdir(parents=True, exist_ok=True)
            chain.write_bytes(pems)
            key.write_bytes(leaf_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                                   serialization.NoEncryption()))
        return chain.read_bytes(), key.read_bytes()

    # Labels in pixels and sound.

    def watermarked(self):
        for at, (name, path) in enumerate(self.photos()[:6]):
            message = ("sdxl", "flux")[at % 2]
            key = f"watermark-{message}-{name}.png"
            def make(part):
                picture = cv2.imread(str(path))
                cv2.imencode(".png", embed(self.packages, picture, MESSAGES[message]))[1].tofile(str(part))
            yield Source(key, once(self.work / "sources" / key, make), "picture", {"watermark": message})

    def rhythm(self):
        """Speech with the audible label in front: short-long short-short (A I)."""
        import soundfile
        for at, path in enumerate(self.speech(12)[1:5]):
            key = f"rhythm-{at}.wav"
            def make(part):
                speech, rate = soundfile.read(path)
                dot, pitch = (0.1, 800) if at % 2 else (0.08, 1000)
                beep = lambda n: 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(n * dot * rate)) / rate)
                rest = lambda n: np.zeros(int(n * dot * rate))
                label = [rest(7), beep(1), rest(1), beep(3), rest(3), beep(1), rest(1), beep(1), rest(7)]
                soundfile.write(part, np.concatenate([*label, speech]), rate, format="WAV")
            yield Source(key, once(self.work / "sources" / key, make), "sound", {"explicit-audio": ""})

    MARKS = [  # name, text, place, width of the picture's width (or height in pixels for the sparkle)
        ("doubao", "豆包AI生成", "br", 0.16), ("jimeng", "★ 即梦AI", "br", 0.20), ("jimeng-pill", "AI生成", "tl-pill", 0.10),
        ("qwen", "千问AI生成", "br", 0.12), ("qwen-large", "千问AI生成", "br", 0.20), ("kling", "可灵AI 3.0", "br", 0.12),
        ("yuanbao", "元宝\nAI生成", "br", 0.10), ("baidu", "百度 AI生成", "br", 0.16), ("liblib", "LibLibAI", "bc", 0.14),
        ("runninghub", "RunningHub AI生成", "tl", 0.22), ("galaxy", "✦ 由AI生成的内容", "bl", 0.32), ("gemini", "", "br-spark", 48),
        ("hailuo", "MINIMAX | hailuo AI", "bc", 0.24), ("rule", "人工智能生成", "br", 0.34), ("dola", "Dola AI", "br", 0.12),
    ]

    def marked_pictures(self):
        photos = [p for p in self.photos() if p[0] not in ("hubble_deep_field", "gravel")]
        for at, mark in enumerate(self.MARKS):
            for turn in range(3):
                name, path = photos[(at * 3 + turn) % len(photos)]
                key = f"visible-{mark[0]}-{name}.png"
                side = self.work / "sources" / f"{key}.json"
                mask_path = self.work / "sources" / f"{key}.mask.png"
                def make(part):
                    picture = Image.open(path).convert("RGB")
                    layer, box = draw(picture.size, mark, random.Random(f"{self.seed}/{key}"))
                    Image.fromarray(np.asarray(layer)[..., 3]).save(mask_path)
                    side.write_text(json.dumps(box))
                    Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB").save(part, "PNG")
                out = once(self.work / "sources" / key, make)
                yield Source(key, out, "picture", {"visible": mark[0]}, tuple(json.loads(side.read_text())), mask_path)

    def marked_clips(self):
        for at, (name, path) in enumerate(self.clips()):
            for turn in range(2):
                mark = self.MARKS[(at * 5 + turn * 8) % len(self.MARKS)]
                key = f"visible-{mark[0]}-{name}.mp4"
                side = self.work / "sources" / f"{key}.json"
                mask_path = self.work / "sources" / f"{key}.mask.png"
                def make(part):
                    first = once(self.work / "base" / f"{name}-first.png", lambda out: ffmpeg("-i", path, "-frames:v", "1", "-f", "apng", out))
                    size = Image.open(first).size
                    layer, box = draw(size, mark, random.Random(f"{self.seed}/{key}"))
                    layer.save(mask_path)
                    side.write_text(json.dumps(box))
                    ffmpeg("-i", path, "-i", mask_path, "-filter_complex", "overlay", "-c:v", "libx264", "-preset", "veryfast",
                           "-crf", "18", "-c:a", "copy", "-f", "mp4", part)
                    Image.fromarray(np.asarray(layer)[..., 3]).save(mask_path)
                out = once(self.work / "sources" / key, make)
                yield Source(key, out, "video", {"visible": mark[0]}, tuple(json.loads(side.read_text())), mask_path)

    # Files that never had a label.

    def unlabelled(self):
        def source(name, path, media):
            return Source(f"plain-{name}", path, media, negative=True)
        for path in sorted((self.shared / "clips").glob("real-*")):
            yield source(path.name, path, "video")
        for name, media, path in self.plain():
            yield source(name, path, media)
        for path in sorted((Path(skimage.__file__).parent / "data").glob("*.[jptg][pni][gf]*")):
            if path.stat().st_size > 1000:
                yield source(path.name, path, "picture")
        for path in sorted((self.packages / "sklearn").rglob("*.jpg")) + sorted(Path("/usr/share/backgrounds/gnome").glob("*.webp")):
            if path.stat().st_size < 3 << 20:
                yield source(path.name, path, "picture")
        for tar, count in (("faces/utkface.tar", 40), ("faces/dfdc-val-0.tar", 40)):
            for path in self.members(self.shared / tar, count):
                yield source(path.name, path, "picture")
        for path in self.speech(12):
            yield source(path.name, path, "sound")
        yield from self.cameras()
        yield from self.tools()
        unsigned = self.shared / "provenance/c2pa-A.jpg"
        yield source(unsigned.name, unsigned, "picture")

    def cameras(self):
        """Photographs with the metadata that cameras and photo editors write, set with exiftool: no
        genuine files of cameras can be had under a free licence here."""
        kinds = {
            "canon": ["-Make=Canon", "-Model=Canon EOS R6", "-Software=Firmware Version 1.8.2", "-ISO=400", "-ExposureTime=1/200",
                      "-FNumber=4", "-Artist=A. Photographer", "-UserComment=                              ",
                      "-XMP-xmp:Rating=0", "-GPSLatitude=48.1", "-GPSLongitude=11.5"],
            "phone": ["-Make=Xiaomi", "-Model=2201123C", "-ImageDescription=", "-XMP-GCamera:MicroVideo=0",
                      '-UserComment={"filter":0,"sensor_type":"rear","mirror":false}', "-OffsetTime=+08:00"],
            "iphone": ["-Make=Apple", "-Model=iPhone 15 Pro", "-Software=17.4.1", "-HostComputer=iPhone 15 Pro",
                       "-IPTC:DigitalSourceType=", "-XMP-photoshop:DateCreated=2026:01:02 03:04:05"],
            "lightroom": ["-Software=Adobe Photoshop Lightroom Classic 13.2 (Windows)", "-XMP-xmp:CreatorTool=Adobe Lightroom",
                          "-XMP-xmpMM:InstanceID=xmp.iid:0a1b", "-XMP-xmpMM:DocumentID=xmp.did:0a1b", "-XMP-crs:Exposure2012=+0.35",
                          "-IPTC:Caption-Abstract=On AI and art: generated debate", "-IPTC:Keywords=AI", "-IPTC:Keywords=generated"],
            "camera-type": [f"-XMP-iptcExt:DigitalSourceType={AI.rsplit('/', 1)[0]}/digitalCapture", "-Make=Nikon", "-Model=Z 8"],
            "gimp": ["-Software=GIMP 2.10.34", "-XMP-GIMP:API=2.0", "-Comment=Created with GIMP", "-XMP-dc:Description=AI生成 debate"],
        }
        photos = dict(self.photos())
        for at, (kind, tags) in enumerate(kinds.items()):
            for suffix in ("jpg", "tiff", "webp", "png"):
                name = sorted(photos)[at % len(photos)]
                key = f"camera-{kind}.{suffix}"
                def make(part):
                    form = {"jpg": "JPEG", "tiff": "TIFF", "webp": "WEBP", "png": "PNG"}[suffix]
                    Image.open(photos[name]).convert("RGB").save(part, form, quality=93)
                    run("exiftool", "-q", "-m", "-overwrite_original", *tags, part)
                yield Source(f"plain-{key}", once(self.work / "sources" / key, make), "picture", negative=True)

    def tools(self):
        """Containers with the metadata and the unused space that ordinary tools leave."""
        words = ["-metadata", "title=What AI generated labels mean", "-metadata", "comment=AIGC explained",
                 "-metadata", "artist=ContentProducer Ltd", "-metadata", "description=a talk on C2PA"]
        for name, media, path in self.plain():
            if media == "picture":
                continue
            key = f"tools-{name}"
            flags = ["-movflags", "use_metadata_tags+faststart"] if name == "a.mp4" else []
            more = ["-metadata", "AIGCompany=1"] if flags else []
            yield Source(f"plain-{key}", once(self.work / "sources" / key, lambda part: ffmpeg(
                "-i", path, "-c", "copy", *flags, *words, *more, *self.format(name), part)), media, negative=True)


def embed(packages, picture, bits):
    """The picture with `bits` in the wavelet of its blue chroma, by the package invisible-watermark."""
    coder = coder_of(packages, bits)
    return coder.encode(picture)


def decode(packages, picture):
    """How many of the 48 bits of each message the package's own reader finds."""
    found = {}
    for name, bits in MESSAGES.items():
        read = coder_of(packages, bits).decode(picture)
        found[name] = sum(int(bool(a)) == int(b) for a, b in zip(read, bits))
    return found


def coder_of(packages, bits):
    """Its module alone: the package as a whole wants PyTorch."""
    import importlib.util
    spec = importlib.util.spec_from_file_location("maxDct", packages / "imwatermark/maxDct.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EmbedMaxDct([int(b) for b in bits], wmLen=48)


def draw(size, mark, rng):
    """A transparent layer with the mark on it, and its box."""
    _, text, place, scale = mark
    width, height = size
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    alpha = rng.randrange(140, 220)
    margin = max(6, round(min(size) * rng.uniform(0.02, 0.04)))
    if place == "br-spark":
        side = scale if min(width, height) > 400 else scale // 2
        x, y = width - margin - side, height - margin - side
        middle, t = side / 2, np.linspace(0, 2 * np.pi, 200)
        points = [(x + middle * (1 + np.cos(a) ** 3), y + middle * (1 + np.sin(a) ** 3)) for a in t]
        pen.polygon(points, fill=(255, 255, 255, alpha))
        return layer, [x, y, side, side]
    star = text.startswith("✦")
    text = text.replace("✦", "★")
    font_path = FONTS[0] if star or "★" in text else rng.choice(FONTS)
    target, points = scale * width, 8
    while points < 200:
        box = pen.multiline_textbbox((0, 0), text, font=ImageFont.truetype(font_path, points + 1))
        if box[2] - box[0] > target:
            break
        points += 1
    font = ImageFont.truetype(font_path, points)
    left, top, right, bottom = pen.multiline_textbbox((0, 0), text, font=font)
    w, h = round(right - left), round(bottom - top)
    pad = round(h * 0.5) if place == "tl-pill" else 0
    x = margin + pad
    if place.endswith("r"):
        x = width - margin - w
    elif place == "bc":
        x = (width - w) // 2
    y = margin + pad if place.startswith("t") else height - margin - h
    if pad:
        pen.rounded_rectangle((x - pad, y - pad, x + w + pad, y + h + pad), radius=(h + 2 * pad) // 2, fill=(0, 0, 0, 110))
    elif rng.random() < 0.5:
        pen.multiline_text((x - left + 1, y - top + 1), text, font=font, fill=(0, 0, 0, alpha // 2))
    pen.multiline_text((x - left, y - top), text, font=font, fill=(245, 245, 245, alpha))
    return layer, [int(x - pad), int(y - pad), int(w + 2 * pad), int(h + 2 * pad)]
