"""The only place that reads environment variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from aneforge import _native

_threads_are_set = False


def _word(option: str) -> str | None:
    """The variable that stands in for an option; an error about its value names it."""
    variable = f"ANEFORGE_{option.upper()}"
    word = os.environ.get(variable) or None
    if word is not None:
        try:
            _native.check_word(option, word)
        except ValueError as error:
            raise ValueError(f"{variable}: {error}") from None
    return word


def target() -> str | None:
    """`ANEFORGE_TARGET`: the chip that programs are compiled for when `compile` names none."""
    return _word("target")


def device() -> str | None:
    """`ANEFORGE_DEVICE`: the device that models run on when `compile` names none."""
    return _word("device")


def host(
    numerics: str | None = None, sums: str | None = None, isa: str | None = None, threads: int | None = None
) -> dict[str, Any]:
    """How the host computes: as asked for, else by `ANEFORGE_NUMERICS`, `ANEFORGE_SUMS` and `ANEFORGE_ISA`."""
    asked = {"numerics": numerics, "sums": sums, "isa": isa}
    for name, value in asked.items():
        if value is None:
            asked[name] = _word(name)
    return {**asked, "threads": threads}


def compile_backoff() -> tuple[float, bool]:
    """`ANEFORGE_COMPILE_BACKOFF`, in seconds, and `ANEFORGE_COMPILE_BREAKER_STRICT`: pacing after a failed
    compile on the engine, which `ANEFORGE_DISABLE_COMPILE_BREAKER` switches off.
    """
    if os.environ.get("ANEFORGE_DISABLE_COMPILE_BREAKER") == "1":
        return 0.0, False
    value = os.environ.get("ANEFORGE_COMPILE_BACKOFF") or "15"
    try:
        seconds = float(value)
    except ValueError:
        raise ValueError(f"ANEFORGE_COMPILE_BACKOFF must be a number of seconds, got {value!r}") from None
    return seconds, os.environ.get("ANEFORGE_COMPILE_BREAKER_STRICT") == "1"


def offline() -> bool:
    """`HF_HUB_OFFLINE`: whether models come from directories and the hub's cache alone."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in {"1", "true", "yes", "on"}


def tune_attention() -> bool:
    """`ANEFORGE_TUNE_ATTENTION`: whether attention is measured where nothing is known of its shape."""
    return os.environ.get("ANEFORGE_TUNE_ATTENTION", "").strip().lower() in {"1", "true", "yes"}


def cache_dir() -> Path:
    """`ANEFORGE_CACHE_DIR`: where measurements are kept, by default `.cache/aneforge` at home."""
    named = os.environ.get("ANEFORGE_CACHE_DIR")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "aneforge"


def bench(reps: int) -> dict[str, Any]:
    """Where ways to compile are measured, in how many calls each, and where what is found is kept."""
    set_threads()
    place = {"target": target(), "device": device(), "host": host()}
    return {**place, "reps": max(1, reps), "cache": cache_dir()}


def set_threads() -> None:
    """`ANEFORGE_THREADS`: how many threads the host device runs on; read before the first program loads."""
    global _threads_are_set
    if _threads_are_set:
        return
    value = os.environ.get("ANEFORGE_THREADS")
    if value:
        try:
            threads = int(value)
        except ValueError:
            raise ValueError(f"ANEFORGE_THREADS must be a positive integer, got {value!r}") from None
        try:
            _native.set_threads(threads)
        except ValueError as error:
            raise ValueError(f"ANEFORGE_THREADS: {error}") from None
    _threads_are_set = True
