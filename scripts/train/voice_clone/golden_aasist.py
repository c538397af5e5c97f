"""Writes the golden file of AASIST and AASIST-L: what the authors' own program answers.

    python golden_aasist.py --original CHECKOUT --checkpoints DIR --out ../../../tests/golden/aasist.json

CHECKOUT is a copy of https://github.com/clovaai/aasist, DIR holds AASIST.pth and AASIST-L.pth.
Inputs and, for a second set of answers, weights are made up from seeds by whole-number arithmetic,
which the test (tests/import.rs) repeats; the file holds the seeds and the answers alone.
--seconds N times the original over N windows instead and writes nothing.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from original import arguments, lcg, load, timed  # noqa: E402

NAMES = ["AASIST", "AASIST-L"]
# Seed and number of samples: the window itself, shorter and longer ones.
SIGNALS = [(0, 64600), (1, 64600), (2, 20011), (3, 160000), (4, 900)]


def signal(seed: int, samples: int) -> np.ndarray:
    """A saw under syllables, and noise: 16 bit."""
    i = np.arange(samples, dtype=np.int64)
    period = 90 + 17 * seed
    saw = i % period * 20000 // period - 10000
    swell = abs(i % 4000 - 2000)
    noise = (lcg(seed, samples) >> 20).astype(np.int64) - 2048
    return ((saw * swell // 2000 + noise) / 32768).astype(np.float32)


def made_up(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights that no training made. The unused batch norms get some too."""
    state = model.state_dict()
    names = sorted(k for k in state if not k.endswith("num_batches_tracked"))
    for index, name in enumerate(names):
        shape = state[name].shape
        u = (lcg(1 + index, math.prod(shape)) >> 8).astype(np.float32) / 2**24 - 0.5
        part = name.split(".")[-1]
        norm = "bn" in name.split(".")[-2] if "." in name else False
        if part == "running_var" or (norm and part == "weight"):
            # So small a variance that the input is heard through weights of no training.
            values = (1 + u) / (1024 if name == "first_bn.running_var" else 1)
        elif part in ("bias", "running_mean"):
            values = u / 4
        else:
            fan_in = max(math.prod(shape[1:]), 1)
            values = u * 2 / 2 ** (int(math.log2(fan_in)) // 2)
        state[name] = torch.from_numpy(values.astype(np.float32)).reshape(shape)
    return state


def main() -> None:
    parser = arguments(__doc__, "--checkpoints")
    parser.add_argument("--seconds", type=int)
    args = parser.parse_args()
    original = load(args.original / "models/AASIST.py", "aasist_original")

    pad = load(args.original / "data_utils.py", "aasist_data").pad
    waves = torch.from_numpy(np.stack([pad(signal(*s)) for s in SIGNALS]))
    answers = {"signals": SIGNALS}
    for name in NAMES:
        config = json.loads((args.original / f"config/{name}.conf").read_text())["model_config"]
        model = original.Model(config).eval()
        trained = torch.load(args.checkpoints / f"{name}.pth", map_location="cpu", weights_only=True)
        if args.seconds:
            model.load_state_dict(trained)
            torch.set_num_threads(2)
            with torch.no_grad():
                print(f"{name}: {timed(lambda i: model(waves[i % len(waves)][None]), args.seconds)}")
            continue
        for which, state in [("trained", trained), ("made_up", made_up(model))]:
            model.load_state_dict(state)
            with torch.no_grad():
                logits = torch.cat([model(w[None]) for w in waves])
            answers.setdefault(name.lower(), {})[which] = logits.tolist()
            print(name, which, logits.tolist())
    if args.out and not args.seconds:
        args.out.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
