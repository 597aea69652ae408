"""Texts that are given to encoders and rerankers, and how far the work on them is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aneforge._late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARE = 256
"""The fewest texts between two steps of a progress bar."""


def listed(where: str, given: object, what: str) -> list[Any]:
    """The elements of a sequence; a text is none."""
    if not isinstance(given, (str, bytes)):
        try:
            return list(given)  # type: ignore[call-overload]
        except TypeError:
            pass
    raise TypeError(f"{where} must be {what}, got {type(given).__name__}")


def texts(where: str, given: object) -> list[str]:
    """Each text of a sequence."""
    found = listed(where, given, "a str or a sequence of str")
    for index, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"{where} must be a str or a sequence of str, got {type(text).__name__} at {index}")
    return found


def in_shares(
    count: int, shown: bool | None, share: int, work: Callable[[slice], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """What `work` gives for all of `count` texts; where progress is shown, for some of them at a time."""
    if not shown or count <= share:
        return work(slice(0, count))
    with _bar(count) as advance:
        parts = []
        for start in range(0, count, share):
            parts.append(work(slice(start, start + share)))
            advance(len(parts[-1]))
    return np.concatenate(parts)


@contextmanager
def _bar(count: int) -> Iterator[Callable[[int], Any]]:
    """A progress bar: that of tqdm, if it is installed, or a line on standard error."""
    try:
        tqdm = importlib.import_module("tqdm.auto")
    except ImportError:
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            sys.stderr.write(f"\r{done} of {count} texts")
            sys.stderr.flush()

        yield advance
        sys.stderr.write("\n")
    else:
        with tqdm.tqdm(total=count, unit="text") as bar:
            yield bar.update


def tensors(where: str, rows: NDArray[np.float32]) -> Any:
    """An array as a tensor of PyTorch."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise ImportError(f"{where}: convert_to_tensor needs PyTorch, which is not installed") from None
    return torch.from_numpy(rows)
