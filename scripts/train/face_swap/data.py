"""What the network is shown: pairs of a forged face and the real one it was made from.

Three kinds of pair share a batch, each half real and half forged, so that no source of pictures,
no person and no degradation tells the classes apart:
  dfdc    a DFDC fake and a crop of its original clip (or of the same person where that is missing);
          where the two show the same frame, some fakes are pasted into the original in part only
  blend   a real DFDC crop and a forgery made from it here
  utk     a real UTKFace crop and a forgery made from it here: thousands of other people, and the
          reason why "looks like UTKFace" cannot mean "real"
The forgeries made here are blends of a face with a changed copy of itself or with another person's,
and, where the files for them were made, faces of a generative network's people (gan_faces.py),
wholly or pasted into a real one, and faces that such networks repainted (edited_faces.py,
round_trips.py).
With each picture goes the share of every cell of a grid that was altered: the blend's mask, or, for the DFDC pairs that show the same frame, where the two differ; nothing for reals.
Both members of a pair get the same framing, flip, colour and compression, drawn from one seed.
Every batch is a pure function of (seed, step), which makes a run repeatable and resumable.
"""

import csv
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from geometry import resize_axis, stretch
from model import CELLS, MEAN, SIZE, STD
from prepare import SIDE

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "datasets"))
from manifest import require  # noqa: E402

# Faces of UTKFace never trained on, for the false-alarm rate on people from elsewhere.
UTK_HELD_OUT = 1000
# How many people of like colour and pose a donor is drawn from.
DONORS = 24
# The share of the DFDC fakes with a mask of which only a part is shown.
PARTLY = 0.25
# The share of pairs that are degraded mildly.
MILD = 0.35
# The share of pairs that go through a real H.264 encode besides.
FILMED = 0.3
# What the forgeries made here consist of where the files exist; the rest is blended from real faces
# and autoencoder round trips.
SHARES = {"gan donor": 0.12, "gan whole": 0.12, "inpainted": 0.12, "enlarged": 0.08}
# Side of the square on which a fake is compared with its original.
COARSE = 56


@dataclass
class Faces:
    """One source of crops, each framed as the program frames it."""

    images: np.ndarray
    points: np.ndarray
    person: np.ndarray

    def crop(self, row, size=SIZE):
        """What a network that takes `size` pixels sees of this face without any augmentation."""
        return stretch(np.asarray(self.images[row]), size, size)


