"""Whole networks on the host engine beside onnxruntime and OpenVINO, interleaved in one run.

`cargo xtask bench` runs this in the project's Python environment. All engines run the same networks with the same
weights on the same number of threads at batch 1. onnxruntime computes in single precision; OpenVINO in single
precision, and with its hints for half precision and bfloat16; the host engine in half precision with the Neural
Engine's rounding, its sums in the defined order and in the fastest one. Times are medians over alternating rounds;
errors are the largest difference to a run in double precision, over the largest magnitude of that run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from networks import NETWORKS, Network
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import aneforge as af

Engines = dict[str, Callable[[], np.ndarray]]


def ours(network: Network, sums: str) -> Callable[[], np.ndarray]:
    model = af.compile(network.ours, device="host", sums=sums)
    feeds = list(network.feeds.values())
    return lambda: model(*feeds)


def onnxruntime(network: Network, threads: int) -> Callable[[], np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(network.theirs.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, network.feeds)[0]


def openvino(network: Network, threads: int, precision: str) -> Callable[[], np.ndarray] | None:
    """The network in OpenVINO, if it is installed and has the precision here."""
    try:
        import openvino as ov
    except ImportError:
        return None
    core = ov.Core()
    if precision != "f32" and {"f16": "FP16", "bf16": "BF16"}[precision] not in core.get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        return None
    model = core.read_model(network.theirs.SerializeToString())
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: np.array(request.infer(network.feeds)[0])


def exact(network: Network) -> np.ndarray:
    """The network in double precision, by ONNX's reference implementation."""
    model = onnx.ModelProto()
    model.CopyFrom(network.theirs)
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float64), weight.name))
    for port in [*model.graph.input, *model.graph.output]:
        port.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    feeds = {name: value.astype(np.float64) for name, value in network.feeds.items()}
    return ReferenceEvaluator(model).run(None, feeds)[0]


def engines(network: Network, threads: int) -> Engines:
    peers: dict[str, Callable[[], np.ndarray] | None] = {
        "aneforge defined": ours(network, "defined"),
        "aneforge fast": ours(network, "fast"),
        "onnxruntime f32": onnxruntime(network, threads),
        **{f"openvino {p}": openvino(network, threads, p) for p in ("f32", "f16", "bf16")},
    }
    return {name: run for name, run in peers.items() if run is not None}


def measure(engines: Engines, rounds: int) -> dict[str, float]:
    """Milliseconds per call of each, medians over rounds in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for run in engines.values():
        for _ in range(2):
            run()
    for _ in range(rounds):
        for name, run in engines.items():
            start = time.perf_counter()
            for _ in range(2):
                run()
            times[name].append((time.perf_counter() - start) / 2 * 1e3)
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


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


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Milliseconds of every engine, its error, and onnxruntime's time over its own."""
    names = list(dict.fromkeys(engine for row in results.values() for engine in row))
    lines = ["| network | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for network, row in results.items():
        cells = []
        for name in names:
            cell = row.get(name)
            cells.append(f"{cell['ms']} ms, {cell['ratio']}x, error {cell['error']:.1e}" if cell else "not available")
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(NETWORKS), help="a network; may be repeated")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("ANEFORGE_THREADS", os.cpu_count() or 1)))
    parser.add_argument("-o", "--output", type=Path, help="write the results as JSON")
    args = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name in args.only or NETWORKS:
        network = NETWORKS[name]()
        want = exact(network)
        running = engines(network, args.threads)
        times = measure(running, args.rounds)
        row = {}
        for engine, run in running.items():
            error = float(np.abs(run().astype(np.float64) - want).max() / np.abs(want).max())
            ratio = round(times["onnxruntime f32"] / times[engine], 2)
            row[engine] = {"ms": times[engine], "ratio": ratio, "error": error}
        results[network.name] = row
        print(f"{network.name}: {json.dumps(row)}", flush=True)
    call = overhead()
    print(f"\n{table(results)}\n\none-op model of 64 elements: {call} us per call; ratios are onnxruntime's time over an engine's")
    if args.output:
        machine = {"processor": platform.processor() or platform.machine(), "threads": args.threads,
                   "host": next(d.description for d in af.devices() if d.name == "host")}
        versions = {"aneforge": af.__version__, "onnxruntime": ort.__version__, "numpy": np.__version__}
        written = {"machine": machine, "versions": versions, "networks": results, "one-op call, us": call}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
