"""Functions of NumPy that are given tensors."""

from __future__ import annotations

import operator
from typing import Any

import aneforge as af
import numpy as np
import pytest
from aneforge import Tensor, _numpy

A = np.arange(-12, 12, dtype=np.float32).reshape(2, 3, 4) / 8
B = np.float32([0.5, -0.25, 1, 2])


def of(build: Any, *given: np.ndarray) -> np.ndarray:
    """What `build` makes of inputs, fed with `given`, beside what it makes of the arrays."""
    inputs = [af.input(array.shape) for array in given]
    built = build(*inputs)
    assert isinstance(built, Tensor), built
    got, want = af.eval(built, dict(zip(inputs, given, strict=True)), device="host"), build(*given)
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3)
    assert got.shape == want.shape
    return got


ONE = sorted(set(_numpy.ONE) - {"logical_not"})


@pytest.mark.parametrize("name", ONE)
def test_functions_of_one_array(name: str) -> None:
    of(getattr(np, name), np.abs(A) + 0.5 if name in ("log", "sqrt", "reciprocal") else A)


@pytest.mark.parametrize("name", sorted({*_numpy.OPERATORS, *_numpy.OPS} - {"matmul"}))
def test_functions_of_two_arrays_on_either_side(name: str) -> None:
    function = getattr(np, name)
    a, b = (np.abs(A) + 0.5, np.abs(B)) if name in ("power", "divide") else (A, B)
    of(function, a, b)
    for other in (b, b.tolist(), np.float32(1.5), np.float64(1.5), 1.5, 2):
        of(lambda x, other=other: function(x, other), a)
        of(lambda x, other=other: function(other, x), a)


@pytest.mark.parametrize("other", [B, np.float32(2), np.float64(2), np.array(2.0), np.arange(4)], ids=repr)
def test_operators_with_arrays_on_the_left(other: Any) -> None:
    for name in ("add", "sub", "mul", "truediv", "gt", "ge", "lt", "le", "eq", "ne"):
        of(lambda x, apply=getattr(operator, name): apply(other, x), np.abs(A) + 0.5)
    of(lambda x: other**x, np.abs(A)) if np.min(other) > 0 else None


def test_products() -> None:
    matrix = np.float32(np.arange(12).reshape(4, 3)) / 8
    of(lambda x: x @ matrix, A)
    of(lambda x: np.matmul(x, matrix), A)
    of(lambda x: matrix @ x, A[0].T.copy().T)
    of(lambda x: np.matmul(matrix, x), A[0])
    of(np.matmul, A[0], matrix)


def test_truth_values() -> None:
    of(lambda x: np.logical_not(x > 0) if isinstance(x, Tensor) else ~(x > 0), A)
    of(lambda x: np.where(x > 0, x, 0.0), A)
    of(lambda x: np.where(A > 0, x, A), A)
    assert (A == af.input(A.shape)).dtype == "bool", "NumPy compares elements; == of a tensor is identity"


FUNCTIONS = {
    "concatenate": lambda x: np.concatenate([x, A], axis=1),
    "concatenate first": lambda x: np.concatenate((x, x)),
    "stack": lambda x: np.stack([x, x], axis=-1),
    "transpose": np.transpose,
    "transpose axes": lambda x: np.transpose(x, (1, 0, 2)),
    "reshape": lambda x: np.reshape(x, (4, -1)),
    "ravel": np.ravel,
    "clip": lambda x: np.clip(x, -0.5, 0.25),
    "squeeze": lambda x: np.squeeze(np.expand_dims(x, 1), axis=1),
    "expand_dims": lambda x: np.expand_dims(x, (0, 2)),
    "flip": lambda x: np.flip(x, 1),
    "flip all": np.flip,
    "abs": np.abs,
} | {
    f"{name} {options}": lambda x, name=name, options=options: getattr(np, name)(x, **options)
    for name in ("sum", "mean", "max", "min", "amax")
    for options in ({}, {"axis": 1}, {"axis": (0, -1), "keepdims": True})
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_whole_arrays(name: str) -> None:
    of(FUNCTIONS[name], A)


REFUSED = {
    "numpy.add.reduce computes arrays, and a Tensor has no values yet; write x.sum": lambda x: np.add.reduce(x),
    "numpy.add.outer computes arrays": lambda x: np.add.outer(x, x),
    "numpy.add of a Tensor builds a node, and takes no out=; .* array \\+= x; write array": lambda x: np.add(
        A, x, out=A.copy()
    ),
    "numpy.exp of a Tensor builds a node, and takes no where=; leave it out": lambda x: np.exp(x, where=A > 0),
    "numpy.exp of a Tensor .* no dtype=": lambda x: np.exp(x, dtype=np.float32),
    r"numpy.rint has no op that computes it; write af.round\(x\), which rounds halves away": np.rint,
    "numpy.arcsin has no op that computes it; compose it": np.arcsin,
    "numpy.isnan has no op": np.isnan,
    "numpy.hypot has no op that computes it; write": lambda x: np.hypot(x, x),
    "numpy.divmod has no op": lambda x: np.divmod(x, 2.0),
    "numpy.add takes Tensors, arrays and numbers, got str": lambda x: np.add(x, "a"),
    "numpy.sum of a Tensor: got an unexpected keyword argument 'dtype'": lambda x: np.sum(x, dtype=np.float32),
    "numpy.where of a Tensor: missing a required argument": lambda x: np.where(x > 0),
    "numpy.clip of a Tensor takes two numbers": lambda x: np.clip(A, x, 1.0),
    r"numpy.std computes arrays, .*; write \(x - x.mean\(axis\)\).square\(\)": np.std,
    "numpy.dot computes arrays, .*; write x @ y; af.eval": lambda x: np.dot(x, x),
    r"numpy.norm computes arrays, .*; write x.square\(\)": np.linalg.norm,
    "the operand is a masked array": lambda x: np.add(np.ma.masked_array(A), x),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_no_op_computes_is_refused_by_name(message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        REFUSED[message](af.input(A.shape))


def test_nothing_becomes_an_array_of_objects() -> None:
    x = af.input((2, 3))
    for build in (
        lambda: np.array([x, x]), lambda: np.asarray(x), lambda: np.append(x, x), lambda: np.full((2,), x),
        lambda: np.dot(x, A), lambda: np.broadcast_to(x, (2, 2, 3)), lambda: np.linalg.norm(x), lambda: np.var(x),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="has no values|no values yet|not supported|numpy"):
            build()


def test_the_line_of_the_caller_is_that_of_the_node() -> None:
    with pytest.raises(ValueError, match=r"\(at .*test_numpy\.py:\d+\)"):
        np.add(af.input((2, 3)), af.input((4,)))
