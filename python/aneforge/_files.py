"""Graphs in files, and a quick look at a value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from aneforge import _env, _native
from aneforge._compile import compile
from aneforge._native import Tensor
from aneforge._operand import Array


def save_graph(out: Tensor | Sequence[Tensor], path: str | PathLike[str]) -> None:
    """Writes what `out` is made from as text, with constants in full and the names of inputs.

    `load_graph` and the command line read it. A file that is there is replaced as a whole.

    Args:
        out: the result, or several.
        path: usually with `.ir` at its end.
    """
    _native.save_graph(out, os.fspath(path))


def load_graph(path: str | PathLike[str]) -> Tensor | tuple[Tensor, ...]:
    """The result of a graph that `save_graph` wrote, or a tuple of several.

    Its inputs are new ones, in the same order and with the same names.

    Raises:
        ValueError: the file is no graph; the message names its line.
        OSError: it cannot be read.
    """
    results = _native.load_graph(os.fspath(path))
    return results[0] if len(results) == 1 else tuple(results)


def eval(
    out: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    feeds: Mapping[Tensor | str, Array] | None = None,
    *,
    target: str | None = None,
    device: str | None = None,
    numerics: str | None = None,
) -> Any:
    """The value of `out`, compiled and run once: for a quick look. To run it again, keep what `compile` gives.

    What needs no input is no program, and is computed by the ops' definitions instead.

    Args:
        out: the result, or several.
        feeds: an array for each input that `out` needs, by its tensor or its name.
        target: the chip to compile for; see `compile`.
        device: the device to run on; see `compile`.
        numerics: the host's arithmetic; see `compile`.

    Returns:
        A float32 array, or what the model of several gives.
    """
    feeds = dict(feeds or {})
    if not feeds and not _native.feeds(out):
        values = _native.constant_values(
            out,
            target if target is not None else _env.target(),
            numerics if numerics is not None else _env.numerics(),
        )
        if isinstance(out, Mapping):
            return dict(zip(out, values, strict=True))
        return values[0] if isinstance(out, Tensor) else tuple(values)
    return compile(out, target=target, device=device, numerics=numerics)._call((), feeds)
