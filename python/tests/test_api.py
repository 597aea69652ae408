"""What expressions build, and what they compute."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
import pytest
from aneforge import _native

RNG = np.random.default_rng(7)
X = RNG.uniform(0.5, 2.0, (2, 3, 4)).astype(np.float16).astype(np.float64)
IMAGE = RNG.uniform(-2.0, 2.0, (1, 4, 6, 5)).astype(np.float16).astype(np.float64)
ROW = np.array([0.5, 1.0, 2.0, 4.0])


def run(y: af.Tensor, *feeds: Any) -> np.ndarray:
    return af.compile(y, device="host", numerics="ieee")(*feeds)


def close(y: af.Tensor, want: Any, *feeds: Any, rtol: float = 2e-3, atol: float = 2e-3) -> None:
    np.testing.assert_allclose(run(y, *feeds), want, rtol=rtol, atol=atol)


OPERATORS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "x + 2.0": (lambda x: x + 2.0, "add"),
    "2 + x": (lambda x: 2 + x, "add"),
    "x - 0.5": (lambda x: x - 0.5, "sub"),
    "0.5 - x": (lambda x: 0.5 - x, "sub"),
    "x * 3": (lambda x: x * 3, "muls"),
    "3.5 * x": (lambda x: 3.5 * x, "muls"),
    "x * True": (lambda x: x * True, "muls"),
    "x * float64": (lambda x: x * np.float64(0.5), "muls"),
    "float64 * x": (lambda x: np.float64(0.5) * x, "muls"),
    "x * float32": (lambda x: x * np.float32(0.5), "mul"),
    "float32 * x": (lambda x: np.float32(0.5) * x, "mul"),
    "x / 4": (lambda x: x / 4, "real_div"),
    "1 / x": (lambda x: 1 / x, "real_div"),
    "x ** 2": (lambda x: x**2, "pow"),
    "2 ** x": (lambda x: 2**x, "pow"),
    "x + row": (lambda x: x + ROW, "add"),
    "row - x": (lambda x: ROW - x, "sub"),
    "row * x": (lambda x: ROW * x, "mul"),
    "row / x": (lambda x: ROW / x, "real_div"),
    "row ** x": (lambda x: ROW**x, "pow"),
    "ints + x": (lambda x: np.arange(4) + x, "add"),
    "-x": (lambda x: -x, "muls"),
    "abs(x - 1)": (lambda x: abs(x - 1), "abs"),
    "x + x": (lambda x: x + x, "add"),
    "x * x": (lambda x: x * x, "mul"),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    build, op = OPERATORS[name]
    x = af.input(X.shape)
    y = build(x)
    assert isinstance(y, af.Tensor)
    assert y.op == op
    assert y.shape == X.shape
    close(y, build(X), X)


def test_products() -> None:
    x = af.input((2, 3, 4))
    weight = RNG.standard_normal((4, 5))
    y = x @ weight
    assert (y.op, y.shape, y.attrs["wt"].shape) == ("matmul", (2, 3, 5), (5, 4))
    close(y, X @ weight, X, atol=5e-3)
    left = RNG.standard_normal((7, 3))
    z = left @ x
    assert (z.op, z.shape) == ("bmm", (2, 7, 4))
    close(z, left @ X, X, atol=5e-3)
    close(x @ x.transpose((0, 2, 1)), X @ X.transpose(0, 2, 1), X, atol=2e-2)


def test_numbers_become_constants_of_half_precision() -> None:
    x = af.input((2,))
    one = (x + 0.1).srcs[1]
    assert (one.op, one.shape) == ("const_array", ())
    assert one.attrs["value"] == np.float16(0.1)
    assert one.attrs["value"].dtype == np.float16
    assert (x * 0.1).attrs["k"] == 0.1


def test_what_a_tensor_says_of_itself() -> None:
    x = af.input((2, 3))
    assert repr(x) == "Tensor(input, shape=(2, 3))"
    assert repr(af.input(5).relu()) == "Tensor(relu, shape=(5,))"
    assert repr(x.greater(x)) == "Tensor(greater, shape=(2, 3), dtype=bool)"
    y = x.softmax(-1)
    assert (y.op, y.shape, y.ndim, y.size, len(y), y.dtype) == ("softmax", (2, 3), 2, 6, 2, "fp16")
    assert dict(y.attrs) == {"axis": 1}
    with pytest.raises(TypeError):
        y.attrs["axis"] = 0  # type: ignore[index]
    assert y.srcs == (x,)
    assert "dtype" not in x.attrs


def test_tensors_compare_by_node() -> None:
    x = af.input((2,))
    y = x + 1.0
    assert y.srcs[0] == x
    assert hash(y.srcs[0]) == hash(x)
    assert {x: "x"}[y.srcs[0]] == "x"
    assert x != af.input((2,))
    assert (x == 3) is False
    with pytest.raises(TypeError, match="a Tensor has no value until"):
        bool(x)
    with pytest.raises(TypeError, match="not iterable"):
        iter(x)


WINDOWS: list[Any] = [
    0,
    -1,
    slice(0, 1),
    (slice(None), slice(1, 3)),
    (slice(None), slice(None), slice(1, None)),
    (..., 2),
    (1, ..., slice(-2, None)),
    (0, 1, 2),
    ...,
]


@pytest.mark.parametrize("index", WINDOWS, ids=str)
def test_windows(index: Any) -> None:
    x = af.input(X.shape)
    y = x[index]
    assert y.shape == X[index].shape
    close(y * 1.0 + 0.0, X[index], X)


METHODS: dict[str, tuple[Callable[[af.Tensor], af.Tensor], Callable[[np.ndarray], Any]]] = {
    "mean": (lambda x: x.mean(-1), lambda x: x.mean(-1, keepdims=True)),
    "sum": (lambda x: x.sum((0, 2)), lambda x: x.sum((0, 2), keepdims=True)),
    "amax": (lambda x: x.amax([1]), lambda x: x.max(1, keepdims=True)),
    "amin": (lambda x: x.amin(np.int64(1)), lambda x: x.min(1, keepdims=True)),
    "l1_norm": (lambda x: x.l1_norm(2), lambda x: abs(x).sum(2, keepdims=True)),
    "log_sum": (lambda x: x.log_sum(2), lambda x: np.log(x.sum(2, keepdims=True))),
    "sum_square": (lambda x: x.sum_square(2), lambda x: (x * x).sum(2, keepdims=True)),
    "cumsum": (lambda x: x.cumsum(), lambda x: x.cumsum(-1)),
    "pow": (lambda x: x.pow(1.5), lambda x: x**1.5),
    "clamp": (lambda x: x.clamp(0.75, 1.5), lambda x: x.clip(0.75, 1.5)),
    "reshape": (lambda x: x.reshape(4, -1), lambda x: x.reshape(4, 6)),
    "reshape_seq": (lambda x: x.reshape([-1]), lambda x: x.reshape(24)),
    "reshape_dims": (lambda x: x.reshape(np.int32(6), 4), lambda x: x.reshape(6, 4)),
    "transpose": (lambda x: x.transpose((-1, 0, 1)), lambda x: x.transpose(2, 0, 1)),
    "T": (lambda x: x.T, lambda x: x.T),
    "expand_dims": (lambda x: x.expand_dims(-1), lambda x: x[..., None]),
    "expand_dims_two": (lambda x: x.expand_dims((0, -1)), lambda x: x[None, ..., None]),
    "flatten2d": (lambda x: x.flatten2d(), lambda x: x.reshape(2, 12)),
    "slice_by_size": (lambda x: x.slice_by_size((0, 1, 1), (2, 2, 3)), lambda x: x[:, 1:, 1:]),
    "reverse": (lambda x: x.reverse((0, -1)), lambda x: x[::-1, :, ::-1]),
    "gather": (lambda x: af.gather(x, [2, 0, 2], 1), lambda x: x[:, [2, 0, 2]]),
    "gather_last": (lambda x: af.gather(x, np.array([3, 1]), -1), lambda x: x[..., [3, 1]]),
    "maximum": (lambda x: af.maximum(x, 1.0), lambda x: np.maximum(x, 1.0)),
    "minimum": (lambda x: af.minimum(x, ROW), lambda x: np.minimum(x, ROW)),
    "concat": (lambda x: af.concat([x, x * 2.0], -1), lambda x: np.concatenate([x, x * 2], -1)),
    "stack": (lambda x: af.stack([x, x + 1.0], axis=-1), lambda x: np.stack([x, x + 1], -1)),
    "split": (lambda x: af.split(x, 2, axis=2)[1], lambda x: np.split(x, 2, 2)[1]),
    "where": (
        lambda x: af.where(x.greater(x.mean(-1)), x, -x),
        lambda x: np.where(x > x.mean(-1, keepdims=True), x, -x),
    ),
    "logical_not": (
        lambda x: af.select(x.less(x.mean(-1)).logical_not(), x, -x),
        lambda x: np.where(x < x.mean(-1, keepdims=True), -x, x),
    ),
    "bmm_weight": (lambda x: x.bmm_weight(np.ones((2, 4, 3))), lambda x: x @ np.ones((2, 4, 3))),
    "linear": (
        lambda x: x.linear(np.ones((2, 4)), bias=np.array([1, -1])),
        lambda x: x @ np.ones((4, 2)) + [1, -1],
    ),
    "layer_norm": (
        lambda x: x.layer_norm(ROW, ROW),
        lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * ROW + ROW,
    ),
    "rms_norm": (lambda x: x.rms_norm(ROW), lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True)) * ROW),
    "log": (lambda x: x.log(), np.log),
    "elu": (lambda x: (x - 1.0).elu(), lambda x: np.where(x > 1, x - 1, np.expm1(x - 1))),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_and_functions(name: str) -> None:
    build, reference = METHODS[name]
    x = af.input(X.shape)
    y = build(x)
    want = reference(X)
    assert y.shape == want.shape
    close(y, want, X, atol=1e-2)


def test_images() -> None:
    x = af.input(IMAGE.shape)
    weight = RNG.standard_normal((2, 4, 1, 1)) / 2
    y = af.conv(x, weight, bias=np.array([1.0, 2.0]))
    want = np.einsum("nchw,oc->nohw", IMAGE, weight[:, :, 0, 0]) + np.array([1, 2]).reshape(1, 2, 1, 1)
    close(y, want, IMAGE, atol=1e-2)
    padded = af.conv(x, np.ones((4, 1, 3, 2)), stride=2, pad=(1, 0, 0, 1), dilation=1, groups=4)
    assert padded.shape == (1, 4, 3, 3)
    assert af.conv_transpose(x, np.ones((4, 3, 2, 2)), stride=2, bias=np.zeros(3)).shape == (1, 3, 12, 10)
    assert x.max_pool(2).shape == (1, 4, 3, 2)
    assert x.max_pool(2, ceil_mode=True).shape == (1, 4, 3, 3)
    assert x.max_pool(3, stride=1, pad=1).shape == (1, 4, 6, 5)
    assert x.avg_pool(3, 0).shape == (1, 4, 2, 1)
    assert x.avg_pool(2, 2, 1, exclude_pad=True).shape == (1, 4, 4, 3)
    c = np.arange(1.0, 5.0)
    y = af.batch_norm(x, c, c, c, c, eps=0.5)
    wide = c.reshape(1, 4, 1, 1)
    close(y, (IMAGE - wide) / np.sqrt(wide + 0.5) * wide + wide, IMAGE, atol=1e-2)
    weight = af.input((2, 4, 1, 1))
    y = af.dynamic_conv(x, weight)
    close(y, np.ones((1, 2, 6, 5)) * IMAGE.sum(1, keepdims=True), IMAGE, np.ones((2, 4, 1, 1)), atol=1e-2)


def test_image_input_converts_on_the_device() -> None:
    pixels = RNG.integers(0, 256, (1, 3, 2, 2), dtype=np.uint8)
    scale, bias = np.array([1 / 255, 2 / 255, 3 / 255]), [0.0, -1.0, 1.0]
    y = af.image_input((1, 3, 2, 2), scale=scale, bias=np.array(bias))
    want = pixels * scale.reshape(1, 3, 1, 1) + np.array(bias).reshape(1, 3, 1, 1)
    close(y, want, pixels)
    plain = af.image_input((1, 3, 2, 2))
    assert plain.op == "muls"
    assert af.image_input((1, 3, 2, 2), scale=1.0, bias=0.5).op == "adds"


def test_a_small_network() -> None:
    x = af.input((1, 1, 8, 8))
    kernels = RNG.standard_normal((4, 1, 3, 3)) / 3
    hidden = af.conv(x, kernels, pad=1).relu().max_pool(2).reshape(1, -1)
    y = hidden.linear(RNG.standard_normal((10, 64)) / 8, np.zeros(10)).softmax()
    model = af.compile(y)
    got = model(RNG.standard_normal((1, 1, 8, 8)))
    assert got.shape == (1, 10)
    assert abs(got.sum() - 1) < 1e-2


def test_version_and_devices() -> None:
    assert af.__version__ == importlib.metadata.version("aneforge")
    rows = {device.name: device for device in af.devices()}
    assert set(rows) == {"ane", "host"}
    assert rows["host"].available
    assert "kernels" in rows["host"].description
    assert rows["ane"].available or "host" in rows["ane"].description


def documented() -> list[tuple[str, Any]]:
    public = [(name, getattr(af, name)) for name in af.__all__ if not name.startswith("_")]
    members = [
        (f"{owner.__name__}.{name}", value)
        for owner in (af.Tensor, af.Model)
        for name, value in sorted(vars(owner).items())
        if not name.startswith("_")
    ]
    return public + members


@pytest.mark.parametrize(("name", "value"), documented(), ids=lambda v: v if isinstance(v, str) else "")
def test_public_names_are_documented(name: str, value: Any) -> None:
    assert (inspect.getdoc(value) or "").strip(), name


def test_the_stub_names_what_the_extension_has() -> None:
    stub = Path(_native.__file__).with_name("_native.pyi")
    if not stub.exists():
        stub = Path(af.__file__).with_name("_native.pyi")
    tree = ast.parse(stub.read_text())
    names = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    assert names == {n for n in vars(_native) if not n.startswith("_")}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            owner = getattr(_native, node.name)
            stubbed = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
            native = {
                n for n, v in vars(owner).items() if not n.startswith("_") and not inspect.isfunction(v)
            }
            assert native <= stubbed
            assert all(hasattr(owner, name) for name in stubbed)


def test_numpy_is_imported_when_it_is_used() -> None:
    used = "x = aneforge.input((1, 2)); aneforge.eval(x + 1.0, {x: [[1.0, 2.0]]}, device='host')"
    words = f"import sys, aneforge; print('numpy' in sys.modules); {used}; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
