"""Attention: its parts, what was measured of them, and its masks."""

from __future__ import annotations

import json
from math import erf, sqrt
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
import pytest
from aneforge import _attention

RNG = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is known, and what becomes known is kept in a folder of the test."""
    monkeypatch.setenv("ANEFORGE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ANEFORGE_TUNE_ATTENTION", raising=False)
    monkeypatch.setattr(_attention, "_known", {})
    return tmp_path / "cache" / "autotune.json"


def softmaxes(y: af.Tensor) -> int:
    seen, stack, count = set(), [y], 0
    while stack:
        x = stack.pop()
        if x not in seen:
            seen.add(x)
            stack.extend(x.srcs)
            count += x.op == "softmax"
    return count


def test_parts_follow_from_the_length(cache: Path) -> None:
    got = [af.attention_tiles(s, 2, 4) for s in (1, 767, 768, 1279, 1280, 1500)]
    assert got == [1, 1, 2, 2, 3, 3]
    assert not cache.exists()
    for bad in (0, -1):
        with pytest.raises(ValueError, match="must be at least 1"):
            af.attention_tiles(bad, 2, 4)


def test_measurements_are_kept_on_disk_and_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = af.tune_attention(40, 2, 4, candidates=(1, 2, 5))
    assert parts in (1, 2, 5)
    stored = json.loads(cache.read_text())
    [(key, value)] = stored.items()
    assert key.startswith("attn_tiles:") and key.endswith(":40:40:2:4")
    assert value == parts
    assert [f.name for f in cache.parent.iterdir()] == ["autotune.json"]
    # Another process: memory is empty, the file is not.
    cache.write_text(json.dumps({key: 4}))
    assert af.attention_tiles(40, 2, 4) == parts
    monkeypatch.setattr(_attention, "_known", {})
    assert af.attention_tiles(40, 2, 4) == 4
    x = af.input((40, 8))
    w = np.eye(8)
    assert softmaxes(af.mha(x, w, None, w, None, w, None, w, None, 2)) == 4


def test_a_damaged_file_is_as_good_as_none(cache: Path) -> None:
    cache.parent.mkdir()
    for damage in ("", "{", "[1]", '{"attn_tiles:x": "many"}'):
        cache.write_text(damage)
        assert af.attention_tiles(800, 2, 4) == 2
    af.tune_attention(6, 1, 2, T=3, candidates=(1, 3))
    assert len([key for key in json.loads(cache.read_text()) if key.endswith(":6:3:1:2")]) == 1


def test_tuning_on_request_of_the_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_attention, "_fastest", lambda *given: max(given[-1]))
    monkeypatch.setenv("ANEFORGE_TUNE_ATTENTION", "yes")
    assert af.attention_tiles(6, 1, 2, candidates=(2, 4, 8)) == 4
    assert cache.exists()
    monkeypatch.setenv("ANEFORGE_TUNE_ATTENTION", "0")
    assert af.attention_tiles(5, 1, 2) == 1


def test_candidates_that_cannot_run_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"none of \(\) parts of 3 queries could run"):
        af.tune_attention(3, 1, 2, candidates=(7,))


def attended(
    x: np.ndarray, context: np.ndarray, ws: list[np.ndarray], heads: int, mask: Any = 0.0
) -> np.ndarray:
    q, k, v = (m @ w.T for m, w in zip((x, context, context), ws, strict=False))

    def split(m: np.ndarray) -> np.ndarray:
        return m.reshape(len(m), heads, -1).swapaxes(0, 1)

    scores = split(q) @ split(k).swapaxes(1, 2) / np.sqrt(q.shape[1] / heads) + mask
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    merged = (scores / scores.sum(-1, keepdims=True)) @ split(v)
    return merged.swapaxes(0, 1).reshape(len(x), -1) @ ws[3].T


@pytest.mark.parametrize("kind", ["none", "[S, S]", "[1, S, S]", "[H, S, S]"])
@pytest.mark.parametrize("given", ["array", "Tensor"])
def test_masks_of_long_sequences(kind: str, given: str) -> None:
    s, d, heads = 800, 8, 2
    ws = [RNG.standard_normal((d, d)) / 2 for _ in range(4)]
    values = RNG.standard_normal((s, d))
    causal = np.triu(np.full((s, s), -1e4), 1)
    masks = {
        "none": None,
        "[S, S]": causal,
        "[1, S, S]": causal[None],
        "[H, S, S]": np.stack([causal, causal.T]),
    }
    mask = masks[kind]
    x = af.input((s, d))
    fed = mask is not None and given == "Tensor"
    operand = af.input(mask.shape) if fed else mask
    y = af.mha(x, ws[0], None, ws[1], None, ws[2], None, ws[3], None, heads, mask=operand)
    assert softmaxes(y) == 2
    got = af.compile(y, device="host", numerics="ieee")(*([values, mask] if fed else [values]))
    np.testing.assert_allclose(
        got, attended(values, values, ws, heads, 0.0 if mask is None else mask), atol=0.03
    )


def test_a_context_is_cut_only_when_both_are_long() -> None:
    w = [RNG.standard_normal((8, 8)) / 2 for _ in range(4)]
    for s, t, parts in ((800, 600, 2), (800, 500, 1), (700, 600, 1)):
        x, context = af.input((s, 8)), af.input((t, 8))
        assert softmaxes(af.cross_attention(x, context, *w, n_heads=2)) == parts
    values, keys = RNG.standard_normal((5, 8)), RNG.standard_normal((7, 8))
    y = af.cross_attention(af.input((5, 8)), af.input((7, 8)), *w, n_heads=2)
    got = af.compile(y, device="host", numerics="ieee")(values, keys)
    np.testing.assert_allclose(got, attended(values, keys, w, 2), atol=0.02)
    with pytest.raises(ValueError, match="8 features do not divide into 3 heads"):
        af.cross_attention(af.input((5, 8)), af.input((7, 8)), *w, n_heads=3)


def test_gated_units_are_two_layers() -> None:
    w, b = RNG.standard_normal((6, 4)), RNG.standard_normal(6)
    values = RNG.standard_normal((3, 4))
    y = af.geglu(af.input((3, 4)), w, b)
    value, gate = np.split(values @ w.T + b, 2, -1)
    want = value * gate * np.vectorize(lambda g: 0.5 * (1 + erf(g / sqrt(2))))(gate)
    np.testing.assert_allclose(
        af.compile(y, device="host", numerics="ieee")(values), want, rtol=1e-2, atol=1e-2
    )
    assert y.srcs[0].op == "matmul"


def nodes(y: af.Tensor) -> list[str]:
    """The ops behind a tensor as its views show them."""
    seen, stack = {}, [y]
    while stack:
        x = stack.pop()
        if x not in seen:
            seen[x] = x.op
            stack.extend(x.srcs)
    return sorted(seen.values())


def test_attention_is_shown_as_the_nodes_it_stands_for() -> None:
    w = [RNG.standard_normal((8, 8)) / 2 for _ in range(4)]
    x = af.input((6, 8))
    y = af.cross_attention(x, x, *w, n_heads=2)
    want = ["bmm"] * 2 + ["input"] + ["matmul"] * 4 + ["muls"] + ["reshape"] * 4 + ["softmax"] + ["transpose"] * 5
    assert nodes(y) == want
    assert af.compile(y, device="host").n_ops == len(want) - 1
    product = y.srcs[0].srcs[0].srcs[0]
    assert repr(product) == "Tensor(bmm, shape=(2, 6, 4))" and not product.attrs
    probabilities, values = product.srcs
    assert (probabilities.op, dict(probabilities.attrs), values.op) == ("softmax", {"axis": 2}, "transpose")
    assert probabilities == y.srcs[0].srcs[0].srcs[0].srcs[0], "the nodes are the same ever after"
    both = af.compile([y, probabilities], device="host")
    assert both.n_ops == len(want) - 1
    np.testing.assert_allclose(both(RNG.standard_normal((6, 8)))[1].sum(-1), 1, atol=5e-3)
    html = y._repr_html_()
    places = [html.index(f"<td>{op}</td>") for op in ("matmul", "bmm", "softmax", "muls", "input")]
    assert places == sorted(places) and "attention" not in html
    assert "attention" not in {node["op"] for node in af.precision_risk(y)["nodes"]}


def test_the_layer_is_shown_where_it_is_reliable() -> None:
    q = [af.input((1, 2, 5, 4)) for _ in range(3)]
    y = af.sdpa(*q, scale=0.25, is_causal=True)
    assert (y.op, dict(y.attrs)) == ("sdpa", {"scale": 0.25, "causal": True})
    assert all(shown == given for shown, given in zip(y.srcs, q, strict=True))
    again = af.Tensor(y.shape, y.op, list(y.srcs), dict(y.attrs))
    assert repr(again) == repr(y)


def test_masks_of_truth_values_are_refused() -> None:
    x, keep = af.input((1, 1, 2, 4)), np.tril(np.ones((1, 1, 2, 2), dtype=bool))
    w = np.eye(4, dtype=np.float32)
    rows = af.input((2, 4))
    for given in (keep, keep.tolist(), af.input((1, 1, 2, 2)) > 0):
        with pytest.raises(TypeError, match=r"sdpa: attn_mask is added to the scores .* np.where\(keep, 0, -1e4\)"):
            af.sdpa(x, x, x, attn_mask=given)
    with pytest.raises(TypeError, match="mha: mask is added to the scores and takes no truth values"):
        af.mha(rows, w, None, w, None, w, None, w, None, n_heads=2, mask=keep[0, 0])
    af.sdpa(x, x, x, attn_mask=np.where(keep, 0, -1e4))
