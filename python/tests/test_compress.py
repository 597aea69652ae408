"""Weights that `compile` stores in fewer bytes."""

from __future__ import annotations

import copy
import pickle

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
