"""What may stand where a tensor or a weight is taken."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from aneforge import _native
from aneforge._late import np
from aneforge._native import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


def integer(where: str, value: object) -> int:
    """`value` as an integer; floats and truth values are refused."""
    if isinstance(value, bool):
        raise TypeError(f"{where} must be an integer, got {value!r}")
    try:
        return operator.index(cast(Any, value))
    except TypeError:
        raise TypeError(f"{where} must be an integer, got {value!r}") from None


MOST = 2**31 - 1
"""The most of what is counted, or measured."""


def within(where: str, value: object, least: int = 1, most: int = MOST) -> int:
    """`value` as an integer from `least` to `most`."""
    number = integer(where, value)
    if least <= number <= most:
        return number
    shown = number if number.bit_length() <= 128 else f"an integer of {number.bit_length()} bits"
    raise ValueError(f"{where} must be from {least} to {most}, got {shown}")


def path(where: str, value: str | PathLike[str], what: str = "file") -> str:
    """A path as a string; an empty one is refused."""
    if not (name := os.fspath(value)):
        raise ValueError(f"{where} is empty; name a {what}")
    return name


def value(operand: object) -> Tensor:
    """A tensor as it is; a number or an array as a half-precision constant."""
    if isinstance(operand, Tensor):
        return operand
    if isinstance(operand, (bool, int, float)):
        return _native.constant(np.float64(operand))
    return _native.constant(operand)


def scores_mask(where: str, given: object) -> Tensor:
    """What is added to scores. Truth values hide in one library what they show in another, so they are refused."""
    if (given if isinstance(given, Tensor) else np.asarray(given)).dtype == "bool":
        raise TypeError(
            f"{where} is added to the scores and takes no truth values; write np.where(keep, 0, -1e4), or "
            "af.where(keep, 0.0, -1e4) of a tensor"
        )
    return value(given)


def weight(where: str, array: object) -> Tensor:
    """An array as a constant; a tensor as it is."""
    return array if isinstance(array, Tensor) else _native.constant(array, where)


def reduced(
    name: str,
    x: Tensor,
    axes: object,
    axis: object,
    dim: object,
    keepdims: bool | None,
    keepdim: bool | None,
) -> Tensor:
    """A reduction over some axes, by any of their names, which stay with size one if they are kept."""
    said = name.removeprefix("reduce_")
    over = axes_of(said, x, axes, axis, dim)
    given = [keep for keep in (keepdims, keepdim) if keep is not None]
    if len(given) > 1:
        raise TypeError(f"{said}: keepdims and keepdim are names of one argument; give one of them")
    result = _native.apply(name, [x], {"axes": over})
    return result if given in ([], [True]) or over == () else _native.apply("squeeze", [result], {"axes": over})


def axes_of(name: str, x: Tensor, axes: object, axis: object, dim: object) -> object:
    """Axes by any of the argument's names; where none are given, all that the op can mean."""
    given = [a for a in (axes, axis, dim) if a is not None]
    if len(given) > 1:
        raise TypeError(f"{name}: axes, axis and dim are names of one argument; give one of them")
    if given:
        return given[0]
    if name == "expand_dims":
        raise TypeError("expand_dims: axes is missing; say where the new axes go")
    return tuple(at for at, size in enumerate(x.shape) if name != "squeeze" or size == 1)


def vector(where: str, array: object, shape: Sequence[int]) -> Tensor:
    """A bias, of integers too, as a constant of this shape."""
    if isinstance(array, Tensor):
        return array
    values = _native.array(array, where)
    if values.size != int(np.prod(shape)):
        raise ValueError(f"{where} must have {int(np.prod(shape))} elements, got shape {values.shape}")
    return _native.constant(values.reshape(shape))
