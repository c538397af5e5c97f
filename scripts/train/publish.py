#!/usr/bin/env python3
"""Puts one network's weights into weights/ and its block into weights/manifest.toml.

    publish.py --name face-swap-fast --file X.safetensors --meta meta.toml

meta.toml holds what only the trainer knows: `network`, `input`, `licence`, `origin`, and where
they apply `training_data`, `licence_file` (a file name inside the weights folder), `precision`
(`bf16` where the network was measured to keep its answers in it), `base` (the entry that these
weights are a difference to), `installed_by` (the command that brings weights that do not ship),
`[metrics]` (numbers, or [value, low, high]), `[calibration]`, and `[domain]` (from which distance
on an input is out of the network's domain). The file name, its sha256 and its
size are worked out here, so that they can never disagree with the file.

The block is replaced as text, hence other blocks keep their comments and order. Several trainings
may publish at once: the weights folder is locked, the manifest is read only under the lock, and
both files appear by rename, so that a reader never sees half of one.

Standard library only; Python 3.11 or newer.
"""

import argparse
import fcntl
import hashlib
import json
import math
import os
import re
import sys
import tempfile
import tomllib
from pathlib import Path

SCHEMA = 1
HEADER = (
    "# The networks that ship with Veriscope. Blocks are written by scripts/train/publish.py.\n"
    "# Every score is higher for fake; probability = sigmoid(a * score + b).\n"
    f"schema = {SCHEMA}\n"
)
REQUIRED = ("network", "input", "licence", "origin")
OPTIONAL = ("licence_file", "training_data", "precision", "base", "installed_by")
CALIBRATION = ("method", "a", "b", "threshold", "fitted_on")
DOMAIN = ("threshold", "fitted_on")


def toml_value(value):
    """One value on one line: the few kinds that a manifest holds."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        return repr(value)
    if isinstance(value, str):
        # TOML's basic strings are JSON's, except for one control character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    raise ValueError(f"{value!r} has no place in a manifest")


def key(name):
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check(meta):
    """The complaints about a meta file; an empty list means that it can be published."""
    wrong = [f"`{k}` is missing" for k in REQUIRED if not meta.get(k)]
    known = {*REQUIRED, *OPTIONAL, "metrics", "calibration", "domain"}
    wrong += [f"`{k}` is unknown" for k in meta if k not in known]
    for name, value in meta.get("metrics", {}).items():
        interval = isinstance(value, list) and len(value) == 3 and all(map(is_number, value))
        if not (is_number(value) or interval):
            wrong.append(f"metric `{name}` must be a number or [value, low, high]")
    if "calibration" in meta:
        calibration = meta["calibration"]
        wrong += [f"calibration lacks `{k}`" for k in CALIBRATION if k not in calibration]
        for k in ("a", "b", "threshold"):
            if k in calibration and not is_number(calibration[k]):
                wrong.append(f"calibration `{k}` must be a number")
    if "domain" in meta:
        domain = meta["domain"]
        wrong += [f"domain lacks `{k}`" for k in DOMAIN if k not in domain]
        if not is_number(domain.get("threshold", 0)):
            wrong.append("domain `threshold` must be a number")
    return wrong


def block_text(name, file_name, digest, size, meta):
    facts = {"file": file_name, "sha256": digest, "bytes": size}
    facts |= {k: meta[k] for k in (*REQUIRED, *OPTIONAL) if k in meta}
    lines = [f"[{key(name)}]"]
    lines += [f"{key(k)} = {toml_value(v)}" for k, v in facts.items()]
    for table in ("metrics", "calibration", "domain"):
        if table in meta:
            lines += ["", f"[{key(name)}.{table}]"]
            lines += [f"{key(k)} = {toml_value(v)}" for k, v in meta[table].items()]
    return "\n".join(lines) + "\n"


def spliced(text, name, block):
    """`text` with the block of `name` replaced, or added at the end."""
    own = re.compile(rf"\[\s*{re.escape(key(name))}\s*[.\]]")
    kept, place, inside = [], None, False
    for line in text.splitlines(keepends=True):
        if re.match(r"\[[^\[]", line):
            inside = own.match(line) is not None
            if inside and place is None:
                place = len(kept)
        if not inside:
            kept.append(line)
    before = "".join(kept if place is None else kept[:place]).rstrip("\n")
    after = "" if place is None else "".join(kept[place:]).lstrip("\n")
    return before + "\n\n" + block + ("\n" + after if after else "")


def write_renamed(path, data):
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def publish(name, source, meta, weights):
    weights.mkdir(parents=True, exist_ok=True)
    if "licence_file" in meta and not (weights / meta["licence_file"]).is_file():
        raise ValueError(f"licence_file {meta['licence_file']} is not in {weights}")
    target = weights / f"{name}{source.suffix}"
    manifest = weights / "manifest.toml"
    # The folder itself is the lock, so that no lock file is left lying about.
    lock = os.open(weights, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        data = source.read_bytes()
        block = block_text(name, target.name, hashlib.sha256(data).hexdigest(), len(data), meta)
        old = manifest.read_text(encoding="utf-8") if manifest.exists() else HEADER
        new = spliced(old, name, block)
        before, after = tomllib.loads(old), tomllib.loads(new)
        before.pop(name, None)
        entry = after.pop(name)
        if "base" in meta and meta["base"] not in after:
            raise ValueError(f"base {meta['base']} has no entry in {manifest}")
        if before != after:
            raise ValueError(f"{manifest} has a layout that this script cannot edit safely")
        if after.get("schema") != SCHEMA:
            raise ValueError(f"{manifest} is not of schema {SCHEMA}")
        if not (target.exists() and source.samefile(target)):
            write_renamed(target, data)
        write_renamed(manifest, new.encode("utf-8"))
    finally:
        os.close(lock)
    return entry


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="the network's name, as the program asks for it")
    parser.add_argument("--file", required=True, type=Path, help="the weights")
    parser.add_argument("--meta", required=True, type=Path, help="TOML with what the manifest says of them")
    parser.add_argument(
        "--weights",
        type=Path,
        default=Path(__file__).resolve().parents[2] / "weights",
        help="the folder with manifest.toml (default: the repository's)",
    )
    args = parser.parse_args()
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", args.name):
        parser.error(f"--name {args.name}: small letters, digits and single hyphens only")
    meta = tomllib.loads(args.meta.read_text(encoding="utf-8"))
    wrong = check(meta)
    if wrong:
        sys.exit(f"{args.meta}: " + "; ".join(wrong))
    try:
        entry = publish(args.name, args.file, meta, args.weights)
    except (OSError, ValueError) as error:
        sys.exit(f"publish: {error}")
    print(f"{args.name}: {entry['file']}, {entry['bytes']} bytes, sha256 {entry['sha256']}")


if __name__ == "__main__":
    main()
