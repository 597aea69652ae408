"""Attention and gated units, and into how many parts attention is cut."""

from __future__ import annotations

from collections.abc import Sequence

from aneforge import _env, _native
from aneforge._native import Tensor
from aneforge._operand import Array, integer, scores_mask, value, vector, weight, within

_CANDIDATES = (1, 2, 3, 4, 5, 6, 8)
_RUNS = 20

_known: dict[tuple[int, int, int, int], int] = {}


def _optional(where: str, array: Tensor | Array | None, length: int) -> Tensor | None:
    return None if array is None else vector(where, array, (length,))


def _attention(
    name: str,
    x: Tensor,
    context: Tensor | None,
    projections: Sequence[Tensor | Array],
    biases: Sequence[Tensor | Array | None],
    n_heads: int,
    mask: Tensor | Array | None,
) -> Tensor:
    letters = ("q", "k", "v", "o")
    weights = [weight(f"{name}: W{c}", w) for c, w in zip(letters, projections, strict=True)]
    for c, w in zip(letters, weights, strict=True):
        if w.ndim != 2:
            raise ValueError(f"{name}: W{c} must be [out, in], got shape {w.shape}")
    offsets = [
        _optional(f"{name}: b{c}", b, w.shape[0]) for c, b, w in zip(letters, biases, weights, strict=True)
    ]
    added = None if mask is None else scores_mask(f"{name}: mask", mask)
    heads = integer(f"{name}: n_heads", n_heads)
    parts = _parts(x, x if context is None else context, weights[0], heads, context is not None)
    return _native.attention(x, context, weights, offsets, heads, parts, added)


def _parts(x: Tensor, context: Tensor, wq: Tensor, heads: int, crossed: bool) -> int:
    """Into how many parts these queries go; 1 where the shapes are wrong, which the op says better."""
    if x.ndim != 2 or context.ndim != 2 or heads < 1:
        return 1
    queries, keys = x.shape[0], context.shape[0]
    if crossed and not _native.cuts_cross_attention(queries, keys):
        return 1
    return attention_tiles(queries, heads, wq.shape[0] // heads, keys)


def mha(
    x: Tensor,
    Wq: Tensor | Array,
    bq: Tensor | Array | None,
    Wk: Tensor | Array,
    bk: Tensor | Array | None,
    Wv: Tensor | Array,
    bv: Tensor | Array | None,
    Wo: Tensor | Array,
    bo: Tensor | Array | None,
    n_heads: int,
    mask: Tensor | Array | None = None,
) -> Tensor:
    """Multi-head self-attention: `softmax(q k^T / sqrt(d) + mask) v` per head, merged and projected.

    Args:
        x: `[S, D]`.
        Wq: projection to queries, `[D, D]`; `Wk`, `Wv` and `Wo` likewise.
        bq: bias of the queries, `[D]`, or None; `bk`, `bv` and `bo` likewise.
        n_heads: how many heads `D` divides into.
        mask: added to the scores: `[S, S]`, `[1, S, S]` or `[H, S, S]`, with -1e4 where a key is hidden.
    """
    return _attention("mha", x, None, (Wq, Wk, Wv, Wo), (bq, bk, bv, bo), n_heads, mask)


def cross_attention(
    x: Tensor,
    context: Tensor,
    Wq: Tensor | Array,
    Wk: Tensor | Array,
    Wv: Tensor | Array,
    Wo: Tensor | Array,
    n_heads: int,
    bq: Tensor | Array | None = None,
    bk: Tensor | Array | None = None,
    bv: Tensor | Array | None = None,
    bo: Tensor | Array | None = None,
) -> Tensor:
    """Multi-head attention of `x` `[S, D]` to `context` `[T, E]`.

    Queries are projected from `x`, keys and values from `context`; weights are `[out, in]`.
    """
    projections, biases = (Wq, Wk, Wv, Wo), (bq, bk, bv, bo)
    return _attention("cross_attention", x, context, projections, biases, n_heads, None)


def geglu(x: Tensor, W: Tensor | Array, b: Tensor | Array | None) -> Tensor:
    """`value * gelu(gate)`, where `x @ W.T + b` is `value` and `gate` side by side.

    `x` is `[..., D]` and `W` `[2F, D]`, its first half for the value; `b` is `[2F]` or None; the result is `[..., F]`.
    """
    matrix = weight("geglu: W", W)
    if matrix.ndim != 2:
        raise ValueError(f"geglu: W must be [2F, D], got shape {matrix.shape}")
    return _native.geglu(x, matrix, _optional("geglu: b", b, matrix.shape[0]))


def attention_tiles(
    S: int,
    n_heads: int,
    dh: int,
    T: int | None = None,
    tune: bool = False,
    candidates: Sequence[int] = _CANDIDATES,
) -> int:
    """Into how many parts attention cuts its queries.

    What was measured on this machine before is taken from memory or from `ANEFORGE_CACHE_DIR`; with `tune`, or
    under `ANEFORGE_TUNE_ATTENTION=1`, it is measured now. Otherwise it is `max(1, (S + 256) // 512)`. The
    number changes the time that attention takes, and no result.

    Args:
        S: the number of queries.
        n_heads: the number of heads.
        dh: the size of a head.
        T: the number of keys; by default `S`.
        tune: measure if it is not known yet.
        candidates: the numbers to try.
    """
    queries, heads, size = (
        integer(f"attention_tiles: {n}", v) for n, v in (("S", S), ("n_heads", n_heads), ("dh", dh))
    )
    keys = queries if T is None else integer("attention_tiles: T", T)
    if min(queries, heads, size, keys) < 1:
        raise ValueError(
            f"attention_tiles: S, n_heads, dh and T must be at least 1, got {(S, n_heads, dh, T)}"
        )
    extents = (queries, keys, heads, size)
    for name, extent in zip(("S", "T", "n_heads", "dh"), extents, strict=True):
        within(f"attention_tiles: {name}", extent)
    if extents not in _known and (stored := _native.known_attention(extents, _env.cache_dir())):
        _known[extents] = stored
    if extents in _known:
        return _known[extents]
    if not tune and not _env.tune_attention():
        return _native.attention_tiles(queries)
    tried = [integer("attention_tiles: each candidate", c) for c in candidates]
    _known[extents] = _fastest(queries, keys, heads, size, [c for c in tried if 1 <= c <= queries])
    _native.keep_attention(extents, _known[extents], _env.cache_dir())
    return _known[extents]


def tune_attention(
    S: int, n_heads: int, dh: int, T: int | None = None, candidates: Sequence[int] = _CANDIDATES
) -> int:
    """Measures into how many parts attention is best cut, and remembers it for `attention_tiles`."""
    return attention_tiles(S, n_heads, dh, T, tune=True, candidates=candidates)


def _fastest(queries: int, keys: int, heads: int, size: int, candidates: Sequence[int]) -> int:
    """The candidate with the least median time, on the device that models run on by default."""
    return _native.tune_attention((queries, keys, heads, size), candidates, _env.bench(_RUNS))
