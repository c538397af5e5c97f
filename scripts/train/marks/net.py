"""The network that sees where a visible mark was erased from a picture, and what goes in.

What is computed, exactly (`src/models/mark_net.rs` does the same):

1. `reduced`: RGB u8 [H, W, 3], upright; k = max(1, floor(min(H, W) / 720)); rows and columns beyond the
   last whole k are dropped; mean of k x k in f32.
2. `prepared`: value / 255 - 0.5, [3, h, w]; the last column and row are repeated until both sides are
   multiples of 64.
3. `features`: local energies of each 4 x 4 pixels, [14, h / 4, w / 4]. They tell a place that was
   smoothed, interpolated or painted over from its surroundings however bright or busy the picture
   is; out of the pixels themselves a network of this size did not learn to (see the model card).
   Of values 0 to 255, y = 0.299 r + 0.587 g + 0.114 b; differences d, borders repeated: of y by
   [1, -2, 1] across, down, and by their product; of r - g and of b - g by the product.

   | channels | what |
   | 0-2      | means of r, g, b, / 128 - 1 |
   | 3-7      | (mean of log2(abs(d) + 1/2) - 1/2) / 2: the noise, whatever edges run through |
   | 8-12     | (log2(mean of d^2 + 1/4) / 2 - 1) * 0.4: the edges |
   | 13       | (log2(variance of y + 1/4) / 2 - 1) * 0.4 |

4. The network: ConvBn = convolution without bias, zero padding of half the kernel on all four sides,
   batch norm with epsilon 1e-5, activation (ReLU unless said).

   | name      | what                                                      | stride of its output |
   | stem      | ConvBn 3x3, 14 -> 32                                      | 4 |
   | blocks.0  | block 32 -> 48, depthwise 5x5, stride 2                   | 8 |
   | blocks.1-3 | block 48 -> 96 -> 48, depthwise 5x5, three times         | 8 |
   | blocks.4  | block 48 -> 64, depthwise 5x5, stride 2                   | 16 |
   | blocks.5-6 | block 64 -> 128 -> 64, depthwise 5x5, twice              | 16 |
   | blocks.7  | block 64 -> 96, depthwise 5x5, stride 2                   | 32 |
   | blocks.8  | block 96 -> 144 -> 96, depthwise 5x5                      | 32 |
   | blocks.9  | block 96 -> 96, depthwise 5x5, stride 2                   | 64 |
   | blocks.10 | block 96 -> 144 -> 96, depthwise 5x5                      | 64 |

   A block (`BlockSpec`): 1x1 ConvBn `expand` to the inner channels (left out where none are named),
   depthwise ConvBn `dw` with the stride, 1x1 ConvBn `project` without activation, and the block's
   input added where stride is 1 and the channels are as many.

   c4: output of the stem; c8, c16, c32, c64: outputs of blocks 3, 6, 8, 10. up: nearest, each cell doubled on both axes.

   p = lateral.2(c64)                1x1 ConvBn 96 -> 48 without activation
   p = lateral.1(c32) + up(p)        1x1 ConvBn 96 -> 48 without activation
   p = lateral.0(c16) + up(p)        1x1 ConvBn 64 -> 48 without activation
   p = c8 + up(p)
   p = c4 + up(fine(p))              1x1 ConvBn 48 -> 32 without activation
   p = head.dw(p)                    depthwise ConvBn 5x5, 32, ReLU
   p = head.pw(p)                    1x1 ConvBn 32 -> 32, ReLU
   logits = out(p)                   1x1 convolution with bias, 32 -> 2 (`out.weight`, `out.bias`)

5. `logits`: cells that begin in the padding are dropped: [2, ceil(h / 4), ceil(w / 4)]. Channel 0: a
   mark was removed here; channel 1: a mark, caption or logo laid over the picture is here.

1,113 multiply-adds a pixel (`python net.py`).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

STRIDE = 4
MULTIPLE = 64
SHORT_SIDE = 720
BN_EPS = 1e-5
# Inner channels (0: no expansion), output channels, kernel, stride.
BLOCKS = (
    (0, 48, 5, 2),
    (96, 48, 5, 1),
    (96, 48, 5, 1),
    (96, 48, 5, 1),
    (0, 64, 5, 2),
    (128, 64, 5, 1),
    (128, 64, 5, 1),
    (0, 96, 5, 2),
    (144, 96, 5, 1),
    (0, 96, 5, 2),
    (144, 96, 5, 1),
)
STEM = 32
WIDTH = 48
# The blocks whose outputs are c8, c16, c32, c64.
TAPS = (3, 6, 8, 10)
POOL = 4
FEATURES = 14


class ConvBn(nn.Module):
    def __init__(self, inputs, outputs, kernel=1, stride=1, depthwise=False, relu=True):
        super().__init__()
        groups = outputs if depthwise else 1
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BN_EPS)
        self.relu = relu

    def forward(self, x):
        x = self.bn(self.conv(x))
        return F.relu(x, inplace=True) if self.relu else x


class Block(nn.Module):
    def __init__(self, inputs, inner, outputs, kernel, stride):
        super().__init__()
        if inner:
            self.expand = ConvBn(inputs, inner)
        else:
            self.expand, inner = None, inputs
        self.dw = ConvBn(inner, inner, kernel, stride, depthwise=True)
        self.project = ConvBn(inner, outputs, relu=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.dw(y))
        return x + y if self.residual else y


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.dw = ConvBn(STEM, STEM, 5, depthwise=True)
        self.pw = ConvBn(STEM, STEM)

    def forward(self, x):
        return self.pw(self.dw(x))


KERNELS = torch.tensor([
    [[0, 0, 0], [1, -2, 1], [0, 0, 0]],
    [[0, 1, 0], [0, -2, 0], [0, 1, 0]],
    [[1, -2, 1], [-2, 4, -2], [1, -2, 1]],
], dtype=torch.float32)


@torch.no_grad()
def features(x):
    """[n, 3, h, w] levels 0..255 -> [n, 14, h / 4, w / 4]."""
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    y = 0.299 * r + 0.587 * g + 0.114 * b
    p = F.pad(torch.cat([y, r - g, b - g], 1), (1, 1, 1, 1), mode="replicate")
    hp = F.conv2d(p[:, :1], KERNELS[:, None])
    c = F.conv2d(p[:, 1:], KERNELS[2][None, None].repeat(2, 1, 1, 1), groups=2)
    hp = torch.cat([hp, c], 1).abs()
    mean_log = F.avg_pool2d(torch.log2(hp + 0.5), POOL)
    log_mean = 0.5 * torch.log2(F.avg_pool2d(hp * hp, POOL) + 0.25)
    colour = F.avg_pool2d(x, POOL)
    around = y - 128
    variance = F.avg_pool2d(around * around, POOL) - F.avg_pool2d(around, POOL) ** 2
    spread = 0.5 * torch.log2(variance.clamp(min=0) + 0.25)
    return torch.cat([colour / 128 - 1, (mean_log - 0.5) * 0.5, (log_mean - 1) * 0.4, (spread - 1) * 0.4], 1)


class MarkNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = ConvBn(FEATURES, STEM, 3)
        blocks, channels, last = [], [], STEM
        for inner, outputs, kernel, stride in BLOCKS:
            blocks.append(Block(last, inner, outputs, kernel, stride))
            channels.append(outputs)
            last = outputs
        self.blocks = nn.ModuleList(blocks)
        self.lateral = nn.ModuleList(ConvBn(channels[t], WIDTH, relu=False) for t in TAPS[1:])
        self.head = Head()
        self.fine = ConvBn(WIDTH, STEM, relu=False)
        self.out = nn.Conv2d(STEM, 2, 1)
        # Most cells are neither; without this the first steps are lost on learning that.
        nn.init.constant_(self.out.bias, -3.0)

    def forward(self, x):
        """[n, 3, H, W], sides multiples of 64 -> logits [n, 2, H / 4, W / 4]."""
        x = features((x + 0.5) * 255).contiguous(memory_format=torch.channels_last)
        c4 = self.stem(x)
        y, taps = c4, []
        for at, block in enumerate(self.blocks):
            y = block(y)
            if at in TAPS:
                taps.append(y)
        p = self.lateral[2](taps[3])
        for lateral, tap in ((self.lateral[1], taps[2]), (self.lateral[0], taps[1])):
            p = lateral(tap) + F.interpolate(p, scale_factor=2, mode="nearest")
        p = taps[0] + F.interpolate(p, scale_factor=2, mode="nearest")
        p = c4 + F.interpolate(self.fine(p), scale_factor=2, mode="nearest")
        return self.out(self.head(p))


def factor(height, width):
    """The k of the box mean."""
    return max(1, min(height, width) // SHORT_SIDE)


def reduced(picture):
    """RGB u8 [H, W, 3] -> f32 0..255 [H // k, W // k, 3]."""
    k = factor(*picture.shape[:2])
    if k == 1:
        return picture.astype(np.float32)
    height, width = picture.shape[0] // k, picture.shape[1] // k
    boxes = picture[: height * k, : width * k].reshape(height, k, width, k, 3)
    return boxes.mean((1, 3), dtype=np.float32)


def prepared(picture):
    """RGB u8 [H, W, 3] -> tensor [1, 3, h, w] and how many cells count: (rows, columns)."""
    x = reduced(picture) / 255 - 0.5
    height, width = x.shape[:2]
    x = np.pad(x, ((0, -height % MULTIPLE), (0, -width % MULTIPLE), (0, 0)), mode="edge")
    cells = (-(-height // STRIDE), -(-width // STRIDE))
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None], cells


@torch.inference_mode()
def logits(model, picture):
    """RGB u8 [H, W, 3] -> f32 [2, rows, columns]."""
    x, (rows, columns) = prepared(picture)
    x = x.contiguous(memory_format=torch.channels_last)
    return model(x)[0, :, :rows, :columns].float().numpy().copy()


def load(path):
    """The network of a published file, in f32."""
    from safetensors.torch import load_file

    model = MarkNet()
    state = {name: tensor.float() for name, tensor in load_file(str(path)).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise SystemExit(f"{path} does not fit: {missing}, {unexpected}")
    return model.eval().to(memory_format=torch.channels_last)


def export(state, path):
    """Writes a state dict as f16 safetensors, without what only training needs."""
    from safetensors.torch import save_file

    kept = {n: t.half().contiguous() for n, t in state.items() if not n.endswith("num_batches_tracked")}
    save_file(kept, str(path))
    path.chmod(0o644)


def main():
    """Prints what the network costs."""
    model, total = MarkNet().eval(), 0

    def count(layer, inputs, output):
        nonlocal total
        total += output.shape[2] * output.shape[3] * layer.weight.numel()

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    model(torch.zeros(1, 3, 256, 256))
    numbers = sum(p.numel() for p in model.parameters())
    print(f"{total / 256**2:.1f} multiply-adds a pixel, {numbers} parameters")


if __name__ == "__main__":
    main()
