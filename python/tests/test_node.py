"""A tensor as a node: its attributes, making one from them, and notes on inputs."""

from __future__ import annotations

import aneforge as af
import numpy as np
import pytest
from aneforge import Tensor


def test_nodes_come_back_from_what_they_show() -> None:
    x = af.input((2, 3, 8, 8))
    w = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    y = af.conv(x, w, stride=2, pad=1, bias=np.arange(4.0)).relu().mean((2, 3)).reshape(2, 4).linear(w.reshape(27, 4))
    same = rebuilt(y)
    assert repr(same) == repr(y)
    feed = np.random.default_rng(1).normal(size=x.shape)
    one, other = (af.compile(t, device="host") for t in (y, same))
    np.testing.assert_array_equal(one(feed), other(feed))


def rebuilt(t: Tensor) -> Tensor:
    if t.op == "input":
        return t
    return Tensor(t.shape, t.op, [rebuilt(s) for s in t.srcs], dict(t.attrs))


def test_weights_are_attributes_and_not_sources() -> None:
    w = np.arange(6, dtype=np.float16).reshape(2, 3)
    y = af.input((4, 3)).linear(w)
    assert [s.op for s in y.srcs] == ["input"]
    np.testing.assert_array_equal(y.attrs["wt"], w)
    with pytest.raises(ValueError, match="read-only"):
        y.attrs["wt"][0, 0] = 1
    with pytest.raises(TypeError):
        y.attrs["wt"] = w


def test_convolutions_show_one_number_for_both_directions() -> None:
    y = af.conv(af.input((1, 1, 4, 4)), np.ones((1, 1, 1, 1)), stride=2)
    assert (y.attrs["stride"], y.attrs["dilation"], y.attrs["groups"]) == (2, 1, 1)
    pooled = af.input((1, 1, 4, 4)).max_pool(2)
    assert (pooled.attrs["k"], pooled.attrs["stride"]) == (2, 2)


def test_notes_on_an_input_are_live_from_any_wrapper() -> None:
    x = af.input((1, 4), max_abs=3)
    assert x.attrs["max_abs"] == 3.0
    y = x.relu()
    x.attrs["value"] = np.ones(4)
    np.testing.assert_array_equal(y.srcs[0].attrs["value"], np.ones(4))
    y.srcs[0].attrs["value"] *= 2
    np.testing.assert_array_equal(x.attrs["value"], np.full(4, 2.0))
    assert af.input((1,)).attrs["idx"] > x.attrs["idx"]
    assert af.input((1,), "uint8").attrs["dtype"] == "uint8"


def test_leaves_and_constants_are_made_too() -> None:
    x = Tensor((1, 4), "input", (), {"dtype": "uint8"})
    assert (x.op, x.dtype) == ("input", "uint8")
    c = Tensor((2,), "const_array", attrs={"value": np.array([1.0, 2.0])})
    np.testing.assert_array_equal(c.attrs["value"], [1, 2])


def test_mistakes_are_named() -> None:
    x = af.input((1, 4))
    with pytest.raises(ValueError, match=r"relu: gives \[1, 4\], not \[2, 4\]"):
        Tensor((2, 4), "relu", [x])
    with pytest.raises(ValueError, match="unknown op `nope`"):
        Tensor((2, 4), "nope", [x])
    with pytest.raises(TypeError, match="there is no attribute `beta`"):
        Tensor((1, 4), "relu", [x], {"beta": 1})


def test_notebooks_show_the_graph() -> None:
    x = af.input((1, 4))
    html = (x * 2.0).softmax()._repr_html_()
    assert html.startswith("<table>") and "softmax" in html and "muls" in html and "k=2" in html
    assert html.index("softmax") < html.index("muls") < html.index("input")
    deep = x
    for _ in range(5000):
        deep = deep.relu()
    assert len(deep._repr_html_()) < 10_000
