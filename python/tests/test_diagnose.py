"""What half precision does to a model is found by name, with a remedy."""

import json
import math
import pickle

import aneforge as af
import numpy as np
import pytest


def ramp(count: int, step: float = 1.0) -> np.ndarray:
    return (np.arange(count) * step).astype(np.float32)[None]


def test_a_hot_softmax_is_found_and_told(tmp_path) -> None:
    x = af.input((1, 8))
    scores = x.exp()
    model = af.compile(scores / scores.sum(-1))
    found = model.diagnose(ramp(8, 3.0))
    assert not found.safe
    assert found.first is not None and found.first["op"] == "exp"
    assert "test_diagnose.py" in found.first["at"]
    (trouble,) = found.first["troubles"]
    assert (trouble["trouble"], trouble["values"]) == ("overflow", 4)
    assert "softmax" in trouble["remedy"]
    assert "overflow: 4 values infinite" in str(found)
    assert repr(found) == "Diagnosis(h17s, 1 node in trouble)"
    for name in ("found.html", "found.json", "found.txt"):
        found.save(tmp_path / name)
    assert json.loads((tmp_path / "found.json").read_text()) == found.to_json()
    assert (tmp_path / "found.html").read_text() == found._repr_html_()
    with pytest.raises(ValueError, match="ends in .html, .json, .txt"):
        found.save(tmp_path / "found.pdf")
    assert af.compile(x.softmax(-1)).diagnose(ramp(8, 3.0)).safe


def test_families_differ() -> None:
    x = af.input((1, 8))
    model = af.compile(x[:, 2:6] * 0.5)
    feed = ramp(8, 1000.0)
    assert model.diagnose(feed).safe
    found = model.diagnose(feed, target="M2")
    assert (found.target, found.numerics) == ("h14", "a14")
    assert found.troubled[0]["troubles"][0]["trouble"] == "saturation"
    everywhere = model.diagnose_all_chips(feed)
    verdicts = {chip["target"]: chip["verdict"] for chip in everywhere.chips}
    assert (verdicts["h13"], verdicts["h14"], verdicts["h15"], verdicts["h17s"]) == ("risky", "risky", "safe", "safe")
    estimates = {chip["target"]: chip["estimate_us"] for chip in everywhere.chips}
    assert all(us > 0 for name, us in estimates.items() if name not in ("h18p", "h19p"))
    assert everywhere.host_us and everywhere.place.startswith("the engine is the wrong place")
    assert str(everywhere).splitlines()[0].startswith("h13")


def test_errors_are_those_of_numpy() -> None:
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((16, 64)).astype(np.float32)
    x = af.input((4, 64))
    model = af.compile(x.linear(weight).gelu())
    feed = rng.standard_normal((4, 64)).astype(np.float32)
    found = model.diagnose(feed)
    exact = feed.astype(np.float64) @ weight.astype(np.float64).T
    erf = np.vectorize(math.erf)
    exact = exact * 0.5 * (1 + erf(exact / np.sqrt(2)))
    error = np.abs(model(feed) - exact).max() / np.abs(exact).max()
    assert found.outputs == [pytest.approx(error, rel=1e-2)]
    assert found.safe and 0 < found.outputs[0] < 2e-3


def test_what_compression_costs_is_seen() -> None:
    rng = np.random.default_rng(4)
    x = af.input((4, 64))
    out = x.linear(rng.standard_normal((32, 64)).astype(np.float32))
    feed = rng.standard_normal((4, 64))
    dense, table = (af.compile(out, compress=form, compress_atol=1.0).diagnose(feed) for form in (None, "int4"))
    assert dense.outputs[0] < 1e-3 < 2e-2 < table.outputs[0]
    assert not table.safe


def test_state_and_names_are_fed() -> None:
    n, x = af.state((2,), "n", [1.0, 2.0]), af.input((2,), name="x")
    model = af.compile(n + x, carry={n: n * 2.0})
    found = model.diagnose(x=np.ones(2))
    assert found.safe and len(found.outputs) == 2
    assert max(node["largest"] for node in found.nodes) == 4.0
    np.testing.assert_array_equal(n.numpy(), [1, 2])


def test_models_from_elsewhere_and_mistakes() -> None:
    model = pickle.loads(pickle.dumps(af.compile(af.input((1, 4)).exp())))
    assert model.diagnose(ramp(4, 5.0)).first["op"] == "exp"
    with pytest.raises(ValueError, match="was not compiled in this process"):
        model.diagnose(ramp(4), target="h13")
    with pytest.raises(ValueError, match="was not compiled in this process"):
        model.diagnose_all_chips(ramp(4))
    with pytest.raises(ValueError, match="tolerance must be greater than 0"):
        model.diagnose(ramp(4), tolerance=0)
    with pytest.raises(TypeError, match="tolerance must be a number"):
        model.diagnose(ramp(4), tolerance="1")
    with pytest.raises(ValueError, match="was not compiled in this process"):
        model.diagnose()
    with pytest.raises(ValueError, match="takes 1 input, got 2"):
        model.diagnose(ramp(4), ramp(4))


def test_bounds_are_judged_without_data() -> None:
    hot, cool = (af.compile(af.input((1, 8), max_abs=most).exp()).diagnose() for most in (12.0, 2.0))
    assert cool.safe and not hot.safe and hot.nodes == []
    assert [note["kind"] for note in hot.notes] == ["overflow"]
    offset = af.compile(af.input((1, 8), max_abs=5000.0)[:, 2:] * 0.5)
    assert offset.diagnose().safe
    assert [note["kind"] for note in offset.diagnose(target="M1").notes] == ["saturates"]
