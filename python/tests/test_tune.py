"""Measured choices: between native layers and their fused forms, and by precision."""

from __future__ import annotations

import json
from pathlib import Path

import aneforge as af
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANEFORGE_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("ANEFORGE_DEVICE", "host")
    return tmp_path / "autotune.json"


def test_routes_are_measured_once(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def graph(scale: float) -> af.Tensor:
        return af.minmax_norm(af.input((1, 2, 4, 8)) @ np.full((8, 8), scale))

    y = graph(0.5)
    # On a graph as small as this one, a loss of precision may seem to pay.
    model = af.tune(y, reps=3, verbose=True, min_lossy_speedup=1e9, device="host")
    printed = capsys.readouterr().out.splitlines()
    assert sorted(line.split(":")[0] for line in printed) == ["fused", "int8", "native"]
    [entry] = json.loads(cache.read_text()).values()
    assert entry["config"] in ("fused", "native") and entry["us"] > 0
    assert isinstance(model, af.SegmentedModel) == (entry["config"] == "native")
    values = np.random.default_rng(0).normal(size=(1, 2, 4, 8))
    np.testing.assert_array_equal(model(values), af.compile(y)(values))
    # Weights do not change how long a graph takes, so neither do they change the entry.
    af.tune(graph(0.25), verbose=True)
    assert capsys.readouterr().out == ""
    assert len(json.loads(cache.read_text())) == 1
    cache.write_text("damaged")
    af.tune(y, reps=1)


def test_a_way_with_a_loss_is_within_the_tolerance_or_not_taken(cache: Path) -> None:
    weight = np.random.default_rng(5).normal(size=(512, 512)).astype(np.float32)
    y = af.input((1, 512)).linear(weight)
    strict = af.tune(y, reps=1, atol=0.0, min_lossy_speedup=0.0)
    assert strict.weight_report() == []
    loose = af.tune(y, reps=1, atol=0.5, min_lossy_speedup=0.0, prune_factor=1e9)
    assert [row["encoding"] for row in loose.weight_report()] in ([], ["int8"])
    # What was chosen with a loss before is not taken for granted.
    assert af.tune(y, reps=1, atol=0.0).weight_report() == []
    with pytest.raises(RuntimeError, match="no Neural Engine|not available|ane"):
        af.tune(y, reps=1, device="ane")
    with pytest.raises(TypeError, match="device must be a string"):
        af.tune(y, device=3)  # type: ignore[arg-type]


def test_opt_1_chooses_by_the_cost_model() -> None:
    weight = np.full((4096, 4096), 0.5, np.float32)
    unbounded = af.compile(af.input((1, 4096)).linear(weight), opt=1)
    assert unbounded.weight_report() == []
    [int8] = [way for way in unbounded.explain().ways if way["name"] == "int8"]
    assert "nothing bounds the operand of matmul" in int8["refused"] and not int8["taken"]
    bounded = af.compile(af.input((1, 4096), max_abs=4094).linear(weight), opt=1)
    assert [row["encoding"] for row in bounded.weight_report()] == ["int8"]
    beyond = af.compile(af.input((1, 4096), max_abs=4096).linear(weight), opt=1)
    assert beyond.weight_report() == []


def test_opt_2_measures(cache: Path) -> None:
    x = af.input((2, 8))
    values = np.random.default_rng(1).normal(size=(2, 8))
    for opt in (1, 2, "2", "max"):
        np.testing.assert_array_equal(af.compile(x.relu(), opt=opt)(values), af.compile(x.relu())(values))
    assert cache.exists()
    with pytest.raises(ValueError, match="takes no target"):
        af.compile(x.relu(), opt=2, target="h13")
    with pytest.raises(ValueError, match="measures one result"):
        af.compile([x.relu(), x], opt=2)


def test_precision_is_measured_against_double_precision() -> None:
    x = af.input((4, 1024))
    values = np.random.default_rng(2).normal(size=(4, 1024)).astype(np.float16)
    model, report = af.tune_precision(x.sum(1), inputs=[values], reps=2)
    names = [row["name"] for row in report["rows"]]
    assert names == ["baseline", "reduce_sum->matmul"] and report["chosen"] in names
    assert set(report) == {"rows", "risk", "chosen", "reason", "ref_available", "ref_kind"}
    want = values.astype(float).sum(1, keepdims=True)
    for row in report["rows"]:
        assert row["relerr"] < 1e-3
    np.testing.assert_allclose(model(values), want, rtol=2e-3, atol=1e-2)
    _, loose = af.tune_precision(x.sum(1), target_error=0.5, inputs=[values], reps=1)
    assert loose["reason"] == "the cheapest within 0.5"
    _, tight = af.tune_precision(x.sum(1), target_error=1e-9, inputs=[values], reps=1)
    assert tight["reason"].startswith("none is within 1e-09")
    _, cheap = af.tune_precision(x.sum(1), cost_budget_us=1e6, inputs=[values], reps=1)
    assert cheap["reason"] == "the most precise within 1e+06 us"
    assert af.tune(x.sum(1), target_error=1e-3, inputs=[values], reps=1)(values).shape == (4, 1)


def test_graphs_without_risk_have_one_way() -> None:
    x = af.input((4, 8))
    _, report = af.tune_precision((x * 2.0).relu(), reps=1)
    assert [row["name"] for row in report["rows"]] == ["baseline"]
    with pytest.raises(ValueError, match="must have shape"):
        af.tune_precision(x.relu(), inputs=[np.zeros((2, 8))], reps=1)
