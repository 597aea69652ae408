"""Functions of NumPy that are given tensors: those that an op computes build it, others say what to write."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

from aneforge import _native
from aneforge._late import np
from aneforge._native import Tensor
from aneforge._operand import value

ONE: dict[str, Callable[[Any], Tensor]] = {
    "negative": operator.neg,
    "positive": operator.pos,
    "reciprocal": lambda x: 1.0 / x,
    "absolute": operator.abs,
    "fabs": operator.abs,
    "arctan": lambda x: x.atan(),
} | {
    name: operator.methodcaller(name)
    for name in ("exp", "exp2", "log", "sqrt", "square", "sin", "cos", "tanh", "sign", "floor", "ceil", "logical_not")
}
"""Functions of one array."""

OPERATORS = {
    "add": ("__add__", "__radd__"),
    "subtract": ("__sub__", "__rsub__"),
    "multiply": ("__mul__", "__rmul__"),
    "divide": ("__truediv__", "__rtruediv__"),
    "power": ("__pow__", "__rpow__"),
    "matmul": ("__matmul__", "__rmatmul__"),
    "greater": ("__gt__", "__lt__"),
    "greater_equal": ("__ge__", "__le__"),
    "less": ("__lt__", "__gt__"),
    "less_equal": ("__le__", "__ge__"),
}
"""Functions of two arrays that are operators, and the same with the tensor on the right."""

OPS = ("maximum", "minimum", "equal", "not_equal")
"""Functions of two arrays that are ops of the same name."""

INSTEAD = {
    "rint": "af.round(x), which rounds halves away from zero",
    "remainder": "x - af.floor(x / y) * y",
    "floor_divide": "af.floor(x / y)",
    "log2": "af.log(x) * 1.442695",
    "log10": "af.log(x) * 0.4342945",
    "log1p": "af.log(x, eps=1.0)",
    "expm1": "af.exp(x) - 1.0",
    "fmax": "af.maximum(x, y)",
    "fmin": "af.minimum(x, y)",
    "float_power": "x ** y",
    "arcsinh": "af.log(x + af.sqrt(x * x + 1.0))",
    "hypot": "af.sqrt(x * x + y * y)",
    "logical_and": "af.where(a, b.astype('fp16'), 0.0) > 0.5",
    "logical_or": "af.where(a, 1.0, b.astype('fp16')) > 0.5",
    "tan": "af.sin(x) / af.cos(x)",
}
"""What to write where there is no op."""

REDUCTIONS = {"add": "sum", "maximum": "max", "minimum": "min"}
"""Methods of tensors that reduce with such a function."""


def array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """One of NumPy's functions of elements, as the op that computes it."""
    name = ufunc.__name__
    if method != "__call__":
        known = REDUCTIONS.get(name) if method == "reduce" else None
        instead = f"; write x.{known}(axis)" if known else ""
        raise TypeError(f"numpy.{name}.{method} computes arrays, and a Tensor has no values yet{instead}")
    if options:
        told = {"out": "there is no array to write into, as in array += x; write array + x"}
        option = next(iter(options))
        why = told.get(option, "leave it out")
        raise TypeError(f"numpy.{name} of a Tensor builds a node, and takes no {option}=; {why}")
    if name in ONE and len(inputs) == 1:
        return ONE[name](inputs[0])
    if name in OPS:
        return _native.apply(name, [value(operand) for operand in inputs])
    if name in OPERATORS:
        return _operator(name, *inputs)
    instead = f"write {INSTEAD[name]}" if name in INSTEAD else "compose it of those of af, or compute it of arrays before"
    raise TypeError(f"numpy.{name} has no op that computes it; {instead}")


def _operator(name: str, a: Any, b: Any) -> Any:
    """An operator of a tensor and what it takes on its other side."""
    forward, back = OPERATORS[name]
    found = getattr(a, forward)(b) if isinstance(a, Tensor) else getattr(b, back)(a)
    if found is NotImplemented:
        other = b if isinstance(a, Tensor) else a
        raise TypeError(f"numpy.{name} takes Tensors, arrays and numbers, got {type(other).__name__}")
    return found


def _concatenate(arrays: Sequence[Any], axis: int = 0) -> Tensor:
    return _native.apply("concat", [value(array) for array in arrays], {"axis": axis})


def _stack(arrays: Sequence[Any], axis: int = 0) -> Tensor:
    return _native.apply("stack", [value(array) for array in arrays], {"axis": axis})


def _where(condition: Any, x: Any, y: Any) -> Tensor:
    from aneforge._functions import where

    return where(condition, x, y)


