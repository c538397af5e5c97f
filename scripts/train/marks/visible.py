"""Whether an erasure left anything in the pixels by which it could be told.

A box of black in a black border, a blurred piece of a blurred sky, `delogo` in lights out of focus: what
stood there is gone and nothing shows it. Such places must not teach, and cannot be asked for.
"""

import cv2
import numpy as np

# Bits (factors of two) by which the fine differences of a place must be other than those beside it, or
# than those that were there before.
LEAST = 0.5
KERNELS = [np.float32(k) for k in ([[1, -2, 1]], [[1], [-2], [1]], [[1, -2, 1], [-2, 4, -2], [1, -2, 1]])]


def energies(picture):
    """RGB u8 [H, W, 3] -> f32 [3, H, W]: log2(|d| + 1/2) of brightness' second differences across, down and
    both."""
    y = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.stack([np.log2(np.abs(cv2.filter2D(y, -1, k, borderType=cv2.BORDER_REPLICATE)) + 0.5) for k in KERNELS])


def between(before, after, box):
    """How far apart the mean energies of a box are in two versions of a picture."""
    x0, y0, x1, y1 = (int(round(v)) for v in box)
    at = np.s_[max(y0, 0) : y1, max(x0, 0) : x1]
    if before[at].size == 0:
        return 0.0
    return float(np.abs(energies(before[at]).mean((1, 2)) - energies(after[at]).mean((1, 2))).max())


def beside(picture, cells, stride):
    """Of each erased place (u8 [rows, columns], nonzero where erased), its cells and how far its mean
    energies are from those of the 24 pixels around it."""
    def grown(mask, pixels):
        side = 2 * (pixels // stride) + 1
        return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0

    levels = [cv2.resize(plane, cells.shape[::-1], interpolation=cv2.INTER_AREA) for plane in energies(picture)]
    count, labels = cv2.connectedComponents((cells > 0).astype(np.uint8), connectivity=8)
    others = grown(cells > 0, 8)
    for label in range(1, count):
        inside = labels == label
        core = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        core = core if core.sum() >= 8 else inside
        around = grown(inside, 24) & ~others
        if around.sum() < 16:
            yield inside, np.inf
            continue
        yield inside, float(max(abs(level[core].mean() - level[around].mean()) for level in levels))
