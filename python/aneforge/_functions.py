"""Free functions: inputs, convolutions, and ways to put tensors together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from aneforge import _native
from aneforge._blame import is_array
from aneforge._late import np
from aneforge._native import Tensor
from aneforge._operand import Array, integer, scores_mask, value, vector, weight
from aneforge._tensor import TensorMethods, border, pair


def input(
    shape: Sequence[int] | int,
    dtype: str = "fp16",
    max_abs: float | None = None,
    *,
    name: str | None = None,
) -> Tensor:
    """A value that is fed when the model is called; arrays go in the order in which inputs were made.

    Args:
        shape: extents, at most five.
        dtype: `"fp16"`, which takes any real array, or `"uint8"`, which takes integers from 0 to 255.
        max_abs: a promise about magnitudes, which is not checked. With it, `precision_risk` and `compile` know
            what may overflow, and norms that would are written so that they do not.
        name: a name by which the model can be fed, as in `model(image=array)`: letters, digits and `_.-/:`.
    """
    return _native.input(shape, dtype, None if max_abs is None else float(max_abs), name)


def image_input(
    shape: Sequence[int],
    scale: float | Array = 1 / 255,
    bias: float | Array = 0.0,
    *,
    name: str | None = None,
) -> Tensor:
    """An image fed as bytes and converted on the device: `x * scale + bias`.

    Args:
        shape: extents, usually `[N, C, H, W]`.
        scale: one factor, or one per channel.
        bias: one summand, or one per channel.
        name: a name by which the model can be fed; see `input`.
    """
    x = _native.apply("cast", [input(shape, "uint8", name=name)])
    for what, given, neutral in (("scale", scale, 1.0), ("bias", bias, 0.0)):
        values = _native.array(given, f"image_input: {what}")
        if values.ndim == 0 or values.size == 1:
            k = float(values.reshape(()))
            if k != neutral:
                op = "muls" if what == "scale" else "adds"
                x = _native.apply(op, [x], {"k": k})
        elif x.ndim == 4 and values.shape == (x.shape[1],):
            per_channel = _native.constant(values.astype(np.float16).reshape(1, -1, 1, 1))
            x = _native.apply("mul" if what == "scale" else "add", [x, per_channel])
        else:
            raise ValueError(
                f"image_input: {what} needs 1 value, or one per channel of [N, C, H, W]; got shape "
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
    return _convolution("dynamic_conv", x, weight, 0, stride, pad, dilation, groups, None)


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


def instance_norm(x: Tensor, gamma: Tensor | Array, beta: Tensor | Array, eps: float = 1e-5) -> Tensor:
    """`(x - mean) / sqrt(variance + eps) * gamma + beta` over each channel of each image.

    `x` is `[N, C, H, W]`, `gamma` and `beta` `[C]`. The variance is the population's.
    """
    params = [weight("instance_norm: gamma", gamma), weight("instance_norm: beta", beta)]
    return _native.apply("instance_norm", [x, *params], {"eps": eps})


def local_response_norm(
    x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """`x / (k + alpha / size * sum of x^2 over size neighbouring channels)^beta`, for `[N, C, H, W]`.

    The neighbours of channel `c` are `c - (size-1)//2` to `c + size//2`, as far as they exist.
    """
    attrs = {"size": size, "alpha": alpha, "beta": beta, "k": k}
    return _native.apply("local_response_norm", [x], attrs)


def maximum(a: Tensor, b: Tensor | Array | float) -> Tensor:
    """The greater of `a` and `b`, element by element; they broadcast."""
    return _native.apply("maximum", [value(a), value(b)])


def minimum(a: Tensor, b: Tensor | Array | float) -> Tensor:
    """The lesser of `a` and `b`, element by element; they broadcast."""
    return _native.apply("minimum", [value(a), value(b)])


def concat(tensors: Sequence[Tensor], axis: int = 1, *, dim: int | None = None) -> Tensor:
    """Tensors one after another along `axis`, or `dim`; their other extents are equal."""
    axis = axis if dim is None else dim
    parts = list(tensors)
    if not parts:
        raise IndexError("concat: there are no tensors; give at least one")
    return _native.apply("concat", [value(t) for t in parts], {"axis": axis})


def stack(tensors: Sequence[Tensor], axis: int = 0, *, dim: int | None = None) -> Tensor:
    """Tensors of one shape side by side along a new axis, which becomes axis `axis`, or `dim`, of the result."""
    axis = axis if dim is None else dim
    parts = [value(t) for t in tensors]
    if not parts:
        raise ValueError("stack: there are no tensors; give at least one")
    return _native.apply("stack", parts, {"axis": axis})


def split(x: Tensor, num_splits: int, axis: int = 0, *, dim: int | None = None) -> list[Tensor]:
    """`num_splits` equal parts along `axis`, or `dim`."""
    axis = axis if dim is None else dim
    count = integer("split: num_splits", num_splits)
    attrs = {"num_splits": count, "axis": axis}
    return [_native.apply("split", [x], attrs | {"index": index}) for index in range(max(count, 1))]


def select(cond: Tensor | Array, a: Tensor | Array | float, b: Tensor | Array | float) -> Tensor:
    """`a` where `cond` holds, `b` elsewhere; all three broadcast.

    `cond` is the result of a comparison, or an array of truth values.
    """
    return _native.apply("select", [_condition("select", cond), value(a), value(b)])


def where(cond: Tensor | Array, a: Tensor | Array | float, b: Tensor | Array | float) -> Tensor:
    """`a` where `cond` holds, `b` elsewhere; all three broadcast: another name of `select`."""
    try:
        return _native.apply("select", [_condition("where", cond), value(a), value(b)])
    except (TypeError, ValueError) as error:
        if not str(error).startswith("select:"):
            raise
        raised = type(error)("where:" + str(error).removeprefix("select:"))
    raise raised


def _condition(name: str, cond: object) -> Tensor:
    """Truth values; those of an array as a comparison of ones and zeros."""
    if isinstance(cond, Tensor):
        return cond
    kind = type(cond).__name__
    if is_array(cond):
        array = _native.array(cond, f"{name}: cond")
        if array.dtype == np.bool_:
            return value(_native.array(array, f"{name}: cond", "float16")) > 0.5
        kind = f"an array of {array.dtype}"
    raise TypeError(
        f"{name}: cond must be a Tensor or an array of truth values, got {kind}; compare first, as in x > 0"
    )


def flatten(x: Tensor | Array, start_dim: int | None = None, end_dim: int | None = None) -> Tensor:
    """All elements of a value as one line, row by row: `[C, H, W]` as `[C*H*W]`, by a native layer.

    Compiling writes it as `reshape`, which needs no cut, unless native layers are asked for. With `start_dim` or
    `end_dim` it is `x.flatten(start_dim, end_dim)`, of any shape.
    """
    if start_dim is None and end_dim is None:
        return _native.apply("flatten", [value(x)])
    return TensorMethods.flatten(
        cast(Any, value(x)), 0 if start_dim is None else start_dim, -1 if end_dim is None else end_dim
    )


def gather(x: Tensor, indices: Sequence[int] | Array, axis: int = 0, *, dim: int | None = None) -> Tensor:
    """The elements at these static places along `axis`, or `dim`, as slices put together."""
    axis = axis if dim is None else dim
    given: Any = _native.array(indices, "gather: indices").tolist() if isinstance(indices, np.ndarray) else indices
    flat = list(given)
    places = [integer("gather: each index", i) for i in flat]
    if not places:
        raise IndexError("gather: indices are empty; name at least one element")
    if (most := max(places)) >= 1 << 32:
        raise ValueError(f"gather: an index of {most.bit_length()} bits is outside every axis")
    if any(i < 0 for i in places):
        raise ValueError(f"gather: index {min(places)} is negative; count from the first")
    return _native.gather(x, places, axis)


def einsum_native(equation: str, a: Tensor, b: Tensor | Array) -> Tensor:
    """`nchw,nwhu->nchu` as one op: the only equation that the engine's einsum is known to compute.

    Args:
        equation: `"nchw,nwhu->nchu"`; blanks do not count.
        a: `[N, C, H, W]`.
        b: `[N, W, H, U]`, a weight. The result is `[N, C, H, U]`.
    """
    if not isinstance(equation, str):
        raise TypeError(f"einsum_native: equation must be a string, got {type(equation).__name__}")
    if equation.replace(" ", "") != "nchw,nwhu->nchu":
        raise NotImplementedError(
            f"einsum_native: the engine computes nchw,nwhu->nchu only, got {equation!r}; transpose and use @"
        )
    return _native.apply("einsum", [a, weight("einsum_native: b", b)])


def reduce_sum_to_matmul(out: Tensor, only_idx: int | None = None) -> Tensor:
    """The same graph with sums over one axis written as products with ones, which accumulate wide everywhere.

    Args:
        out: the result. Parts of its graph without such a sum are shared with the new one.
        only_idx: the place of the one sum to rewrite, counting nodes from the inputs on; by default all.
    """
    only = None if only_idx is None else integer("reduce_sum_to_matmul: only_idx", only_idx)
    if only is not None and only < 0:
        raise ValueError(f"reduce_sum_to_matmul: only_idx must be at least 0, got {only}")
    return _native.reduce_sum_to_matmul(out, only)


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
    mask = None if attn_mask is None else scores_mask("sdpa: attn_mask", attn_mask)
    return _native.sdpa(q, k, v, scale, bool(is_causal), mask)
