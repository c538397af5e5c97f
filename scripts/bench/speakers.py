#!/usr/bin/env python3
"""How well a scan tells speakers apart: recordings whose speakers are known, made from single clips.

    speakers.py make --index INDEX.csv --clips FOLDER [--voices FOLDER …] --out FOLDER
    veriscope scan --detectors voice-clone --format jsonl FOLDER > reports.jsonl
    speakers.py score --made FOLDER --reports reports.jsonl

INDEX.csv lists clips (columns shard, file, label, speaker, system); they are expected below the clips'
folder under the shard's name without `.tar`. A folder of `--voices` holds the clips of one more voice.
`make` writes, the same for the same seed:

- talk-*: two or three speakers who take turns of 4 to 10 s, with pauses of 0.1 to 1 s,
- alone-*: one speaker's clips joined to 30 to 60 s. A speaker with a single clip has it repeated.

Speakers are halved by name: `--half a` is what the rule's figures were chosen on, `--half b` the rest.
`score` counts, for every window, who spoke at its middle. Needs numpy, soundfile and ffmpeg.
"""

import argparse
import csv
import hashlib
import json
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
SUFFIXES = {".flac", ".wav", ".mp3", ".g722", ".ogg", ".opus"}


def decoded(path):
    """Mono samples at 16 kHz, -1 to 1."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(path), "-ac", "1", "-ar", str(RATE), "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.float32)


def trimmed(wave):
    """Without silence at its ends, at an RMS of 0.05."""
    frames = wave[: wave.size // 320 * 320].reshape(-1, 320)
    level = np.sqrt((frames**2).mean(1))
    loud = np.flatnonzero(level > 0.1 * np.quantile(level, 0.95))
    wave = wave[loud[0] * 320 : (loud[-1] + 1) * 320]
    return wave * (0.05 / np.sqrt((wave**2).mean()))


def half(speaker):
    return "ab"[hashlib.sha256(speaker.encode()).digest()[0] % 2]


def speakers(args):
    """Names and clips; only voices that are known, each in one half."""
    found = defaultdict(list)
    with open(args.index, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            path = args.clips / row["shard"].removesuffix(".tar") / row["file"]
            if row["label"] != "bonafide":
                continue
            name = row["speaker"]
            if row["system"] == "zhrtvc:aishell3":
                # One clip a speaker.
                name = f"aishell-{Path(row['file']).stem}"
            elif row["system"] == "zhrtvc:biaobei":
                name = "biaobei"
            elif not (name.isdigit() or name.startswith(("it2-ex", "fs-vctk"))):
                continue
            found[name].append(path)
    for voice in args.voices:
        clips = sorted(p for p in voice.rglob("*") if p.suffix in SUFFIXES)
        order = np.random.default_rng(args.seed).permutation(len(clips))
        found[voice.name] = [clips[i] for i in order[:60]]
    names = sorted(name for name in found if half(name) == args.half)
    return {name: found[name] for name in names if found[name]}


class Voice:
    """A speaker's clips, one behind the other without end."""

    def __init__(self, name, paths):
        waves = [trimmed(decoded(path)) for path in sorted(paths)]
        self.name, self.at = name, 0
        self.waves = [w for w in waves if w.size >= RATE // 2]

    def take(self, seconds):
        """About so much speech: whole clips, the last one cut."""
        parts, left = [], int(seconds * RATE)
        while left > 0 and self.waves:
            wave = self.waves[self.at % len(self.waves)]
            self.at += 1
            parts += [wave[:left], np.zeros(RATE // 5, np.float32)]
            left -= wave.size
        return np.concatenate(parts[:-1])


def recording(rng, turns):
    """Turns of (voice, seconds) with pauses, and who speaks when."""
    noise = 10 ** (rng.uniform(-66, -56) / 20)
    parts, truth, at = [], [], 0
    for voice, seconds in turns:
        pause = np.zeros(int(rng.uniform(0.1, 1.0) * RATE), np.float32)
        wave = voice.take(seconds)
        at += pause.size
        truth.append({"speaker": voice.name, "start_ms": at // 16, "end_ms": (at + wave.size) // 16})
        at += wave.size
        parts += [pause, wave]
    sound = np.concatenate(parts)
    return (sound + noise * rng.standard_normal(sound.size)).astype(np.float32), truth


def make(args):
    args.out.mkdir(parents=True, exist_ok=True)
    clips = speakers(args)
    names = sorted(clips)
    truth = {}

    def write(name, rng, turns):
        sound, said = recording(rng, turns)
        soundfile.write(args.out / f"{name}.flac", np.clip(sound, -1, 1), RATE)
        truth[f"{name}.flac"] = said

    for i in range(args.talks):
        rng = np.random.default_rng([args.seed, 1, i])
        chosen = [Voice(n, clips[n]) for n in rng.choice(names, 2 + i % 2, replace=False)]
        turns, last = [], None
        for _ in range(int(rng.integers(6, 13))):
            # Everybody has spoken after as many turns as there are voices.
            rest = [v for v in chosen if v is not last and all(v is not t[0] for t in turns)]
            last = rng.choice(rest or [v for v in chosen if v is not last])
            turns.append((last, rng.uniform(4, 10)))
        write(f"talk-{i:03}", rng, turns)
    for i, name in enumerate(names):
        rng = np.random.default_rng([args.seed, 2, i])
        voice, left, turns = Voice(name, clips[name]), rng.uniform(30, 60), []
        while left > 0:
            turns.append((voice, min(rng.uniform(4, 10), left)))
            left -= turns[-1][1]
        write(f"alone-{name}", rng, turns)
    (args.out / "truth.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")


def judge(tracks, truth):
    """(true speaker, track) of each window whose middle lies in somebody's turn."""
    pairs = []
    for track in tracks:
        for window in track["windows"]:
            middle = (window["start_ms"] + window["end_ms"]) / 2
            said = [t["speaker"] for t in truth if t["start_ms"] <= middle < t["end_ms"]]
            pairs += [(speaker, track["id"]) for speaker in said]
    return pairs


def score(args):
    truth = json.loads((args.made / "truth.json").read_text(encoding="utf-8"))
    groups = defaultdict(list)
    for line in args.reports.read_text(encoding="utf-8").splitlines():
        report = json.loads(line)
        name = Path(report["media"]["path"]).name
        if name not in truth:
            continue
        tracks = [t for t in report["tracks"] if t["kind"] == "speech"]
        voices = len({t["speaker"] for t in truth[name]})
        kind = "one voice" if voices == 1 else f"{voices} voices"
        groups[kind].append((name, voices, len(tracks), judge(tracks, truth[name])))
    for kind, rows in sorted(groups.items()):
        right = sum(voices == found for _, voices, found, _ in rows)
        off = Counter(found - voices for _, voices, found, _ in rows)
        print(f"{kind}: {len(rows)} recordings, number of speakers right in {right} ({right / len(rows):.1%}),", end=" ")
        print("off by", dict(sorted((k, v) for k, v in off.items() if k)))
        pairs = [(f"{i} {s}", f"{i} {t}") for i, row in enumerate(rows) for s, t in row[3]]
        both = Counter(pairs)
        for what, side in (("purity of tracks", 1), ("speaker in one track", 0)):
            best = defaultdict(int)
            for pair, n in both.items():
                best[pair[side]] = max(best[pair[side]], n)
            print(f"  {what}: {sum(best.values()) / max(len(pairs), 1):.1%} of {len(pairs)} windows")
        if kind == "one voice":
            for name, _, found, _ in rows:
                if found != 1:
                    print(f"  {name}: {found} tracks")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.add_argument("--index", type=Path, required=True)
    making.add_argument("--clips", type=Path, required=True)
    making.add_argument("--voices", type=Path, nargs="*", default=[])
    making.add_argument("--out", type=Path, required=True)
    making.add_argument("--half", choices="ab", default="b")
    making.add_argument("--talks", type=int, default=50)
    making.add_argument("--seed", type=int, default=1)
    making.set_defaults(run=make)
    scoring = commands.add_parser("score")
    scoring.add_argument("--made", type=Path, required=True)
    scoring.add_argument("--reports", type=Path, required=True)
    scoring.set_defaults(run=score)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
