"""Free functions: inputs, convolutions, and ways to put tensors together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from aneforge import _native
from aneforge._native import Tensor
from aneforge._operand import Array, integer, value, vector, weight
from aneforge._tensor import border, pair


def input(shape: Sequence[int] | int, dtype: str = "fp16", max_abs: float | None = None) -> Tensor:
    """A value that is fed when the model is called; arrays go in the order in which inputs were made.

    Args:
        shape: extents, at most five.
        dtype: `"fp16"`, which takes any real array, or `"uint8"`, which takes integers from 0 to 255.
        max_abs: a promise about magnitudes, for optimizations that need one. It is not enforced.
    """
    if max_abs is not None and not float(max_abs) >= 0:
        raise ValueError(f"input: max_abs must be at least 0, got {max_abs}")
    made = _native.input(shape, dtype)
    if max_abs is not None:
        cast(dict[str, object], made.attrs)["max_abs"] = float(max_abs)
    return made


def image_input(shape: Sequence[int], scale: float | Array = 1 / 255, bias: float | Array = 0.0) -> Tensor:
    """An image fed as bytes and converted on the device: `x * scale + bias`.

    Args:
        shape: extents, usually `[N, C, H, W]`.
        scale: one factor, or one per channel.
        bias: one summand, or one per channel.
    """
    x = _native.apply("cast", [input(shape, "uint8")])
    for name, given, neutral in (("scale", scale, 1.0), ("bias", bias, 0.0)):
        values = np.asarray(given)
        if values.ndim == 0 or values.size == 1:
            k = float(values.reshape(()))
            if k != neutral:
                op = "muls" if name == "scale" else "adds"
                x = _native.apply(op, [x], {"k": k})
        elif x.ndim == 4 and values.shape == (x.shape[1],):
            per_channel = _native.constant(values.astype(np.float16).reshape(1, -1, 1, 1))
            x = _native.apply("mul" if name == "scale" else "add", [x, per_channel])
        else:
            raise ValueError(
                f"image_input: {name} needs 1 value, or one per channel of [N, C, H, W]; got shape "
                f"{values.shape} for {tuple(x.shape)}"
            )
    return x


def _convolution(
    name: str,
    x: Tensor,
    kernel: Tensor,
    cout: int,
    stride: int | Sequence[int],
    pad: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    bias: Tensor | Array | None,
) -> Tensor:
    inputs = [x, kernel]
    if bias is not None:
        inputs.append(vector(f"{name}: bias", bias, (1, cout, 1, 1)))
    attrs = {
        "strides": pair(f"{name}: stride", stride),
        "pad": border(f"{name}: pad", pad),
        "dilations": pair(f"{name}: dilation", dilation),
        "groups": integer(f"{name}: groups", groups),
    }
    return _native.apply(name, inputs, attrs)


def conv(
    x: Tensor,
    weight: Tensor | Array,
    stride: int | Sequence[int] = 1,
    pad: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: Tensor | Array | None = None,
) -> Tensor:
    """Correlation of an image with a weight, without turning the kernel around.

    Args:
        x: `[N, Cin, H, W]`.
        weight: `[Cout, Cin/groups, kH, kW]`, with `kW` at most 15, and at most 13 before A16.
        stride: steps between windows; one, or down and across.
        pad: zeros around the image: one, or top, bottom, left, right.
        dilation: steps between taps; one, or down and across.
        groups: groups of channels that do not mix.
        bias: `[Cout]`, added to the rounded sum.
    """
    kernel = _weight("conv: weight", weight)
    cout = kernel.shape[0] if kernel.ndim else 0
    return _convolution("conv", x, kernel, cout, stride, pad, dilation, groups, bias)


def dynamic_conv(
    x: Tensor,
    weight: Tensor,
    stride: int | Sequence[int] = 1,
    pad: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`conv` with a weight that the graph computes; the batch must be 1."""
    if not isinstance(weight, Tensor):
        raise TypeError(f"dynamic_conv: weight must be a Tensor, got {type(weight).__name__}; use conv")
    if x.ndim == 4 and x.shape[0] != 1:
        raise ValueError(f"dynamic_conv: the batch must be 1, got shape {x.shape}")
    return _convolution("conv", x, weight, 0, stride, pad, dilation, groups, None)


def conv_transpose(
    x: Tensor,
    weight: Tensor | Array,
    stride: int | Sequence[int] = 1,
    pad: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: Tensor | Array | None = None,
) -> Tensor:
    """The transpose of `conv`: every pixel adds a scaled kernel to the result.

    Args:
        x: `[N, Cin, H, W]`.
        weight: `[Cin, Cout/groups, kH, kW]`.
        stride: steps between the kernels' places; one, or down and across.
        pad: what is cut off the result: one, or top, bottom, left, right.
        dilation: steps between taps; one, or down and across.
        groups: groups of channels that do not mix.
        bias: `[Cout]`, added to the rounded sum.
    """
    kernel = _weight("conv_transpose: weight", weight)
    cout = kernel.shape[1] * integer("conv_transpose: groups", groups) if kernel.ndim > 1 else 0
    return _convolution("conv_transpose", x, kernel, cout, stride, pad, dilation, groups, bias)


