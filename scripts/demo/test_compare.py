"""python3 -m unittest discover -s scripts/demo"""

import unittest

from compare import compare, overlap, table

TRUTH = {
    "planted": [{"file": "a.mp4", "detector": "face-swap", "start_ms": 8000, "end_ms": 16000},
                {"file": "a.mp4", "detector": "voice-clone", "start_ms": 12000, "end_ms": 20000},
                {"file": "b.png", "detector": "face-swap", "start_ms": 0, "end_ms": 0},
                {"file": "c.mp4", "detector": "label-strip", "start_ms": 0, "end_ms": 5000}],
    "real": [],
    "labels": [{"file": "b.png", "system": "AIGC", "disposition": "confirmed"}],
}


def segment(detector, start, end, verdict="fake", probability=0.9):
    return {"detector": detector, "start_ms": start, "end_ms": end, "verdict": verdict, "probability": probability}


class Compare(unittest.TestCase):
    def setUp(self):
        reports = [
            {"media": {"path": "/x/a.mp4"}, "disposition": {"state": "suspected"}, "segments": [
                segment("face-swap", 8000, 12000), segment("face-swap", 13000, 17000),
                segment("face-swap", 20000, 21000, probability=None), segment("voice-clone", 12000, 20000, "undetermined")]},
            {"media": {"path": "b.png"}, "disposition": {"state": "confirmed"},
             "segments": [segment("face-swap", 0, 0)]}]
        self.rows, self.counts = compare(TRUTH, reports)

    def test_counts(self):
        self.assertEqual(self.counts, {"planted": 4, "found": 2, "missed": 1, "not scanned": 1, "false alarms": 1})

    def test_rows(self):
        self.assertEqual(self.rows[0], ("a.mp4", "face-swap", "8.0-16.0 s", "8.0-12.0 s, 13.0-17.0 s",
                                        "found, overlap 0.78, p 0.90"))
        self.assertEqual(self.rows[1][4], "missed")
        self.assertEqual(self.rows[2], ("a.mp4", "face-swap", "-", "20.0-21.0 s", "false alarm"))
        self.assertEqual(self.rows[3], ("b.png", "face-swap", "still", "still", "found, p 0.90"))
        self.assertEqual(self.rows[4], ("b.png", "label AIGC", "confirmed", "confirmed", "as planted"))
        self.assertEqual(self.rows[5][4], "not scanned")

    def test_overlap(self):
        self.assertAlmostEqual(overlap((0, 10), [(5, 15)]), 1 / 3)

    def test_table_is_aligned(self):
        lines = table(self.rows).splitlines()
        self.assertEqual({line.index(lines[i].split()[1]) for i, line in enumerate(lines)}, {lines[0].index("detector")})


if __name__ == "__main__":
    unittest.main()
