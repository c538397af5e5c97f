#!/usr/bin/env python3
"""Mutated C2PA stores against the worker process: `veriscope inspect` must give one report a file,
never end by a signal or with a panic, keep to the worker's deadline, and leave no worker behind.

    fuzz/c2pa.py --veriscope PROGRAM [--seconds N] [--seed N] FILE…

FILEs carry C2PA manifests. Mutations hit the store (or, one time in five, the bytes around it): bits,
bytes, sizes of boxes, heads of CBOR items, stretches cut out, doubled or exchanged. Files that broke a
rule are kept in the folder that is printed. Ends with code 1 if there are any.
"""
import argparse
import collections
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

BATCH = 16
# The worker's deadline, with what a busy machine adds to starting and ending it.
DEADLINE = 10


def store(data):
    """Start and end of what lies around the first manifest store."""
    at = data.find(b"jumdc2pa")
    if at < 12:
        raise SystemExit("a file without a manifest store")
    start = at - 12
    size = int.from_bytes(data[start:start + 4], "big")
    return start, min(len(data), start + max(size, 200))


def mutate(data, rng, others):
    data = bytearray(data)
    start, end = store(data)
    if rng.random() < 0.2:
        start, end = max(0, start - 4096), min(len(data), end + 4096)
    boxes = [i for i in range(start, min(end, start + 200_000)) if data[i:i + 4] in (b"jumb", b"jumd", b"cbor", b"json", b"bidb", b"bfdb")]
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, kind = rng.randrange(start, end), rng.randrange(8)
        if kind == 0:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 2 and boxes:
            size = rng.choice((0, 1, 7, 8, 0x7FFFFFFF, 0xFFFFFFFF, rng.randrange(1 << 16)))
            where = rng.choice(boxes) - 4
            data[where:where + 4] = size.to_bytes(4, "big")
        elif kind == 3:
            # A head of CBOR: arrays, maps, strings, tags of a huge or an endless length.
            head = bytes([rng.choice((0x9B, 0xBB, 0x5B, 0x7B, 0xDB, 0x9F, 0xBF, 0x5F, 0xC2))]) + rng.randbytes(8)
            data[at:at + len(head)] = head
        elif kind == 4:
            del data[at:at + rng.randrange(1, 400)]
        elif kind == 5:
            piece = data[at:at + rng.randrange(1, 2000)]
            data[at:at] = piece * rng.choice((1, 2, 50))
        elif kind == 6:
            other = rng.choice(others)
            a, b = store(other)
            cut = rng.randrange(a, b)
            piece = other[cut:cut + rng.randrange(1, 4000)]
            data[at:at + len(piece)] = piece
        else:
            data[at:at + 64] = bytes([rng.choice((0x81, 0xA1, 0xD8, 0x9F, 0))]) * 64
        end = min(end, len(data))
        if start >= end:
            break
    return bytes(data)


def workers(program):
    """Processes of this very program that verify."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (process / "exe").resolve() == program and b"c2pa-worker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            pass
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--veriscope", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    sources = [(path.suffix, path.read_bytes()) for path in args.files]
    kept = pathlib.Path(tempfile.mkdtemp(prefix="c2pa-fuzz-"))
    program = (kept / "veriscope").resolve()
    shutil.copy(args.veriscope, program)
    began, count, broke, slowest = time.monotonic(), 0, [], 0.0
    answers = collections.Counter()
    while time.monotonic() - began < args.seconds:
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for n in range(BATCH):
                suffix, data = rng.choice(sources)
                path = pathlib.Path(folder) / f"{n}{suffix}"
                path.write_bytes(mutate(data, rng, [d for _, d in sources]))
                paths.append(path)
            start = time.monotonic()
            # All files of a batch may take their whole deadline, one after the other.
            try:
                run = subprocess.run([program, "inspect", "--format", "jsonl", "--jobs", "1", *paths], capture_output=True,
                                     stdin=subprocess.DEVNULL, timeout=BATCH * (DEADLINE + 5))
            except subprocess.TimeoutExpired:
                run = None
            took = time.monotonic() - start
            slowest = max(slowest, took)
            count += len(paths)
            reports = [json.loads(line) for line in run.stdout.splitlines()] if run else []
            wrong = None
            if run is None:
                wrong = f"a batch took more than {took:.0f} s"
            elif run.returncode not in (0, 1):
                wrong = f"ended with {run.returncode}"
            elif b"panicked" in run.stderr:
                wrong = "a panic: " + run.stderr.decode("utf-8", "replace")[:300]
            elif len(reports) != len(paths):
                wrong = f"{len(reports)} reports of {len(paths)} files"
            elif workers(program):
                wrong = f"workers left behind: {workers(program)}"
            for report in reports:
                label = next((l for l in report["labels"] if l["system"] == "c2pa"), None)
                why = [r["detail"] for r in report["reasons"] if r["code"] == "manifest_not_verified"]
                answers[why[0].split(": ", 1)[-1] if why else label["verdict"] if label else
                        "residue" if report["strip_evidence"] else "nothing"] += 1
            if wrong:
                broke.append(wrong)
                shutil.copytree(folder, kept / f"batch-{len(broke)}")
    print(f"{count} files, {len(broke)} batches broke a rule, slowest batch of {BATCH} {slowest:.1f} s")
    for what, n in answers.most_common():
        print(f"{n:7} {what}")
    for what in broke:
        print(f"{kept}: {what}", file=sys.stderr)
    if broke:
        sys.exit(1)
    shutil.rmtree(kept)


if __name__ == "__main__":
    main()
