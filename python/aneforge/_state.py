"""State: what a device keeps from run to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from aneforge import _env, _native
from aneforge._late import np
from aneforge._native import Model, State
from aneforge._operand import Array, path


def state(
    shape: Sequence[int] | int,
    name: str | None = None,
    init: float | Array | None = None,
    *,
    device: str | None = None,
) -> State:
    """A tensor whose value a device keeps from run to run, and that models share.

    A graph reads it like any tensor, and `compile(out, carry={state: next})` makes a run change it. Models that read or change
    it use the same memory, so that one may fill a cache and another go on from there; nothing is copied.

    Args:
        shape: its shape; its values are half precision.
        name: what models call it, and files that keep it.
        init: what it holds at first: a number or an array; by default zeros.
        device: where it lies; by default where models run.
    """
    chosen = device if device is not None else _env.device()
    made = _native.state(shape, name=name, device=chosen, host=_env.host())
    if init is not None:
        set_state(made, init)
    return made


def set_state(self: State, values: Any) -> None:
    """Gives it other values: an array of its shape, or a number for all."""
    values = np.asarray(values)
    if values.ndim == 0:
        values = np.broadcast_to(values, self.shape)
    self._set(values)


def restore(self: Model, values: dict[str, Any]) -> None:
    """Gives all state these values, as `state()` returned them: all of it or, where something does not fit, none."""
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise TypeError(f"restore: values must be a dict of arrays by name, as state() returns, got {type(values).__name__}")
    self._restore(dict(values))


def save_state(self: Model, path_: str | PathLike[str], /) -> None:
    """Writes all state that the model reads or changes to a safetensors file, under its names.

    The file is replaced as a whole: a reader finds the old state or the new one.
    """
    self._save_state(path("save_state: path", path_))


def load_state(self: Model, path_: str | PathLike[str], /) -> None:
    """Gives all state what `save_state` wrote: all of it or, where the file is not one of this model's state, none."""
    self._load_state(path("load_state: path", path_))


def install() -> None:
    """Makes states settable, and models able to keep theirs."""
    methods = (
        (State, "set", set_state),
        (Model, "restore", restore),
        (Model, "save_state", save_state),
        (Model, "load_state", load_state),
    )
    for cls, name, method in methods:
        method.__name__, method.__qualname__ = name, f"{cls.__name__}.{name}"
        setattr(cls, name, method)
