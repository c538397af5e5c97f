"""Face swap by landmarks: warps the face of a still onto every frame of a shot.

Steps: YuNet finds the face, a 468-point mesh is fitted inside its box, the
meshes are smoothed over time, the still's face is warped triangle by triangle
onto the frame's mesh, its colours are moved to the frame's (mean and deviation
in Lab), and both are joined with a Laplacian pyramid under a soft mask.
"""

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

# The face's outline in the 468-point mesh, clockwise from the middle of the forehead.
OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
        152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
LEFT_BROW = [70, 63, 105, 66, 107]
RIGHT_BROW = [336, 296, 334, 293, 300]
NOSE_BRIDGE = 6


class Mesh:
    """Finds the largest face of a BGR picture and returns its mesh, [468, 2] pixels."""

    def __init__(self, yunet, landmarks):
        self.yunet = cv2.FaceDetectorYN.create(yunet, "", (320, 320), 0.6)
        self.net = Interpreter(landmarks, num_threads=1)
        self.net.allocate_tensors()
        self.input = self.net.get_input_details()[0]["index"]
        self.output = self.net.get_output_details()[0]["index"]

    def __call__(self, image):
        self.yunet.setInputSize((image.shape[1], image.shape[0]))
        faces = self.yunet.detect(image)[1]
        if faces is None:
            raise SystemExit("no face found where one was expected")
        f = max(faces, key=lambda f: f[2] * f[3])
        centre = (f[0] + f[2] / 2, f[1] + f[3] / 2)
        angle = np.degrees(np.arctan2(f[7] - f[5], f[6] - f[4]))
        size = 1.5 * max(f[2], f[3])
        points = None
        for _ in range(2):  # the second fit starts from the first one's box, as a tracker would
            to_crop = cv2.getRotationMatrix2D(centre, angle, 192 / size)
            to_crop[:, 2] += 96 - np.array(centre)
            crop = cv2.warpAffine(image, to_crop, (192, 192), flags=cv2.INTER_AREA)
            rgb = cv2.cvtColor(crop, cv2.COLOR_BGR2RGB).astype(np.float32)[None] / 255
            self.net.set_tensor(self.input, rgb)
            self.net.invoke()
            local = self.net.get_tensor(self.output).reshape(468, 3)[:, :2]
            points = cv2.transform(local[None], cv2.invertAffineTransform(to_crop))[0]
            low, high = points[OVAL].min(0), points[OVAL].max(0)
            centre = tuple(float(v) for v in (low + high) / 2)
            size = 1.5 * float((high - low).max())
            eyes = points[263] - points[33]
            angle = float(np.degrees(np.arctan2(eyes[1], eyes[0])))
        return points.astype(np.float64)


def smooth(meshes, sigma=0.8):
    """Gaussian over time on [frames, 468, 2]; sigma in frames."""
    reach = 3
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.concatenate([meshes[:1]] * reach + [meshes] + [meshes[-1:]] * reach)
    return sum(k * padded[i:i + len(meshes)] for i, k in enumerate(kernel))


def triangulate(points):
    """Delaunay triangles of the mesh, as [n, 3] indices into it."""
    low = points.min(0) - 10
    size = points.max(0) - low + 20
    plane = cv2.Subdiv2D((0, 0, int(size[0]), int(size[1])))
    where = {}
    for i, p in enumerate((points - low).astype(np.float32)):
        plane.insert((float(p[0]), float(p[1])))
        where[(float(p[0]), float(p[1]))] = i
    triangles = []
    for t in plane.getTriangleList():
        corners = [where.get((float(t[k]), float(t[k + 1]))) for k in (0, 2, 4)]
        if None not in corners:
            triangles.append(corners)
    return np.array(triangles)


