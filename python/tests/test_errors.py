"""Mistakes: which exception, with which words, naming which line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
import pytest
from aneforge import _native


def x23() -> af.Tensor:
    return af.input((2, 3))


def image() -> af.Tensor:
    return af.input((1, 4, 6, 5))


def truth() -> af.Tensor:
    return x23().greater(x23())


ONES = np.ones((4, 3))
HUGE = 10**400
MISTAKES: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ValueError, 'input: dtype must be "fp16" or "uint8", got "fp32"', lambda: af.input((2,), dtype="fp32")),
    (ValueError, "input: rank 6 is above the engine's limit of 5", lambda: af.compile(af.input((1,) * 6).relu())),
    (ValueError, "input: rank 9 is above the limit of 8", lambda: af.input((1,) * 9)),
    (ValueError, "input: axis 1 of [2, 0] has size 0", lambda: af.input((2, 0))),
    (ValueError, "input: size -1 is negative", lambda: af.input((2, -1))),
    (TypeError, "input: shape must be a sequence of integers", lambda: af.input((2.5,))),
    (TypeError, "input: shape must be a sequence of integers", lambda: af.input("ab")),
    (TypeError, "split: num_splits must be an integer, got True", lambda: af.split(x23(), True, axis=0)),
    (TypeError, "gather: each index must be an integer, got False", lambda: af.gather(x23(), [False], axis=0)),
    (ValueError, "input: max_abs must be at least 0, got -1", lambda: af.input((2,), max_abs=-1)),
    (ValueError, "input: max_abs must be at least 0, got NaN", lambda: af.input((2,), max_abs=float("nan"))),
    (ValueError, "add: shapes [2, 3] and [4] do not broadcast", lambda: x23() + np.zeros(4)),
    (TypeError, "unsupported operand", lambda: x23() + "text"),
    (TypeError, "unsupported operand", lambda: None * x23()),
    (TypeError, "constants are real numbers, got an array of complex128", lambda: x23() + np.array([1j])),
    (ValueError, "muls: scalar 1000000 does not fit half precision", lambda: x23() * 1e6),
    (ValueError, "muls: scalar 1e300 does not fit half precision", lambda: x23() * 1e300),
    (ValueError, "add: scalar 70000 does not fit half precision", lambda: x23() + 70000),
    (ValueError, "add: scalar -65520 does not fit half precision", lambda: -65520 + x23()),
    (ValueError, "sub: scalar 65520 does not fit half precision", lambda: 65520 - x23()),
    (ValueError, "sub: scalar 1e300 does not fit half precision", lambda: x23() - 1e300),
    (ValueError, "real_div: scalar 18446744073709551616 does not fit", lambda: 2**64 / x23()),
    (ValueError, "real_div: scalar 70000 does not fit", lambda: x23() / 70000),
    (ValueError, "pow: scalar 70000 does not fit", lambda: x23() ** 70000),
    (ValueError, "pow: scalar 70000 does not fit", lambda: 70000 ** x23()),
    (ValueError, "greater: scalar 70000 does not fit", lambda: x23() > 70000),
    (ValueError, "less: scalar inf does not fit", lambda: x23() < float("inf")),
    (ValueError, "add: scalar NaN does not fit", lambda: x23() + float("nan")),
    (ValueError, "the operand: scalar 70000 does not fit", lambda: x23() + np.float32(70000)),
    (ValueError, "maximum: the constant: scalar 70000 does not fit", lambda: af.maximum(x23(), 70000)),
    (ValueError, "pow: the constant: scalar 70000 does not fit", lambda: x23().pow(70000)),
    (TypeError, 'mul: takes fp16, got bool; only select and logical_not', lambda: (x23() > 0) * x23()),
    (TypeError, 'zeros by it first, in Python with astype("fp16")', lambda: (x23() > 0) + 1),
    (ValueError, f"tune: reps must be from 1 to 2147483647, got {2**70}", lambda: af.tune(x23(), reps=2**70)),
    (ValueError, "tune: reps must be from 1 to 2147483647, got 0", lambda: af.tune(x23().relu(), reps=0)),
    (ValueError, "tune: budget must be from 1 to", lambda: af.tune(x23().relu(), budget=2**70)),
    (ValueError, "tune_precision: reps must be from 1 to", lambda: af.tune_precision(x23().relu(), reps=-1)),
    (ValueError, "attention_tiles: S must be from 1 to", lambda: af.attention_tiles(2**70, 2, 2)),
    (ValueError, "threads must be from 1 to 1024, got", lambda: af.load("nowhere", threads=2**70)),
    (ValueError, "save_graph: path is empty; name a file", lambda: af.save_graph(x23(), "")),
    (ValueError, "load_graph: path is empty; name a file", lambda: af.load_graph("")),
    (ValueError, "pow: a modulus is not supported", lambda: pow(x23(), 2, 3)),
    (ValueError, "matmul: inner sizes differ, 3 and 4", lambda: x23() @ ONES),
    (ValueError, "matmul: the weight must be [K, N], got shape (3,)", lambda: x23() @ np.ones(3)),
    (
        TypeError,
        "matmul: the weight must be an array of real numbers, got complex128",
        lambda: x23() @ np.ones((3, 4), complex),
    ),
    (ValueError, "bmm: inner sizes differ, 3 and 2", lambda: x23() @ x23()),
    (ValueError, "matmul: inner sizes differ, 3 and 4", lambda: x23().linear(np.ones((3, 4)))),
    (ValueError, "matmul: weight must be [N, K]", lambda: x23().linear(np.ones(3))),
    (ValueError, "linear: bias must have 4 elements, got shape (3,)", lambda: x23().linear(ONES, np.ones(3))),
    (TypeError, "linear: W must be an array of real numbers, got complex128", lambda: x23().linear(ONES * 1j)),
    (TypeError, "linear: W must be an array or a Tensor, got None", lambda: x23().linear(None)),
    (TypeError, "layer_norm: gamma must be an array or a Tensor, got None", lambda: x23().layer_norm(None, None)),
    (ValueError, "linear: W is a list that is no array: setting an array", lambda: x23().linear([[1, 2], [3]])),
    (ValueError, "the operand is a list that is no array: setting an array", lambda: x23() + [[1, 2], [3]]),
    (ValueError, "maximum: the constant is a list that is no array", lambda: af.maximum(x23(), [[1, 2], [3]])),
    (ValueError, "the operand is too large: an integer of 1329 bits", lambda: x23() + HUGE),
    (ValueError, "the operand is too large: an integer of 1329 bits", lambda: x23() > HUGE),
    (ValueError, "pow: exponent is too large: an integer of 1329 bits", lambda: x23().pow(HUGE)),
    (ValueError, "input: max_abs is too large: an integer of 1329 bits", lambda: af.input((2,), max_abs=HUGE)),
    (ValueError, "leaky_relu: alpha is too large: an integer of 1329 bits", lambda: x23().leaky_relu(HUGE)),
    (ValueError, "softmax: axis is too large: an integer of 1329 bits", lambda: x23().softmax(HUGE)),
    (ValueError, "gather: an index of 65 bits is outside every axis", lambda: af.gather(x23(), [2**64], axis=1)),
    (ValueError, "input: a size is too large; sizes fit 32 bits", lambda: af.input((2**63,))),
    (IndexError, "an index of more than 64 bits is outside axis 0, which has 2", lambda: x23()[HUGE]),
    (IndexError, "an index can have one ellipsis, got 2", lambda: x23()[..., ...]),
    (ValueError, "rank 0; a value without axes has none", lambda: af.input(()).softmax(0)),
    (ValueError, "compile: out is empty; give at least one Tensor", lambda: af.compile([])),
    (ValueError, "compile: out is empty; give at least one Tensor", lambda: af.compile({})),
    (ValueError, "eval: out is empty; give at least one Tensor", lambda: af.eval(())),
    (ValueError, "estimate: out is empty; give at least one Tensor", lambda: af.estimate([])),
    (ValueError, "precision_risk: out is empty; give at least one Tensor", lambda: af.precision_risk([])),
    (ValueError, "save_graph: out is empty; give at least one Tensor", lambda: af.save_graph([], "x.ir")),
    (TypeError, "save_graph: out must be a Tensor or a sequence", lambda: af.save_graph({"y": x23()}, "x.ir")),
    (TypeError, "where: cond must be a Tensor or an array of truth values, got an", lambda: af.where(ONES, 1.0, 0.0)),
    (TypeError, "where() missing 2 required positional arguments", lambda: af.where(truth())),
    (TypeError, "where() got an unexpected keyword", lambda: af.where(condition=truth(), x=1.0, y=0.0)),
    (TypeError, "sum: keepdims and keepdim are names of one", lambda: x23().sum(keepdim=False, keepdims=True)),
    (ValueError, "bmm_weight: W must be [B, K, N], got shape (4, 3)", lambda: x23().bmm_weight(ONES)),
    (TypeError, "greater: other must be a Tensor, an array or a number, got str", lambda: x23().greater("1")),
    (TypeError, "less_equal: other must be a Tensor, an array or a number, got dict", lambda: x23().less_equal({})),
    (TypeError, "select: a must be a Tensor, an array or a number, got str", lambda: af.select(truth(), "1", x23())),
    (TypeError, "where: takes bool, got fp16; compare first", lambda: af.where(x23(), x23(), x23())),
    (TypeError, "relu: takes fp16, got bool", lambda: truth().relu()),
    (TypeError, "add: takes fp16, got uint8; convert the image", lambda: af.input((2,), "uint8") + 1.0),
    (
        ValueError,
        "softmax: axis 2 is out of range for rank 2; valid axes are -2 to 1",
        lambda: x23().softmax(2),
    ),
    (TypeError, "softmax: axis must be an integer, got 1.0", lambda: x23().softmax(1.0)),
    (ValueError, "reduce_sum: axis 0 is named twice in [0, 0]", lambda: x23().sum((0, -2))),
    (TypeError, "sum: axes must be an integer, a sequence of integers or None, got str", lambda: x23().sum("ab")),
    (ValueError, "reshape: [2, 3] has 6 elements, [4, 2] has 8", lambda: x23().reshape(4, 2)),
    (ValueError, "reshape: 6 elements do not divide into (4, -1)", lambda: x23().reshape(4, -1)),
    (ValueError, "reshape: shape [-1, -1] has a negative size", lambda: x23().reshape(-1, -1)),
    (TypeError, "reshape: each size must be an integer, got 2.0", lambda: x23().reshape(2.0, 3)),
    (ValueError, "transpose: perm [0, 0] is not a permutation of 2 axes", lambda: x23().transpose((0, 0))),
    (ValueError, "squeeze: axis 0 of [2, 3] has size 2, not 1", lambda: x23().squeeze(0)),
    (ValueError, "expand_dims: axis 1 is named twice", lambda: x23().expand_dims((1, 1))),
    (
        ValueError,
        "slice_by_size: 1..1+3 is outside axis 1 of [2, 3]",
        lambda: x23().slice_by_size((0, 1), (2, 3)),
    ),
    (ValueError, "must keep at least one", lambda: x23()[2::2]),
    (ValueError, "keep at least one", lambda: x23()[2:2]),
    (IndexError, "index 3 is outside axis 1, which has 3 elements", lambda: x23()[0, 3]),
    (IndexError, "3 indices for a tensor of 2 axes", lambda: x23()[0, 0, 0]),
    (TypeError, "indices are integers, slices, ... and None", lambda: x23()[[0, 1]]),
    (ValueError, "cumsum: axis 0 of shape (2, 3) must be the last", lambda: x23().cumsum(0)),
    (ValueError, "cumsum: the axis has 70000 elements, above the 65536 that any", lambda: af.input((2, 70_000)).cumsum()),
    (
        TypeError,
        "layer_norm: gamma and beta must both be arrays or both be Tensors",
        lambda: x23().layer_norm(np.ones(3), af.input((3,))),
    ),
    (ValueError, "layer_norm: gamma must have 3 elements", lambda: x23().layer_norm(np.ones(2), np.ones(2))),
    (ValueError, "rms_norm: gamma must have 3 elements", lambda: x23().rms_norm(np.ones(4))),
    (ValueError, "max_pool: x must be [N, C, H, W], got [2, 3]", lambda: x23().max_pool(2)),
    (ValueError, "max_pool: a window of 7 is larger than axis 2", lambda: image().max_pool(7)),
    (TypeError, "max_pool: k must be an integer, got 2.0", lambda: image().max_pool(2.0)),
    (
        TypeError,
        "avg_pool: exclude_pad must be True or False, got 3",
        lambda: image().avg_pool(2, exclude_pad=3),
    ),
    (ValueError, "conv: kernel width 16 is above 15", lambda: af.conv(image(), np.ones((4, 4, 1, 16)))),
    (
        ValueError,
        "conv: 1 groups of 3 channels do not match x [1, 4, 6, 5]",
        lambda: af.conv(image(), np.ones((4, 3, 1, 1))),
    ),
    (
        ValueError,
        "conv: kernel spans 7 of axis 2, padded to 6; pad more",
        lambda: af.conv(image(), np.ones((4, 4, 7, 1))),
    ),
    (
        TypeError,
        "conv: weight must be an array of real numbers, got object",
        lambda: af.conv(image(), np.full((4, 4, 1, 1), None)),
    ),
    (
        ValueError,
        "conv: bias must have 4 elements, got shape (3,)",
        lambda: af.conv(image(), np.ones((4, 4, 1, 1)), bias=np.ones(3)),
    ),
    (
        ValueError,
        "conv: pad must be one integer or (top, bottom, left, right), got (1, 2)",
        lambda: af.conv(image(), np.ones((4, 4, 1, 1)), pad=(1, 2)),
    ),
    (
        TypeError,
        "dynamic_conv: weight must be a Tensor, got ndarray; use conv",
        lambda: af.dynamic_conv(image(), np.ones((4, 4, 1, 1))),
    ),
    (
        ValueError,
        "dynamic_conv: the batch must be 1",
        lambda: af.dynamic_conv(af.input((2, 1, 3, 3)), image()),
    ),
    (
        ValueError,
        "conv_transpose: kernel width 16 is above 15",
        lambda: af.conv_transpose(image(), np.ones((4, 4, 1, 16))),
    ),
    (
        ValueError,
        "batch_norm: x must be [N, C, ...] of rank 3 or more",
        lambda: af.batch_norm(x23(), *[np.ones(3)] * 4),
    ),
    (
        ValueError,
        "batch_norm: mean must be [4], got [3]",
        lambda: af.batch_norm(image(), np.ones(4), np.ones(4), np.ones(3), np.ones(4)),
    ),
    (IndexError, "concat: there are no tensors", lambda: af.concat([])),
    (
        ValueError,
        "concat: value 1 is [2, 4], the first [2, 3]; only axis 0 may differ",
        lambda: af.concat([x23(), af.input((2, 4))], 0),
    ),
    (ValueError, "stack: there are no tensors", lambda: af.stack([])),
    (
        ValueError,
        "stack: value 1 is [3, 2], the first [2, 3]; all must have one shape",
        lambda: af.stack([x23(), af.input((3, 2))]),
    ),
    (ValueError, "split: axis 1 of [2, 3] does not divide into 2 equal parts", lambda: af.split(x23(), 2, 1)),
    (ValueError, "split: axis 0 of [2, 3] does not divide into 0 equal parts", lambda: af.split(x23(), 0)),
    (IndexError, "gather: indices are empty", lambda: af.gather(x23(), [])),
    (ValueError, "gather: index -1 is negative", lambda: af.gather(x23(), [0, -1])),
    (ValueError, "gather: index 2 is outside axis 0 of [2, 3]", lambda: af.gather(x23(), [2])),
    (TypeError, "gather: each index must be an integer, got 0.5", lambda: af.gather(x23(), [0.5])),
    (
        ValueError,
        "image_input: scale needs 1 value, or one per channel",
        lambda: af.image_input((1, 3, 2, 2), scale=np.ones(2)),
    ),
    (ValueError, "unknown op `nothing`", lambda: _native.apply("nothing", [])),
    (TypeError, "relu: there is no attribute `k`", lambda: _native.apply("relu", [x23()], {"k": 1})),
    (ValueError, "relu: takes the inputs (x), got 2", lambda: _native.apply("relu", [x23(), x23()])),
    (TypeError, "reshape: attribute shape is missing", lambda: _native.apply("reshape", [x23()])),
]


@pytest.mark.parametrize(("kind", "message", "make"), MISTAKES, ids=[m for _, m, _ in MISTAKES])
def test_mistakes_are_raised_at_the_call(
    kind: type[Exception], message: str, make: Callable[[], Any]
) -> None:
    with pytest.raises(kind) as raised:
        make()
    assert type(raised.value) is kind
    assert message in str(raised.value)


def line() -> int:
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


def test_messages_name_the_line_that_called() -> None:
    x = x23()
    with pytest.raises(ValueError) as raised:
        here = line(); x.reshape(5, 5)  # fmt: skip
    assert str(raised.value).endswith(f"(at {__file__}:{here})")
    with pytest.raises(ValueError) as raised:
        here = line(); x + np.ones(7)  # fmt: skip
    assert str(raised.value).endswith(f"(at {__file__}:{here})")


def test_compile_errors_name_the_line_that_built() -> None:
    x = af.input((1, 1, 2, 3))
    here = line(); y = af.affine(x, np.eye(2, 3).reshape(1, 6), 2, 3)  # fmt: skip
    with pytest.raises(NotImplementedError) as raised:
        af.compile(y * 2.0, target="h13")
    assert str(raised.value).startswith("affine: needs A14 or newer; target h13 is A13")
    assert str(raised.value).endswith(f"(at {__file__}:{here})")
    here = line(); y = x23().linear(np.full((4, 3), np.nan))  # fmt: skip
    with pytest.raises(ValueError, match="NaN at element 0, which half precision cannot hold") as raised:
        af.compile(y)
    assert str(raised.value).endswith(f"(at {__file__}:{here})")


COMPILE: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (ValueError, "compile: compress must be one of 'int8', 'int4', 'sparse', 'blockwise'", {"compress": "int2"}),
    (ValueError, "compile: compress_atol must be a number from 0 on, got -0.1", {"compress_atol": -0.1}),
    (ValueError, "compile: block_size must be from 1 on, got 0", {"block_size": 0}),
    (ValueError, "compile: opt must be 'routes', 0, 1, 2 or 'max', got 'fast'", {"opt": "fast"}),
    (ValueError, "unknown target `h99`; known are m1 to m5 and h11", {"target": "h99"}),
    (
        NotImplementedError,
        "program: target h11 is older than A13, which runs no MIL program",
        {"target": "h11"},
    ),
    (ValueError, 'compile: build_dir is empty; name a folder, which may be "."', {"build_dir": ""}),
    (ValueError, "unknown device `gpu`; known are `host` and `ane`", {"device": "gpu"}),
    (ValueError, "unknown numerics `exact`; known are `ane` (as the target, what costs nothing), `faithful` (as the target, all that is published), `ieee`", {"numerics": "exact"}),
]


@pytest.mark.parametrize(("kind", "message", "options"), COMPILE, ids=[m for _, m, _ in COMPILE])
def test_compile_refuses(kind: type[Exception], message: str, options: dict[str, Any]) -> None:
    with pytest.raises(kind) as raised:
        af.compile(x23().relu(), **options)
    assert type(raised.value) is kind
    assert message in str(raised.value)


@pytest.mark.parametrize("opt", ["routes", 0, None, False])
def test_compile_accepts_its_defaults(opt: Any) -> None:
    model = af.compile(
        x23().relu(), False, None, opt, None, 0.05, 32, False, "h16", device="host", numerics="a14"
    )
    assert (model.target, model.device, model.numerics) == ("h16", "host", "ane(A14)")


def test_graphs_that_are_no_programs_are_refused() -> None:
    with pytest.raises(ValueError, match="has no inputs; make one with input"):
        af.compile(_native.constant(np.ones(3)) + _native.constant(np.ones(3)))
    with pytest.raises(ValueError, match="results are fp16; turn a bool into numbers with select"):
        af.compile(truth())
    with pytest.raises(ValueError, match="compile: out is empty; give at least one Tensor"):
        af.compile([])
    with pytest.raises(TypeError, match="compile: out must be a Tensor, a sequence of Tensors or a dict"):
        af.compile(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="compile: out must be a Tensor"):
        af.compile([x23(), "x"])  # type: ignore[list-item]


def test_a_missing_engine_is_an_error() -> None:
    if next(device for device in af.devices() if device.name == "ane").available:
        pytest.skip("there is an engine here")
    with pytest.raises(RuntimeError, match="device `ane` is not available: .*run on `host`"):
        af.compile(x23().relu(), device="ane")


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=f"cannot make folder {tmp_path}/file/out: "):
        af.compile(x23().relu(), build_dir=tmp_path / "file" / "out")


def test_a_graph_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.ir"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=re.escape(f"{path}: this is no graph text, which is UTF-8")):
        af.load_graph(path)
