"""Writes the golden file of Meso4 and MesoInception-4: what the authors' own program answers.

    python golden_mesonet.py --original CHECKOUT --checkpoints DIR --out ../../../tests/golden/mesonet.json

CHECKOUT is a copy of https://github.com/DariusAf/MesoNet (classifiers.py), DIR holds Meso4_DF.h5,
Meso4_F2F.h5, MesoInception_DF.h5 and MesoInception_F2F.h5; it runs in TensorFlow. Pictures and, for
a second set of answers, weights are made up from seeds by whole-number arithmetic, which the test
(tests/import_faces.rs) repeats; the file holds the seeds and the answers alone: the probability that a face
is real, and its logit before the sigmoid.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from original import arguments, lcg  # noqa: E402

SIDE = 256
PICTURES = [0, 1, 2, 3, 4]
CHECKPOINTS = {"Meso4": ["Meso4_DF", "Meso4_F2F"], "MesoInception4": ["MesoInception_DF", "MesoInception_F2F"]}


def picture(seed: int) -> np.ndarray:
    """A slope under an oval, each of another colour, and noise: 8 bit."""
    y, x, c = np.meshgrid(np.arange(SIDE), np.arange(SIDE), np.arange(3), indexing="ij")
    slope = (x * (seed + 1) + y * (c + 1)) // 8 % 128
    oval = 3 * (x - 128) ** 2 + 2 * (y - 120) ** 2 < 16000 + 4000 * seed
    noise = (lcg(seed, SIDE * SIDE * 3) >> 27).astype(np.int64).reshape(SIDE, SIDE, 3)
    return (slope + np.where(oval, 90 - 25 * c, 0) + noise).astype(np.uint8)


def made_up(name: str, shape: tuple[int, ...], index: int) -> np.ndarray:
    """Weights that no training made."""
    u = (lcg(1 + index, math.prod(shape)) >> 8).astype(np.float32) / 2**24 - 0.5
    if "variance" in name or "gamma" in name:
        u = 1 + u
    elif "kernel" in name:
        u = u * 4 / 2 ** (int(math.log2(max(math.prod(shape[:-1]), 1))) // 2)
    else:
        u = u / 4
    return u.astype(np.float32).reshape(shape)


def main() -> None:
    args = arguments(__doc__, "--checkpoints").parse_args()
    sys.path.insert(0, str(args.original))
    import classifiers

    # Keras 3 calls the optimizer's argument otherwise; nothing is trained here.
    classifiers.Adam = lambda **_: "adam"
    batch = np.stack([picture(seed) for seed in PICTURES]).astype(np.float32) / 255
    answers = {"pictures": PICTURES}

    def ask(model: tf.keras.Model) -> list[list[float]]:
        logit = tf.keras.Model(model.inputs, model.layers[-2].output)
        last = model.layers[-1]
        hidden = logit(batch, training=False)
        logits = (tf.matmul(hidden, last.kernel) + last.bias).numpy().ravel()
        probabilities = model(batch, training=False).numpy().ravel()
        return [[float(z), float(p)] for z, p in zip(logits, probabilities)]

    for network, names in CHECKPOINTS.items():
        made = answers.setdefault(network.lower(), {})
        for name in names:
            classifier = getattr(classifiers, network)()
            classifier.load(str(args.checkpoints / f"{name}.h5"))
            made[name] = ask(classifier.model)
        classifier = getattr(classifiers, network)()
        # In the order in which the layers were made: the number that their names end in.
        number = lambda layer: int(layer.name.rsplit("_", 1)[-1]) if layer.name[-1].isdigit() and "_" in layer.name else 0
        index = 0
        for kind in ("conv2d", "batch_normalization", "dense"):
            layers = [l for l in classifier.model.layers if l.name.split("_")[0] == kind.split("_")[0] and l.weights]
            for layer in sorted(layers, key=number):
                values = []
                for weight in layer.weights:
                    values.append(made_up(weight.name, tuple(weight.shape), index))
                    index += 1
                layer.set_weights(values)
        made["made_up"] = ask(classifier.model)
    print(json.dumps(answers, indent=1))
    if args.out:
        args.out.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