class Data:
    def __init__(self, data, work):
        require("dfdc-faces")
        require("utkface")
        folder = Path(data) / "faces"
        with open(folder / "dfdc.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        with open(folder / "utkface.csv", newline="") as file:
            self.utk_rows = list(csv.DictReader(file))
        person = np.array([int(r["identity"]) for r in rows])
        self.dfdc = Faces(
            np.load(Path(work) / "dfdc.npy", mmap_mode="r"),
            np.load(Path(work) / "dfdc_points.npy"),
            person,
        )
        self.utk = Faces(
            np.load(Path(work) / "utk.npy", mmap_mode="r"),
            np.load(Path(work) / "utk_points.npy"),
            np.arange(len(self.utk_rows)),
        )
        fake = np.array([r["label"] == "fake" for r in rows])
        train = np.array([r["split"] == "train" for r in rows])
        shared = set(person[train]) & set(person[~train])
        if shared:
            raise ValueError(f"identities on both sides of the wall: {sorted(shared)}")
        self.fake = fake
        self.val = np.flatnonzero(~train)
        self.train_fakes = np.flatnonzero(train & fake)
        real = train & ~fake
        # Only faces with landmarks can be forged.
        self.train_reals = np.flatnonzero(real & np.isfinite(self.dfdc.points[:, 0, 0]))
        by_clip = {Path(rows[i]["file"]).stem: i for i in np.flatnonzero(real)}
        by_person = defaultdict(list)
        for i in np.flatnonzero(real):
            by_person[person[i]].append(i)
        val_clips = {Path(rows[i]["file"]).stem: i for i in self.val if not fake[i]}
        # The original of each validation fake whose original is there; for measuring masks only.
        self.val_originals = {
            i: val_clips[Path(rows[i]["original"]).stem]
            for i in self.val
            if fake[i] and Path(rows[i]["original"]).stem in val_clips
        }
        self.partners = {}
        for i in self.train_fakes:
            original = by_clip.get(Path(rows[i]["original"]).stem)
            self.partners[i] = by_person[person[i]] if original is None else [original]

        usable = np.flatnonzero(np.isfinite(self.utk.points[:, 0, 0]))
        order = np.random.default_rng(7).permutation(usable)
        self.utk_held_out = np.sort(order[:UTK_HELD_OUT])
        self.utk_train = np.sort(order[UTK_HELD_OUT:])
        self.likeness = {}
        # Autoencoder round trips of some training faces (round_trips.py), where they were made.
        self.round_trips = {}
        if (Path(work) / "round_trips.npy").exists():
            made = np.load(Path(work) / "round_trips.npy", mmap_mode="r")
            source = np.load(Path(work) / "round_trips_source.npy")
            row = np.load(Path(work) / "round_trips_row.npy")
            self.round_trips = {(bool(s), int(r)): made[i] for i, (s, r) in enumerate(zip(source, row))}
            for is_utk, pool in ((False, self.train_reals), (True, self.utk_train)):
                self.round_trips[is_utk] = np.array(
                    [r for r in row[source == is_utk] if r in set(pool)], dtype=int
                )

        # Faces of people who do not exist (gan_faces.py), and repainted ones (edited_faces.py), where
        # they were made.
        self.shares = {}
        if (Path(work) / "gan.npy").exists():
            images = np.load(Path(work) / "gan.npy", mmap_mode="r")
            self.gan_pool = np.arange(len(images))
            self.gan = Faces(images, np.load(Path(work) / "gan_points.npy"), self.gan_pool)
            self.gan_native = np.load(Path(work) / "gan_native.npy")
            self.shares |= {kind: SHARES[kind] for kind in ("gan donor", "gan whole")}
        if (Path(work) / "edited.npy").exists():
            self.edited = np.load(Path(work) / "edited.npy", mmap_mode="r")
            self.edited_mask = np.load(Path(work) / "edited_mask.npy", mmap_mode="r")
            self.edited_row = np.load(Path(work) / "edited_row.npy")
            source = np.load(Path(work) / "edited_source.npy")
            which = np.load(Path(work) / "edited_kind.npy")
            self.edited_places = {}
            for is_utk, pool in ((False, self.train_reals), (True, self.utk_train)):
                mine = (source == is_utk) & np.isin(self.edited_row, pool)
                for at, kind in enumerate(("inpainted", "enlarged")):
                    self.edited_places[kind, is_utk] = np.flatnonzero(mine & (which == at))
            for kind in ("inpainted", "enlarged"):
                if all(len(self.edited_places[kind, is_utk]) for is_utk in (False, True)):
                    self.shares[kind] = SHARES[kind]

    def donor(self, faces, pool, row, rng):
        """Another person of like colour and pose, from the same source and split."""
        return self.alike(likeness(faces, row), faces, pool, rng, faces.person[row])

    def alike(self, wanted, faces, pool, rng, other_than=None):
        """A row of the pool with about the wanted colour and pose, not of the given person."""
        if id(pool) not in self.likeness:
            self.likeness[id(pool)] = np.stack([likeness(faces, i) for i in pool])
        rows = rng.choice(len(pool), min(400, len(pool)), replace=False)
        if other_than is not None:
            rows = rows[faces.person[pool[rows]] != other_than]
        distance = np.abs(self.likeness[id(pool)][rows] - wanted).sum(1)
        near = rows[np.argsort(distance)[:DONORS]]
        return pool[rng.choice(near)]

    def forged_pair(self, faces, pool, row, rng):
        """(real, forged, mask) at full size, before degradation."""
        donor = self.donor(faces, pool, row, rng) if rng.random() < 0.35 else None
        other = None if donor is None else (faces.images[donor], faces.points[donor])
        return forge(faces.images[row], faces.points[row], other, rng)

    def round_trip_pair(self, faces, is_utk, rng):
        """Like forged_pair, the pasted face being one that went through the autoencoder."""
        row = int(rng.choice(self.round_trips[is_utk]))
        return forge(faces.images[row], faces.points[row], None, rng, self.round_trips[is_utk, row])

    def generated_pair(self, kind, faces, pool, is_utk, rng):
        """(real, forged, mask) of one of the SHARES' kinds, before degradation."""
        if kind == "gan donor":
            row = rng.choice(pool)
            donor = self.alike(likeness(faces, row), self.gan, self.gan_pool, rng)
            image, pasted = np.asarray(faces.images[row]), np.asarray(self.gan.images[donor])
            if rng.random() < 0.7:
                image, pasted = alike_sharp(image, pasted, rng)
            return forge(image, faces.points[row], (pasted, self.gan.points[donor]), rng)
        if kind == "gan whole":
            donor = rng.choice(self.gan_pool)
            row = self.alike(likeness(self.gan, donor), faces, pool, rng)
            # The generator's pictures are small and were enlarged; the real one goes the same way.
            native = self.gan_native[donor]
            real = cut_alike(faces.images[row], faces.points[row], self.gan.points[donor])
            real, forged = soften(real, native), np.asarray(self.gan.images[donor])
            real, forged = alike_sharp(real, forged, rng)
            # By the face or by the whole crop: a background brighter or darker must not tell either.
            face = face_mask(faces.points[row], rng, faint=False)
            forged = match_colour(forged, real, face if rng.random() < 0.5 else whole())
            # Both then lose the same again, and the same compression hides that one had none.
            native = native * rng.uniform(0.6, 1.0)
            quality = int(rng.integers(50, 96)) if rng.random() < 0.6 else None
            return soften(real, native, quality), soften(forged, native, quality), whole()
        place = rng.choice(self.edited_places[kind, is_utk])
        row = self.edited_row[place]
        real, made = np.asarray(faces.images[row]), np.asarray(self.edited[place])
        if kind == "inpainted":
            return real, made, self.edited_mask[place][..., None].astype(np.float32) / 255
        # Enlarging shifts colours by less than a step, but always alike, and shrinking and enlarging
        # bring a sharpness of their own: neither must tell.
        if rng.random() < 0.5:
            if rng.random() < 0.7:
                real, made = alike_sharp(real, made, rng)
            return forge(real, faces.points[row], None, rng, match_colour(made, real, whole()))
        real, made = alike_sharp(real, made, rng)
        return real, match_colour(made, real, whole()), whole()

    def drawn_kind(self, rng):
        """One of the SHARES' kinds, or None for the forgeries that need no file."""
        if not self.shares:
            return None
        at = rng.random()
        for kind, share in self.shares.items():
            at -= share
            if at < 0:
                return kind
        return None

    def swapped_pair(self, fake, rng):
        """(real, fake, mask) of a DFDC fake; mask None where the two show different frames."""
        row = rng.choice(self.partners[fake])
        real, forged = np.asarray(self.dfdc.images[row]), np.asarray(self.dfdc.images[fake])
        mask = difference(real, forged)
        if mask is None or rng.random() > PARTLY or not np.isfinite(self.dfdc.points[row]).all():
            return real, forged, mask
        # Only a part of the swapped face, over the untouched frame.
        part = face_mask(self.dfdc.points[row], rng, faint=False)
        kept = mask * part
        if kept.sum() < 0.35 * mask.sum():
            return real, forged, mask
        return real, np.round(forged * part + real * (1 - part)).astype(np.uint8), kept

    def batch(self, seed, step, pairs, size=SIZE, cells=CELLS):
        """Images u8 [N, size, size, 3], labels [N], masks f32 [N, cells, cells] and whether these
        are known [N]; real and forged of each pair side by side."""
        per_epoch = len(self.train_fakes) // pairs[0]
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(self.train_fakes)
        images, masks, known = [], [], []

        def add(real, forged, mask, slot):
            for image, altered in ((real, np.zeros((SIDE, SIDE, 1), np.float32)), (forged, mask)):
                known.append(altered is not None)
                seen = degrade(image, altered, np.random.default_rng([seed, step, slot, 1]), size, cells)
                images.append(seen[0])
                masks.append(seen[1])

        for slot in range(sum(pairs)):
            rng = np.random.default_rng([seed, step, slot, 0])
            if slot < pairs[0]:
                add(*self.swapped_pair(order[place * pairs[0] + slot], rng), slot)
                continue
            mine = slot < pairs[0] + pairs[1]
            faces, pool = (self.dfdc, self.train_reals) if mine else (self.utk, self.utk_train)
            kind = self.drawn_kind(rng)
            if kind is not None:
                add(*self.generated_pair(kind, faces, pool, not mine, rng), slot)
                continue
            if self.round_trips and rng.random() < 0.25:
                add(*self.round_trip_pair(faces, not mine, rng), slot)
                continue
            add(*self.forged_pair(faces, pool, rng.choice(pool), rng), slot)
        labels = np.tile(np.array([0, 1], np.float32), sum(pairs))
        rng = np.random.default_rng([seed, step, 1 << 20])
        chosen = np.flatnonzero(np.repeat(rng.random(sum(pairs)) < FILMED, 2))
        if len(chosen):
            side, crf = int(rng.choice([96, 128, size, 224])), int(rng.integers(20, 37))
            film = filmed([stretch(images[i], side, side) for i in chosen], crf)
            for i, picture in zip(chosen, film):
                images[i] = stretch(picture, size, size)
        return np.stack(images), labels, np.stack(masks), np.array(known)


def difference(real, forged):
    """Where a fake differs from its original, 0 to 1 at full size; None unless both crops show the
    same frame, cut alike, which the pixels around the face tell."""
    change = stretch(cv2.absdiff(real, forged), COARSE, COARSE).astype(np.float32).mean(2)
    rim = np.concatenate([change[:5].ravel(), change[:, :3].ravel(), change[:, -3:].ravel()])
    change = cv2.GaussianBlur(change, (0, 0), 1.5)
    if np.median(rim) > 4 or np.percentile(change, 10) > 4:
        return None
    level = max(3.0, 0.3 * float(np.percentile(change, 98)))
    mask = np.clip(2 * change / level - 1, 0, 1)
    if mask.mean() < 0.02:
        return None
    return cv2.resize(mask, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)[..., None]


def likeness(faces, row):
    """Colour of the inner face and where the nose stands between the eyes, on similar scales."""
    points = faces.points[row]
    colour = faces.images[row][70:170:10, 70:154:10].reshape(-1, 3).mean(0) / 255
    eyes = points[1] - points[0]
    width = max(float(np.hypot(*eyes)), 1.0)
    turn = (points[2] - points[:2].mean(0)) / width
    return np.array([*colour, *turn], np.float32)


# ---------------------------------------------------------------------------------- forgeries


def face_mask(points, rng, faint=True):
    """A soft mask over the inner face: an ellipse through brows and chin or a part of it, its
    outline bent by a few random waves."""
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    down = mouth - eyes
    height = max(float(np.hypot(*down)), 8.0)
    width = max(float(np.hypot(*(points[1] - points[0]))), 0.6 * height)
    kind = rng.choice(["face", "face", "face", "lower", "upper"])
    centre, high, wide = {
        "face": (0.55, 1.15, 0.95),
        "lower": (0.95, 0.7, 0.8),
        "upper": (0.1, 0.6, 1.0),
    }[kind]
    centre = eyes + down * (centre + rng.uniform(-0.08, 0.08))
    high *= height * rng.uniform(0.8, 1.15)
    wide *= width * rng.uniform(0.8, 1.15)
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    # Between an ellipse and a rounded box.
    power = rng.uniform(1.6, 3.2)
    radius = (np.abs(np.cos(angle)) ** power + np.abs(np.sin(angle)) ** power) ** (-1 / power)
    for wave in range(1, 7):
        radius *= 1 + rng.normal(0, 0.06 / wave**0.5) * np.sin(wave * angle + rng.uniform(0, 6.3))
    x, y = wide * radius * np.cos(angle), high * radius * np.sin(angle)
    roll = np.arctan2(down[0], down[1])
    turned = np.stack([x * np.cos(roll) + y * np.sin(roll), y * np.cos(roll) - x * np.sin(roll)], 1)
    mask = np.zeros((SIDE, SIDE), np.float32)
    cv2.fillPoly(mask, [np.round(turned + centre).astype(np.int32)], 1.0)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(1.5, 11))
    if faint:
        mask *= rng.choice([0.5, 0.75, 1.0, 1.0, 1.0])
    return mask[..., None]


