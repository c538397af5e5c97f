"""Pictures that the domain model should flag: no faces, and faces as none was trained on."""

import cv2
import numpy as np
from data import jpeg
from geometry import stretch
from prepare import SIDE


def texture(rng):
    """Waves and grain of random scale and colour."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    image = rng.normal(0, rng.uniform(0, 30), (SIDE, SIDE, 3)) + rng.uniform(60, 200, 3)
    for _ in range(int(rng.integers(2, 8))):
        wave = np.sin(2 * np.pi * (rng.uniform(-20, 20) * x + rng.uniform(-20, 20) * y) + rng.uniform(0, 6))
        image += wave[..., None] * rng.uniform(-60, 60, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def grain(rng):
    small = rng.uniform(0, 255, (*[int(rng.choice([4, 14, 56, SIDE]))] * 2, 3)).astype(np.float32)
    return np.clip(cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def text(rng):
    image = np.full((SIDE, SIDE, 3), rng.integers(150, 256, 3), np.uint8)
    for line in range(10, SIDE, int(rng.integers(16, 40))):
        words = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz ABCDE0123456789"), 30))
        ink = tuple(map(int, rng.integers(0, 90, 3)))
        place = (int(rng.integers(-20, 10)), line)
        cv2.putText(image, words, place, int(rng.integers(0, 4)), rng.uniform(0.3, 0.9), ink, 1, cv2.LINE_AA)
    return image


def drawing(rng):
    """A face of a few strokes."""
    image = np.full((SIDE, SIDE, 3), rng.integers(180, 256, 3), np.uint8)
    ink, skin = (tuple(map(int, rng.integers(*r, 3))) for r in ((0, 90), (120, 256)))
    outline = (int(rng.integers(80, 108)), int(rng.integers(95, 112)))
    cv2.ellipse(image, (112, 116), outline, 0, 0, 360, skin, -1, cv2.LINE_AA)
    cv2.ellipse(image, (112, 116), outline, 0, 0, 360, ink, 2, cv2.LINE_AA)
    for x in (64, 158):
        cv2.circle(image, (x, int(rng.integers(56, 72))), int(rng.integers(5, 16)), ink, int(rng.choice([-1, 2])), cv2.LINE_AA)
    cv2.line(image, (112, 90), (int(rng.integers(98, 126)), 122), ink, 2, cv2.LINE_AA)
    cv2.ellipse(image, (112, 152), (int(rng.integers(20, 44)), int(rng.integers(4, 22))), 0, 0, 180, ink, 3, cv2.LINE_AA)
    return image


def part(face, rng):
    """A tenth to a third of the crop's side: skin, hair, what lies behind."""
    side = int(SIDE * rng.uniform(0.1, 0.33))
    y, x = rng.integers(0, SIDE - side, 2)
    return stretch(np.ascontiguousarray(face[y : y + side, x : x + side]), SIDE, SIDE)


def reframed(face, scale, dx=0.0, dy=0.0, angle=0.0):
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), angle, scale)
    matrix[:, 2] += np.array([dx, dy]) * SIDE
    return cv2.warpAffine(face, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101)


HALVES = ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
# (crop at full size, random generator) -> picture of the same size
KINDS = {
    "texture": lambda face, rng: texture(rng),
    "noise": lambda face, rng: grain(rng),
    "text": lambda face, rng: text(rng),
    "drawn face": lambda face, rng: drawing(rng),
    "part of a picture": part,
    "blur, sigma 8": lambda face, rng: cv2.GaussianBlur(face, (0, 0), 8),
    "20 px": lambda face, rng: cv2.resize(stretch(face, 20, 20), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR),
    "JPEG 5": lambda face, rng: jpeg(face, 5),
    "3 x too wide": lambda face, rng: reframed(face, 0.33),
    "shifted by half": lambda face, rng: reframed(face, 1, *HALVES[rng.integers(4)]),
    "turned by 90": lambda face, rng: reframed(face, 1, angle=float(rng.choice([90, -90]))),
    "upside down": lambda face, rng: np.ascontiguousarray(face[::-1, ::-1]),
    "inverted": lambda face, rng: 255 - face,
}
