"""Methods of `Tensor` whose signatures do not follow from the op list."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, cast

from aneforge import _native, _ops
from aneforge._blame import blaming
from aneforge._late import np
from aneforge._native import Tensor
from aneforge._operand import Array, integer, value, vector, weight
from aneforge._operand import path as named

def shape_from(where: str, shape: tuple[Any, ...], count: int) -> list[int]:
    """`reshape`'s arguments, with a single -1 worked out."""
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], Iterable) else shape
    dims = [integer(f"{where}: each size", d) for d in sizes]
    if dims.count(-1) == 1:
        known = 1
        for d in dims:
            known *= 1 if d == -1 else d
        if known <= 0 or count % known:
            raise ValueError(f"{where}: {count} elements do not divide into {tuple(dims)}")
        dims[dims.index(-1)] = count // known
    return dims


def compared(name: str, x: object, other: object) -> Tensor:
    """A comparison with a tensor, a number or an array."""
    return _native.apply(name, [cast(Tensor, x), value(other)])


class TensorMethods:
    """Written by hand, where the signature differs from the op's inputs and attributes."""

    __slots__ = ()

    def pow(self, exponent: Tensor | Array | float) -> Tensor:
        """`x` to the power `exponent`, for positive `x`: the same as `x ** exponent`."""
        return _native.apply("pow", [cast(Tensor, self), value(exponent)])

    def clamp(self, lo: float, hi: float) -> Tensor:
        """`min(max(x, lo), hi)`: another name of `clip`."""
        return _native.apply("clip", [cast(Tensor, self)], {"lo": lo, "hi": hi})

    def greater(self, other: Tensor | Array | float) -> Tensor:
        """Whether `x > other`, for each element; for `select` and `logical_not` only."""
        return compared("greater", self, other)

    def less(self, other: Tensor | Array | float) -> Tensor:
        """Whether `x < other`, for each element; for `select` and `logical_not` only."""
        return compared("less", self, other)

    def equal(self, other: Tensor | Array | float) -> Tensor:
        """Whether `x == other`, for each element; for `select` and `logical_not` only."""
        return compared("equal", self, other)

    def not_equal(self, other: Tensor | Array | float) -> Tensor:
        """Whether `x != other`, for each element; for `select` and `logical_not` only."""
        return compared("not_equal", self, other)

    def less_equal(self, other: Tensor | Array | float) -> Tensor:
        """Whether `x <= other`, for each element; for `select` and `logical_not` only."""
        return compared("less_equal", self, other)

    def greater_equal(self, other: Tensor | Array | float) -> Tensor:
        """Whether `x >= other`, for each element; for `select` and `logical_not` only."""
        return compared("greater_equal", self, other)

    def linear(self, W: Tensor | Array, bias: Tensor | Array | None = None) -> Tensor:
        """`x @ W.T + bias`: `x` is `[..., in]`, `W` `[out, in]`, `bias` `[out]`; the result is `[..., out]`."""
        matrix = weight("linear: W", W)
        inputs = [cast(Tensor, self), matrix]
        if bias is not None and matrix.ndim == 2:
            inputs.append(vector("linear: bias", bias, (1, matrix.shape[0])))
        return _native.apply("matmul", inputs)

    def bmm_weight(self, W: Tensor | Array) -> Tensor:
        """`x @ W` for `x` `[B, M, K]` and a weight `[B, K, N]`."""
        matrices = weight("bmm_weight: W", W)
        if matrices.ndim != 3:
            raise ValueError(f"bmm_weight: W must be [B, K, N], got shape {matrices.shape}; use @ for [K, N]")
        return _native.apply("bmm_w", [cast(Tensor, self), matrices])

    def prelu(self, alpha: Tensor | Array) -> Tensor:
        """`x` where it is positive, else `alpha * x`: `x` is `[N, C, ...]`, `alpha` `[C]`."""
        return _native.apply("prelu", [cast(Tensor, self), value(alpha)])

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same elements, row by row, in another shape. One size may be -1: what the others leave.

        Takes sizes, or one sequence of them.
        """
        x = cast(Tensor, self)
        return _native.apply("reshape", [x], {"shape": shape_from("reshape", shape, x.size)})

    def transpose(self, perm: int | Sequence[int] | None = None, *more: int) -> Tensor:
        """Axes in another order: axis `i` of the result is axis `perm[i]` of `x`.

        Takes axes, or one sequence of them; without any, the order is reversed.
        """
        if perm is None and not more:
            return cast(Tensor, self).T
        order = [perm, *more] if more else perm
        return _native.apply("transpose", [cast(Tensor, self)], {"perm": order})

    def rms_norm(self, gamma: Tensor | Array, eps: float = 1e-5) -> Tensor:
        """`x / max(|x|, sqrt(D * eps)) * sqrt(D) * gamma` over the last axis, where `|x|` is its length.

        `x` is `[..., D]`, `gamma` `[D]`. This is `x / sqrt(mean(x^2)) * gamma` with `eps` as a floor of
        the mean square, in the form that the engine fuses.
        """
        return _native.apply("rms_norm", [cast(Tensor, self), weight("rms_norm: gamma", gamma)], {"eps": eps})

    def layer_norm(self, gamma: Tensor | Array, beta: Tensor | Array, eps: float = 1e-5) -> Tensor:
        """`(x - mean) / sqrt(variance + eps) * gamma + beta` over the last axis.

        `x` is `[..., D]`, `gamma` and `beta` `[D]`; both are arrays or both tensors. The variance is the
        population's. `eps` is rounded to half precision, and what would be 0 becomes 2^-24.
        """
        return normed("layer_norm", self, gamma, beta, {"eps": eps})

    def channel_layer_norm(self, gamma: Tensor | Array, beta: Tensor | Array, eps: float = 1e-5) -> Tensor:
        """`layer_norm` over the channels of `[N, C, 1, S]`.

        `gamma` and `beta` are `[C]` or `[1, C, 1, 1]`; both are arrays or both tensors.
        """
        return normed("channel_layer_norm", self, gamma, beta, {"eps": eps})

    def group_norm(
        self, gamma: Tensor | Array, beta: Tensor | Array, num_groups: int, eps: float = 1e-5
    ) -> Tensor:
        """`(x - mean) / sqrt(variance + eps) * gamma + beta` over each of `num_groups` groups of channels.

        `x` is `[1, C, H, W]`, `gamma` and `beta` `[C]` or `[1, C, 1, 1]`; both are arrays or both tensors.
        `num_groups` divides `C`, and neither `C / num_groups` nor `H * W` is above 65536.
        """
        x = cast(Tensor, self)
        if x.ndim == 4 and x.shape[0] != 1:
            raise ValueError(
                f"group_norm: the batch must be 1, got shape {x.shape}; normalise image by image"
            )
        return normed("group_norm", self, gamma, beta, {"num_groups": num_groups, "eps": eps})

    def max_pool(
        self,
        k: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        pad: int | Sequence[int] = 0,
        ceil_mode: bool = False,
    ) -> Tensor:
        """The greatest element of each `k` by `k` window, `stride` apart (by default `k`).

        `x` is `[N, C, H, W]`; `Ho = (H + 2*pad - k + r) // stride + 1`, with `r = stride - 1` when
        `ceil_mode` else 0. Padding never wins.
        """
        attrs = window("max_pool", k, stride, pad, ceil_mode)
        return _native.apply("max_pool", [cast(Tensor, self)], attrs)

    def avg_pool(
        self,
        k: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        pad: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        exclude_pad: bool = False,
    ) -> Tensor:
        """The mean of each `k` by `k` window, `stride` apart (by default `k`).

        Extents are those of `max_pool`. Divides by `k * k`, or by the cells that are not padding when
        `exclude_pad`.
        """
        attrs = window("avg_pool", k, stride, pad, ceil_mode) | {"exclude_pad": exclude_pad}
        return _native.apply("avg_pool", [cast(Tensor, self)], attrs)

    max = _ops.OpMethods.amax
    min = _ops.OpMethods.amin

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The axes from `start_dim` to `end_dim`, by default all, as one. The layer is `af.flatten`."""
        x = cast(Tensor, self)
        ends = [integer("flatten: start_dim", start_dim), integer("flatten: end_dim", end_dim)]
        first, last = (end + x.ndim if end < 0 else end for end in ends)
        if x.ndim == 0:
            return x.reshape(1)
        if not 0 <= first <= last < x.ndim:
            raise ValueError(f"flatten: axes {start_dim} to {end_dim} of shape {x.shape} are not a range of axes")
        return x.reshape(*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])

    def unsqueeze(self, dim: int) -> Tensor:
        """A new axis of one element, which becomes axis `dim` of the result: `expand_dims` of one axis."""
        return _native.apply("expand_dims", [cast(Tensor, self)], {"axes": [integer("unsqueeze: dim", dim)]})

    def astype(self, dtype: object) -> Tensor:
        """`x` as half precision: bytes of an image as numbers, a comparison as ones and zeros.

        The graph has no other type to convert to; results are float32 arrays anyway.
        """
        x = cast(Tensor, self)
        name = "float16" if dtype == "fp16" else str(np.dtype(cast(Any, dtype)))
        if name != "float16" and name != {"uint8": "uint8", "bool": "bool"}.get(x.dtype):
            raise TypeError(
                f"astype: a {x.dtype} tensor can become float16, got {name}; graphs compute in half precision, "
                "and models return float32 arrays"
            )
        if name != "float16" or x.dtype == "fp16":
            return x
        if x.dtype == "uint8":
            return _native.apply("cast", [x])
        return _native.apply("select", [x, value(1.0), value(0.0)])

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the graph behind it as text: `save_graph` of one result."""
        _native.save_graph(cast(Tensor, self), named("save: path", path))

    def cumsum(self, axis: int = -1, *, dim: int | None = None) -> Tensor:
        """Running sums along the last axis, as a product with a triangle of ones."""
        x = cast(Tensor, self)
        axis = axis if dim is None else dim
        if x.ndim == 0 or integer("cumsum: axis", axis) not in (-1, x.ndim - 1):
            raise ValueError(f"cumsum: axis {axis} of shape {x.shape} must be the last; transpose first")
        return _native.apply("matmul", [x, _native.triangle(x.shape[-1])])


def normed(name: str, x: object, gamma: object, beta: object, attrs: dict[str, object]) -> Tensor:
    """A norm whose factor and summand are both constants, or both computed."""
    if isinstance(gamma, Tensor) != isinstance(beta, Tensor):
        raise TypeError(f"{name}: gamma and beta must both be arrays or both be Tensors")
    params = [weight(f"{name}: gamma", gamma), weight(f"{name}: beta", beta)]
    return _native.apply(name, [cast(Tensor, x), *params], attrs)


def pair(where: str, sizes: int | Sequence[int]) -> list[int]:
    """One size for both directions, or two: down and across."""
    if isinstance(sizes, Iterable) and not isinstance(sizes, str):
        both = [integer(where, s) for s in sizes]
        if len(both) != 2:
            raise ValueError(f"{where} must be one integer or two, got {tuple(both)}")
        return both
    return [integer(where, sizes)] * 2


def border(where: str, pad: int | Sequence[int]) -> list[int]:
    """One padding for all sides, or four: top, bottom, left, right."""
    if isinstance(pad, str):
        raise TypeError(
            f"{where} must be one integer or (top, bottom, left, right), got {pad!r}; padding is not worked out from the "
            "kernel: a kernel of odd size k with stride 1 keeps the extents with pad=dilation * (k - 1) // 2"
        )
    if isinstance(pad, Iterable):
        sides = [integer(where, p) for p in pad]
        if len(sides) != 4:
            raise ValueError(f"{where} must be one integer or (top, bottom, left, right), got {tuple(sides)}")
        return sides
    return [integer(where, pad)] * 4


def window(
    where: str,
    k: int | Sequence[int],
    stride: int | Sequence[int] | None,
    pad: int | Sequence[int],
    ceil_mode: bool,
) -> dict[str, object]:
    """A pooling window as attributes of its op."""
    kernel = pair(f"{where}: k", k)
    strides = pair(f"{where}: stride", stride) if stride else kernel
    return {
        "kernel_sizes": kernel,
        "strides": strides,
        "pad": border(f"{where}: pad", pad),
        "ceil_mode": ceil_mode,
    }


def install() -> None:
    """Gives `Tensor` its methods: the class itself is native and has the operators only."""
    for methods in (_ops.OpMethods, TensorMethods):
        for name, method in vars(methods).items():
            if not name.startswith("_"):
                method.__qualname__ = f"Tensor.{name}"
                setattr(Tensor, name, blaming(method, name))
