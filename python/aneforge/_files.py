"""Graphs in files, and a quick look at a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

from aneforge import _env, _native
from aneforge._blame import some
from aneforge._compile import compile
from aneforge._native import Tensor
from aneforge._operand import Array
from aneforge._operand import path as named


def save_graph(out: Tensor | Sequence[Tensor], path: str | PathLike[str]) -> None:
    """Writes what `out` is made from as text, with constants in full and the names of inputs.

    `load_graph` and the command line read it. A file that is there is replaced as a whole.

    Args:
        out: the result, or several. A dict is refused, as the text has no names for results.
        path: usually with `.ir` at its end.
    """
    if isinstance(out, Mapping):
        raise TypeError("save_graph: out must be a Tensor or a sequence of them, got a dict; files keep no names")
    some("save_graph", out)
    _native.save_graph(out, named("save_graph: path", path))


def load_graph(path: str | PathLike[str]) -> Tensor | tuple[Tensor, ...]:
    """The result of a graph that `save_graph` wrote, or a tuple of several.

    Its inputs are new ones, in the same order and with the same names.

    Raises:
        ValueError: the file is no graph; the message names it, and its line.
        OSError: it cannot be read.
    """
    results = _native.load_graph(named("load_graph: path", path))
    return results[0] if len(results) == 1 else tuple(results)


def _each(change: Callable[..., Any], out: Any, *others: Any) -> Any:
    """What `change` makes of every result, and of what the others have in its place."""
    if isinstance(out, Mapping):
        return {name: change(item, *(other[name] for other in others)) for name, item in out.items()}
    if isinstance(out, (list, tuple)):
        return tuple(map(change, out, *others))
    return change(out, *others)


def _is_truth(item: object) -> bool:
    return isinstance(item, Tensor) and item.dtype == "bool"


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
        A float32 array, or what the model of several gives. Comparisons give arrays of truth values.
    """
    if feeds is not None and not isinstance(feeds, Mapping):
        raise TypeError(f"eval: feeds must be a dict of arrays by input or name, got {type(feeds).__name__}")
    some("eval", out)
    numbers = _each(lambda item: item.astype("fp16") if _is_truth(item) else item, out)
    values = _computed(numbers, dict(feeds or {}), target, device, numerics)
    return _each(lambda item, array: array.astype(bool) if _is_truth(item) else array, out, values)


def _computed(
    out: Any,
    feeds: dict[Tensor | str, Array],
    target: str | None,
    device: str | None,
    numerics: str | None,
) -> Any:
    """What `eval` gives, with truth values as numbers."""
    if feeds or _native.feeds(out):
        return compile(out, target=target, device=device, numerics=numerics)._call((), feeds)
    values = _native.constant_values(
        out,
        target if target is not None else _env.target(),
        _env.host(numerics)["numerics"],
    )
    if isinstance(out, Mapping):
        return dict(zip(out, values, strict=True))
    return values[0] if isinstance(out, Tensor) else tuple(values)
