"""The encoder of whisper-tiny (multilingual), tuned lightly: the network of tier `accurate`.

This header is the contract with the program that runs the exported weights.

window  64,000 samples (4 s at 16 kHz, mono). The mean is subtracted and the level scaled to an RMS of
        TARGET_RMS, as in frontend.py (where the RMS is under MIN_RMS, as if it were that).
frames  400 samples every 160, the first centred on sample 0: 200 samples are mirrored at each end (the
        outmost is not repeated), and the frame centred behind the last sample is left out, so there
        are 400. Periodic Hann window, 400-point Fourier transform, power re^2 + im^2.
mel     80 bands: triangles between 82 points that are evenly spaced from 0 to 8 kHz on Slaney's mel
        scale (linear to 1 kHz, logarithmic above), each scaled by 2 / (its upper end - its lower end
        in Hz), summed over the 201 bins. log10(max(power, 1e-10)), raised to at least the window's
        maximum - 8, then (x + 4) / 4. Laid out [80, 400].
stem    conv1, 80 -> 384 over 3 frames, padded with a zero on each side, GELU; conv2, 384 -> 384 over 3,
        padded likewise, stride 2, GELU: 200 tokens, one for 20 ms. The first 200 of Whisper's
        sinusoidal `positions` are added.
blocks  4 of: x += project(attention(qkv(norm1(x)))), x += fc2(gelu(fc1(norm2(x)))). Attention has 6
        heads of 64, softmax(q k' / 8) v; qkv [1152, 384] holds the rows of q, then k, then v, head
        by head. Every GELU is the exact one (erf). Norms are over 384 with EPS = 1e-5.
taps    after blocks 1 and 3 (counted from 0) the tokens go through a norm of their own.
head    for each tap the mean and the standard deviation sqrt(variance + POOL_EPS) of the tokens over
        time: 4 x 384 values, in the order mean and deviation of the first tap, then of the second
        -> linear to the logit that the voice is made by a machine (higher = fake).
local   each token's 2 x 384 values of the two taps -> linear to the logit that these 20 ms are.

Two files make the network. The base, whisper-tiny-encoder.safetensors in f16, holds OpenAI's own
tensors and is not ours; scripts/setup makes it. It has the names of the state dict but for
`norm`, the encoder's last norm, which the second tap's norm starts from; the first tap's starts from
the norm that block 2 reads its input with. Ours, voice-clone-accurate.safetensors in f16, holds what is
changed: every norm, the blocks' biases and both heads whole, under the names that the base has them by,
and for each of a block's four matrices `.down` [16, in] and `.up` [out, 16], so that the matrix is
base + up @ down (sums in f32). Stem and positions are the base's.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from frontend import MIN_RMS, SAMPLE_RATE, TARGET_RMS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from encoder import Block  # noqa: E402

N_FFT = 400
HOP = 160
BANDS = 80
POWER_FLOOR = 1e-10
RANGE = 8.0  # of the logarithm, below a window's maximum
TOKENS = 200
TOKEN = 320  # samples from one to the next
WIDTH = 384
HEADS = 6
DEPTH = 4
TAPS = (1, 3)
EPS = 1e-5
POOL_EPS = 1e-5


def mel_filters() -> torch.Tensor:
    """Slaney's mel filters, [80, 201]; the same numbers as librosa's and Whisper's."""
    step = 200 / 3  # Hz in a mel, up to 1 kHz
    bend = math.log(6.4) / 27  # a mel is a factor of exp(bend) above

    def hertz(mel: torch.Tensor) -> torch.Tensor:
        return torch.where(mel < 15, mel * step, 1000 * torch.exp(bend * (mel - 15)))

    top = 15 + math.log(SAMPLE_RATE / 2 / 1000) / bend
    points = hertz(torch.arange(BANDS + 2, dtype=torch.float64) * (top / (BANDS + 1)))
    bins = torch.arange(N_FFT // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE / N_FFT)
    low, middle, high = points[:-2, None], points[1:-1, None], points[2:, None]
    rise, fall = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return (torch.minimum(rise, fall).clamp_min(0) * (2 / (high - low))).float()


class LogMel(nn.Module):
    """Waveforms [n, samples] to log-mel spectrograms [n, 80, samples / 160]."""

    # What masks of the training stream may cover at most.
    MASK_BANDS = 12
    MASK_FRAMES = 75

    def __init__(self) -> None:
        super().__init__()
        hann = torch.hann_window(N_FFT, periodic=True, dtype=torch.float64)
        self.register_buffer("hann", hann.float(), persistent=False)
        self.register_buffer("filters", mel_filters(), persistent=False)

    @torch.no_grad()
    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        wave = wave - wave.mean(dim=-1, keepdim=True)
        rms = wave.square().mean(dim=-1, keepdim=True).sqrt()
        wave = wave * (TARGET_RMS / rms.clamp_min(MIN_RMS))
        spec = torch.stft(wave, N_FFT, HOP, N_FFT, self.hann, center=True, pad_mode="reflect", return_complex=True)
        spec = spec[..., :-1]
        power = spec.real.square() + spec.imag.square()
        x = (self.filters @ power).clamp_min(POWER_FLOOR).log10()
        x = torch.maximum(x, x.amax(dim=(1, 2), keepdim=True) - RANGE)
        return (x + 4) / 4


class VoiceCloneNet(nn.Module):
    frontend = LogMel

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(BANDS, WIDTH, 3, padding=1).requires_grad_(False)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1).requires_grad_(False)
        self.positions = nn.Parameter(torch.zeros(TOKENS, WIDTH), requires_grad=False)
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS, EPS, True, False) for _ in range(DEPTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, eps=EPS) for _ in TAPS)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * len(TAPS) * WIDTH, 1)
        self.local = nn.Linear(len(TAPS) * WIDTH, 1)
        for head in (self.classifier, self.local):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 80, frames] to [n, frames / 2, 384]; up to 400 frames."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(x)))).transpose(1, 2)
        return x.float() + self.positions[: x.shape[1]]

    def taps(self, x: torch.Tensor, keep: torch.Tensor | None = None) -> list[torch.Tensor]:
        """The tokens after each tap's norm; only those that `keep` [n, k] names."""
        x = self.stem(x)
        if keep is not None:
            x = x.gather(1, keep[..., None].expand(-1, -1, WIDTH))
        found = []
        for at, block in enumerate(self.blocks):
            x = block(x)
            if at in TAPS:
                found.append(self.norms[len(found)](x).float())
        return found

    def pooled(self, taps: list[torch.Tensor]) -> torch.Tensor:
        """[n, 1536]: what the logit is made of."""
        parts = []
        for tap in taps:
            mean = tap.mean(dim=1)
            var = (tap - mean.unsqueeze(1)).square().mean(dim=1)
            parts += [mean, (var + POOL_EPS).sqrt()]
        return torch.cat(parts, 1)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return self.pooled(self.taps(x))

    def both(self, x: torch.Tensor, keep: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits [n], and those of the tokens [n, 200] ([n, k] of the kept ones)."""
        taps = self.taps(x, keep)
        local = self.local(torch.cat(taps, 2)).squeeze(2)
        return self.classifier(self.dropout(self.pooled(taps))).squeeze(1), local

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        return self.both(x, keep)[0]


def load_base(model: VoiceCloneNet, path: Path) -> None:
    """`path`: the safetensors file that scripts/weights/convert_whisper.py makes."""
    state = {name: tensor.float() for name, tensor in load_file(str(path)).items()}
    for part in ("weight", "bias"):
        state[f"norms.0.{part}"] = state[f"blocks.{TAPS[0] + 1}.norm1.{part}"]
        state[f"norms.1.{part}"] = state.pop(f"norm.{part}")
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [m for m in missing if not m.startswith(("classifier.", "local.")) and not m.endswith((".up", ".down"))]
    if missing or unexpected:
        raise ValueError(f"{path} does not fit: missing {missing}, unexpected {unexpected}")


def ours(name: str) -> bool:
    """Whether a tensor of the state dict ships with us: all but the stem, the positions and the
    blocks' matrices."""
    if name.startswith(("conv1.", "conv2.", "positions")):
        return False
    return not (name.startswith("blocks.") and name.endswith(".weight") and "norm" not in name)


def f16_rounded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What ships, in f16."""
    tensors = {}
    for name, tensor in state.items():
        if not ours(name):
            continue
        half = tensor.detach().cpu().to(torch.float16).contiguous()
        if not torch.isfinite(half).all():
            raise ValueError(f"{name} does not fit into f16")
        tensors[name] = half
    return tensors


def load_export(path: Path, base: Path, device: str = "cpu") -> VoiceCloneNet:
    """The network as the program sees it: weights rounded to f16, arithmetic in f32."""
    model = VoiceCloneNet()
    load_base(model, base)
    state = {name: tensor.float() for name, tensor in load_file(str(path)).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(ours(m) for m in missing):
        raise ValueError(f"{path} is not an accurate voice-clone network: {missing}, {unexpected}")
    return model.eval().to(device)
