"""The only place that reads environment variables."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from aneforge import _native
from aneforge._operand import within

_threads_are_set = False


def _word(option: str) -> str | None:
    """The variable that stands in for an option; an error about its value names it."""
    variable = f"ANEFORGE_{option.upper()}"
    word = _read(variable)
    if word is not None:
        try:
            _native.check_word(option, word)
        except ValueError as error:
            raise ValueError(f"{variable}: {error}") from None
    return word


def _read(name: str) -> str | None:
    """The text of a variable; one that is empty counts as unset."""
    value = os.environ.get(name)
    return _text(name, value) if value else None


def _text(where: str, value: str) -> str:
    """A text as it is, where it is one: bytes of a variable that are no UTF-8 are refused."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where} is no text in UTF-8, got {value!r}") from None
    return value


def _answer(name: str) -> bool:
    """Whether a variable says yes; unset, it says no."""
    value = _read(name)
    try:
        return value is not None and _native.truth(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def target() -> str | None:
    """`ANEFORGE_TARGET`: the chip that programs are compiled for when `compile` names none."""
    return _word("target")


def device() -> str | None:
    """`ANEFORGE_DEVICE`: the device that models run on when `compile` names none; without it `ane` where
    `ANEFORGE_ENGINE_LIBRARY` names a library for the engine, which is never set to run on the host.
    """
    return _word("device") or ("ane" if stands_in() else None)


def host(
    numerics: str | None = None, sums: str | None = None, isa: str | None = None, threads: int | None = None
) -> dict[str, Any]:
    """How the host computes: as asked for, else by `ANEFORGE_NUMERICS`, `ANEFORGE_SUMS` and `ANEFORGE_ISA`.

    Whoever asks is about to open a device, so what the environment says of the engine is passed on here.
    """
    engine()
    asked = {"numerics": numerics, "sums": sums, "isa": isa}
    for name, value in asked.items():
        asked[name] = _word(name) if value is None else _text(name, value)
    count = None if threads is None else within("threads", threads, 1, _native.max_threads())
    return {**asked, "threads": count}


def engine() -> None:
    """`ANEFORGE_ENGINE_LIBRARY`: the library that the engine is reached through in the place of the system's own, such as
    the stand-in. `ANEFORGE_ISOLATION`: `process`, or `worker` to run everything on the engine in another process.
    """
    try:
        _native.engine(
            library=_read("ANEFORGE_ENGINE_LIBRARY"),
            folder=cache_dir() / "engine",
            worker=_worker(),
            backoff=compile_backoff()[0],
            isolation=_read("ANEFORGE_ISOLATION") or "process",
        )
    except ValueError as error:
        raise ValueError(f"ANEFORGE_ISOLATION: {error}") from None


def _worker() -> list[str] | None:
    """The command of another process: this interpreter with this process's path, wherever modules come from; none where there is no
    interpreter that could be started, as in programs that contain one.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    start = f"import sys; sys.path[:] = {sys.path!r}; from aneforge import _native; _native.worker()"
    return [sys.executable, "-c", start]


def stands_in() -> bool:
    """Whether the engine is reached through a library of the caller's, which needs no rest after a failed compile."""
    return _read("ANEFORGE_ENGINE_LIBRARY") is not None


def compile_backoff() -> tuple[float, bool]:
    """`ANEFORGE_COMPILE_BACKOFF`, in seconds, and `ANEFORGE_COMPILE_BREAKER_STRICT`: pacing after a failed
    compile on the engine, which `ANEFORGE_DISABLE_COMPILE_BREAKER` switches off.
    """
    if _answer("ANEFORGE_DISABLE_COMPILE_BREAKER"):
        return 0.0, False
    value = os.environ.get("ANEFORGE_COMPILE_BACKOFF") or "15"
    try:
        seconds = float(value)
    except ValueError:
        raise ValueError(f"ANEFORGE_COMPILE_BACKOFF must be a number of seconds, got {value!r}") from None
    return seconds, _answer("ANEFORGE_COMPILE_BREAKER_STRICT")


def offline() -> bool:
    """`HF_HUB_OFFLINE`: whether models come from directories and the hub's cache alone."""
    return _answer("HF_HUB_OFFLINE")


def tune_attention() -> bool:
    """`ANEFORGE_TUNE_ATTENTION`: whether attention is measured where nothing is known of its shape."""
    return _answer("ANEFORGE_TUNE_ATTENTION")


def cache_dir() -> Path:
    """`ANEFORGE_CACHE_DIR`: where measurements and compiled programs are kept, by default `.cache/aneforge` at home."""
    named = os.environ.get("ANEFORGE_CACHE_DIR")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "aneforge"


def cache_limit() -> int:
    """`ANEFORGE_CACHE_LIMIT`: the most bytes of compiled programs in the cache, such as `512M`; by default 4 GiB."""
    try:
        return _native.cache_limit(_read("ANEFORGE_CACHE_LIMIT"))
    except ValueError as error:
        raise ValueError(f"ANEFORGE_CACHE_LIMIT: {error}") from None


def bench(reps: int) -> dict[str, Any]:
    """Where ways to compile are measured, in how many calls each, and where what is found is kept."""
    set_threads()
    place = {"target": target(), "device": device(), "host": host()}
    return {**place, "reps": reps, "cache": cache_dir()}


def set_threads() -> None:
    """`ANEFORGE_THREADS`: how many threads the host device runs on; read before the first program loads."""
    global _threads_are_set
    if _threads_are_set:
        return
    value = _read("ANEFORGE_THREADS")
    if value:
        try:
            threads = int(value)
        except ValueError:
            raise ValueError(f"ANEFORGE_THREADS must be a positive integer, got {value!r}") from None
        _native.set_threads(within("ANEFORGE_THREADS", threads, 1, _native.max_threads()))
    _threads_are_set = True


# What the parameters of `placed` hide.
_chip, _place = target, device


def placed(
    target: str | None, device: str | None, numerics: str | None, sums: str | None, isa: str | None, threads: int | None
) -> dict[str, Any]:
    """What a model is loaded with: the chip, the device and how the host computes, as given and else as the environment says."""
    set_threads()
    return {
        "target": target if target is not None else _chip(),
        "device": device if device is not None else _place(),
        "host": host(numerics, sums, isa, threads),
    }


def torch_home() -> Path:
    """Where PyTorch keeps what it has downloaded: `TORCH_HOME`, else `torch` in `XDG_CACHE_HOME` or `.cache`."""
    home = _read("TORCH_HOME")
    if home is not None:
        return Path(home)
    cache = _read("XDG_CACHE_HOME")
    return (Path(cache) if cache is not None else Path.home() / ".cache") / "torch"
