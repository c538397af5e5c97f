#!/usr/bin/env python3
"""What the stripping matrix says of the weights of strip evidence.

    weights.py ROWS.jsonl      (what stripping.py wrote)

For each kind: in how many files of the matrix whose label was taken off it was found, in how many that
never had one, and the logarithm of the ratio of the two shares with its 95 % interval, each count
smoothed by a half. Files whose label was taken off are those in which a label of the kind's system is gone
or only residue of it is left. The share among them is that of the operations that were chosen for the
matrix and says nothing of files in the field; the share among those never labelled says how rare the
finding is where there is nothing to find, and its upper bound limits what any weight may claim.
"""

import json
import math
import sys
from pathlib import Path

# As in src/provenance/evidence.rs.
KINDS = {
    "aigc_key_without_value": ("aigc", 6.5), "aigc_key_table_entry_without_item": ("aigc", 7.0),
    "label_json_cut_short": ("aigc", 6.0), "label_bytes_in_free_box": ("aigc", 7.0), "label_box_renamed_free": ("aigc", 7.0),
    "orphaned_jumbf": ("c2pa", 6.5), "xmp_points_to_missing_manifest": ("c2pa", 6.0), "broken_hard_binding": (None, 1.5),
    "generator_trace_without_label": (None, 1.0), "watermark_without_label": (None, 2.0), "erased_mark": ("visible", None),
}
METADATA = {"aigc", "c2pa", "iptc"}


def ratio(a, n, b, m):
    """log((a/n)/(b/m)) with halves added, and its 95 % interval (delta method)."""
    pa, pb = (a + 0.5) / (n + 1), (b + 0.5) / (m + 1)
    spread = 1.959964 * math.sqrt(1 / (a + 0.5) - 1 / (n + 1) + 1 / (b + 0.5) - 1 / (m + 1))
    return math.log(pa / pb), math.log(pa / pb) - spread, math.log(pa / pb) + spread


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    never = [r for r in rows if r["negative"]]
    print("| kind | label taken off | never labelled | log ratio | 95 % interval | weight |")
    print("| --- | --- | --- | --- | --- | --- |")
    kinds = sorted({k for r in rows for k in r["kinds"]} | set(KINDS))
    for kind in kinds:
        system, weight = KINDS.get(kind, (None, None))
        gone = [r for r in rows if any(state in ("residue", "removed") and (s == system if system else s in METADATA)
                                       for s, state in r["states"].items())]
        a, b = (sum(kind in r["kinds"] for r in part) for part in (gone, never))
        value, low, high = ratio(a, len(gone), b, len(never))
        print(f"| `{kind}` | {a} of {len(gone)} | {b} of {len(never)} | {value:.1f} | {low:.1f} to {high:.1f} | "
              f"{'' if weight is None else weight} |")


if __name__ == "__main__":
    main()
