"""A data set's manifest: nothing is trained on a set that has none, or an incomplete one.

    from manifest import require
    require("dfdc-faces")

The program reads the same files (docs/datasets.md) and checks more; `veriscope datasets verify` compares
the archives with their SHA-256.
"""

import tomllib
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "datasets"


def require(name, split="train"):
    """What the manifest of the set `name` says; ends the script where it does not allow training."""
    path = FOLDER / f"{name}.toml"
    try:
        manifest = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SystemExit(f"{path}: {error}; nothing is trained on a set without a manifest") from None
    for field in ("source", "licence", "consent"):
        if not isinstance(manifest.get(field), str) or not manifest[field].strip():
            raise SystemExit(f"{path}: `{field}` is missing")
    if not isinstance(manifest.get("splits"), dict) or split not in manifest["splits"]:
        raise SystemExit(f"{path}: `splits` has no '{split}'")
    return manifest
