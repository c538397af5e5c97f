"""Ways in which a mark is taken out of a picture: each changes the box, or a part of it, in place of it.

`ERASERS[name](image, box, glyphs, rng)` gives a changed copy of RGB u8 [H, W, 3]. `box` is (x0, y0, x1,
y1), end exclusive, inside the picture with at least one pixel beside it on every side; `glyphs` u8
[y1 - y0, x1 - x0] is 255 where the mark's strokes are, or None where no mark was.
"""

import cv2
import numpy as np


def delogo_plane(plane, x, y, w, h):
    """FFmpeg's filter `delogo=x:y:w:h` on one u8 plane (libavfilter/vf_delogo.c, band 1, square pixels):
    every pixel is the mean of the four border points in its row and column, three pixels each,
    weighted by the distances to the other borders."""
    x, y, w, h = x - 1, y - 1, w + 2, h + 2
    x1, x2 = max(x, 0), min(x + w, plane.shape[1]) - 1
    y1, y2 = max(y, 0), min(y + h, plane.shape[0]) - 1
    if x2 - x1 < 2 or y2 - y1 < 2:
        return plane
    src = plane.astype(np.int64)
    xs, ys = np.arange(x1 + 1, x2)[None], np.arange(y1 + 1, y2)[:, None]

    def three(line):
        return line[:-2] + line[1:-1] + line[2:]

    left, right = (three(src[y1 : y2 + 1, column])[:, None] for column in (x1, x2))
    top, bottom = (three(src[row, x1 : x2 + 1])[None] for row in (y1, y2))
    across, down = (x2 - xs) * (xs - x1), (y2 - ys) * (ys - y1)
    weights = ((x2 - xs) * down, (xs - x1) * down, across * (y2 - ys), across * (ys - y1))
    total = 3 * sum(weights)
    value = sum(v * w for v, w in zip((left, right, top, bottom), weights))
    out = plane.copy()
    out[y1 + 1 : y2, x1 + 1 : x2] = (value + total // 2) // total
    return out


def to_yuv(image):
    """Y, U, V planes, chroma halved on both axes; even sides only."""
    height, width = image.shape[:2]
    packed = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
    chroma = packed[height:].reshape(2, height // 2, width // 2)
    return [packed[:height], chroma[0], chroma[1]]


def from_yuv(planes):
    height, width = planes[0].shape
    packed = np.concatenate([planes[0], np.stack(planes[1:]).reshape(height // 2, width)])
    return cv2.cvtColor(np.ascontiguousarray(packed), cv2.COLOR_YUV2RGB_I420)


def delogo(image, box, glyphs, rng):
    x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
    even = image.shape[0] % 2 == 0 and image.shape[1] % 2 == 0
    if even and rng.random() < 0.7:
        planes = to_yuv(image)
        out = [delogo_plane(planes[0], x, y, w, h)]
        # The filter widens the box by its band of one pixel and only then halves it for the chroma.
        x, y, w, h = x - 1, y - 1, w + 2, h + 2
        half = (x >> 1, y >> 1, -(-(w + (x & 1)) // 2), -(-(h + (y & 1)) // 2))
        out += [delogo_plane(p, half[0] + 1, half[1] + 1, half[2] - 2, half[3] - 2) for p in planes[1:]]
        changed = from_yuv(out)
        # Only the box: elsewhere the picture would lose its colour resolution in this class alone.
        result = image.copy()
        pad = 2
        at = np.s_[max(y - pad, 0) : y + h + pad, max(x - pad, 0) : x + w + pad]
        result[at] = changed[at]
        return result
    return np.stack([delogo_plane(image[..., c], x, y, w, h) for c in range(3)], -1)


def area(image, box, margin):
    """The box widened by a margin, clipped: (rows and columns, box inside it)."""
    x0, y0 = max(box[0] - margin, 0), max(box[1] - margin, 0)
    x1, y1 = min(box[2] + margin, image.shape[1]), min(box[3] + margin, image.shape[0])
    return np.s_[y0:y1, x0:x1], (box[0] - x0, box[1] - y0, box[2] - x0, box[3] - y0)


def shape_mask(shape, box, rng, soft):
    """f32 0..1: the box, a rounded one or an ellipse, with a hard or a soft edge."""
    mask = np.zeros(shape, np.uint8)
    x0, y0, x1, y1 = box
    kind = rng.random()
    if kind < 0.7:
        mask[y0:y1, x0:x1] = 255
    elif kind < 0.85:
        radius = max(2, (y1 - y0) // 3)
        mask[y0:y1, x0 + radius : max(x1 - radius, x0 + radius + 1)] = 255
        mask[y0 + radius : max(y1 - radius, y0 + radius + 1), x0:x1] = 255
        for cx in (x0 + radius, x1 - radius - 1):
            for cy in (y0 + radius, y1 - radius - 1):
                cv2.circle(mask, (cx, cy), radius, 255, -1)
    else:
        centre, axes = ((x0 + x1) // 2, (y0 + y1) // 2), ((x1 - x0) // 2 + 1, (y1 - y0) // 2 + 1)
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
    mask = mask.astype(np.float32) / 255
    return cv2.GaussianBlur(mask, (0, 0), soft) if soft > 0 else mask


def blended(image, box, rng, change, margin=24, soft=None):
    """`change` of the surroundings, laid over the box."""
    at, inner = area(image, box, margin)
    piece = image[at]
    if soft is None:
        soft = 0 if rng.random() < 0.6 else rng.uniform(1, 5)
    mask = shape_mask(piece.shape[:2], inner, rng, soft)[..., None]
    out = image.copy()
    out[at] = np.clip(piece + (change(piece, inner).astype(np.float32) - piece) * mask + 0.5, 0, 255)
    return out


def blur(image, box, glyphs, rng):
    height = box[3] - box[1]
    kind, strength = rng.random(), rng.uniform(0.1, 0.5) * height

    def change(piece, inner):
        if kind < 0.5:
            return cv2.GaussianBlur(piece, (0, 0), max(2.0, strength * 0.6))
        if kind < 0.8:
            side = max(5, int(strength * 1.5)) | 1
            for _ in range(int(rng.integers(1, 3))):
                piece = cv2.blur(piece, (side, side))
            return piece
        return cv2.medianBlur(piece, min(max(7, int(strength * 1.6)) | 1, 61))

    return blended(image, box, rng, change, margin=int(height * 0.8) + 8)


def mosaic(image, box, glyphs, rng):
    side = int(np.clip(rng.uniform(0.15, 0.5) * (box[3] - box[1]), 4, 32))
    method = cv2.INTER_AREA if rng.random() < 0.7 else cv2.INTER_LINEAR

    def change(piece, inner):
        x0, y0, x1, y1 = inner
        part = piece[y0:y1, x0:x1]
        small = cv2.resize(part, (max(1, -(-(x1 - x0) // side)), max(1, -(-(y1 - y0) // side))), interpolation=method)
        piece = piece.copy()
        piece[y0:y1, x0:x1] = cv2.resize(small, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
        return piece

    return blended(image, box, rng, change, margin=2, soft=0)


def inpaint(image, box, glyphs, rng, flag):
    at, inner = area(image, box, 20)
    piece = np.ascontiguousarray(image[at])
    mask = np.zeros(piece.shape[:2], np.uint8)
    x0, y0, x1, y1 = inner
    if glyphs is not None and rng.random() < 0.4:
        grow = int(rng.integers(3, 8))
        mask[y0:y1, x0:x1] = cv2.dilate(glyphs, np.ones((grow, grow), np.uint8))
    else:
        mask[y0:y1, x0:x1] = 255
    out = image.copy()
    out[at] = cv2.inpaint(piece, mask, rng.uniform(3, 7), flag)
    return out


def telea(image, box, glyphs, rng):
    return inpaint(image, box, glyphs, rng, cv2.INPAINT_TELEA)


def navier_stokes(image, box, glyphs, rng):
    return inpaint(image, box, glyphs, rng, cv2.INPAINT_NS)


def clone(image, box, glyphs, rng):
    """A patch from beside, with a feathered edge, sometimes matched in brightness along the border."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    places = []
    for _ in range(40):
        dx = int(rng.integers(-2 * width, 2 * width + 1))
        dy = int(rng.integers(-4 * height, 4 * height + 1))
        if abs(dx) < width and abs(dy) < height:
            continue
        if 0 <= x0 + dx and x1 + dx <= image.shape[1] and 0 <= y0 + dy and y1 + dy <= image.shape[0]:
            places.append((dx, dy))
    if not places:
        return telea(image, box, glyphs, rng)

    def border(dx, dy):
        rows, columns = np.s_[y0 + dy : y1 + dy], np.s_[x0 + dx : x1 + dx]
        part = image[rows, columns].astype(np.float32)
        return np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])

    # Beside, not below: the mark's own pixels would match themselves.
    ring = image[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1].astype(np.float32)
    ring = np.concatenate([ring[0, 1:-1], ring[-1, 1:-1], ring[1:-1, 0], ring[1:-1, -1]])
    costs = [np.abs(border(*p) - ring).mean() for p in places]
    dx, dy = places[int(np.argmin(costs))]
    patch = image[y0 + dy : y1 + dy, x0 + dx : x1 + dx].astype(np.float32)
    if rng.random() < 0.6:
        patch = patch + (ring - border(dx, dy)).mean(0)
    soft = rng.uniform(0.5, 4) if rng.random() < 0.8 else 0
    mask = np.ones((height, width), np.float32)
    if soft:
        mask = cv2.GaussianBlur(np.pad(mask, 12), (0, 0), soft)[12:-12, 12:-12]
    out = image.copy()
    under = image[y0:y1, x0:x1].astype(np.float32)
    out[y0:y1, x0:x1] = np.clip(under + (patch - under) * mask[..., None] + 0.5, 0, 255)
    return out


def quilt(image, box, glyphs, rng):
    """Exemplar filling: blocks from the surroundings, each the one of many that fits its border best."""
    side = int(rng.choice([8, 12, 16]))
    at, (x0, y0, x1, y1) = area(image, box, 3 * side + 16)
    piece = image[at].astype(np.float32)
    known = np.ones(piece.shape[:2], np.float32)
    known[y0:y1, x0:x1] = 0
    places = []
    for _ in range(400):
        px, py = int(rng.integers(0, piece.shape[1] - side - 3)), int(rng.integers(0, piece.shape[0] - side - 3))
        if px >= x1 or px + side + 4 <= x0 or py >= y1 or py + side + 4 <= y0:
            places.append((px, py))
    places = places[:90]
    if len(places) < 5:
        return telea(image, box, glyphs, rng)
    bank = np.stack([piece[py : py + side + 4, px : px + side + 4] for px, py in places])
    out = np.pad(piece, ((0, side + 4), (0, side + 4), (0, 0)))
    known = np.pad(known, ((0, side + 4), (0, side + 4)))
    ramp = np.minimum(1, (np.arange(side + 4) + 1) / 4).astype(np.float32)
    feather = (ramp[:, None] * ramp[None])[..., None]
    for y in range(y0, y1, side):
        for x in range(x0, x1, side):
            here = np.s_[y - 2 : y + side + 2, x - 2 : x + side + 2]
            mask = known[here]
            cost = (((bank - out[here]) ** 2).sum(-1) * mask).sum((1, 2))
            best = bank[int(np.argmin(cost))]
            out[here] = np.where(mask[..., None] > 0, out[here] + (best - out[here]) * feather * (mask[..., None] < 1), best)
            known[here] = 1
    result = image.copy()
    rows, columns = piece.shape[:2]
    filled = np.clip(out[:rows, :columns] + 0.5, 0, 255).astype(np.uint8)
    result[at][y0:y1, x0:x1] = filled[y0:y1, x0:x1]
    return result


def solid(image, box, glyphs, rng):
    x0, y0, x1, y1 = box
    kind = rng.random()
    ring = np.concatenate([image[y0 - 1, x0:x1], image[y1, x0:x1]]).astype(np.float32)
    if kind < 0.35:
        fill = np.broadcast_to(ring.mean(0), (y1 - y0, x1 - x0, 3))
    elif kind < 0.55:
        fill = np.full((y1 - y0, x1 - x0, 3), rng.choice([0, 16, 255, 235, 128]), np.float32)
    elif kind < 0.65:
        fill = np.broadcast_to(rng.uniform(0, 255, 3), (y1 - y0, x1 - x0, 3))
    else:
        # From the mean of the left border to that of the right one, or from above to below.
        t = np.linspace(0, 1, x1 - x0)[None, :, None] if rng.random() < 0.5 else np.linspace(0, 1, y1 - y0)[:, None, None]
        if t.shape[1] > 1:
            ends = image[y0:y1, x0 - 1].mean(0), image[y0:y1, x1].mean(0)
        else:
            ends = image[y0 - 1, x0:x1].mean(0), image[y1, x0:x1].mean(0)
        fill = np.broadcast_to(ends[0] * (1 - t) + ends[1] * t, (y1 - y0, x1 - x0, 3))
    if rng.random() < 0.25:
        fill = fill + rng.normal(0, rng.uniform(1, 6), (y1 - y0, x1 - x0, 1))
    out = image.copy()
    out[y0:y1, x0:x1] = np.clip(fill + 0.5, 0, 255)
    return out


ERASERS = {
    "delogo": delogo,
    "blur": blur,
    "mosaic": mosaic,
    "telea": telea,
    "navier-stokes": navier_stokes,
    "clone": clone,
    "quilt": quilt,
    "solid": solid,
}
# How often each is drawn in training; MI-GAN's come ready-made (migan.py).
SHARES = {
    "delogo": 0.30,
    "blur": 0.23,
    "mosaic": 0.10,
    "telea": 0.14,
    "navier-stokes": 0.11,
    "clone": 0.02,
    "quilt": 0.02,
    "solid": 0.08,
}
