"""Waiting after a failed compile: the engine's compiler service needs rest, or it fails again."""

from __future__ import annotations

import time
from collections.abc import Callable

from aneforge import _env, _native
from aneforge._blame import warn


class CompileBackoffError(RuntimeError):
    """A compile was asked for too soon after one that the engine's compiler failed."""


class Breaker:
    """Paces compiles on the real engine. Success, or `reset`, clears it.

    The next compile within `ANEFORGE_COMPILE_BACKOFF` seconds (15; 0 and less switch it off) of a failed one
    waits for the rest of them, with a warning, or raises under `ANEFORGE_COMPILE_BREAKER_STRICT=1`.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._breaker, self._clock, self._sleep = _native.Breaker(), clock, sleep

    def before(self) -> None:
        """Waits or raises, if a compile failed just now."""
        seconds, strict = _env.compile_backoff()
        if (early := self._breaker.check(self._clock(), seconds)) is None:
            return
        message, rest = early
        if strict:
            raise CompileBackoffError(f"{message}; wait, or call reset_compile_breaker()")
        warn(f"{message}, waiting")
        self._sleep(rest)

    def failed(self) -> None:
        """A compile failed now."""
        self._breaker.failed(self._clock())

    def reset(self) -> None:
        """No compile failed of late."""
        self._breaker.reset()


BREAKER = Breaker()


def reset_compile_breaker() -> None:
    """Forgets a failed compile on the engine, so that the next one does not wait."""
    BREAKER.reset()