_weight = weight


def batch_norm(
    x: Tensor,
    gamma: Tensor | Array,
    beta: Tensor | Array,
    mean: Tensor | Array,
    var: Tensor | Array,
    eps: float = 1e-5,
) -> Tensor:
    """`(x - mean) / sqrt(var + eps) * gamma + beta` per channel, with statistics given.

    `x` is `[N, C, ...]` of rank 3 or more, the others `[C]`.
    """
    given = {"gamma": gamma, "beta": beta, "mean": mean, "var": var}
    params = [weight(f"batch_norm: {name}", array) for name, array in given.items()]
    return _native.apply("batch_norm", [x, *params], {"eps": eps})


def maximum(a: Tensor, b: Tensor | Array | float) -> Tensor:
    """The greater of `a` and `b`, element by element; they broadcast."""
    return _native.apply("maximum", [value(a), value(b)])


def minimum(a: Tensor, b: Tensor | Array | float) -> Tensor:
    """The lesser of `a` and `b`, element by element; they broadcast."""
    return _native.apply("minimum", [value(a), value(b)])


def concat(tensors: Sequence[Tensor], axis: int = 1) -> Tensor:
    """Tensors one after another along `axis`; their other extents are equal."""
    parts = list(tensors)
    if not parts:
        raise IndexError("concat: there are no tensors; give at least one")
    return _native.apply("concat", [value(t) for t in parts], {"axis": axis})


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis, which becomes axis `axis` of the result."""
    parts = [value(t) for t in tensors]
    if not parts:
        raise ValueError("stack: there are no tensors; give at least one")
    if any(t.shape != parts[0].shape for t in parts):
        raise ValueError(f"stack: shapes differ: {', '.join(str(t.shape) for t in parts)}")
    return concat([_native.apply("expand_dims", [t], {"axes": axis}) for t in parts], axis)


def split(x: Tensor, num_splits: int, axis: int = 0) -> list[Tensor]:
    """`num_splits` equal parts along `axis`."""
    count = integer("split: num_splits", num_splits)
    attrs = {"num_splits": count, "axis": axis}
    return [_native.apply("split", [x], attrs | {"index": index}) for index in range(max(count, 1))]


def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` where `cond` holds, `b` elsewhere. `cond` is the result of a comparison; all three broadcast."""
    for name, given in (("cond", cond), ("a", a), ("b", b)):
        if not isinstance(given, Tensor):
            raise TypeError(f"select: {name} must be a Tensor, got {type(given).__name__}")
    return _native.apply("select", [cond, a, b])


where = select


def gather(x: Tensor, indices: Sequence[int] | Array, axis: int = 0) -> Tensor:
    """The elements at these static places along `axis`, as slices put together."""
    flat: list[Any] = np.asarray(indices).tolist() if isinstance(indices, np.ndarray) else list(indices)
    places = [integer("gather: each index", i) for i in flat]
    if not places:
        raise IndexError("gather: indices are empty; name at least one element")
    if any(i < 0 for i in places):
        raise ValueError(f"gather: index {min(places)} is negative; count from the first")
    return _native.gather(x, places, axis)


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
    added = None if mask is None else value(mask)
    return _native.attention(x, context, weights, offsets, integer(f"{name}: n_heads", n_heads), added)


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


def geglu(x: Tensor, W: Tensor | Array, b: Tensor | Array | None = None) -> Tensor:
    """`value * gelu(gate)`, where `x @ W.T + b` is `value` and `gate` side by side.

    `x` is `[..., D]` and `W` `[2F, D]`, its first half for the value; the result is `[..., F]`.
    """
    matrix = weight("geglu: W", W)
    if matrix.ndim != 2:
        raise ValueError(f"geglu: W must be [2F, D], got shape {matrix.shape}")
    return _native.geglu(x, matrix, _optional("geglu: b", b, matrix.shape[0]))


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None = None,
    is_causal: bool = False,
    attn_mask: Tensor | Array | None = None,
) -> Tensor:
    """Attention of given queries, keys and values: `softmax(q @ k.T * scale + mask) @ v` per head.

    In the range in which the engine's own layer is reliable (the shorter of both lengths below 512, the longer
    at most 2048) this is that layer; beyond it, products and a softmax over parts of the queries.

    Args:
        q: queries, `[1, H, Sq, D]`.
        k: keys, `[1, H, Skv, D]`.
        v: values, as `k`.
        scale: the factor of the scores, by default `1 / sqrt(D)`.
        is_causal: whether query `i` sees keys up to `i` only; `Sq` and `Skv` must agree.
        attn_mask: added to the scores, `[1, 1, Sq, Skv]`, with -1e4 where a key is hidden.
    """
    mask = None if attn_mask is None else value(attn_mask)
    return _native.sdpa(q, k, v, scale, bool(is_causal), mask)
