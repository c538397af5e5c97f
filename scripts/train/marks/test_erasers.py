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
    def test_small_and_weak_components_do_not_count(self):
        logits = np.full((20, 30), -5, np.float32)
        logits[2:4, 2:6] = 2.0  # high enough
        logits[10:12, 10:14] = 0.5  # never reaches `high`
        logits[15, 20:23] = 9.0  # three cells
        logits[17:20, 28:30] = 3.0  # at the border, clipped
        found = regions.regions(logits, 0.0, 1.0, 158, 238)
        self.assertEqual([box for box, _ in found], [(224, 136, 238, 158), (16, 16, 48, 32)])
        self.assertAlmostEqual(found[1][1], 2.0)

    def test_diagonal_cells_are_one_component(self):
        logits = np.full((8, 8), -1, np.float32)
        for i in range(4):
            logits[i, i] = 1
        self.assertEqual([box for box, _ in regions.regions(logits, 0, 1, 64, 64)], [(0, 0, 32, 32)])

    def test_boxes_are_in_pixels_of_the_picture(self):
        logits = np.full((90, 160), -1, np.float32)
        logits[10:12, 20:24] = 1
        self.assertEqual(regions.regions(logits, 0, 1, 1440, 2560)[0][0], (320, 160, 384, 192))


if __name__ == "__main__":
    unittest.main()
