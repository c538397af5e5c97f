"""From logits to boxes and one number a picture; the program does the same.

What was erased is mostly a box, and a network's answers inside it have holes; so boxes are looked for,
not cells that hang together. A cell is worth its logit of channel 0 less `low`, at most 4 either way.
The box with the largest sum of worth is found among those of 2 x 2 cells, then each of its four sides
moves by a cell as long as that adds to the sum. Its score is the mean of its cells' logits. Then the
cells in it and two beside it are worth -4, and the next box is looked for: eight in all, those whose
sum is above zero and that have at least 12 cells. A box counts whose score is at least `high`. In
pixels: times 4 k, clipped to the picture. The picture's score is that of its best box. Log-odds ratio
that something was erased here, against pictures in which nothing was: a * score + b.
"""

import numpy as np

from net import STRIDE, factor

CELLS, BOXES, MOST = 12, 8, 4.0
GAP = 2


def best_box(worth):
    """Rows and columns (y0, y1, x0, x1), end exclusive, of the box with the largest sum, and the sum; the
    first of equals in the order of y0, y1, x1."""
    rows, columns = worth.shape
    above = np.vstack([np.zeros(columns), np.cumsum(worth, 0, dtype=np.float64)])
    best, where = -np.inf, None
    for y0 in range(rows):
        across = np.cumsum(above[y0 + 1 :] - above[y0], 1)
        before = np.hstack([np.zeros((len(across), 1)), across[:, :-1]])
        lowest = np.minimum.accumulate(before, 1)
        sums = across - lowest
        at = int(sums.argmax())
        if sums.flat[at] > best:
            y, x = divmod(at, columns)
            best, where = sums.flat[at], (y0, y0 + y + 1, int(before[y, : x + 1].argmin()), x + 1)
    return best, where


def halved(worth):
    rows, columns = (-(-side // 2) for side in worth.shape)
    whole = np.zeros((2 * rows, 2 * columns))
    whole[: worth.shape[0], : worth.shape[1]] = worth
    return whole.reshape(rows, 2, columns, 2).sum((1, 3))


def refined(worth, box):
    """Moves sides by one cell while that adds to the sum."""
    box, limits = list(box), (worth.shape[0], worth.shape[0], worth.shape[1], worth.shape[1])
    total = lambda b: worth[b[0] : b[1], b[2] : b[3]].sum()
    moved = True
    while moved:
        moved = False
        for side in range(4):
            for step in (-1, 1):
                other = list(box)
                other[side] += step
                inside = 0 <= other[side] <= limits[side] and other[0] < other[1] and other[2] < other[3]
                if inside and total(other) > total(box) + 1e-4:
                    box, moved = other, True
    return box


def regions(logits, low, high, height, width):
    """`logits` f32 [rows, columns] of one channel; height and width of the picture as decoded.

    Boxes (x0, y0, x1, y1) in its pixels, end exclusive, with the score of each; highest score first."""
    worth = np.clip(logits.astype(np.float64) - low, -MOST, MOST)
    side, found = STRIDE * factor(height, width), []
    for _ in range(BOXES):
        if worth.max() <= 0:
            break
        total, coarse = best_box(halved(worth))
        if total <= 0:
            break
        y0, y1, x0, x1 = (2 * v for v in coarse)
        y0, y1, x0, x1 = refined(worth, (y0, min(y1, worth.shape[0]), x0, min(x1, worth.shape[1])))
        inside = logits[y0:y1, x0:x1]
        score = float(inside.mean())
        if inside.size >= CELLS and score >= high:
            found.append(((x0 * side, y0 * side, min(x1 * side, width), min(y1 * side, height)), score))
        worth[max(y0 - GAP, 0) : y1 + GAP, max(x0 - GAP, 0) : x1 + GAP] = -MOST
    return sorted(found, key=lambda region: -region[1])


def iou(a, b):
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return w * h / (area[0] + area[1] - w * h)
