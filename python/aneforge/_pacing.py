"""Waiting after a failed compile: the engine's compiler service needs rest, or it fails again."""

from __future__ import annotations

import time
from collections.abc import Callable

from aneforge import _env
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
        self._clock, self._sleep = clock, sleep
        self._failed: float | None = None

    def before(self) -> None:
        """Waits or raises, if a compile failed just now."""
        seconds, strict = _env.compile_backoff()
        if self._failed is None or seconds <= 0:
            return
        rest = self._failed + seconds - self._clock()
        if rest <= 0:
            return
        message = f"compile: the engine's compiler failed {seconds - rest:.1f} s ago; it needs {rest:.1f} s more"
        if strict:
            raise CompileBackoffError(f"{message}; wait, or call reset_compile_breaker()")
        warn(f"{message}, waiting")
        self._sleep(rest)

    def failed(self) -> None:
        """A compile failed now."""
        self._failed = self._clock()

    def reset(self) -> None:
        """No compile failed of late."""
        self._failed = None


BREAKER = Breaker()


def reset_compile_breaker() -> None:
    """Forgets a failed compile on the engine, so that the next one does not wait."""
    BREAKER.reset()