def restyle(image, rng):
    """A change of colour, sharpness or frequency content: what betrays a pasted face."""
    style = rng.integers(4)
    if style == 0:
        return colour(image, rng, 1.0)
    if style == 1:
        blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 2.0))
        if rng.random() < 0.5:
            return blurred
        return cv2.addWeighted(image, 1.8, blurred, -0.8, 0)
    if style == 2:
        # Decoders of face swaps work at 64 to 128 pixels and are enlarged.
        low = int(rng.integers(48, 128))
        how = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
        small = stretch(image, low, low)
        return cv2.resize(small, (SIDE, SIDE), interpolation=how)
    return jpeg(image, int(rng.integers(20, 80)))


def whole():
    """The mask of a picture that is forged all over."""
    return np.ones((SIDE, SIDE, 1), np.float32)


def cut_alike(image, points, others):
    """Cuts off the chin where the other face's crop lost it: its picture ended there, so that it is
    stretched along."""
    height = points[3:, 1].mean() - points[:2, 1].mean()
    longer = (others[3:, 1].mean() - others[:2, 1].mean()) / max(float(height), 1.0)
    kept = int(round(SIDE / float(np.clip(longer, 1.0, 1.12))))
    return stretch(np.asarray(image)[:kept], SIDE, SIDE)


