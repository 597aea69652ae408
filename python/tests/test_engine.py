"""The device `ane`, through the library that stands in for the engine's."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import time
import warnings
from pathlib import Path

import aneforge as af
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "models" / "tiny-bert"
X = np.random.default_rng(3).normal(size=(4, 8)).astype(np.float32)


def stand_in() -> str:
    """The library: `cargo xtask test` says where, or `cargo build -p aneforge-ane-standin` has put it."""
    named = os.environ.get("ANEFORGE_TEST_STANDIN")
    built = [ROOT / "target/debug" / f"libaneforge_standin.{end}" for end in ("so", "dylib")]
    found = [Path(named)] if named else [path for path in built if path.exists()]
    assert found, "no stand-in: cargo build -p aneforge-ane-standin"
    return str(found[0])


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANEFORGE_ENGINE_LIBRARY", stand_in())
    monkeypatch.setenv("ANEFORGE_CACHE_DIR", str(tmp_path))


def graph() -> af.Tensor:
    x = af.input((4, 8))
    return (x * 2).softmax(-1) + x.relu()


@pytest.mark.parametrize("isolation", ["process", "worker"])
def test_models_have_the_bits_of_the_host(isolation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANEFORGE_ISOLATION", isolation)
    for out in (graph(), af.sort(graph()), af.topk(graph(), 5).relu()):
        model = af.compile(out, device="ane")
        assert np.array_equal(model(X), af.compile(out, device="host")(X))
        assert {place.device for place in model.placement()} == {"ane (stand-in)"}
    assert "device ane (stand-in)" in repr(model)
    assert af.devices()[0].available and "stand-in" in af.devices()[0].description


def test_a_library_that_is_named_is_what_models_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANEFORGE_DEVICE", raising=False)
    model = af.compile(graph())
    assert model.device == "ane (stand-in)"
    assert af.compile(graph(), device=model.device).device == model.device
    assert pickle.loads(pickle.dumps(model)).device == model.device
    assert af.state((4, 8), "kept").device == "ane (stand-in)"
    monkeypatch.setenv("ANEFORGE_DEVICE", "host")
    assert af.compile(graph()).device == "host"
    monkeypatch.delenv("ANEFORGE_DEVICE")
    monkeypatch.setenv("ANEFORGE_ENGINE_LIBRARY", "/nowhere/lib.so")
    with pytest.raises(RuntimeError, match="/nowhere/lib.so"):
        af.compile(graph())


def test_an_encoder_has_the_bits_of_the_host() -> None:
    texts = ["a first text", "and quite another one, which is longer"]
    assert np.array_equal(af.load(TINY, device="ane")(texts), af.load(TINY, device="host")(texts))


def test_views_are_the_engines_own_memory() -> None:
    model = af.compile(graph(), device="ane")
    fed, got = model.input_view(), model.output_view()
    for k in range(3):
        fed[...] = X * k
        model.execute()
        assert np.array_equal(got, af.compile(graph(), device="host")(X * k).astype(np.float16))
    assert model.copied() == 0


def test_state_stays_on_the_engine() -> None:
    total = af.state((4, 8), "total", device="ane")
    x = af.input((4, 8))
    model = af.compile(total + x, carry={total: total + x}, device="ane")
    assert [model(X * 0 + 1)[0, 0] for _ in range(4)] == [1, 2, 3, 4]
    assert model.copied() == 0


def test_calls_that_were_submitted_go_on_and_can_be_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (af.compile(graph() + k, device="ane") for k in (0.0, 1.0))
    want = one(X), two(X)
    running = one.submit(X), two.submit(X)
    assert all(np.array_equal(r.result(30), w) for r, w in zip(running, want, strict=True))
    assert running[0].done()

    async def both() -> list[np.ndarray]:
        return await asyncio.gather(*(asyncio.ensure_future(wait(m)) for m in (one, two)))

    async def wait(model: af.Model) -> np.ndarray:
        return await model.submit(X)

    assert all(np.array_equal(r, w) for r, w in zip(asyncio.run(both()), want, strict=True))
    with pytest.raises(ValueError, match="takes 1 input"):
        one.submit().result(30)


def run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    head = "import aneforge as af, numpy as np\nx = af.input((4, 8))\n"
    return subprocess.run(
        [sys.executable, "-c", head + script],
        check=False,
        env=os.environ | {"ANEFORGE_DEVICE": "ane", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_what_the_compiler_refuses_is_named_with_its_line() -> None:
    done = run("y = x.exp()\nz = y.softmax(-1)\naf.compile(z)", ANEFORGE_STANDIN="reject=softmax;print=the tensor is too wide")
    assert done.returncode == 1
    assert "the smallest part that does not compile: softmax(fp16[4, 8])" in done.stderr, done.stderr
    assert "<string>:4" in done.stderr and "the tensor is too wide" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("crash=e5rt_e5_compiler_compile@1", "was set to crash"),
        ("crash=compileWithQoS:options:error:@1", "was set to crash"),
        ("fail=e5rt_execution_stream_execute_sync@1:9999", "9999"),
        ("null=evaluateWithQoS:options:request:error:@1", "0xe00002d6"),
    ],
)
def test_crashes_and_failures_are_errors(settings: str, told: str) -> None:
    script = "m = af.compile(af.sort(x * 2))\nm(np.ones((4, 8)))"
    done = run(script, ANEFORGE_STANDIN=settings)
    assert done.returncode == 1, done.stderr
    assert "RuntimeError" in done.stderr and told in done.stderr, done.stderr


def test_a_hang_in_another_process_ends_in_time() -> None:
    script = "m = af.compile(x * 2)\nm(np.ones((4, 8)))"
    start = time.monotonic()
    hang = "hang=e5rt_execution_stream_execute_sync@1:60000"
    done = run(script, ANEFORGE_STANDIN=hang, ANEFORGE_ISOLATION="worker")
    assert done.returncode == 1 and "has not answered within 5 s" in done.stderr, done.stderr
    assert time.monotonic() - start < 40


def test_a_forked_child_is_told_to_be_spawned() -> None:
    script = """
import os
m = af.compile(x * 2)
m(np.ones((4, 8)))
if (child := os.fork()) == 0:
    try:
        af.compile(x * 3)
    except RuntimeError as error:
        os._exit(7 if "spawn" in str(error) else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    with warnings.catch_warnings():
        done = run(script)
    assert done.returncode == 0, done.stderr


def test_a_forked_child_takes_no_answers_of_its_parent() -> None:
    script = """
import os
m = af.compile(x * 2)
want = m(np.full((4, 8), 3.0))
ready, go = os.pipe(), os.pipe()
if (child := os.fork()) == 0:
    codes = []
    for k in range(3):
        try:
            m(np.full((4, 8), 100.0))
        except RuntimeError as error:
            codes.append("spawn" in str(error))
    del m
    os._exit(7 if codes == [True] * 3 else 8)
for k in range(200):
    assert (m(np.full((4, 8), float(k))) == 2 * k).all(), k
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert (m(np.full((4, 8), 3.0)) == want).all()
"""
    for isolation in ("worker", "process"):
        done = run(script, ANEFORGE_ISOLATION=isolation)
        assert done.returncode == 0, (isolation, done.stderr)


def test_variables_are_checked() -> None:
    assert "ANEFORGE_ISOLATION: must be 'process' or 'worker'" in run("af.compile(x * 2)", ANEFORGE_ISOLATION="none").stderr
    missing = run("af.compile(x * 2)", ANEFORGE_ENGINE_LIBRARY="/nowhere/lib.so")
    assert "/nowhere/lib.so" in missing.stderr, missing.stderr