def _transpose(a: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    return a.T if axes is None else a.transpose(axes)


def _reshape(a: Tensor, /, shape: int | Sequence[int]) -> Tensor:
    return a.reshape(shape)


def _clip(a: Any, a_min: float, a_max: float) -> Tensor:
    if any(isinstance(bound, (Tensor, np.ndarray)) or bound is None for bound in (a_min, a_max)):
        raise TypeError("numpy.clip of a Tensor takes two numbers; write af.minimum(af.maximum(x, lo), hi)")
    return value(a).clip(a_min, a_max)


def _squeeze(a: Tensor, axis: int | Sequence[int] | None = None) -> Tensor:
    return a.squeeze(axis)


def _expand_dims(a: Tensor, axis: int | Sequence[int]) -> Tensor:
    return a.expand_dims(axis)


def _ravel(a: Tensor) -> Tensor:
    return a.flatten()


def _flip(m: Tensor, axis: int | Sequence[int] | None = None) -> Tensor:
    return m.reverse(axis)


def _reduction(name: str) -> Callable[..., Tensor]:
    def reduction(a: Tensor, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Tensor:
        return getattr(a, name)(axis, keepdims=bool(keepdims))

    return reduction


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "concatenate": _concatenate,
    "stack": _stack,
    "where": _where,
    "transpose": _transpose,
    "reshape": _reshape,
    "clip": _clip,
    "squeeze": _squeeze,
    "expand_dims": _expand_dims,
    "ravel": _ravel,
    "flip": _flip,
    **{name: _reduction(name) for name in ("sum", "mean", "max", "min", "amax", "amin")},
}
"""Functions of whole arrays, with those of their parameters that have a meaning here."""

WRITE = {
    "var": "(x - x.mean(axis)).square().mean(axis)",
    "std": "(x - x.mean(axis)).square().mean(axis).sqrt()",
    "average": "x.mean(axis)",
    "prod": "x.log().sum(axis).exp(), of positive values",
    "dot": "x @ y",
    "inner": "x @ y.T",
    "outer": "x.reshape((-1, 1)) * y.reshape((1, -1))",
    "vdot": "(x * y).sum()",
    "tensordot": "reshapes, transposes and @",
    "einsum": "transposes, reshapes and @",
    "roll": "af.concat([x[-n:], x[:-n]], axis=0)",
    "pad": "af.concat([np.zeros(shape), x], axis), or padding= of conv and pools",
    "repeat": "af.tile of x with a new axis behind the one repeated",
    "swapaxes": "x.transpose(axes), with all axes in their new order",
    "moveaxis": "x.transpose(axes), with all axes in their new order",
    "trace": "(x * np.eye(n)).sum()",
    "norm": "x.square().sum(axis).sqrt()",
    "median": "af.sort(x), and the middle of it",
    "argsort": "af.sort(x, return_indices=True)",
    "cumprod": "af.cumsum(x.log()).exp(), of positive values",
    "diff": "x[1:] - x[:-1]",
    "ptp": "x.max(axis) - x.min(axis)",
    "count_nonzero": "af.where(x.not_equal(0.0), 1.0, 0.0).sum()",
    "nan_to_num": "x as it is: the engine keeps no NaN",
}
"""What to write in the place of functions of whole arrays."""

NAMES = {"vstack": "concat", "hstack": "concat", "dstack": "concat", "take": "gather"}
"""Functions of NumPy that this package has under other names."""


def array_function(
    self: Tensor, function: Any, types: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A function of NumPy of whole arrays: built where it is an op, else computed of constants, or refused by name."""
    import aneforge

    # There are others of the same name, such as those of `numpy.linalg`.
    if (ours := FUNCTIONS.get(function.__name__)) is not None and function is getattr(np, function.__name__):
        try:
            inspect.signature(ours).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"numpy.{function.__name__} of a Tensor: {error}") from None
        return ours(*args, **kwargs)
    if (write := WRITE.get(function.__name__)) is not None:
        raise TypeError(
            f"numpy.{function.__name__} computes arrays, and a Tensor has no values yet; write {write}; af.eval(x) computes one"
        )
    try:
        return function._implementation(*args, **kwargs)
    except TypeError as error:
        name = NAMES.get(function.__name__, function.__name__)
        if not inspect.isfunction(getattr(aneforge, name, None)):
            raise
        why = f"numpy.{function.__name__} computes arrays, and a Tensor has no values yet; write af.{name}"
        raise TypeError(why) from error


def install() -> None:
    """Makes NumPy hand its functions to tensors."""
    for name, hook in (("__array_ufunc__", array_ufunc), ("__array_function__", array_function)):
        hook.__qualname__ = f"Tensor.{name}"
        setattr(Tensor, name, hook)