def warp(still, still_mesh, mesh, triangles, shape):
    """The still's face laid on `mesh`, piecewise affine; also the mask of what it covers."""
    index = np.full(shape[:2], -1, np.int32)
    affine = np.zeros((len(triangles), 2, 3))
    for i, t in enumerate(triangles):
        to = mesh[t].astype(np.float32)
        affine[i] = cv2.getAffineTransform(to, still_mesh[t].astype(np.float32))
        cv2.fillConvexPoly(index, np.round(to).astype(np.int32), i)
    ys, xs = np.nonzero(index >= 0)
    a = affine[index[ys, xs]]
    map_x = np.zeros(shape[:2], np.float32)
    map_y = np.zeros(shape[:2], np.float32)
    map_x[ys, xs] = a[:, 0, 0] * xs + a[:, 0, 1] * ys + a[:, 0, 2]
    map_y[ys, xs] = a[:, 1, 0] * xs + a[:, 1, 1] * ys + a[:, 1, 2]
    return cv2.remap(still, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), index >= 0


def face_mask(mesh, shape):
    """1 inside brows, cheeks and chin, 0 outside; the hair line stays the frame's own."""
    brows = mesh[LEFT_BROW + RIGHT_BROW]
    up = mesh[10] - mesh[NOSE_BRIDGE]
    outline = np.concatenate([mesh[OVAL], brows])
    # The forehead's points come down to a little above the brows, so that no fringe is painted over.
    limit = (brows - mesh[NOSE_BRIDGE]) @ up / (up @ up)
    limit = float(limit.max()) + 0.25
    along = (outline - mesh[NOSE_BRIDGE]) @ up / (up @ up)
    outline = outline - np.outer(np.maximum(along - limit, 0), up)
    centre = outline.mean(0)
    outline = centre + (outline - centre) * 0.91
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(outline).astype(np.int32)), 255)
    width = float(np.linalg.norm(mesh[454] - mesh[234]))
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), width * 0.03)


def match_colour(face, frame, mask):
    """Moves the face's mean and deviation in Lab to the frame's, both under the mask."""
    inside = mask > 0.5
    a = cv2.cvtColor(face, cv2.COLOR_BGR2LAB).astype(np.float32)
    b = cv2.cvtColor(frame, cv2.COLOR_BGR2LAB).astype(np.float32)
    ratio = np.clip(b[inside].std(0) / (a[inside].std(0) + 1e-3), 0.6, 1.5)
    a = (a - a[inside].mean(0)) * ratio + b[inside].mean(0)
    return cv2.cvtColor(np.clip(a, 0, 255).astype(np.uint8), cv2.COLOR_LAB2BGR)


def blend(face, frame, mask, levels=4):
    """Laplacian pyramid blend of two BGR pictures under a soft mask."""
    a, b, m = face.astype(np.float32), frame.astype(np.float32), mask
    stack = []
    for _ in range(levels):
        size = (a.shape[1], a.shape[0])
        a_low, b_low, m_low = cv2.pyrDown(a), cv2.pyrDown(b), cv2.pyrDown(m)
        detail_a = a - cv2.pyrUp(a_low, dstsize=size)
        detail_b = b - cv2.pyrUp(b_low, dstsize=size)
        stack.append(detail_a * m[..., None] + detail_b * (1 - m[..., None]))
        a, b, m = a_low, b_low, m_low
    out = a * m[..., None] + b * (1 - m[..., None])
    for detail in reversed(stack):
        out = cv2.pyrUp(out, dstsize=(detail.shape[1], detail.shape[0])) + detail
    return np.clip(out, 0, 255).astype(np.uint8)


def swap(frames, still, mesh_of):
    """The same frames (BGR, one face each) wearing the still's face."""
    still = cv2.resize(still, None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC)
    still_mesh = mesh_of(still)
    triangles = triangulate(still_mesh)
    meshes = smooth(np.stack([mesh_of(f) for f in frames]))
    out = []
    for frame, mesh in zip(frames, meshes):
        face, covered = warp(still, still_mesh, mesh, triangles, frame.shape)
        face = np.where(covered[..., None], face, frame)
        mask = face_mask(mesh, frame.shape) * cv2.erode(covered.astype(np.float32), np.ones((3, 3)))
        out.append(blend(match_colour(face, frame, mask), frame, mask))
    return out
