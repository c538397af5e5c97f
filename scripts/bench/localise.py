#!/usr/bin/env python3
"""How exactly a scan finds one cloned sentence in a long recording of real speech.

    localise.py make --cache CACHE_test --out FOLDER [--seconds 600] [--recordings 20]
    veriscope scan --detectors voice-clone --format jsonl FOLDER > reports.jsonl
    localise.py score --made FOLDER --reports reports.jsonl

CACHE_test is what `scripts/train/voice_clone/data.py --splits test` wrote: no speaker in it was trained on.
`make` joins one corpus' real clips, a sentence each, with pauses of 0.2 to 0.8 s, and puts a copy of one
sentence in its place: same voice, same words, only the generator differs. The same for the same seed.
`score` counts a sentence as found where a stretch that is judged fake overlaps it, and again where one
whose probability reaches the threshold does (a short one rarely does so with certainty, and is
`undetermined` then); it says how far that stretch's ends are off, and what else was found. Needs numpy and soundfile.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train" / "voice_clone"))
from data import Cache, RATE  # noqa: E402

SHORTEST = 2 * RATE  # of a sentence that is copied


def make(args):
    args.out.mkdir(parents=True, exist_ok=True)
    cache = Cache(args.cache)
    real, copies = defaultdict(list), defaultdict(lambda: defaultdict(list))
    for clip in cache.clips:
        if clip["label"] == 0 and not clip["corpus"].startswith("enhanced:"):
            real[clip["corpus"]].append(clip)
        elif clip["source"] and clip["at"]["clean"][1] >= SHORTEST:
            copies[clip["family"]][clip["corpus"]].append(clip)
    # A recording has few voices: corpora that are lists of single speakers are of no use here.
    few = {c for c, clips in real.items() if len({k["speaker"] for k in clips}) <= len(clips) / 4 and len(clips) >= 10}
    families = {f: {c: clips for c, clips in groups.items() if c in few} for f, groups in copies.items()}
    families = {f: groups for f, groups in families.items() if groups}
    truth, rng = {}, np.random.default_rng(args.seed)
    for i in range(args.recordings):
        family = sorted(families)[i % len(families)]
        corpus = rng.choice(sorted(families[family]))
        fakes = families[family][corpus]
        fake = fakes[rng.integers(len(fakes))]
        others = [c for c in real[corpus] if c["key"] != fake["source"]]
        sentences, total = [], 0.0
        while total < args.seconds:
            for at in rng.permutation(len(others)):
                sentences.append(others[at])
                total += others[at]["at"]["clean"][1] / RATE + 0.5
                if total >= args.seconds:
                    break
        sentences.insert(int(rng.integers(1, len(sentences))), fake)
        parts, at, said = [], 0, None
        for clip in sentences:
            pause = np.zeros(int(rng.uniform(0.2, 0.8) * RATE))
            wave = cache.wave(clip).astype(np.float64) / 32768
            at += len(pause)
            if clip is fake:
                said = [round(at / 16), round((at + len(wave)) / 16)]
            at += len(wave)
            parts += [pause, wave]
        sound = np.concatenate(parts)
        sound += 10 ** (-60 / 20) * rng.standard_normal(len(sound))
        name = f"{i:03}-{family}.flac"
        soundfile.write(args.out / name, sound.clip(-1, 1), RATE)
        truth[name] = {"family": family, "corpus": corpus, "start_ms": said[0], "end_ms": said[1]}
    (args.out / "truth.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")


def score(args):
    truth = json.loads((args.made / "truth.json").read_text(encoding="utf-8"))
    reports = {}
    for line in args.reports.read_text(encoding="utf-8").splitlines():
        report = json.loads(line)
        reports[Path(report["media"]["path"]).name] = report
    reports = {name: report for name, report in sorted(reports.items()) if name in truth}
    minutes = sum(report["media"]["duration_ms"] for report in reports.values()) / 60_000
    kinds = {
        "judged fake": lambda s: s["verdict"] == "fake",
        f"p >= {args.threshold}": lambda s: (s["probability"] or 0) >= args.threshold,
    }
    for kind, test in kinds.items():
        starts, ends, elsewhere = [], [], 0.0
        for name, report in reports.items():
            said = truth[name]
            over = [s for s in report["segments"] if s["detector"] == "voice-clone" and test(s)]
            hits = [s for s in over if s["start_ms"] < said["end_ms"] and s["end_ms"] > said["start_ms"]]
            wrong = sum(s["end_ms"] - s["start_ms"] for s in over if s not in hits) / 1000
            elsewhere += wrong
            text = "missed"
            if hits:
                starts.append((min(s["start_ms"] for s in hits) - said["start_ms"]) / 1000)
                ends.append((max(s["end_ms"] for s in hits) - said["end_ms"]) / 1000)
                text = f"found, start {starts[-1]:+.2f} s, end {ends[-1]:+.2f} s"
            print(f"{kind}, {name} ({said['corpus']}, {(said['end_ms'] - said['start_ms']) / 1000:.1f} s): {text}; {wrong:.0f} s elsewhere")
        print(f"{kind}: {len(starts)} of {len(reports)} sentences, {elsewhere:.0f} s of {minutes:.0f} min elsewhere", end="")
        for what, errors in (("start", np.abs(starts)), ("end", np.abs(ends))):
            if len(errors):
                print(f"; {what} within 0.5 s in {int((errors <= 0.5).sum())}, median {np.median(errors):.2f} s, worst {errors.max():.2f} s", end="")
        print("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.add_argument("--cache", type=Path, required=True)
    making.add_argument("--out", type=Path, required=True)
    making.add_argument("--seconds", type=float, default=600)
    making.add_argument("--recordings", type=int, default=20)
    making.add_argument("--seed", type=int, default=1)
    making.set_defaults(run=make)
    scoring = commands.add_parser("score")
    scoring.add_argument("--made", type=Path, required=True)
    scoring.add_argument("--reports", type=Path, required=True)
    scoring.add_argument("--threshold", type=float, default=0.6885, help="the detector's, from `veriscope weights list`")
    scoring.set_defaults(run=score)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
