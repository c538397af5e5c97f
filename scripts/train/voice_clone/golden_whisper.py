"""Writes what the network of tier `accurate` answers with made-up weights, for the program's test of
its own front end and forward pass.

    python golden_whisper.py --out ../../../tests/golden/voice_clone_accurate.safetensors

The weights come from the formula of ../made_up.py, which the test (tests/common/vit.rs) has too, the
waves are those of golden.py: hence the test needs neither the base nor the trained weights. `mel`
[2, 80, 400], `logits` [2], `tokens` [2, 200] and `features` [2, 1536] are what PyTorch makes of them in
f32.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from golden import signals
from whisper import LogMel, VoiceCloneNet, ours

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from made_up import tensor  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = VoiceCloneNet()
    model.load_state_dict({
        name: tensor("ours" if ours(name) else "base", name, tuple(old.shape))
        for name, old in model.state_dict().items()
    })
    model.eval()
    with torch.inference_mode():
        mel = LogMel()(torch.from_numpy(signals()))
        features = model.embed(mel)
        logits, tokens = model.both(mel)
    golden = {"mel": mel, "logits": logits, "tokens": tokens, "features": features}
    save_file({k: v.contiguous() for k, v in golden.items()}, str(args.out))
    args.out.chmod(0o644)
    print("logits", logits.tolist(), "tokens", tokens.min().item(), tokens.max().item(), "features", features.std().item())


if __name__ == "__main__":
    main()
