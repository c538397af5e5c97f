#!/usr/bin/env python3
"""Writes what the speaker network's own package answers to made-up input.

    golden_speaker.py --wheel Resemblyzer-0.1.4-py3-none-any.whl --out ../../tests/golden

The package's code makes the spectrograms (librosa) and the embeddings (PyTorch, f32, from the
package's own weights). Needs the Python packages librosa, numpy, safetensors and torch, and what
golden_third_party.py imports.
"""

import argparse
import sys
import types
from pathlib import Path

import numpy as np
import torch
from convert_speaker import checkpoint
from golden_third_party import speech_like
from safetensors.numpy import save_file

SAMPLES = 32000


def package(wheel):
    """The package's modules out of its wheel. Two that only its silence trimming needs, which is
    not used here, are left out."""
    for name in ("webrtcvad", "scipy.ndimage.morphology"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["scipy.ndimage.morphology"].binary_dilation = None
    sys.path.insert(0, str(wheel))
    from resemblyzer import audio, hparams, voice_encoder

    return audio, hparams, voice_encoder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True)
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--out", type=Path, default=root / "tests" / "golden")
    args = parser.parse_args()
    audio, hparams, voice_encoder = package(args.wheel)
    network = voice_encoder.VoiceEncoder.__new__(voice_encoder.VoiceEncoder)
    torch.nn.Module.__init__(network)
    network.lstm = torch.nn.LSTM(
        hparams.mel_n_channels, hparams.model_hidden_size, hparams.model_num_layers, batch_first=True
    )
    network.linear = torch.nn.Linear(hparams.model_hidden_size, hparams.model_embedding_size)
    network.relu = torch.nn.ReLU()
    state, _ = checkpoint(args.wheel)
    network.load_state_dict(state, strict=False)
    # As loud as the package leaves alone, and quieter than what it raises.
    waves = [speech_like(seed=3)[:SAMPLES], 0.01 * speech_like(seed=4)[8000 : 8000 + SAMPLES]]
    mels = []
    for wave in waves:
        raised = audio.normalize_volume(wave, hparams.audio_norm_target_dBFS, increase_only=True)
        mels.append(audio.wav_to_mel_spectrogram(raised.astype(np.float32)))
    # safetensors writes memory as it lies.
    mels = np.ascontiguousarray(np.stack(mels))
    with torch.no_grad():
        embeddings = network(torch.from_numpy(mels)).numpy()
    print(f"{mels.shape[1]} frames; the two are alike by {embeddings[0] @ embeddings[1]:.3f}")
    tensors = {"wave": np.stack(waves).astype(np.float32), "mel": mels, "embedding": embeddings}
    save_file(tensors, args.out / "speaker_encoder.safetensors")


if __name__ == "__main__":
    main()
