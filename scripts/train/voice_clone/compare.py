"""Networks side by side on the test clips, each scored by `veriscope score`.

    python compare.py write --cache ${CACHE}_test --out DIR
    veriscope score --detector voice-clone --list DIR/list.tsv > DIR/ours.tsv
    veriscope score --detector voice-clone --network aasist --list DIR/list.tsv > DIR/aasist.tsv
    python compare.py table --list DIR/list.tsv ours=DIR/ours.tsv aasist=DIR/aasist.tsv

`write` writes the clips as WAV (16 bit, 16 kHz, mono) with a list; --unheard leaves out the fakes by
generators that training heard. `table` gives pooled EER and AUC over the clips that all of the
networks scored, with 95 % bootstrap intervals over speakers (over clips where the speaker is not
known), and says how many each could not score.
"""

from __future__ import annotations

import argparse
import csv
import wave
from pathlib import Path

import numpy as np

from data import HELD_OUT, SAMPLE_RATE, Cache
from evaluate import Groups, auc, interval
from train import eer


def write(cache: Cache, out: Path, unheard: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / "list.tsv").open("w", newline="") as f:
        table = csv.writer(f, delimiter="\t")
        table.writerow(["path", "label", "corpus", "family", "speaker", "key"])
        for i, clip in enumerate(c for c in cache.clips if c["split"] == "test"):
            if unheard and clip["label"] and clip["family"] not in HELD_OUT:
                continue
            path = (out / f"{i:04d}.wav").resolve()
            with wave.open(str(path), "wb") as w:
                w.setnchannels(1)
                w.setsampwidth(2)
                w.setframerate(SAMPLE_RATE)
                w.writeframes(np.asarray(cache.wave(clip)).astype("<i2").tobytes())
            table.writerow([path, *(clip[k] for k in ("label", "corpus", "family", "speaker", "key"))])


def table(listed: Path, files: dict[str, Path]) -> None:
    with listed.open() as f:
        clips = list(csv.DictReader(f, delimiter="\t"))
    scores = {}
    for name, file in files.items():
        with file.open() as f:
            rows = {r["path"]: r["score"] for r in csv.DictReader(f, delimiter="\t")}
        missing = [c["path"] for c in clips if c["path"] not in rows]
        if missing:
            raise SystemExit(f"{file}: no row for {missing[0]}")
        scores[name] = rows
        print(f"{name}: {sum(not rows[c['path']] for c in clips)} of {len(clips)} clips without a score")
    clips = [c for c in clips if all(rows[c["path"]] for rows in scores.values())]
    real = [c for c in clips if c["label"] == "0"]
    fakes = {
        "unheard generators": [c for c in clips if c["family"] in HELD_OUT],
        "heard generators": [c for c in clips if c["label"] == "1" and c["family"] not in HELD_OUT],
    }
    fakes |= {f: [c for c in clips if c["family"] == f] for f in sorted({c["family"] for c in clips if c["label"] == "1"})}

    def groups(name: str, chosen: list[dict]) -> Groups:
        return Groups(np.array([float(scores[name][c["path"]]) for c in chosen]), [c["speaker"] for c in chosen])

    print(f"\n{len(real)} real clips\n\n| fakes | clips |", " | ".join(f"{n}, EER % | {n}, AUC" for n in scores), "|")
    print("| --- " * (2 + 2 * len(scores)) + "|")
    for kind, chosen in fakes.items():
        if not chosen:
            continue
        row = [kind, str(len(chosen))]
        for name in scores:
            a, b = groups(name, real), groups(name, chosen)
            value, low, high = (100 * v for v in interval(eer, a, b))
            row.append(f"{value:.1f} ({low:.1f}–{high:.1f})")
            row.append("{:.3f} ({:.3f}–{:.3f})".format(*interval(auc, a, b)))
        print("|", " | ".join(row), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("--cache", type=Path, required=True)
    writing.add_argument("--out", type=Path, required=True)
    writing.add_argument("--unheard", action="store_true")
    comparing = commands.add_parser("table")
    comparing.add_argument("--list", type=Path, required=True)
    comparing.add_argument("scores", nargs="+", metavar="NAME=FILE")
    args = parser.parse_args()
    if args.command == "write":
        write(Cache(args.cache), args.out, args.unheard)
    else:
        table(args.list, {name: Path(file) for name, _, file in (s.partition("=") for s in args.scores)})


if __name__ == "__main__":
    main()
