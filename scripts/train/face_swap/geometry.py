"""From a YuNet box to the square that the network sees: one geometry for training, benchmarks and
the program.

The DFDC crops are the tight boxes of another detector, stretched to squares. The four fractions
below turn a YuNet box into such a crop; measure_geometry.py is where they come from (medians over
DFDC crops found again by YuNet inside a border, and over the landmarks, which do not depend on what
the border looks like). Half of the crops lie within about 0.05 of each fraction, so training moves
and scales every crop by more than that.
"""

import math

import cv2
import numpy as np

from model import SIZE

# The rectangle's edges relative to the box's, outward positive, in box widths and box heights.
# The top is negative: YuNet's box begins higher on the forehead than the DFDC crops do.
LEFT = 0.05
TOP = -0.11
RIGHT = 0.05
BOTTOM = 0.0


def crop_rectangle(x, y, w, h):
    """(x0, y0, x1, y1) of the crop of a YuNet box, in pixels, not rounded."""
    return x - LEFT * w, y - TOP * h, x + w + RIGHT * w, y + h + BOTTOM * h


def resize_axis(image, length, axis):
    """Area average when shrinking, bilinear between pixel centres when enlarging."""
    old = image.shape[axis]
    if old == length:
        return image
    size = (image.shape[1], length) if axis == 0 else (length, image.shape[0])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if length < old else cv2.INTER_LINEAR)


def stretch(image, width, height):
    """Each axis on its own, since a crop may shrink along one and grow along the other."""
    return resize_axis(resize_axis(image, height, 0), width, 1)


def cut(image, rectangle, size=SIZE):
    """The rectangle of an RGB u8 picture as a size x size square, u8.

    Its edges are rounded to whole pixels (half up), at least one pixel apart; what lies outside
    the picture repeats the picture's edge.
    """
    x0, y0, x1, y1 = (math.floor(v + 0.5) for v in rectangle)
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    height, width = image.shape[:2]
    columns = np.clip(np.arange(x0, x1), 0, width - 1)
    rows = np.clip(np.arange(y0, y1), 0, height - 1)
    part = image[rows[:, None], columns].astype(np.float32)
    return np.floor(stretch(part, size, size) + 0.5).clip(0, 255).astype(np.uint8)


class YuNet:
    """OpenCV's runner of face_detection_yunet_2023mar.onnx, one instance for all picture sizes."""

    def __init__(self, path, score=0.6, nms=0.3):
        self.detector = cv2.FaceDetectorYN.create(str(path), "", (320, 320), score, nms, 50)

    def faces(self, rgb):
        """Rows of x, y, w, h, ten landmark coordinates, score; best score first."""
        self.detector.setInputSize((rgb.shape[1], rgb.shape[0]))
        found = self.detector.detect(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1]
        if found is None:
            return np.zeros((0, 15), np.float32)
        return found[np.argsort(-found[:, 14])]
