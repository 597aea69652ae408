"""What calling a model or an encoder does, with a page of its own."""

from __future__ import annotations

import weakref
from collections.abc import Generator
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

from aneforge._diagnose import diagnose_all_chips, diagnose_model, diff_numerics
from aneforge._explain import explain_model
from aneforge._native import Encoder, Model
from aneforge._operand import path as named
from aneforge._profile import profile_model

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor


def call_model(self: Any, /, *arrays: Any, **named: Any) -> Any:
    """Runs the model: one array per input, in the order in which the inputs were made, or by name.

    Arrays may be anything that NumPy takes, of any real type; they are rounded to half precision. Where inputs
    have names, as in `af.input(shape, name="image")`, `model(image=array)` feeds them.

    Returns:
        One float32 array; a tuple when a sequence was compiled, a dict when a dict of results was.

    Raises:
        ValueError: a wrong number of arrays, or a wrong shape.
        TypeError: real numbers for a `uint8` input, a name that no input has, or an input that is given twice.
    """
    return self._call(arrays, named)


def call_encoder(self: Any, /, texts: Any, normalize: bool = True, long: str = "cut") -> Any:
    """Encodes texts: a float32 array with one row per text. A single text gives one row.

    Args:
        texts: a string, or a sequence of them.
        normalize: whether rows have unit length.
        long: what becomes of texts of more than `max_seq_length` tokens: `"cut"` leaves out what is beyond; `"windows"` encodes
            it in further parts, and gives the mean of all, weighted by tokens (the greatest, with pooling by it).
    """
    if long not in ("cut", "windows"):
        raise ValueError(f"long must be 'cut' or 'windows', got {long!r}")
    return self._call(texts, normalize, long == "windows")


def encoder_batches(self: Any, texts: Any) -> str:
    """Which texts would run together, through programs for how many texts of which length, and why.

    Texts are put together by length, the longest first, and padded to a multiple of 4 tokens (of 8 from 33 on, 16 from 97 on, 32
    from 193 on). A batch is full with 512 rows of tokens or 32 texts, and has a half, a quarter and so on of that where no more
    texts are near in length. Vectors do not depend on it.

    Args:
        texts: a string, or a sequence of them.
    """
    return self._batches(texts)


def save_model(self: Any, path: str | PathLike[str]) -> None:
    """Writes the compiled program as one file, which `load_model` and the command line read.

    It has everything: program, weights, names, target, versions and checksums; but not what state holds, which `save_state`
    keeps, and which is zeros in a model that is loaded. A file that is there is replaced as a
    whole, also when the process is killed or the machine stops meanwhile.

    Args:
        path: usually with `.aneforge` at its end.

    Raises:
        OSError: it cannot be written.
    """
    self._save(named("save: path", path))


class Placement(NamedTuple):
    """Where a part of a model runs, and how that is known."""

    device: str
    """`host`, `ane`, or `ane (stand-in)`."""
    how: tuple[str, ...]
    """What shows it, one sentence each."""


def place_model(self: Any) -> list[Placement]:
    """Where each of the model's programs runs, and how that is known: one entry for a model that is one program.

    A program never runs elsewhere than where it was asked to; this is the receipt.
    """
    return [Placement(device, tuple(how)) for device, how in self._placement()]


class Submitted:
    """A call that goes on. `result()` waits for it and gives what the call would have; so does `await`."""

    def __init__(self, call: Future[Any]) -> None:
        self._call = call

    def result(self, timeout: float | None = None) -> Any:
        """Waits, at most `timeout` seconds, and gives the results.

        Raises:
            TimeoutError: the call takes longer; it goes on.
        """
        return self._call.result(timeout)

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._call.done()

    def __await__(self) -> Generator[Any, None, Any]:
        # Importing it takes longer than all of this package.
        import asyncio

        return asyncio.wrap_future(self._call).__await__()


_threads: weakref.WeakKeyDictionary[Any, ThreadPoolExecutor] = weakref.WeakKeyDictionary()


def submit_model(self: Any, /, *arrays: Any, **named: Any) -> Submitted:
    """Begins what `model(...)` does and comes back at once, so that the caller's work goes on meanwhile; calls of one model run
    in their order.

    The engine runs one program at a time. What overlaps is the host's part: two models, or a model and its caller.

    Returns:
        What waits for the results, `submitted.result()` or `await submitted`.
    """
    thread = _threads.get(self)
    if thread is None:
        from concurrent.futures import ThreadPoolExecutor

        thread = _threads[self] = ThreadPoolExecutor(1, "aneforge-submit")
    return Submitted(thread.submit(call_model, self, *arrays, **named))


def install() -> None:
    """Makes models and encoders callable, and models able to say where their time goes, what half precision does, and to be
    saved.
    """
    methods = (
        (Model, "__call__", call_model),
        (Encoder, "__call__", call_encoder),
        (Encoder, "batches", encoder_batches),
        (Model, "profile", profile_model),
        (Model, "diagnose", diagnose_model),
        (Model, "diagnose_all_chips", diagnose_all_chips),
        (Model, "diff_numerics", diff_numerics),
        (Model, "explain", explain_model),
        (Model, "placement", place_model),
        (Model, "save", save_model),
        (Model, "submit", submit_model),
    )
    for cls, name, method in methods:
        method.__name__, method.__qualname__ = name, f"{cls.__name__}.{name}"
        setattr(cls, name, method)
