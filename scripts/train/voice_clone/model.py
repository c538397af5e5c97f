"""The light voice-clone network: inverted residual blocks over a spectrogram.

Input: [n, 1, 112, 318] (frequency, time), from `frontend.py`. Output: one
logit for each window; higher means fake. Only convolutions, batch norms,
ReLU, residual additions, mean and standard deviation, and one linear layer.
"""

from __future__ import annotations

import torch
from torch import nn

from frontend import Frontend

BN_EPS = 1e-5
POOL_EPS = 1e-5

# expansion channels (0: no expansion), output channels, stride of both axes
BLOCKS = [
    (0, 24, 2),
    (48, 24, 1),
    (48, 40, 2),
    (80, 40, 1),
    (80, 40, 1),
    (160, 112, 2),
    (224, 112, 1),
    (224, 112, 1),
]
STEM = 16
HEAD = 256


def conv_bn(cin: int, cout: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    return [
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout, eps=BN_EPS),
    ]


class ConvBn(nn.Module):
    """Convolution, batch norm and, unless told otherwise, ReLU."""

    def __init__(self, cin, cout, kernel, stride=1, groups=1, relu=True) -> None:
        super().__init__()
        self.conv, self.bn = conv_bn(cin, cout, kernel, stride, groups)
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x))
        return torch.relu(x) if self.relu else x


class Block(nn.Module):
    """1x1 to `mid` channels (left out where mid is 0), 3x3 depthwise, 1x1 without ReLU."""

    def __init__(self, cin: int, mid: int, cout: int, stride: int) -> None:
        super().__init__()
        self.expand = ConvBn(cin, mid, 1) if mid else None
        mid = mid or cin
        self.dw = ConvBn(mid, mid, 3, stride, groups=mid)
        self.project = ConvBn(mid, cout, 1, relu=False)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.dw(y))
        return x + y if self.residual else y


class VoiceCloneNet(nn.Module):
    frontend = Frontend

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = ConvBn(1, STEM, 3, 2)
        blocks, cin = [], STEM
        for mid, cout, stride in BLOCKS:
            blocks.append(Block(cin, mid, cout, stride))
            cin = cout
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvBn(cin, HEAD, 1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * HEAD, 1)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 1, bands, frames] to [n, 2 * HEAD]: means, then standard deviations."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        x = self.head(x).flatten(2)
        mean = x.mean(dim=2)
        var = (x - mean.unsqueeze(2)).square().mean(dim=2)
        return torch.cat([mean, (var + POOL_EPS).sqrt()], dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(self.embed(x))).squeeze(1)


def f16_rounded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights as they ship: f16, without the batch norms' counters."""
    return {
        k: v.detach().cpu().to(torch.float16).contiguous()
        for k, v in state.items()
        if not k.endswith("num_batches_tracked")
    }
