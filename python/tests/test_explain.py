"""Why programs are what they are, and programs with more weights than one may have."""

from __future__ import annotations

from pathlib import Path

import aneforge as af
import numpy as np
import pytest


def test_rules_are_told_by_the_line_that_built_the_node() -> None:
    x = af.input((1, 8))
    told = af.compile(x.square().round() * 0.5).explain()
    [legalize] = [stage for stage in told.stages if stage["stage"] == "legalize"]
    rules = {event["rule"]: event for event in legalize["events"]}
    assert {"square_product", "round_small", "rounded_scale"} <= set(rules)
    assert all("test_explain.py:" in event["node"] and event["refused"] is None for event in rules.values())
    assert "square_product at square (at " in str(told)
    assert repr(told).startswith("<Explanation for h17s: 3 rules fired")
    assert [way["name"] for way in told.ways] == ["fused"] and told.ways[0]["taken"]


def test_weights_and_cuts_are_told(tmp_path: Path) -> None:
    x = af.input((1, 16))
    out = x
    for seed in range(4):
        out = out.linear(np.random.default_rng(seed).normal(size=(16, 16)).astype(np.float32))
    whole, cut = af.compile(out, compress="sparse"), af.compile(out, most_bytes=1300)
    assert all("less than half of it is zero" in row["why"] for row in whole.explain().weights)
    told = cut.explain()
    assert len(told.segments) == 2 and told.most_bytes == 1300
    assert max(segment["weight_bytes"] for segment in told.segments) <= 1300
    assert "where 32 bytes cross" in str(told)
    values = np.random.default_rng(9).normal(size=(1, 16))
    np.testing.assert_array_equal(
        af.compile(out, sums="defined")(values), af.compile(out, most_bytes=700, sums="defined")(values)
    )
    cut.save(tmp_path / "cut.aneforge")
    loaded = af.load_model(tmp_path / "cut.aneforge")
    np.testing.assert_array_equal(loaded(values), cut(values))
    with pytest.raises(ValueError, match="how it was compiled is not kept"):
        loaded.explain()


def test_limits_of_programs_are_checked() -> None:
    y = af.input((1, 16)).linear(np.ones((16, 16), np.float32))
    with pytest.raises(NotImplementedError, match="its weights take 640 bytes, .* one program has at most 100"):
        af.compile(y, most_bytes=100)
    with pytest.raises(ValueError, match="system must be one of 'macos26', 'macos27', got 'macos1'"):
        af.compile(y, system="macos1")
    with pytest.raises(ValueError, match="most_bytes must be from 1"):
        af.compile(y, most_bytes=0)
    assert af.compile(y, system="macos27").explain().most_bytes == 2**30


def test_chains_of_scalars_are_folded_on_request() -> None:
    x = af.input((1, 4))
    y = (x * 0.3) * 0.7
    assert af.compile(y).n_ops == 2
    told = af.compile(y, fold_scalars=True).explain()
    assert any(event["rule"] == "muls_chain" for stage in told.stages for event in stage["events"])
