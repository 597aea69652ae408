"""Messages for arguments of a wrong type: the function, the argument, and what it takes."""

from __future__ import annotations

import functools
import inspect
import numbers
import operator
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from aneforge._late import np
from aneforge._native import Model, Noise, Tensor

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")

NOT_ARRAYS = (str, bytes, bytearray, dict, set, frozenset, type(None), type, Model, Tensor)


def is_array(value: object) -> bool:
    """Whether `value` may be an array: what that really is, NumPy decides later."""
    if isinstance(value, NOT_ARRAYS):
        return False
    known = isinstance(value, (numbers.Real, list, tuple, np.ndarray, np.generic))
    return known or any(hasattr(value, name) for name in ("__array__", "__dlpack__", "__buffer__", "__len__"))


def is_named(value: object) -> bool:
    """Whether `value` has Tensors under names."""
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items()
    )


def is_integer(value: object) -> bool:
    """Whether `value` counts or is a place, as truth values do not."""
    try:
        operator.index(cast(Any, value))
    except TypeError:
        return False
    return not isinstance(value, bool)


def is_fed(value: object) -> bool:
    """Whether `value` has arrays by the inputs that they are for."""
    return isinstance(value, Mapping) and all(isinstance(key, Tensor) and is_array(item) for key, item in value.items())


def is_row(value: object, *kinds: str) -> bool:
    """Whether `value` is a tuple or a list of these kinds of values."""
    if not isinstance(value, (tuple, list)) or len(value) != len(kinds):
        return False
    return all(KINDS[kind][0](item) for kind, item in zip(kinds, value, strict=True))


KINDS: dict[str, tuple[Callable[[object], bool], str, str]] = {
    "Tensor": (lambda v: isinstance(v, Tensor), "a Tensor", "Tensors"),
    "Array": (is_array, "an array", "arrays"),
    "int": (is_integer, "an integer", "integers"),
    "float": (lambda v: isinstance(v, numbers.Real), "a number", "numbers"),
    "bool": (lambda v: isinstance(v, (bool, np.bool_)), "True or False", "truth values"),
    "str": (lambda v: isinstance(v, str), "a string", "strings"),
    "PathLike[str]": (lambda v: isinstance(v, os.PathLike), "a path", "paths"),
    "_native.Noise": (lambda v: isinstance(v, Noise), "an af.train.Noise", ""),
    "tuple[float, float]": (lambda v: is_row(v, "float", "float"), "a pair of numbers", ""),
    "tuple[int, int]": (lambda v: is_row(v, "int", "int"), "a pair of integers", ""),
    "tuple[str, int, int, float]": (lambda v: is_row(v, "str", "int", "int", "float"), "what af.train.cosine returned", ""),
    "Mapping[Tensor, Array]": (lambda v: is_fed(v), "a dict of arrays by Tensor", ""),
    "Mapping[str, Tensor]": (lambda v: is_named(v), "a dict of Tensors by name", ""),
    "None": (lambda v: v is None, "None", ""),
}
"""Parts of annotations: whether a value is of it, and what one and several are called."""


def said(annotation: str) -> tuple[Callable[[object], bool], str] | None:
    """Whether a value fits an annotation, and what that is in words; None where everything fits."""
    fits, words = [], []
    for part in annotation.split(" | "):
        item = re.fullmatch(r"(?:Sequence|Iterable)\[(\w+)\]", part)
        if item and item[1] in KINDS:
            each, _, several = KINDS[item[1]]
            fits.append(functools.partial(all_fit, each))
            words.append(f"a sequence of {several}")
        elif part in KINDS:
            fits.append(KINDS[part][0])
            words.append(KINDS[part][1])
        else:
            return None
    *first, last = words
    return lambda v: any(fit(v) for fit in fits), f"{', '.join(first)} or {last}" if first else last


def kind_of(value: object) -> str:
    """The type of `value`, and where it is not that of a container, of what is wrong in it."""
    kind = type(value).__name__
    if isinstance(value, dict):
        wrong = [f"the key {key!r}" for key in value if not isinstance(key, str)]
        wrong += [f"{type(item).__name__} under {key!r}" for key, item in value.items() if not isinstance(item, Tensor)]
        return f"{kind} with {wrong[0]}" if wrong else kind
    return kind


def all_fit(fits: Callable[[object], bool], values: object) -> bool:
    """Whether `values` is a sequence of what fits."""
    if isinstance(values, (str, bytes, Tensor)) or not isinstance(values, Iterable):
        return False
    return all(fits(value) for value in values)


def blame(name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> str | None:
    """What is wrong with the type of the first argument that `function` does not take."""
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return None
    for key, value in bound.items():
        parameter = signature.parameters[key]
        taken = said(parameter.annotation) if isinstance(parameter.annotation, str) else None
        values = value if parameter.kind is parameter.VAR_POSITIONAL else [value]
        for given in values if taken else ():
            fits, words = taken  # type: ignore[misc]
            if not fits(given):
                return f"{name}: {key} must be {words}, got {kind_of(given)}"
    return None


def too_large(name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> str | None:
    """Which argument is an integer that no floating-point number can be."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError:
        return None
    for key, value in bound.items():
        if isinstance(value, int) and abs(value) >= 1 << 1024:
            return f"{name}: {key} is too large: an integer of {value.bit_length()} bits"
    return None


FOLDER = os.path.join(os.path.dirname(__file__), "")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns of the innermost line outside this package."""
    frame, level = sys._getframe().f_back, 2
    while frame and frame.f_back and frame.f_code.co_filename.startswith(FOLDER):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def some(name: str, out: object) -> None:
    """Refuses a container without results."""
    if isinstance(out, (list, tuple, Mapping)) and not out:
        raise ValueError(f"{name}: out is empty; give at least one Tensor")


def blaming(function: F, name: str) -> F:
    """`function`, whose errors name the argument of a wrong type where there is one."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            if str(error).startswith(f"{name}:"):
                raise
            if isinstance(error, UnicodeEncodeError):
                raise ValueError(f"{name}: {error.object!r} is no text in UTF-8") from None
            if (why := blame(name, function, args, kwargs)) is not None:
                raised: Exception = TypeError(why)
            elif isinstance(error, OverflowError) and (why := too_large(name, function, args, kwargs)) is not None:
                raised = ValueError(why)
            elif str(error).startswith("the constant"):
                raised = type(error)(f"{name}: {error}")
            else:
                raise
        raise raised

    return cast(F, call)


def blaming_methods(*names: str) -> Callable[[type[C]], type[C]]:
    """Makes errors of these methods of a class name the argument of a wrong type; those of `__init__` begin with the class."""

    def made(cls: type[C]) -> type[C]:
        for name in names:
            setattr(cls, name, blaming(getattr(cls, name), cls.__name__ if name == "__init__" else name))
        return cls

    return made
