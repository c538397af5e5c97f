"""The first nine blocks of DINOv2 ViT-S/14, tuned lightly: the network of tier `accurate`.

This header is the contract with the program that runs the exported weights.

Input   [N, 3, 168, 168], RGB, NCHW, (x / 255 - MEAN) / STD per channel.
patches conv 14 x 14 stride 14 with bias, 3 -> 384; 12 x 12 of them, row by row, behind the class
        token: 145 tokens. `positions` [145, 384] is added.
blocks  9 of: x += scale1 * project(attention(qkv(norm1(x)))), x += scale2 * fc2(gelu(fc1(norm2(x)))).
        Attention has 6 heads of 64, softmax(q k' / 8) v; qkv [1152, 384] holds the rows of q, then
        k, then v, head by head. GELU is the exact one (erf). Norms are over 384 with EPS = 1e-6.
taps    after blocks 5 and 8 (counted from 0) the tokens go through a norm of their own.
head    for each tap the class token and the mean of the 144 patch tokens: 4 x 384 values, in the
        order class token and mean of the first tap, then of the second -> linear to the logit that
        the face is forged (higher = fake).
mask    each patch token's 2 x 384 values of the two taps -> linear to the logit that this cell of
        the face was altered; 12 x 12 of them.

Two files make the network. The base, dinov2-vit-s14.safetensors in f16, holds DINOv2's own tensors
and is not ours; scripts/setup makes it. It has the names of the state dict but for two:
`positions` [1370, 384] (f32) is DINOv2's table for 37 x 37 patches, which load_base resizes, and
`norm` is the last norm, which both taps' norms start from. Ours, face-swap-accurate.safetensors in
f16, holds what is changed:
every norm, bias, scale, `positions` and both heads whole, under the names that the base has them by,
and for each of a tuned block's four matrices `.down` [16, in] and `.up` [out, 16], so that the
matrix is base + up @ down (sums in f32).
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from encoder import Block  # noqa: E402

SIZE = 168
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PATCH = 14
CELLS = SIZE // PATCH
WIDTH = 384
HEADS = 6
DEPTH = 9
TAPS = (5, 8)
# Blocks before this one are left as they are, norms included.
TUNED_FROM = 2
EPS = 1e-6


class FaceSwapNet(nn.Module):
    def __init__(self, dropout=0.1):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH).requires_grad_(False)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH), requires_grad=False)
        self.positions = nn.Parameter(torch.zeros(1 + CELLS**2, WIDTH), requires_grad=False)
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS, EPS, i >= TUNED_FROM, True) for i in range(DEPTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, eps=EPS) for _ in TAPS)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * len(TAPS) * WIDTH, 1)
        self.mask = nn.Linear(len(TAPS) * WIDTH, 1)
        for head in (self.classifier, self.mask):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def taps(self, x, keep=None):
        """The tokens after each tap's norm; of the patches only those that `keep` [N, K] names."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions[1:]
        if keep is not None:
            x = x.gather(1, keep[..., None].expand(-1, -1, WIDTH))
        x = torch.cat([(self.token + self.positions[0]).expand(len(x), -1, -1), x], 1)
        found = []
        for at, block in enumerate(self.blocks):
            x = block(x)
            if at in TAPS:
                found.append(self.norms[len(found)](x))
        return found

    def features(self, taps):
        return torch.cat([part for t in taps for part in (t[:, 0], t[:, 1:].mean(1))], 1)

    def both(self, x, keep=None):
        """The logits [N], and those of the mask's cells [N, 12, 12] ([N, K] of the kept patches)."""
        taps = self.taps(x, keep)
        cells = self.mask(torch.cat([t[:, 1:] for t in taps], 2)).squeeze(2)
        if keep is None:
            cells = cells.unflatten(1, (CELLS, CELLS))
        return self.classifier(self.dropout(self.features(taps))).squeeze(1), cells

    def forward(self, x):
        return self.both(x)[0]


def resized(positions):
    """DINOv2's position table [1 + 37 * 37, 384] for our patches, [1 + 12 * 12, 384], in f16."""
    first, grid = positions[:1], positions[1:]
    side = round(len(grid) ** 0.5)
    grid = grid.reshape(1, side, side, WIDTH).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(CELLS, CELLS), mode="bicubic", align_corners=False)
    return torch.cat([first, grid.flatten(2)[0].T]).to(torch.float16)


def load_base(model, path):
    """`path`: the safetensors file that scripts/weights/convert_dinov2.py makes."""
    state = load_file(str(path))
    state["positions"] = resized(state["positions"])
    for part in ("weight", "bias"):
        last = state.pop(f"norm.{part}")
        state |= {f"norms.{i}.{part}": last for i in range(len(TAPS))}
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    missing = [m for m in missing if not m.startswith(("classifier.", "mask.")) and not m.endswith((".up", ".down"))]
    if missing or unexpected:
        raise ValueError(f"{path} does not fit: missing {missing}, unexpected {unexpected}")


def ours(name, tensor_names):
    """Whether a tensor of the state dict ships with us: all but the base's matrices and what the
    first blocks keep as it was."""
    if name.startswith(("patches.", "token")):
        return False
    parts = name.split(".")
    if parts[0] == "blocks":
        return int(parts[1]) >= TUNED_FROM and f"{name.rsplit('.', 1)[0]}.up" not in (
            tensor_names if parts[-1] == "weight" and "norm" not in name else ()
        )
    return True


def export(state, path):
    """Writes what ships, in f16."""
    tensors = {}
    for name, tensor in state.items():
        if not ours(name, state):
            continue
        half = tensor.detach().cpu().to(torch.float16).contiguous()
        if not torch.isfinite(half).all():
            raise ValueError(f"{name} does not fit into f16")
        tensors[name] = half
    save_file(tensors, str(path))
    path.chmod(0o644)


def load_export(path, base, device="cpu"):
    """The network as the program sees it: weights rounded to f16, arithmetic in f32."""
    model = FaceSwapNet()
    load_base(model, base)
    state = load_file(str(path))
    # The domain model beside it is the program's business (heads.py).
    state = {name: tensor.float() for name, tensor in state.items() if not name.startswith("domain.")}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(ours(m, model.state_dict()) for m in missing):
        raise ValueError(f"{path} is not an accurate face-swap network: {missing}, {unexpected}")
    return model.eval().to(device)
