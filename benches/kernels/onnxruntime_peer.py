"""onnxruntime as a peer of the kernels' benchmark: one request per line, one answer per line, both JSON.

`{"make": name, "graph": [...]}` builds a session and answers its number; `{"time": number, "calls": n}`
answers the seconds per call. Everything is bound beforehand, so a call computes and does nothing else.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def build(nodes: list[dict], threads: int) -> tuple[ort.InferenceSession, ort.IOBinding]:
    """A session of nodes `{kind, inputs, weights, attributes}`; an input is a node's number or a shape."""
    rng = np.random.default_rng(7)
    graph_nodes, ports, weights, outputs = [], [], [], set()
    feeds: dict[str, np.ndarray] = {}
    for index, node in enumerate(nodes):
        names = []
        for value in node["inputs"]:
            if isinstance(value, int):
                names.append(f"v{value}")
                outputs.discard(f"v{value}")
                continue
            name = "x" + "_".join(map(str, value))
            if name not in feeds or node.get("own"):
                name = f"{name}_{len(feeds)}"
                feeds[name] = rng.standard_normal(value).astype(np.float32)
                ports.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, value))
            names.append(name)
        for shape in node.get("weights", []):
            name = f"w{len(weights)}"
            value = rng.standard_normal(shape) * (1.0 / max(1, int(np.prod(shape[1:])))) ** 0.5
            weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
            names.append(name)
        for value in node.get("scalars", []):
            name = f"w{len(weights)}"
            weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
            names.append(name)
        graph_nodes.append(helper.make_node(node["kind"], names, [f"v{index}"], **node.get("attributes", {})))
        outputs.add(f"v{index}")
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sorted(outputs)]
    graph = helper.make_graph(graph_nodes, "bench", ports, results, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads spin within a call, and not into the turns of the others.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
    for name in sorted(outputs):
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    # The memory of the first call's results, again for every later one.
    values = binding.get_outputs()
    binding.clear_binding_outputs()
    for name, value in zip(sorted(outputs), values):
        binding.bind_ortvalue_output(name, value)
    return session, binding


def main() -> None:
    threads = int(sys.argv[1])
    sessions: list[tuple[ort.InferenceSession, ort.IOBinding]] = []
    print(json.dumps({"version": ort.__version__, "onnx": onnx.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "graph" in request:
            sessions.append(build(request["graph"], threads))
            answer: dict[str, object] = {"session": len(sessions) - 1}
        else:
            session, binding = sessions[request["time"]]
            session.run_with_iobinding(binding)
            start = time.perf_counter()
            for _ in range(request["calls"]):
                session.run_with_iobinding(binding)
            answer = {"seconds": (time.perf_counter() - start) / request["calls"]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
