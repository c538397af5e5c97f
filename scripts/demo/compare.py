#!/usr/bin/env python3
"""Prints what was planted in the demo beside what a scan found.

Usage: compare.py TRUTH.json SCAN.jsonl   (`-` reads the scan from standard input)

Found are the segments with verdict `fake`. The figure beside a stretch is the
overlap of planted and found (intersection over union; 1.00 is exact). Standard
library only. The exit code is 0 whatever was found; 2 where a file is unreadable.
"""

import json
import os
import sys


def merge(stretches):
    """Sorted (start, end) pairs without overlaps."""
    out = []
    for start, end in sorted(stretches):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


def touches(a, b):
    """True where two stretches share time; a stretch without length counts as a moment."""
    if a[0] == a[1] or b[0] == b[1]:
        return a[0] <= b[1] and b[0] <= a[1]
    return a[0] < b[1] and b[0] < a[1]


def overlap(planted, found):
    """Intersection over union of one stretch and a merged list; None where a length is missing."""
    if planted[0] == planted[1] or any(s == e for s, e in found):
        return None
    shared = sum(max(0, min(planted[1], e) - max(planted[0], s)) for s, e in found)
    union = planted[1] - planted[0] + sum(e - s for s, e in found) - shared
    return shared / union


def seconds(stretch):
    start, end = stretch
    return "still" if start == end == 0 else f"{start / 1000:.1f}-{end / 1000:.1f} s"


def compare(truth, reports):
    """Rows (file, detector, planted, found, result) of text, and the counts."""
    reports = {os.path.basename(r["media"]["path"]): r for r in reports}
    files = list(dict.fromkeys(p["file"] for p in truth["planted"] + truth["real"] + truth.get("labels", [])))
    rows, counts = [], {"planted": 0, "found": 0, "missed": 0, "not scanned": 0, "false alarms": 0}
    for name in files:
        report = reports.get(name)
        segments = report["segments"] if report else []
        planted = [p for p in truth["planted"] if p["file"] == name]
        for p in planted:
            counts["planted"] += 1
            stretch = (p["start_ms"], p["end_ms"])
            if report is None:
                counts["not scanned"] += 1
                rows.append((name, p["detector"], seconds(stretch), "", "not scanned"))
                continue
            hits = [s for s in segments if s["detector"] == p["detector"] and s["verdict"] == "fake"
                    and touches(stretch, (s["start_ms"], s["end_ms"]))]
            if not hits:
                counts["missed"] += 1
                rows.append((name, p["detector"], seconds(stretch), "-", "missed"))
                continue
            counts["found"] += 1
            found = merge((s["start_ms"], s["end_ms"]) for s in hits)
            best = max((s["probability"] for s in hits if s.get("probability") is not None), default=None)
            share = overlap(stretch, found)
            result = "found" + (f", overlap {share:.2f}" if share is not None else "")
            result += f", p {best:.2f}" if best is not None else ""
            rows.append((name, p["detector"], seconds(stretch), ", ".join(map(seconds, found)), result))
        for s in segments:
            stretch = (s["start_ms"], s["end_ms"])
            if s["verdict"] == "fake" and not any(
                    p["detector"] == s["detector"] and touches((p["start_ms"], p["end_ms"]), stretch)
                    for p in planted):
                counts["false alarms"] += 1
                p = s.get("probability")
                rows.append((name, s["detector"], "-", seconds(stretch),
                             "false alarm" + (f", p {p:.2f}" if p is not None else "")))
        for wanted in (w for w in truth.get("labels", []) if w["file"] == name):
            state = report["disposition"]["state"] if report else None
            rows.append((name, f"label {wanted['system']}", wanted["disposition"], state or "",
                         "not scanned" if report is None else
                         "as planted" if state == wanted["disposition"] else "differs"))
    return rows, counts


def table(rows):
    rows = [("file", "detector", "planted", "found", "result"), *rows]
    widths = [max(len(r[i]) for r in rows) for i in range(5)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in rows)


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with open(arguments[0], encoding="utf-8") as f:
            truth = json.load(f)
        with (sys.stdin if arguments[1] == "-" else open(arguments[1], encoding="utf-8")) as f:
            reports = [json.loads(line) for line in f if line.strip()]
        rows, counts = compare(truth, reports)
    except (OSError, ValueError, KeyError, TypeError) as e:
        print(f"compare.py: {type(e).__name__}: {e}", file=sys.stderr)
        return 2
    print(table(rows))
    print("\n" + ", ".join(f"{n} {what}" for what, n in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
