"""Writes the golden file of RawGAT-ST: what the authors' own program answers.

    python golden_rawgat_st.py --original CHECKOUT --checkpoint mul.pth --speech SPEECH \
        --out ../../../tests/golden/rawgat_st.json

CHECKOUT is a copy of https://github.com/eurecom-asp/RawGAT-ST-antispoofing at commit 6903c2f, whose
model.py has the names of the published checkpoints. Signals and, for a second set of answers,
weights are made up as golden_aasist.py makes them, which the test (tests/import.rs) repeats. SPEECH
is the folder with the tars of real and spoofed clips; the file holds their names and the answers.
--seconds N times the original over N windows instead and writes nothing.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from golden_aasist import SIGNALS, made_up, signal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from original import arguments, load, timed  # noqa: E402

SAMPLES = 64600
# model_config_RawGAT_ST.yaml of that commit.
CONFIG = {
    "out_channels": 70,
    "first_conv": 128,
    "in_channels": 1,
    "filts": [32, [32, 32], [32, 64], [64, 64]],
}
# Of each tar the first and the last clip.
TARS = ["librispeech.tar", "real-other.tar", "spoof.tar", "modern.tar"]


def clips(speech: Path) -> list[tuple[str, str, np.ndarray]]:
    found = []
    for name in TARS:
        with tarfile.open(speech / name) as tar:
            members = sorted(m.name for m in tar.getmembers() if m.isfile())
            for member in (members[0], members[-1]):
                wave, rate = soundfile.read(io.BytesIO(tar.extractfile(member).read()), dtype="float32")
                assert rate == 16000 and wave.ndim == 1, (member, rate, wave.shape)
                found.append((name, member, wave))
    return found


def main() -> None:
    parser = arguments(__doc__, "--checkpoint")
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--seconds", type=int)
    args = parser.parse_args()
    original = load(args.original / "model.py", "rawgat_st_original")
    model = original.RawGAT_ST(CONFIG, "cpu").eval()
    trained = torch.load(args.checkpoint, map_location="cpu", weights_only=True)

    def ask(state: dict[str, torch.Tensor], waves: list[np.ndarray]) -> list[list[float]]:
        model.load_state_dict(state)
        with torch.no_grad():
            # Repeated up to the window's length or cut to it, as its evaluation does.
            return [model(torch.from_numpy(np.resize(w, SAMPLES))[None])[0].tolist() for w in waves]

    if args.seconds:
        torch.set_num_threads(2)
        window = [signal(0, SAMPLES)]
        print(timed(lambda _: ask(trained, window), args.seconds))
        return
    signals = [signal(*s) for s in SIGNALS]
    answers = {
        "signals": SIGNALS,
        "rawgat-st": {"trained": ask(trained, signals), "made_up": ask(made_up(model), signals)},
    }
    if args.speech:
        found = clips(args.speech)
        logits = ask(trained, [wave for _, _, wave in found])
        answers["clips"] = [[tar, name, *both] for (tar, name, _), both in zip(found, logits)]
    print(json.dumps(answers, indent=1))
    if args.out:
        args.out.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
