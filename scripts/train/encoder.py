"""The pre-norm encoder block that both tuned networks are made of: face_swap/vit.py, voice_clone/whisper.py."""

import torch
from torch import nn
from torch.nn import functional

RANK = 16


class Tuned(nn.Linear):
    """A frozen matrix with a low-rank change (LoRA, arXiv 2106.09685) and a bias that learns."""

    def __init__(self, inputs, outputs, tuned):
        super().__init__(inputs, outputs)
        self.weight.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(RANK, inputs) * inputs**-0.5) if tuned else None
        self.up = nn.Parameter(torch.zeros(outputs, RANK)) if tuned else None

    def forward(self, x):
        y = functional.linear(x, self.weight, self.bias)
        if self.down is None:
            return y
        return y + functional.linear(functional.linear(x, self.down), self.up)


class Block(nn.Module):
    """`x += scale1 * project(attention(qkv(norm1(x))))`, `x += scale2 * fc2(gelu(fc1(norm2(x))))`; the
    scales, one factor a channel, are left out unless `scaled`."""

    def __init__(self, width, heads, eps, tuned, scaled):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.qkv = Tuned(width, 3 * width, tuned)
        self.project = Tuned(width, width, tuned)
        self.scale1 = nn.Parameter(torch.ones(width)) if scaled else None
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.fc1 = Tuned(width, 4 * width, tuned)
        self.fc2 = Tuned(4 * width, width, tuned)
        self.scale2 = nn.Parameter(torch.ones(width)) if scaled else None
        if not tuned:
            self.requires_grad_(False)

    def forward(self, x):
        n, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, -1)
        x = x + scaled(self.project(y), self.scale1)
        return x + scaled(self.fc2(functional.gelu(self.fc1(self.norm2(x)))), self.scale2)


def scaled(x, scale):
    return x if scale is None else scale * x