def soften(image, native, quality=None):
    """As if taken at `native` (width, height) pixels, compressed there where a quality is given."""
    wide, high = (int(round(float(v))) for v in native)
    small = stretch(np.asarray(image), min(wide, SIDE), min(high, SIDE))
    if quality is not None:
        small = np.ascontiguousarray(jpeg(small, quality))
    return stretch(small, SIDE, SIDE)


def detail(image, axis):
    """How much fine structure the inner face has along one axis, for its contrast."""
    grey = cv2.cvtColor(image[32:192, 40:184], cv2.COLOR_RGB2GRAY).astype(np.float32)
    spread = grey.std() + 4
    order = (0, 2) if axis == 0 else (2, 0)
    # The finest structure and that of half the size count alike: the one is compression noise often.
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    found = [cv2.Sobel(g, cv2.CV_32F, *order).std() + 0.1 for g in (grey, half)]
    return float(np.sqrt(found[0] * found[1]) / spread)


def alike_sharp(real, forged, rng):
    """The two, along each axis the sharper one softened until it is about as soft as the other."""
    pair = [np.ascontiguousarray(real), np.ascontiguousarray(forged)]
    jitter = np.exp(rng.normal(0, 0.15))
    for axis in (0, 1):
        found = np.array([detail(image, axis) for image in pair]) * (1, jitter)
        sharper = int(found.argmax())
        start, wanted = pair[sharper], found.min() / (jitter if sharper else 1)
        for side in (176, 152, 132, 116, 100, 88, 76, 66, 58, 50):
            if detail(pair[sharper], axis) <= wanted:
                break
            pair[sharper] = resize_axis(resize_axis(start, side, axis), SIDE, axis)
    return pair[0], pair[1]


