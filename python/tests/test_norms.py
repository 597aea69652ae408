"""Norms of rows that half precision squares badly, and what is said of them beforehand."""

import warnings

import aneforge as af
import numpy as np
import pytest


def run(y, feed, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", af.PrecisionWarning)
        return af.compile(y, **options)(feed)


def layer_norm(x, **options):
    size = x.shape[-1]
    return x.layer_norm(np.ones(size, np.float32), np.zeros(size, np.float32), **options)


def outlier():
    row = np.random.default_rng(0).standard_normal(768).astype(np.float32)
    row[7] = 795
    return row[None]


def test_a_layer_norm_with_one_large_value():
    y = layer_norm(af.input((1, 768)))
    assert not run(y, outlier()).any(), "the plain form, which the engine is known to take, overflows"
    robust = run(y, outlier(), norms="robust")
    assert robust[0, 0] == pytest.approx(-0.0310, abs=2e-4)
    assert robust[0, 7] == pytest.approx(27.678, abs=2e-2)
    bounded = layer_norm(af.input((1, 768), max_abs=800))
    np.testing.assert_array_equal(run(bounded, outlier()), robust)


def test_lengths_beyond_half_precision():
    rms = af.input((1, 4096)).rms_norm(np.ones(4096, np.float32))
    np.testing.assert_allclose(run(rms, np.full((1, 4096), 2000.0), norms="robust"), 1, rtol=2e-3)
    l2 = af.input((1, 64)).l2_norm()
    np.testing.assert_allclose(run(l2, np.full((1, 64), 9000.0), norms="robust"), 0.125, rtol=2e-3)


def test_small_rows_with_the_eps_of_bert():
    row = np.where(np.arange(64) % 2, 1e-4, -1e-4)[None]
    y = layer_norm(af.input((1, 64)), eps=1e-12)
    assert np.isfinite(run(y, row)).all()
    np.testing.assert_allclose(run(y, row, norms="robust"), np.sign(row), rtol=5e-3)


def test_an_overflow_of_a_norm_is_not_silent():
    model = af.compile(layer_norm(af.input((1, 768))))
    with pytest.warns(af.PrecisionWarning, match="made an infinity or NaN of finite operands") as caught:
        model(outlier())
    assert "norms survive when they are compiled to be robust" in str(caught[0].message)
    assert "test_norms.py" in model.overflows()[0]["at"]


def kinds(y):
    return [node["kind"] for node in af.precision_risk(y)["nodes"]]


def test_bounds_and_constants_are_used_beforehand():
    large = layer_norm(af.input((1, 768), max_abs=800))
    assert kinds(large) == ["plain_norm"] and kinds(layer_norm(af.input((1, 768), max_abs=100))) == []
    with pytest.raises(ValueError, match="the squared difference to the mean overflows above 128"):
        af.compile(large, norms="plain", validate=True)
    af.compile(large, validate=True)
    x = af.input((1, 8), max_abs=300)
    assert kinds(x * x) == ["overflow"] and kinds(af.input((1, 8)) * 2.0) == []
    weight = np.full((8, 4), 10, np.float32)
    with pytest.raises(ValueError, match="matmul may reach 4.000e4, above 32752"):
        af.compile(af.input((1, 8), max_abs=500) @ weight, validate=True)
    af.compile(af.input((1, 8), max_abs=400) @ weight, validate=True)
    with pytest.warns(af.PrecisionWarning, match="eps 1e-12, which half precision does not hold"):
        af.compile(layer_norm(af.input((1, 8)), eps=1e-12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        af.compile(layer_norm(af.input((1, 8)), eps=1e-12), norms="robust")


def test_norms_have_three_names():
    with pytest.raises(ValueError, match="norms must be 'auto', 'plain' or 'robust', got 'fast'"):
        af.compile(layer_norm(af.input((1, 8))), norms="fast")
