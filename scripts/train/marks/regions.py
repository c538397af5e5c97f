"""From logits to boxes and one number a picture; the program does the same.

Cells whose logit of channel 0 is at least `low` are joined with their 8 neighbours into components. A
component counts if it has at least 4 cells and its highest logit is at least `high`. Its box is the
bounding box of its cells, times 8 k, clipped to the picture; its score the mean of its cells' logits.
The picture's score is that of its best component. Log-odds ratio that something was erased here,
against pictures in which nothing was: a * score + b.
"""

import cv2
import numpy as np

from net import STRIDE, factor

CELLS = 4


def regions(logits, low, high, height, width):
    """`logits` f32 [rows, columns] of one channel; height and width of the picture as decoded.

    Boxes (x0, y0, x1, y1) in its pixels, end exclusive, with the score of each; highest score first."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((logits >= low).astype(np.uint8), connectivity=8)
    side, found = STRIDE * factor(height, width), []
    for label in range(1, count):
        x, y, w, h, cells = (int(v) for v in stats[label])
        if cells < CELLS:
            continue
        inside = logits[labels == label]
        if inside.max() < high:
            continue
        box = (x * side, y * side, min((x + w) * side, width), min((y + h) * side, height))
        found.append((box, float(inside.mean())))
    return sorted(found, key=lambda region: -region[1])


def iou(a, b):
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return w * h / (area[0] + area[1] - w * h)
