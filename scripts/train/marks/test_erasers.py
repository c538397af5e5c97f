"""python -m unittest test_erasers   (needs ffmpeg)"""

import shutil
import subprocess
import unittest

import cv2
import numpy as np

import erasers
import regions


def noise(height, width, seed):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


class Delogo(unittest.TestCase):
    @unittest.skipUnless(shutil.which("ffmpeg"), "no ffmpeg")
    def test_planes_equal_those_of_ffmpeg(self):
        for seed, (x, y, w, h) in enumerate([(40, 30, 60, 21), (41, 33, 37, 18), (1, 1, 50, 20), (120, 90, 39, 29)]):
            planes = erasers.to_yuv(noise(120, 160, seed))
            raw = b"".join(np.ascontiguousarray(p).tobytes() for p in planes)
            command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", "160x120", "-i", "-"]
            command += ["-vf", f"delogo={x}:{y}:{w}:{h}", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
            done = subprocess.run(command, input=raw, stdout=subprocess.PIPE, check=True).stdout
            theirs = np.frombuffer(done, np.uint8)
            ours = [erasers.delogo_plane(planes[0], x, y, w, h)]
            bx, by, bw, bh = x - 1, y - 1, w + 2, h + 2
            half = (bx >> 1, by >> 1, -(-(bw + (bx & 1)) // 2), -(-(bh + (by & 1)) // 2))
            ours += [erasers.delogo_plane(p, half[0] + 1, half[1] + 1, half[2] - 2, half[3] - 2) for p in planes[1:]]
            ours = np.concatenate([p.ravel() for p in ours])
            self.assertEqual(int(np.abs(ours.astype(int) - theirs).max()), 0, (x, y, w, h))


class Erasers(unittest.TestCase):
    def test_each_changes_its_box_and_leaves_the_rest(self):
        image, box = noise(240, 320, 3), (180, 150, 280, 186)
        for name, eraser in erasers.ERASERS.items():
            for seed in range(6):
                out = eraser(image, box, None, np.random.default_rng(seed))
                self.assertEqual((out.shape, out.dtype), (image.shape, image.dtype), name)
                difference = np.abs(out.astype(int) - image).max(-1)
                self.assertGreater(difference[160:176, 200:260].mean(), 2, name)
                difference[150 - 26 : 186 + 26, 180 - 26 : 280 + 26] = 0
                self.assertEqual(difference.max(), 0, name)


class Regions(unittest.TestCase):
    """The numbers of src/detect/marks.rs."""

    def test_small_and_weak_boxes_do_not_count(self):
        logits = np.full((40, 60), -5, np.float32)
        logits[4:8, 4:12] = 2.0
        logits[20:24, 20:28] = 0.5  # its mean is too low
        logits[30:32, 40:45] = 9.0  # too small
        logits[35:40, 53:60] = 3.0  # at the border, clipped
        found = regions.regions(logits, 0.0, 1.0, 158, 238)
        self.assertEqual([box for box, _ in found], [(212, 140, 238, 158), (16, 16, 48, 32)])
        self.assertAlmostEqual(found[1][1], 2.0)

    def test_a_box_with_a_hole_is_one(self):
        logits = np.full((16, 16), -5, np.float32)
        logits[3:9, 2:12] = 3
        logits[5:7, 5] = -1
        ((box, score),) = regions.regions(logits, 0, 1, 64, 64)
        self.assertEqual(box, (8, 12, 48, 36))
        self.assertAlmostEqual(score, (58 * 3 - 2) / 60, 5)

    def test_boxes_are_in_pixels_of_the_picture(self):
        logits = np.full((180, 320), -1, np.float32)
        logits[20:24, 40:48] = 1
        self.assertEqual(regions.regions(logits, 0, 1, 1440, 2560)[0][0], (320, 160, 384, 192))


if __name__ == "__main__":
    unittest.main()