def warp(image, rng):
    """A slight shift, scale, turn and local bending."""
    scale, turn = rng.uniform(0.95, 1.05), rng.uniform(-2, 2)
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), turn, scale)
    matrix[:, 2] += rng.uniform(-0.025, 0.025, 2) * SIDE
    if rng.random() < 0.5:
        return cv2.warpAffine(
            image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    bend = cv2.resize(rng.normal(0, 2.5, (6, 6, 2)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    matrix = matrix.astype(np.float32)
    map_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] + bend[..., 0]
    map_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] + bend[..., 1]
    return cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def pyramid_blend(source, target, mask, levels=4):
    """Laplacian blending: coarse content is mixed over a wide seam, fine content over a narrow."""
    weights, sources, targets = [mask], [source.astype(np.float32)], [target.astype(np.float32)]
    for stack in (weights, sources, targets):
        for _ in range(levels):
            stack.append(cv2.pyrDown(stack[-1]).reshape(*[(n + 1) // 2 for n in stack[-1].shape[:2]], -1))
    mixed = None
    for level in range(levels, -1, -1):
        fine = []
        for stack in (sources, targets):
            this = stack[level]
            if level < levels:
                this = this - cv2.pyrUp(stack[level + 1], dstsize=this.shape[1::-1])
            fine.append(this)
        layer = fine[0] * weights[level] + fine[1] * (1 - weights[level])
        if mixed is not None:
            layer = layer + cv2.pyrUp(mixed, dstsize=layer.shape[1::-1])
        mixed = layer
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def poisson_blend(source, target, mask):
    """Gradient-domain blending. OpenCV places the mask's bounding box by its centre."""
    inside = (mask[..., 0] > 0.5).astype(np.uint8) * 255
    inside[:2], inside[-2:], inside[:, :2], inside[:, -2:] = 0, 0, 0, 0
    x, y, wide, high = cv2.boundingRect(inside)
    if min(wide, high) < 16:
        return None
    centre = (x + wide // 2, y + high // 2)
    return cv2.seamlessClone(np.ascontiguousarray(source), np.ascontiguousarray(target), inside, centre, cv2.NORMAL_CLONE)


def forge(image, points, donor, rng, source=None):
    """(real, forged, mask): the inner face replaced by a changed copy of itself, by a donor's, or
    by `source`, a picture of the same face that something already changed."""
    image = np.asarray(image)
    mask = face_mask(points, rng)
    if source is not None:
        source = np.asarray(source)
        mask /= mask.max()
        if rng.random() < 0.3:
            source = restyle(source, rng)
    elif donor is None:
        source = warp(image, rng)
        # The change goes to the pasted face or to what surrounds it; the real partner gets the
        # latter too, so that the change as such says nothing.
        if rng.random() < 0.5:
            source = restyle(source, rng)
        else:
            image = restyle(image, rng)
        if rng.random() < 0.3:
            source = restyle(source, rng)
    else:
        matrix, _ = cv2.estimateAffinePartial2D(donor[1], points, method=cv2.LMEDS)
        if matrix is None:
            matrix = np.eye(2, 3)
        source = cv2.warpAffine(
            donor[0], matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        source = match_colour(source, image, mask)
        if rng.random() < 0.5:
            source = restyle(source, rng)
    way = rng.random()
    forged = None
    if way < 0.15:
        forged = pyramid_blend(source, image, mask)
    elif way < 0.25:
        forged = poisson_blend(source, image, mask)
    if forged is None:
        forged = np.round(source * mask + image * (1 - mask)).astype(np.uint8)
    return image, forged, mask / mask.max()


def match_colour(source, target, mask):
    """Mean and spread of each channel under the mask, from the target's."""
    inside = mask[::4, ::4, 0] > 0.3
    a = source[::4, ::4][inside].astype(np.float32)
    b = target[::4, ::4][inside].astype(np.float32)
    if len(a) < 16:
        return source
    gain = np.clip((b.std(0) + 1) / (a.std(0) + 1), 0.5, 2)
    table = (np.arange(256)[:, None] - a.mean(0)) * gain + b.mean(0)
    return apply_tables(source, table)


# -------------------------------------------------------------------------------- degradation


def apply_tables(image, table):
    return cv2.LUT(image, np.clip(np.round(table), 0, 255).astype(np.uint8)[None])


def colour(image, rng, strength):
    """Brightness, contrast, gamma and white balance as one table per channel, then saturation."""
    level = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0, 0.15 * strength))
    gain = 1 + rng.uniform(-0.2, 0.2) * strength
    shift = rng.uniform(-0.08, 0.08) * strength + rng.normal(0, 0.03 * strength, 3)
    image = apply_tables(image, ((level - 0.5) * gain + 0.5 + shift) * 255)
    if rng.random() < 0.5:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        keep = 1 + rng.uniform(-0.5, 0.3) * strength
        image = cv2.addWeighted(image, keep, grey, 1 - keep, 0)
    return image


def jpeg(image, quality):
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def filmed(images, crf):
    """Pictures of one even size through one real H.264 encode, each a key picture, 4:2:0."""
    side = images[0].shape[0]
    quiet = ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1"]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{side}x{side}", "-r", "25"]
    coded = ["-c:v", "libx264", "-threads", "1", "-g", "1", "-crf", str(crf), "-pix_fmt", "yuv420p", "-f", "h264", "-"]
    stream = subprocess.run([*quiet, *raw, "-i", "pipe:0", *coded], input=np.stack(images).tobytes(), stdout=subprocess.PIPE, check=True).stdout
    back = [*quiet, "-f", "h264", "-i", "pipe:0", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    pictures = subprocess.run(back, input=stream, stdout=subprocess.PIPE, check=True).stdout
    return list(np.frombuffer(pictures, np.uint8).reshape(len(images), side, side, 3))


def noise(image, rng, sigma):
    grain = rng.standard_normal(image.shape, np.float32) * sigma
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def degrade(image, mask, rng, size, cells):
    """(picture, cells): framing, colour, native size, blur, noise and compression, alike for real
    and forged, and what remains of the mask in each cell (zeros where it is None)."""
    part = np.asarray(image)
    mask = np.zeros((SIDE, SIDE, 1), np.float32) if mask is None else mask
    if rng.random() < 0.8:
        # Nothing is known outside the crop, so a framing that reaches out is cut off at its edge.
        extent = rng.uniform(0.86, 1.08) * np.exp(rng.normal(0, 0.02, 2))
        centre = 0.5 + rng.uniform(-0.06, 0.06, 2)
        low = np.round((centre - extent / 2).clip(0, 1) * SIDE).astype(int)
        high = np.round((centre + extent / 2).clip(0, 1) * SIDE).astype(int)
        part = part[low[1] : high[1], low[0] : high[0]]
        mask = mask[low[1] : high[1], low[0] : high[0]]
    if rng.random() < 0.5:
        part, mask = part[:, ::-1], mask[:, ::-1]
    part = np.ascontiguousarray(part)
    mask = stretch(np.ascontiguousarray(mask[..., 0]), size, size)
    # Most pictures that are judged later are hardly worse than the data themselves.
    if rng.random() < MILD:
        if rng.random() < 0.5:
            part = colour(part, rng, 0.7)
        if rng.random() < 0.6:
            part = jpeg(part, int(rng.integers(60, 96)))
    else:
        part = spoil(part, rng)
    part = stretch(np.ascontiguousarray(part), size, size)
    if rng.random() < 0.12:
        # One hidden part of the face, so that no single cue is enough.
        high, wide = rng.integers(size // 6, size // 2, 2)
        top, left = rng.integers(0, size - high), rng.integers(0, size - wide)
        part, mask = part.copy(), mask.copy()
        part[top : top + high, left : left + wide] = rng.integers(0, 256, 3)
        mask[top : top + high, left : left + wide] = 0
    return part, stretch(mask, cells, cells)


def spoil(part, rng):
    """The rough half of the degradations."""
    if rng.random() < 0.6:
        native = int(np.exp(rng.uniform(np.log(48), np.log(200))))
        part = stretch(part, native, native)
    if rng.random() < 0.2:
        part = cv2.GaussianBlur(part, (0, 0), rng.uniform(0.4, 1.8))
    if rng.random() < 0.25:
        # Cameras and old video chains enhance edges; without this, halos pass for pasting.
        soft = cv2.GaussianBlur(part, (0, 0), rng.uniform(0.7, 2.0))
        extra = rng.uniform(0.3, 1.5)
        part = cv2.addWeighted(part, 1 + extra, soft, -extra, 0)
    if rng.random() < 0.7:
        part = colour(part, rng, 1.0)
    if rng.random() < 0.3:
        # Studio light and television colour: far more saturated than the telephones of the data.
        grey = cv2.cvtColor(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        keep = rng.uniform(1.1, 2.0)
        part = cv2.addWeighted(part, keep, grey, 1 - keep, 0)
    if rng.random() < 0.08:
        part = cv2.cvtColor(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.35:
        part = noise(part, rng, rng.uniform(1, 14))
    if rng.random() < 0.75:
        part = jpeg(part, int(rng.integers(30, 96)))
    return part


def to_tensor(images, device):
    """u8 [N, size, size, 3] to what the network takes."""
    x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(MEAN, device=device)[:, None, None]
    std = torch.tensor(STD, device=device)[:, None, None]
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)
