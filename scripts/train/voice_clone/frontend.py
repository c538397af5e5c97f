"""The spectral front end of the voice-clone network.

One window is 64,000 samples (4 s at 16 kHz, mono). The Rust program computes
the same features; `docs/models/voice-clone.md` says the steps in words. Every
constant that Rust needs stands below.
"""

from __future__ import annotations

import torch

SAMPLE_RATE = 16_000
WINDOW = 64_000  # samples in one window
N_FFT = 512  # also the length of the Hann window
HOP = 200
FIRST_BIN = 4  # 125 Hz
BANDS = 112  # of two bins each: 4+5, 6+7, ..., 226+227, so 125 Hz to 7,094 Hz
FRAMES = (WINDOW - N_FFT) // HOP + 1  # 318
TARGET_RMS = 0.05
MIN_RMS = 1e-5  # a quieter window is scaled as if it were this loud
BAND_FLOOR = 1e-6  # against a band that holds next to nothing
ABS_FLOOR = 1e-9
LOG_FLOOR = 1e-3  # -30 dB below a band's own mean power
OFFSET = 3.0
SCALE = 0.5


class Frontend(torch.nn.Module):
    """Waveforms [n, samples] to features [n, 1, BANDS, frames]."""

    # What masks of the training stream may cover at most.
    MASK_BANDS = 16
    MASK_FRAMES = 60

    def __init__(self) -> None:
        super().__init__()
        hann = torch.hann_window(N_FFT, periodic=True, dtype=torch.float64)
        self.register_buffer("hann", hann.float(), persistent=False)

    @torch.no_grad()
    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        wave = wave - wave.mean(dim=-1, keepdim=True)
        rms = wave.square().mean(dim=-1, keepdim=True).sqrt()
        wave = wave * (TARGET_RMS / rms.clamp_min(MIN_RMS))
        spec = torch.stft(
            wave, N_FFT, HOP, N_FFT, self.hann, center=False, return_complex=True
        )
        spec = spec[:, FIRST_BIN : FIRST_BIN + 2 * BANDS]
        power = spec.real.square() + spec.imag.square()
        power = power[:, 0::2] + power[:, 1::2]
        per_band = power.mean(dim=2, keepdim=True)  # over time
        overall = per_band.mean(dim=1, keepdim=True)  # over the bands
        ratio = power / (per_band + BAND_FLOOR * overall + ABS_FLOOR)
        return ((ratio + LOG_FLOOR).log() + OFFSET).mul(SCALE).unsqueeze(1)
