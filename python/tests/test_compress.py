"""Weights that `compile` stores in fewer bytes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import aneforge as af
import numpy as np
import pytest


def int8(weight: np.ndarray) -> np.ndarray:
    """Bytes with a scale per row, as the reference makes them."""
    scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True) / 127, 1e-8)
    codes = np.clip(np.rint(weight / scale), -127, 127)
    return (codes * scale.astype(np.float16).astype(np.float32)).astype(np.float16).astype(np.float32)


def lut4(weight: np.ndarray) -> np.ndarray:
    """A table of 16 values, as the reference makes it: quantiles, and twenty rounds of Lloyd's algorithm."""
    flat = weight.ravel().astype(np.float32)
    edges = np.quantile(flat, np.linspace(0, 1, 17))
    centres = ((edges[:-1] + edges[1:]) / 2).astype(np.float32)
    for _ in range(20):
        nearest = np.abs(flat[:, None] - centres).argmin(axis=1)
        means = [flat[nearest == k].mean() if (nearest == k).any() else centres[k] for k in range(16)]
        centres = np.array(means, dtype=np.float32)
    nearest = np.abs(flat[:, None] - centres).argmin(axis=1)
    return centres.astype(np.float16).astype(np.float32)[nearest].reshape(weight.shape)


def error(weight: np.ndarray, stored: np.ndarray) -> float:
    return float(np.linalg.norm(stored.astype(np.float64) - weight) / np.linalg.norm(weight.astype(np.float64)))


DRAWN = {
    "normal": lambda rng, shape: rng.standard_normal(shape) * 0.02,
    "uniform": lambda rng, shape: rng.uniform(-3, 3, shape),
    "heavy": lambda rng, shape: rng.standard_t(3, shape),
    "tiny": lambda rng, shape: rng.standard_normal(shape) * 1e-5,
    "few": lambda rng, shape: rng.integers(-4, 5, shape) * 0.125,
}


@pytest.mark.parametrize("drawn", DRAWN)
def test_errors_are_no_larger_than_the_references(drawn: str) -> None:
    rng = np.random.default_rng(7)
    weight = DRAWN[drawn](rng, (48, 64)).astype(np.float32)
    y = af.input((2, 64)).linear(weight)
    feed = np.eye(64, dtype=np.float32)[:2]
    for form, theirs in (("int8", int8), ("int4", lut4)):
        model = af.compile(y, compress=form, compress_atol=1.0, device="host", sums="defined", numerics="ieee")
        (report,) = model.weight_report()
        assert report["error"] <= error(weight, theirs(weight)) * (1 + 1e-6), (form, report)
        assert report["why"] == "" and report["bytes"] < report["dense_bytes"] == 2 * weight.size
        # The first columns of what is stored.
        stored = model(feed).astype(np.float32)
        assert np.abs(stored - weight[:, :2].T).max() <= 3 * np.abs(theirs(weight) - weight).max() + 1e-6


def test_int8_is_a_form_too() -> None:
    rng = np.random.default_rng(1)
    y = af.input((3, 8)).linear(rng.standard_normal((4, 8)).astype(np.float32))
    flag, named = af.compile(y, int8=True, device="host"), af.compile(y, compress=" INT8 ", device="host")
    assert flag.weight_report() == named.weight_report()
    assert flag.weight_report()[0]["encoding"] == "int8" and __file__ in flag.weight_report()[0]["at"]
    assert af.compile(y, int8=True, compress="sparse", device="host").weight_report()[0]["encoding"] == "dense"
    assert af.compile(y, device="host").weight_report() == []
    feed = rng.standard_normal((3, 8)).astype(np.float32)
    for again in (pickle.loads(pickle.dumps(flag)), copy.deepcopy(flag)):
        assert again.weight_report() == flag.weight_report()
        np.testing.assert_array_equal(again(feed), flag(feed))


