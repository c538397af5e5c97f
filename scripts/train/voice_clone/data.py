"""Builds the cache of speech clips that training and evaluation read.

    python data.py --data ../../../../shared/data/speech --gen GEN --prompts /usr/share/asterisk/sounds --out CACHE

GEN is what `scripts/datasets/speech/copy_synthesis.py` and `tts.py` wrote. The
prompts (Debian asterisk-core-sounds-*-g722) are optional. CACHE gets `waves.i16`
(all sound, int16, 16 kHz), `clips.json` (what and where) and `summary.json`.

Each clip is cut to its speech, brought to one level and stored together with
what codecs made of it. Clips made from one recording get the same codecs, so
that a fake and the recording it was made from can be compared through the same
channel.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import soundfile as sf

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "datasets" / "speech"))
from common import RATE, fraction, libri_split, read_index, read_packages, speech_bounds, to_int16  # noqa: E402

LEVEL = 0.07
WINDOW = 64_000
GUARD = RATE // 4  # silence between clips while they pass a codec together

FAST = ["-compression_level", "3"]
# name: encoder's arguments, container, rate inside
CODECS = {
    "mp3_32k": (["-c:a", "libmp3lame", "-b:a", "32k"], "mp3", 16000),
    "mp3_64k": (["-c:a", "libmp3lame", "-b:a", "64k"], "mp3", 16000),
    "mp3_128k": (["-c:a", "libmp3lame", "-b:a", "128k"], "mp3", 44100),
    "opus_12k": (["-c:a", "libopus", "-b:a", "12k", "-application", "voip", *FAST], "ogg", 16000),
    "opus_16k": (["-c:a", "libopus", "-b:a", "16k", "-application", "voip", *FAST], "ogg", 16000),
    "opus_24k": (["-c:a", "libopus", "-b:a", "24k", *FAST], "ogg", 16000),
    "opus_48k": (["-c:a", "libopus", "-b:a", "48k", *FAST], "ogg", 48000),
    "aac_32k": (["-c:a", "aac", "-b:a", "32k"], "adts", 16000),
    "aac_64k": (["-c:a", "aac", "-b:a", "64k"], "adts", 44100),
    "vorbis": (["-c:a", "libvorbis", "-q:a", "1"], "ogg", 22050),
    "g711": (["-c:a", "pcm_mulaw"], "wav", 8000),
    "g711a": (["-c:a", "pcm_alaw"], "wav", 8000),
    "g722": (["-c:a", "adpcm_g722"], "wav", 16000),
}
TRAIN_CODECS = list(CODECS)
TEST_CODECS = ["mp3_64k", "opus_16k", "g711"]

HELD_OUT = {  # generator families that no training clip comes from
    "tortoise", "indextts2", "indextts2_wog", "indextts2_wos2m", "sparktts",
    "flashspeech", "dddm_vc", "pflow", "yourtts", "lyra",
}
FAMILY = {
    "funaudio:cosyvoice1": "cosyvoice1",
    "funaudio:cosyvoice2": "cosyvoice2",
    "tortoise:tortoise": "tortoise",
    "ranchlai:FastSpeech2+melgan/hifigan": "fastspeech2",
    "ranchlai:FastSpeech2+waveglow": "fastspeech2",
    "zhrtvc:aliyun-tts?": "aliyun",
    "flashspeech:flashspeech": "flashspeech",
    "flashspeech:dddm_vc": "dddm_vc",
    "flashspeech:pflow": "pflow",
    "flashspeech:yourtts": "yourtts",
}
COPY = {
    "world", "griffinlim", "mb_melgan", "melgan", "lyra", "hifigan", "hifigan_fr", "fargan", "dred", "codec2",
    "own_vocos", "own_nsf", "own_mbgan", "own_vq",
}
# Packages (real.py) whose recordings are for testing only.
PACKAGES_HELD_OUT = {
    "asterisk-prompt-es-co", "asterisk-prompt-it-menardi", "codec2-examples", "fillets-ng-data-nl", "hedgewars-data",
    "pocketsphinx-testdata", "pyannote_audio-4.0.7", "kajongg", "saytime",
}
PROMPTS = {  # folder: corpus, split; es_MX is en_US's speaker and is left out
    "en_US_f_Allison": "train",
    "fr_CA_f_June": "train",
    "it_IT_m_Carlo": "test",
    "ru_RU_f_IvrvoiceRU": "test",
}


def corpus_and_split(row: dict) -> tuple[str, str]:
    """Where a real recording belongs; its copies follow it."""
    if row["shard"] == "librispeech.tar":
        return "librispeech", libri_split(row["speaker"])
    if row["shard"] == "packages":
        return "package:" + row["system"], "test" if row["system"] in PACKAGES_HELD_OUT else "train"
    if row["shard"] == "modern.tar":
        # two demo pages, kept whole for testing
        return "modern:" + row["system"].split(":")[0], "test"
    if row["system"] == "zhrtvc:aishell3":
        x = fraction("aishell/" + row["key"])
        return "aishell3", "train" if x < 0.6 else "dev" if x < 0.75 else "test"
    if row["system"] == "zhrtvc:biaobei":
        return "biaobei", "train"
    if row["system"] == "funaudio:prompt":
        return "funaudio", "train"
    return row["system"].replace("funaudio:asr", "funaudio-asr"), "test"


def speaker_of(row: dict) -> str:
    return row["speaker"] or "?" + row["key"]


def prompts(folder: Path, splits: list[str], per_voice: int = 25) -> list[dict]:
    """Short prompts of one voice, joined to clips of about 7 s (raw G.722, so bytes can be joined)."""
    clips = []
    for name, split in PROMPTS.items():
        if split not in splits:
            continue
        joined, count = b"", 0
        for path in sorted((folder / name).rglob("*.g722")):
            if path.stat().st_size < 12_000 or path.name.startswith("silence"):
                continue  # 64 kbit/s: under 1.5 s
            joined += path.read_bytes()
            if len(joined) < 56_000:
                continue
            raw = subprocess.run(
                ["ffmpeg", "-v", "error", "-f", "g722", "-i", "-", "-f", "s16le", "-ar", str(RATE), "-"],
                input=joined, check=True, capture_output=True,
            ).stdout
            clips.append(
                dict(
                    key=f"prompts/{name}-{count:02d}", label=0, corpus=f"prompts:{name[:5]}", family="",
                    split=split, speaker=name, source="", wave=np.frombuffer(raw, np.int16),
                )
            )
            joined, count = b"", count + 1
            if count == per_voice:
                break
    return clips


def collect(data: Path, gens: list[Path], prompt_folder: Path | None, packages: Path | None, splits: list[str]) -> list[dict]:
    rows = read_index(data) + (read_packages(packages) if packages else [])
    real = {r["key"]: r for r in rows if r["label"] == "bonafide"}
    clips = []
    for row in rows:
        if row["label"] == "bonafide":
            corpus, split = corpus_and_split(row)
            clips.append(
                dict(key=row["key"], label=0, corpus=corpus, family="", split=split,
                     speaker=speaker_of(row), source=row["key"], wave=row["wave"])
            )
            continue
        family = FAMILY.get(row["system"], row["system"])
        test = family in HELD_OUT or row["shard"] == "modern.tar"
        clips.append(
            dict(key=row["key"], label=1, corpus="", family=family, split="test" if test else "train",
                 speaker=speaker_of(row), source="", wave=row["wave"])
        )
    if prompt_folder:
        clips += prompts(prompt_folder, splits)
    for tsv in (t for gen in gens for t in sorted(gen.glob("*.tsv"))):
        with tsv.open(newline="", encoding="utf-8") as f:
            made = list(csv.DictReader(f, delimiter="\t"))
        for m in made:
            enhanced = m["family"].startswith("real:")  # a real recording that a machine has worked on
            if m["family"] in COPY or enhanced:
                if m["source"] not in real:
                    continue
                source = real[m["source"]]
                corpus, split = corpus_and_split(source)
                if m["family"] in HELD_OUT and split == "train":
                    continue
                speaker, key = speaker_of(source), m["source"]
                if enhanced:
                    corpus, key = "enhanced:" + m["family"][5:], ""
            else:
                corpus, key, speaker = "", "", m["speaker"]
                # a voice of a heard family that training does not hear
                split = {"piper:baby": "dev", "piper:davoice": "test"}.get(speaker, "train")
            if split not in splits:
                continue
            wave, _ = sf.read(tsv.parent / m["file"], dtype="int16")
            clips.append(
                dict(key=m["file"], label=0 if enhanced else 1, corpus=corpus,
                     family="" if enhanced else m["family"], split=split,
                     speaker=speaker, source=key, wave=wave)
            )
    kept = []
    for clip in clips:
        if clip["split"] not in splits:
            continue
        # a copy is cut where its recording is, so that windows of both hold the same words
        like = real[clip["source"]]["wave"] if clip["label"] and clip["source"] else clip["wave"]
        start, end = speech_bounds(like[: 7 * RATE])
        wave = clip["wave"][start:end]
        if len(wave) < RATE:
            continue
        clip["wave"] = to_int16(wave / 32768, LEVEL)
        kept.append(clip)
    return kept


def window_of(wave: np.ndarray, start: int, size: int = WINDOW) -> np.ndarray:
    """A window of a clip; clips that are shorter are repeated, as the program does."""
    if len(wave) < size:
        wave = np.tile(wave, -(-size // len(wave)))
    start = min(start, len(wave) - size)
    return wave[start : start + size]


def centre(wave: np.ndarray) -> np.ndarray:
    """The window that evaluation scores."""
    return window_of(wave, max(0, len(wave) - WINDOW) // 2)


def through_codec(waves: list[np.ndarray], name: str) -> list[np.ndarray]:
    """All waves through one codec in one go, with silence between them."""
    arguments, container, rate = CODECS[name]
    gap = np.zeros(GUARD, np.int16)
    stream = np.concatenate([x for w in waves for x in (gap, w)] + [gap, gap])
    with tempfile.TemporaryDirectory() as folder:
        coded = f"{folder}/coded.{container}"
        into = ["-f", "s16le", "-ar", str(RATE), "-ac", "1", "-i", "-", "-ar", str(rate), *arguments, "-f", container, coded]
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-threads", "1", *into], input=stream.tobytes(), check=True)
        back = subprocess.run(
            ["ffmpeg", "-v", "error", "-i", coded, "-f", "s16le", "-ar", str(RATE), "-ac", "1", "-"],
            check=True, capture_output=True,
        ).stdout
    got = np.frombuffer(back, np.int16)
    got = np.pad(got, (0, max(0, len(stream) - len(got))))
    out, at = [], 0
    for wave in waves:
        at += GUARD
        out.append(got[at : at + len(wave)])
        at += len(wave)
    return out


def add_codecs(clips: list[dict]) -> None:
    """Fills clip["waves"]: the clean wave first, then what a codec made of it."""
    jobs = defaultdict(list)
    for clip in clips:
        clip["waves"], clip["channels"] = {"clean": clip["wave"]}, ["clean"]
        origin = clip["source"] or clip["key"]
        if clip["split"] == "train":
            names = [TRAIN_CODECS[int(fraction("codec1/" + origin) * len(TRAIN_CODECS))]]
        else:
            names = TEST_CODECS
        for name in names:
            jobs[name].append(clip)
            clip["channels"].append(name)
    for name, members in jobs.items():
        # of a clip that is only scored, its window is enough
        waves = [c["wave"] if c["split"] == "train" else centre(c["wave"]) for c in members]
        for clip, wave in zip(members, through_codec(waves, name)):
            clip["waves"][name] = wave


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gen", type=Path, nargs="+", required=True)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--packages", type=Path, help="real.py's folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", default="train,dev,test")
    args = parser.parse_args()

    clips = collect(args.data, args.gen, args.prompts, args.packages, args.splits.split(","))
    add_codecs(clips)
    args.out.mkdir(parents=True, exist_ok=True)
    meta, at = [], 0
    with (args.out / "waves.i16").open("wb") as f:
        for clip in clips:
            entry = {k: clip[k] for k in ("key", "label", "corpus", "family", "split", "speaker", "source")}
            entry["at"] = {}
            for name in clip["channels"]:
                wave = clip["waves"][name]
                entry["at"][name] = [at, len(wave)]
                f.write(wave.astype("<i2").tobytes())
                at += len(wave)
            meta.append(entry)
    (args.out / "clips.json").write_text(json.dumps(meta, ensure_ascii=False))
    count = Counter((c["split"], c["label"], c["family"] or "real", c["corpus"]) for c in clips)
    summary = [[*k, n] for k, n in sorted(count.items())]
    (args.out / "summary.json").write_text(json.dumps(summary, indent=0))
    for line in summary:
        print(*line, sep="\t")


class Cache:
    """The clips in memory."""

    def __init__(self, folder: Path) -> None:
        self.clips = json.loads((folder / "clips.json").read_text())
        self.sound = np.fromfile(folder / "waves.i16", "<i2")

    def wave(self, clip: dict, channel: str = "clean") -> np.ndarray:
        at, n = clip["at"][channel]
        return self.sound[at : at + n]


if __name__ == "__main__":
    main()
