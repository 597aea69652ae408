"""PyTorch as a peer of the kernels' benchmark, with the requests and answers of `onnxruntime_peer.py`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

Value = torch.Tensor


def operation(node: dict, weights: list[Value]) -> Callable[..., Value]:
    """What a node computes of its inputs."""
    attributes = node.get("attributes", {})
    match node["kind"]:
        case "MatMul":
            return lambda a, b=None: torch.matmul(a, weights[0] if b is None else b)
        case "Mul":
            factor = node["scalars"][0]
            return lambda x: x * factor
        case "Softmax":
            return lambda x: torch.softmax(x, attributes["axis"])
        case "LayerNormalization":
            return lambda x: F.layer_norm(x, weights[0].shape, weights[0], weights[1])
        case "Conv":
            stride, pad, groups = attributes["strides"], attributes["pads"][:2], attributes["group"]
            return lambda x: F.conv2d(x, weights[0], None, stride, pad, 1, groups)
        case kind:
            raise ValueError(f"no such node in this benchmark: {kind}")


def build(nodes: list[dict]) -> Callable[[], None]:
    """The nodes `{kind, inputs, weights, attributes}` in their order; an input is a node's number or a shape."""
    generator = torch.Generator().manual_seed(7)
    steps = []
    for node in nodes:
        weights = [
            torch.randn(shape, generator=generator) * (1.0 / max(1, torch.Size(shape[1:]).numel())) ** 0.5
            for shape in node.get("weights", [])
        ]
        own = [None if isinstance(v, int) else torch.randn(v, generator=generator) for v in node["inputs"]]
        steps.append((operation(node, weights), node["inputs"], own))

    def run() -> None:
        results: list[Value] = []
        for compute, inputs, own in steps:
            results.append(compute(*(results[i] if x is None else x for i, x in zip(inputs, own))))

    return run


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    graphs: list[Callable[[], None]] = []
    print(json.dumps({"version": torch.__version__}), flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            request = json.loads(line)
            if "graph" in request:
                graphs.append(build(request["graph"]))
                answer: dict[str, object] = {"session": len(graphs) - 1}
            else:
                run = graphs[request["time"]]
                run()
                start = time.perf_counter()
                for _ in range(request["calls"]):
                    run()
                answer = {"seconds": (time.perf_counter() - start) / request["calls"]}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