def test_what_does_not_fit_says_why() -> None:
    rng = np.random.default_rng(2)
    y = af.input((3, 8)).linear(rng.standard_normal((4, 8)).astype(np.float32))
    (report,) = af.compile(y, compress="int4", device="host").weight_report()
    assert report["encoding"] == "int8" and report["why"].startswith("not lut4: error 0."), report
    (report,) = af.compile(y, compress="sparse", device="host").weight_report()
    assert report["why"] == "not sparse: less than half of it is zero, or all", report


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"compress": "int2"}, "compress must be one of 'int8', 'int4', 'sparse', 'blockwise', 'auto', got 'int2'"),
        ({"compress": "int8", "compress_atol": -1.0}, "compress_atol must be a number from 0 on, got -1.0"),
        ({"compress": "int8", "compress_atol": float("nan")}, "compress_atol must be a number from 0 on"),
        ({"compress": "blockwise", "block_size": 0}, "block_size must be from 1 on, got 0"),
        ({"compress": "int8", "opt": 2}, "opt=2 takes no compress"),
        ({"int8": True, "opt": 1}, "opt=1 takes no compress"),
    ],
)
def test_wrong_words_are_refused(given: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        af.compile(af.input((2, 4)).linear(np.ones((3, 4), np.float32)), device="host", **given)  # type: ignore[arg-type]


def test_wrong_kinds_are_refused() -> None:
    y = af.input((2, 4)).linear(np.ones((3, 4), np.float32))
    for given in ({"compress": 8}, {"compress": "int8", "compress_atol": "x"}, {"compress": "int8", "block_size": 1.5}):
        with pytest.raises(TypeError):
            af.compile(y, device="host", **given)  # type: ignore[arg-type]


def inputs(count: int) -> list[np.ndarray]:
    """Rows whose columns depend on each other and differ in size."""
    rng = np.random.default_rng(11)
    mix = (rng.standard_normal((64, 64)) * 0.3 + np.eye(64)) * np.exp(rng.standard_normal(64))
    return [(rng.standard_normal((2, 64)) @ mix).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_calibrated_products_are_nearer(form: str) -> None:
    rng = np.random.default_rng(5)
    weight = (rng.standard_normal((48, 64)) * 0.05).astype(np.float32)
    y, seen = af.input((2, 64)).linear(weight), inputs(120)
    exact = np.concatenate(seen).astype(np.float64) @ weight.T.astype(np.float64)

    def off(model: af.Model) -> float:
        return float(np.linalg.norm(np.concatenate([model(x) for x in seen]) - exact) / np.linalg.norm(exact))

    given = {"compress": form, "compress_atol": 1.0, "device": "host"}
    plain, chosen = af.compile(y, **given), af.compile(y, **given, calibrate=seen)  # type: ignore[arg-type]
    (before,), (after,) = plain.weight_report(), chosen.weight_report()
    assert before["calibrated"] is None and before["bytes"] == after["bytes"]
    assert off(chosen) < 0.9 * off(plain), (off(chosen), off(plain))
    # The rounding of results is in one of the two only.
    assert abs(after["calibrated"] - off(chosen)) < 0.1 * off(chosen) + 2e-4
    with np.errstate(all="raise"):
        for again in (pickle.loads(pickle.dumps(chosen)), copy.deepcopy(chosen)):
            assert again.weight_report() == chosen.weight_report()
            np.testing.assert_array_equal(again(seen[3]), chosen(seen[3]))


def test_calibrated_models_are_saved(tmp_path: Path) -> None:
    x, z = af.input((2, 64)), af.input((2, 64))
    weight = np.random.default_rng(6).standard_normal((16, 64)).astype(np.float32)
    sets = [(a, b) for a, b in zip(inputs(32), inputs(32)[::-1], strict=True)]
    model = af.compile((x + z).linear(weight), compress="int8", calibrate=sets, device="host")
    model.save(tmp_path / "model.aneforge")
    back = af.load_model(tmp_path / "model.aneforge", device="host")
    assert back.weight_report() == model.weight_report() and model.weight_report()[0]["calibrated"] > 0
    np.testing.assert_array_equal(back(*sets[0]), model(*sets[0]))


@pytest.mark.parametrize(
    ("given", "kind", "why"),
    [
        ({"calibrate": inputs(1)}, ValueError, "say which, with compress or int8"),
        ({"int8": True, "calibrate": []}, ValueError, "calibrate is empty"),
        ({"int8": True, "calibrate": inputs(1), "cache": "."}, ValueError, "the cache keeps no calibrated programs"),
        ({"int8": True, "calibrate": 3}, TypeError, "calibrate must be a list of arrays"),
        ({"int8": True, "calibrate": [(1.0, 2.0)]}, ValueError, "item 0 of calibrate has 2 arrays and the graph 1 inputs"),
        ({"int8": True, "calibrate": [np.zeros((3, 64))]}, ValueError, "input 0"),
    ],
)
def test_wrong_calibrations_are_refused(given: dict[str, object], kind: type[Exception], why: str) -> None:
    y = af.input((2, 64)).linear(np.ones((3, 64), np.float32))
    with pytest.raises(kind, match=why):
        af.compile(y, device="host", **given)  # type: ignore[arg-type]


def test_encoders_are_calibrated_with_texts() -> None:
    folder = Path(__file__).parents[2] / "tests" / "models" / "tiny-bert"
    texts = ["the cat sat on the mat", "a dog", "the", "on the mat the cat", ""]
    texts += [f"the {a} {b} ran over the {c} house" for a, b, c in zip(*[["old", "new", "big", "small", "very"]] * 3, strict=True)]
    full = af.load(folder, device="host")
    plain = af.load(folder, compress="int4", compress_atol=1.0, device="host")
    chosen = af.load(folder, compress="int4", compress_atol=1.0, calibrate=texts, device="host")
    assert repr(chosen).endswith("device host, calibrated int4 weights)")
    report = chosen.weight_report()
    assert report and all(row["encoding"] == "lut4" and row["calibrated"] > 0 for row in report)
    off = [np.linalg.norm(one(texts, normalize=False) - full(texts, normalize=False)) for one in (plain, chosen)]
    assert off[1] < off[0], off
    again = pickle.loads(pickle.dumps(chosen))
    assert again.weight_report() == report
    np.testing.assert_array_equal(again(texts), chosen(texts))
    with pytest.raises(ValueError, match="say which, with int8 or compress"):
        af.load(folder, calibrate=texts, device="host")
    with pytest.raises(TypeError, match="calibrate must be a list of texts, got str"):
        af.load(folder, int8=True, calibrate="a text", device="host")
