"""Pacing of compiles on the engine, with a clock of its own and a stand-in for the engine."""

from __future__ import annotations

import aneforge as af
import pytest
from aneforge import _compile, _native
from aneforge._pacing import BREAKER, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_the_next_compile_waits_for_the_rest() -> None:
    clock = Clock()
    breaker = Breaker(clock, clock.sleep)
    breaker.before()
    breaker.failed()
    clock.now += 4
    with pytest.warns(UserWarning, match="failed 4.0 s ago; it needs 11.0 s more, waiting"):
        breaker.before()
    assert clock.slept == [11.0]
    breaker.before()
    breaker.failed()
    breaker.reset()
    breaker.before()
    assert clock.slept == [11.0]


def test_strict_raises_and_zero_switches_off(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    breaker = Breaker(clock, clock.sleep)
    breaker.failed()
    monkeypatch.setenv("ANEFORGE_COMPILE_BREAKER_STRICT", "1")
    with pytest.raises(af.CompileBackoffError, match="needs 15.0 s more; wait, or call reset_compile_breaker"):
        breaker.before()
    monkeypatch.setenv("ANEFORGE_COMPILE_BACKOFF", "0")
    breaker.before()
    monkeypatch.setenv("ANEFORGE_COMPILE_BACKOFF", "soon")
    with pytest.raises(ValueError, match="must be a number of seconds, got 'soon'"):
        breaker.before()
    monkeypatch.setenv("ANEFORGE_DISABLE_COMPILE_BREAKER", "1")
    breaker.before()
    assert clock.slept == []


def test_only_the_engines_failures_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the compiler failed")

    y = af.input((1, 4)).relu()
    monkeypatch.setattr(_native, "compile", fails)
    with pytest.raises(RuntimeError, match="the compiler failed"):
        af.compile(y, device="host")
    BREAKER.before()
    there = [_compile.Device("ane", True, "a stand-in")]
    monkeypatch.setattr(_compile, "devices", lambda: there)
    with pytest.warns(af.DispatchFloorWarning), pytest.raises(RuntimeError, match="the compiler failed"):
        af.compile(y, device="ane")
    monkeypatch.setenv("ANEFORGE_COMPILE_BREAKER_STRICT", "1")
    with pytest.warns(af.DispatchFloorWarning), pytest.raises(af.CompileBackoffError):
        af.compile(y, device="ane")
    af.reset_compile_breaker()
    BREAKER.before()
