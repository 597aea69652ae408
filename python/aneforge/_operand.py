"""What may stand where a tensor or a weight is taken."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aneforge import _native
from aneforge._native import Tensor

Array: TypeAlias = NDArray[Any]


def integer(where: str, value: object) -> int:
    """`value` as an integer; floats and truth values are refused."""
    if isinstance(value, bool):
        raise TypeError(f"{where} must be an integer, got {value!r}")
    try:
        return operator.index(cast(Any, value))
    except TypeError:
        raise TypeError(f"{where} must be an integer, got {value!r}") from None


def value(operand: object) -> Tensor:
    """A tensor as it is; a number or an array as a half-precision constant."""
    if isinstance(operand, Tensor):
        return operand
    if isinstance(operand, (bool, int, float)):
        return _native.constant(np.float64(operand))
    return _native.constant(operand)


def weight(where: str, array: object) -> Tensor:
    """A floating-point array as a constant; a tensor as it is."""
    return array if isinstance(array, Tensor) else _native.constant(array, where)


def vector(where: str, array: object, shape: Sequence[int]) -> Tensor:
    """A bias, of integers too, as a constant of this shape."""
    if isinstance(array, Tensor):
        return array
    values = np.asarray(array)
    if values.size != int(np.prod(shape)):
        raise ValueError(f"{where} must have {int(np.prod(shape))} elements, got shape {values.shape}")
    return _native.constant(values.reshape(shape))
