# Written by `cargo xtask gen` from the declarations in crates/aneforge/src/ir/ops. Do not edit.
"""Methods of `Tensor` and functions of native layers, whose signatures follow from the op list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from aneforge import _native
from aneforge._native import Tensor
from aneforge._operand import Array, axes_of, reduced, value

__all__ = [
    "topk",
    "sort",
    "cross_product",
    "cross_correlation",
    "cost_volume",
    "fps",
    "radius_search",
    "minmax_norm",
    "lrn",
    "space_to_channel",
    "channel_to_space",
    "space_to_batch",
    "batch_to_space",
    "input_view",
    "dynamic_slice",
    "scaled_elementwise",
]


class OpMethods:
    """One method per op of one input."""

    __slots__ = ()

    def relu(self) -> Tensor:
        """`max(x, 0)`.

        Example:
            x = af.input((2, 3))
            out = x.relu()
        """
        return _native.apply("relu", [cast(Tensor, self)])

    def gelu(self) -> Tensor:
        """`x * Phi(x)` with the normal distribution's `Phi`: the exact form, through the error function.

        Example:
            x = af.input((2, 3))
            out = x.gelu()
        """
        return _native.apply("gelu", [cast(Tensor, self)])

    def silu(self) -> Tensor:
        """`x * sigmoid(x)`, also called swish.

        Example:
            x = af.input((2, 3))
            out = x.silu()
        """
        return _native.apply("silu", [cast(Tensor, self)])

    def sigmoid(self) -> Tensor:
        """The logistic function, `1 / (1 + exp(-x))`.

        Example:
            x = af.input((2, 3))
            out = x.sigmoid()
        """
        return _native.apply("sigmoid", [cast(Tensor, self)])

    def tanh(self) -> Tensor:
        """The hyperbolic tangent.

        Example:
            x = af.input((2, 3))
            out = x.tanh()
        """
        return _native.apply("tanh", [cast(Tensor, self)])

    def exp(self) -> Tensor:
        """`e` to the power `x`. Overflows to infinity above 11.09.

        Example:
            x = af.input((2, 3))
            out = x.exp()
        """
        return _native.apply("exp", [cast(Tensor, self)])

    def exp2(self) -> Tensor:
        """Two to the power `x`.

        Example:
            x = af.input((2, 3))
            out = x.exp2()
        """
        return _native.apply("exp2", [cast(Tensor, self)])

    def sqrt(self) -> Tensor:
        """The square root.

        Example:
            x = af.input((2, 3))
            out = x.sqrt()
        """
        return _native.apply("sqrt", [cast(Tensor, self)])

    def abs(self) -> Tensor:
        """The magnitude.

        Example:
            x = af.input((2, 3))
            out = x.abs()
        """
        return _native.apply("abs", [cast(Tensor, self)])

    def square(self) -> Tensor:
        """`x * x`.

        Example:
            x = af.input((2, 3))
            out = x.square()
        """
        return _native.apply("square", [cast(Tensor, self)])

    def sin(self) -> Tensor:
        """The sine of `x` in radians. Before A15 a polynomial, within 1.5e-3 for magnitudes up to 400.

        Example:
            x = af.input((2, 3))
            out = x.sin()
        """
        return _native.apply("sin", [cast(Tensor, self)])

    def cos(self) -> Tensor:
        """The cosine of `x` in radians. Before A15 a polynomial, within 1.5e-3 for magnitudes up to 400.

        Example:
            x = af.input((2, 3))
            out = x.cos()
        """
        return _native.apply("cos", [cast(Tensor, self)])

    def atan(self) -> Tensor:
        """The angle in radians whose tangent is `x`.

        Example:
            x = af.input((2, 3))
            out = x.atan()
        """
        return _native.apply("atan", [cast(Tensor, self)])

    def erf(self) -> Tensor:
        """The error function.

        Example:
            x = af.input((2, 3))
            out = x.erf()
        """
        return _native.apply("erf", [cast(Tensor, self)])

    def relu6(self) -> Tensor:
        """`min(max(x, 0), 6)`.

        Example:
            x = af.input((2, 3))
            out = x.relu6()
        """
        return _native.apply("relu6", [cast(Tensor, self)])

    def softsign(self) -> Tensor:
        """`x / (1 + abs(x))`.

        Example:
            x = af.input((2, 3))
            out = x.softsign()
        """
        return _native.apply("softsign", [cast(Tensor, self)])

    def softplus(self) -> Tensor:
        """`ln(1 + exp(x))`. As compiled, off by at most 4.6e-5.

        Example:
            x = af.input((2, 3))
            out = x.softplus()
        """
        return _native.apply("softplus", [cast(Tensor, self)])

    def floor(self) -> Tensor:
        """The greatest integer not above `x`.

        Example:
            x = af.input((2, 3))
            out = x.floor()
        """
        return _native.apply("floor", [cast(Tensor, self)])

    def ceil(self) -> Tensor:
        """The least integer not below `x`.

        Example:
            x = af.input((2, 3))
            out = x.ceil()
        """
        return _native.apply("ceil", [cast(Tensor, self)])

    def round(self) -> Tensor:
        """The nearest integer, ties away from zero.

        Example:
            x = af.input((2, 3))
            out = x.round()
        """
        return _native.apply("round", [cast(Tensor, self)])

    def sign(self) -> Tensor:
        """-1, 0 or 1.

        Example:
            x = af.input((2, 3))
            out = x.sign()
        """
        return _native.apply("sign", [cast(Tensor, self)])

    def muls(self, k: float) -> Tensor:
        """`x * k` with a scalar.

        Args:
            k: the factor.

        Example:
            x = af.input((2, 3))
            out = x.muls(k=0.75)
        """
        return _native.apply("muls", [cast(Tensor, self)], {"k": k})

    def adds(self, k: float) -> Tensor:
        """`x + k` with a scalar.

        Args:
            k: the summand.

        Example:
            x = af.input((2, 3))
            out = x.adds(k=0.75)
        """
        return _native.apply("adds", [cast(Tensor, self)], {"k": k})

    def log(self, eps: float = 0.0) -> Tensor:
        """`ln(x + eps)`.

        Args:
            eps: added to `x`; rounded to half precision.

        Example:
            x = af.input((2, 3))
            out = x.log(eps=0.125)
        """
        return _native.apply("log", [cast(Tensor, self)], {"eps": eps})

    def rsqrt(self, eps: float = 0.0) -> Tensor:
        """`1 / sqrt(x + eps)`.

        Args:
            eps: added to `x`; rounded to half precision.

        Example:
            x = af.input((2, 3))
            out = x.rsqrt(eps=0.125)
        """
        return _native.apply("rsqrt", [cast(Tensor, self)], {"eps": eps})

    def inverse(self, eps: float = 0.0) -> Tensor:
        """`1 / (x + eps)`.

        Args:
            eps: added to `x`; rounded to half precision.

        Example:
            x = af.input((2, 3))
            out = x.inverse(eps=0.125)
        """
        return _native.apply("inverse", [cast(Tensor, self)], {"eps": eps})

    def elu(self, alpha: float = 1.0) -> Tensor:
        """`x` where it is positive, else `alpha * (exp(x) - 1)`.

        Args:
            alpha: the limit far below zero, negated.

        Example:
            x = af.input((2, 3))
            out = x.elu(alpha=0.5)
        """
        return _native.apply("elu", [cast(Tensor, self)], {"alpha": alpha})

    def leaky_relu(self, alpha: float = 0.01) -> Tensor:
        """`x` where it is positive, else `alpha * x`.

        Args:
            alpha: the slope below zero.

        Example:
            x = af.input((2, 3))
            out = x.leaky_relu(alpha=0.125)
        """
        return _native.apply("leaky_relu", [cast(Tensor, self)], {"alpha": alpha})

    def threshold(self, alpha: float = 0.0) -> Tensor:
        """`max(x, alpha)`.

        Args:
            alpha: the lower bound.

        Example:
            x = af.input((2, 3))
            out = x.threshold(alpha=0.5)
        """
        return _native.apply("threshold", [cast(Tensor, self)], {"alpha": alpha})

    def thresholded_relu(self, alpha: float = 1.0) -> Tensor:
        """`x` where it is at least `alpha`, else 0.

        Args:
            alpha: the least value kept.

        Example:
            x = af.input((2, 3))
            out = x.thresholded_relu(alpha=0.5)
        """
        return _native.apply("thresholded_relu", [cast(Tensor, self)], {"alpha": alpha})

    def clip(self, lo: float, hi: float) -> Tensor:
        """`min(max(x, lo), hi)`.

        Args:
            lo: the lower bound.
            hi: the upper bound.

        Example:
            x = af.input((2, 3))
            out = x.clip(lo=-0.5, hi=0.75)
        """
        return _native.apply("clip", [cast(Tensor, self)], {"lo": lo, "hi": hi})

    def scaled_tanh(self, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
        """`alpha * tanh(beta * x)`.

        Args:
            alpha: the bound of the result.
            beta: the factor of the argument.

        Example:
            x = af.input((2, 3))
            out = x.scaled_tanh(alpha=1.5, beta=0.5)
        """
        return _native.apply("scaled_tanh", [cast(Tensor, self)], {"alpha": alpha, "beta": beta})

    def clamped_relu(self, alpha: float = 0.0, beta: float = 6.0) -> Tensor:
        """`min(x, beta)` where `x` is not negative, else `min(alpha * x, beta)`.

        Args:
            alpha: the slope below zero.
            beta: the upper bound.

        Example:
            x = af.input((2, 3))
            out = x.clamped_relu(alpha=0.25, beta=6.0)
        """
        return _native.apply("clamped_relu", [cast(Tensor, self)], {"alpha": alpha, "beta": beta})

    def sigmoid_hard(self, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
        """`min(max(alpha * x + beta, 0), 1)`, a sigmoid made of straight lines.

        Args:
            alpha: the slope.
            beta: the value at zero.

        Example:
            x = af.input((2, 3))
            out = x.sigmoid_hard(alpha=0.25, beta=0.5)
        """
        return _native.apply("sigmoid_hard", [cast(Tensor, self)], {"alpha": alpha, "beta": beta})

    def linear_activation(self, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
        """`alpha * x + beta`, rounded once.

        Args:
            alpha: the slope.
            beta: the value at zero.

        Example:
            x = af.input((2, 3))
            out = x.linear_activation(alpha=0.75, beta=0.5)
        """
        return _native.apply("linear_activation", [cast(Tensor, self)], {"alpha": alpha, "beta": beta})

    def logical_not(self) -> Tensor:
        """Whether `x` does not hold, for each element.

        Example:
            x = af.input((2, 3)).greater(af.input((2, 3)))
            out = x.logical_not()
        """
        return _native.apply("logical_not", [cast(Tensor, self)])

    def mean(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
        keepdims: bool | None = None,
        keepdim: bool | None = None,
    ) -> Tensor:
        """The mean over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.

        Example:
            x = af.input((2, 5))
            out = x.mean(axes=(1,))
        """
        return reduced("reduce_mean", cast(Tensor, self), axes, axis, dim, keepdims, keepdim)

    def sum(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
        keepdims: bool | None = None,
        keepdim: bool | None = None,
    ) -> Tensor:
        """The sum over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.

        Example:
            x = af.input((2, 5))
            out = x.sum(axes=(1,))
        """
        return reduced("reduce_sum", cast(Tensor, self), axes, axis, dim, keepdims, keepdim)

    def amax(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
        keepdims: bool | None = None,
        keepdim: bool | None = None,
    ) -> Tensor:
        """The greatest element over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.

        Example:
            x = af.input((2, 5))
            out = x.amax(axes=(1,))
        """
        return reduced("reduce_max", cast(Tensor, self), axes, axis, dim, keepdims, keepdim)

    def amin(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
        keepdims: bool | None = None,
        keepdim: bool | None = None,
    ) -> Tensor:
        """The least element over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.

        Example:
            x = af.input((2, 5))
            out = x.amin(axes=(1,))
        """
        return reduced("reduce_min", cast(Tensor, self), axes, axis, dim, keepdims, keepdim)

    def l1_norm(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
        keepdims: bool | None = None,
        keepdim: bool | None = None,
    ) -> Tensor:
        """The sum of magnitudes over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.

        Example:
            x = af.input((2, 5))
            out = x.l1_norm(axes=(1,))
        """
        return reduced("reduce_l1_norm", cast(Tensor, self), axes, axis, dim, keepdims, keepdim)

    def reduce_l2_norm(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
        keepdims: bool | None = None,
        keepdim: bool | None = None,
    ) -> Tensor:
        """The square root of the sum of squares over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.

        Example:
            x = af.input((2, 5))
            out = x.reduce_l2_norm(axes=(1,))
        """
        return reduced("reduce_l2_norm", cast(Tensor, self), axes, axis, dim, keepdims, keepdim)

    def log_sum(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
        keepdims: bool | None = None,
        keepdim: bool | None = None,
    ) -> Tensor:
        """The natural logarithm of the sum over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.

        Example:
            x = af.input((2, 5))
            out = x.log_sum(axes=(1,))
        """
        return reduced("reduce_log_sum", cast(Tensor, self), axes, axis, dim, keepdims, keepdim)

    def sum_square(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
        keepdims: bool | None = None,
        keepdim: bool | None = None,
    ) -> Tensor:
        """The sum of squares over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.

        Example:
            x = af.input((2, 5))
            out = x.sum_square(axes=(1,))
        """
        return reduced("reduce_sum_square", cast(Tensor, self), axes, axis, dim, keepdims, keepdim)

    def reduce_log_sum_exp(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
        keepdims: bool | None = None,
        keepdim: bool | None = None,
    ) -> Tensor:
        """The natural logarithm of the sum of exponentials over `axes`, without overflow.

        Args:
            axes: the axes reduced; negative ones count from the last.

        Example:
            x = af.input((2, 5))
            out = x.reduce_log_sum_exp(axes=(1,))
        """
        return reduced("reduce_log_sum_exp", cast(Tensor, self), axes, axis, dim, keepdims, keepdim)

    def softmax(self, axis: int = -1, *, dim: int | None = None) -> Tensor:
        """Exponentials along one axis, scaled to sum to one.

        The greatest element of each lane is subtracted first, so no finite input overflows. The sum is
        taken in single precision, element `i` in lane `i % 16`; results are rounded once.

        Args:
            axis: the axis normalised over; negative counts from the last.

        Example:
            x = af.input((2, 3))
            out = x.softmax(axis=1)
        """
        return _native.apply("softmax", [cast(Tensor, self)], {"axis": axis if dim is None else dim})

    def l2_norm(self, axis: int = -1, eps: float = 1e-12, *, dim: int | None = None) -> Tensor:
        """`x / max(|x|, sqrt(eps))`, where `|x|` is the length along one axis.

        Args:
            axis: the axis; negative counts from the last.
            eps: the floor of the squared length.

        Example:
            x = af.input((3, 8))
            out = x.l2_norm(axis=-1, eps=1e-12)
        """
        return _native.apply("l2_norm", [cast(Tensor, self)], {"axis": axis if dim is None else dim, "eps": eps})

    def squeeze(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
    ) -> Tensor:
        """Without these axes, which must have size one.

        Args:
            axes: axes of `x`.

        Example:
            x = af.input((1, 3))
            out = x.squeeze(axes=(0,))
        """
        return _native.apply("squeeze", [cast(Tensor, self)], {"axes": axes_of("squeeze", cast(Tensor, self), axes, axis, dim)})

    def expand_dims(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
    ) -> Tensor:
        """With axes of size one at these places of the result.

        Args:
            axes: axes of the result.

        Example:
            x = af.input((2, 3))
            out = x.expand_dims(axes=(0,))
        """
        return _native.apply("expand_dims", [cast(Tensor, self)], {"axes": axes_of("expand_dims", cast(Tensor, self), axes, axis, dim)})

    def flatten2d(self, axis: int = 1) -> Tensor:
        """As a matrix: axes before `axis` are rows, the others columns.

        Args:
            axis: the first axis that is part of the columns.

        Example:
            x = af.input((2, 3, 4))
            out = x.flatten2d(axis=1)
        """
        return _native.apply("flatten2d", [cast(Tensor, self)], {"axis": axis})

    def slice_by_size(self, begin: int | Sequence[int], size: int | Sequence[int]) -> Tensor:
        """The window of `size` that starts at `begin`.

        Args:
            begin: the first element, per axis.
            size: extents of the window.

        Example:
            x = af.input((4, 6))
            out = x.slice_by_size(begin=(1, 2), size=(2, 3))
        """
        return _native.apply("slice_by_size", [cast(Tensor, self)], {"begin": begin, "size": size})

    def reverse(
        self,
        axes: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        dim: int | Sequence[int] | None = None,
    ) -> Tensor:
        """The elements of some axes in the opposite order.

        Args:
            axes: the axes turned around.

        Example:
            x = af.input((2, 3))
            out = x.reverse(axes=(1,))
        """
        return _native.apply("reverse", [cast(Tensor, self)], {"axes": axes_of("reverse", cast(Tensor, self), axes, axis, dim)})

    def tile(self, reps: int | Sequence[int]) -> Tensor:
        """`x` repeated along its axes, as a whole: `y[i] = x[i mod d]` per axis of size `d`.

        The engine repeats 2, 3, 4 and 8 times; legalization writes other factors with these, and with
        `concat`.

        Args:
            reps: how often each axis repeats, at least once.

        Example:
            x = af.input((2, 3))
            out = x.tile(reps=(1, 2))
        """
        return _native.apply("tile", [cast(Tensor, self)], {"reps": reps})

    def upsample(self, scale: int = 2) -> Tensor:
        """Every pixel as a square of `scale` by `scale` equal ones: `y[h, w] = x[h / scale, w / scale]`, rounded
        down. `x` is `[N, C, H, W]`.

        Args:
            scale: the factor of height and width, at least 1.

        Example:
            x = af.input((1, 3, 2, 5))
            out = x.upsample(scale=2)
        """
        return _native.apply("upsample", [cast(Tensor, self)], {"scale": scale})

    def cast(self) -> Tensor:
        """As half precision. Bytes convert exactly.

        Example:
            x = af.input((1, 3, 2, 4), "uint8")
            out = x.cast()
        """
        return _native.apply("cast", [cast(Tensor, self)])

    def argmax(self, axis: int = -1, *, dim: int | None = None) -> Tensor:
        """The place of the greatest element of each row or column, as a number.

        `x` is `[C, W]`; the result is `[C, 1]` for axis 1 and `[1, W]` for axis 0. Of equal elements the first
        counts. At most 2049 elements are searched: places are half-precision numbers, exact up to 2048.

        Args:
            axis: the axis searched; negative counts from the last.

        Example:
            x = af.input((3, 9))
            out = x.argmax(axis=1)
        """
        return _native.apply("argmax", [cast(Tensor, self)], {"axis": axis if dim is None else dim})


def topk(x: Tensor | Array, k: int, largest: bool = True) -> Tensor:
    """The `k` greatest (or least) elements of each row, best first.

    `x` is `[C, W]`; the result is `[C, k]`. The engine's compiler fails for `k` of 3 and 4, so they are
    refused. Needs A14 or newer.

    Args:
        k: how many elements.
        largest: whether the greatest are wanted, rather than the least.

    Example:
        x = af.input((2, 9))
        out = af.topk(x, k=5, largest=True)
    """
    return _native.apply("topk", [value(x)], {"k": k, "largest": largest})


def sort(x: Tensor | Array, descending: bool = False, return_indices: bool = False) -> Tensor:
    """The elements of each row in order, or their places.

    `x` is `[C, W]`, and so is the result. Equal elements keep their order. Places are half-precision numbers,
    exact up to 2048, so they are given of at most 2049 elements. Needs A14 or newer.

    Args:
        descending: whether the greatest comes first.
        return_indices: whether places in the row are wanted, rather than elements.

    Example:
        x = af.input((2, 9))
        out = af.sort(x, descending=False, return_indices=False)
    """
    return _native.apply("sort", [value(x)], {"descending": descending, "return_indices": return_indices})


def cross_product(a: Tensor | Array, b: Tensor | Array) -> Tensor:
    """The cross product of two vectors of three elements.

    The result is `[3]`, whatever the shapes of `a` and `b`. Each element is a difference of two products
    in single precision, rounded once.

    Example:
        a = af.input((3,))
        b = af.input((3,))
        out = af.cross_product(a, b)
    """
    return _native.apply("cross_product", [value(a), value(b)])


def cross_correlation(x: Tensor | Array, template: Tensor | Array) -> Tensor:
    """Correlation of a map with a template at every place where it fits: `y[i, j] = sum x[i+u, j+v] *
    template[u, v]`.

    `x` is `[H, W]`, `template` `[Th, Tw]`, both values; the result is `[H-Th+1, W-Tw+1]`. The template is
    at most 15 wide (13 before A16) and, on the engine, smaller than the map.

    Example:
        x = af.input((5, 5))
        template = af.input((3, 3))
        out = af.cross_correlation(x, template)
    """
    return _native.apply("cross_correlation", [value(x), value(template)])


def cost_volume(aux: Tensor | Array, ref: Tensor | Array, disparity_range: int = 1) -> Tensor:
    """Distances of every pixel of a line to its candidates in another: `out[d, x] = |aux[x] - ref[x + d]|`.

    `aux` has `Wa` elements and `ref` at least `Wa + R`, of any shapes; the result is `[R+1, Wa]`.

    Args:
        disparity_range: the greatest disparity, `R`.

    Example:
        aux = af.input((6,))
        ref = af.input((8,))
        out = af.cost_volume(aux, ref, disparity_range=2)
    """
    return _native.apply("cost_volume", [value(aux), value(ref)], {"disparity_range": disparity_range})


def fps(points: Tensor | Array, k: int) -> Tensor:
    """Farthest-point sampling: `k` points, each as far as can be from those before it, from the first on.

    `points` is `[N, 3]`; the result is `[k, 3]`. The distance is Euclidean; of equally far points the
    first counts. At most 1024 of 8192 points. Distances are in single precision.

    Args:
        k: how many points.

    Example:
        points = af.input((9, 3))
        out = af.fps(points, k=4)
    """
    return _native.apply("fps", [value(points)], {"k": k})


def radius_search(points: Tensor | Array, centroids: Tensor | Array, radius: float) -> Tensor:
    """Whether each point lies within `radius` of each centre, as 0 or 1.

    `points` is `[N, 3]`, `centroids` `[M, 3]`; the result is `[N, M]`. The distance is Euclidean, in single
    precision, and a point at the radius lies within.

    Args:
        radius: the radius, above 0.

    Example:
        points = af.input((8, 3))
        centroids = af.input((3, 3))
        out = af.radius_search(points, centroids, radius=1.5)
    """
    return _native.apply("radius_search", [value(points), value(centroids)], {"radius": radius})


def minmax_norm(x: Tensor | Array, dimension: str = "Width", eps: float = 0.0001) -> Tensor:
    """`(x - min) / (max - min + eps)` over each row, or each column, of every channel.

    `x` is `[1, C, H, W]`. Every step of the formula rounds; a constant row gives 0. Compiling writes it
    with other ops, which need no cut, unless native layers are asked for.

    Args:
        dimension: `Width` for rows, `Height` for columns.
        eps: added to the range.

    Example:
        x = af.input((1, 2, 3, 8))
        out = af.minmax_norm(x, dimension="Width", eps=0.0001)
    """
    return _native.apply("minmax_norm", [value(x)], {"dimension": dimension, "eps": eps})


def lrn(x: Tensor | Array, alpha: float = 1.0, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """`x / (k + alpha * sum of x^2 over neighbouring channels)^beta`, with as many neighbours as channels.

    `x` is `[1, C, H, W]` with at most 15 channels. The neighbours of channel `c` are `c - (C-1)/2` to
    `c + C/2`, rounded down, as far as they exist. `alpha` is not divided by their number, as it is in
    `local_response_norm`, whose arithmetic this is. Compiling writes it as that op, which needs no cut,
    unless native layers are asked for.

    Args:
        alpha: the weight of the sum of squares.
        beta: the power.
        k: the summand.

    Example:
        x = af.input((1, 6, 2, 3))
        out = af.lrn(x, alpha=1.0, beta=0.75, k=1.0)
    """
    return _native.apply("lrn", [value(x)], {"alpha": alpha, "beta": beta, "k": k})


def space_to_channel(x: Tensor | Array, r: int) -> Tensor:
    """Each block of `r` by `r` pixels becomes channels.

    `x` is `[1, C, H, W]`; the result is `[1, C*r*r, H/r, W/r]`, with channel `(i*r + j)*C + c` from row `i`
    and column `j` of the block. Elements move as they are.

    Args:
        r: rows and columns of a block.

    Example:
        x = af.input((1, 3, 4, 6))
        out = af.space_to_channel(x, r=2)
    """
    return _native.apply("space_to_channel", [value(x)], {"r": r})


def channel_to_space(x: Tensor | Array, r: int) -> Tensor:
    """Channels become blocks of `r` by `r` pixels: the inverse of `space_to_channel`.

    `x` is `[1, C*r*r, H, W]`; the result is `[1, C, H*r, W*r]`. Elements move as they are.

    Args:
        r: rows and columns of a block.

    Example:
        x = af.input((1, 8, 2, 3))
        out = af.channel_to_space(x, r=2)
    """
    return _native.apply("channel_to_space", [value(x)], {"r": r})


def space_to_batch(x: Tensor | Array, bh: int, bw: int) -> Tensor:
    """Each place of the blocks of `bh` by `bw` pixels becomes an image of its own.

    `x` is `[N, C, H, W]`; the result is `[N*bh*bw, C, H/bh, W/bw]`, with image `(n*bh + i)*bw + j` from row
    `i` and column `j` of every block. Elements move as they are.

    Args:
        bh: rows of a block.
        bw: columns of a block.

    Example:
        x = af.input((1, 2, 4, 6))
        out = af.space_to_batch(x, bh=2, bw=3)
    """
    return _native.apply("space_to_batch", [value(x)], {"bh": bh, "bw": bw})


def batch_to_space(x: Tensor | Array, bh: int, bw: int) -> Tensor:
    """Images become the places of blocks of `bh` by `bw` pixels: the inverse of `space_to_batch`.

    `x` is `[N*bh*bw, C, H, W]`; the result is `[N, C, H*bh, W*bw]`. Elements move as they are.

    Args:
        bh: rows of a block.
        bw: columns of a block.

    Example:
        x = af.input((6, 2, 2, 2))
        out = af.batch_to_space(x, bh=2, bw=3)
    """
    return _native.apply("batch_to_space", [value(x)], {"bh": bh, "bw": bw})


def input_view(x: Tensor | Array, offset: int, size: int) -> Tensor:
    """`size` elements of a value from `offset` on, counted row by row.

    `x` has any shape; the result is `[size]`.

    Args:
        offset: the first element.
        size: how many.

    Example:
        x = af.input((12,))
        out = af.input_view(x, offset=3, size=5)
    """
    return _native.apply("input_view", [value(x)], {"offset": offset, "size": size})


def dynamic_slice(x: Tensor | Array, start: int, size: int = 2) -> Tensor:
    """Two of four elements, from `start` on.

    The name is that of the engine's layer, which reads its start from an operand. Here that is a constant, the
    attribute `start`, which goes into a weight file: programs with other starts have the same text, but each is
    compiled. `x` has 4 elements; the result is `[2]`. Other sizes are not known to work on the engine; use
    `slice_by_size`. Needs A14 or newer.

    Args:
        start: the first element, 0 to 2.
        size: how many; 2.

    Example:
        x = af.input((4,))
        out = af.dynamic_slice(x, start=0, size=2)
    """
    return _native.apply("dynamic_slice", [value(x)], {"start": start, "size": size})


def scaled_elementwise(x: Tensor | Array, z: Tensor | Array, op: str = "Add", scale: float = 1.0) -> Tensor:
    """`scale * (x op z)` of two values with as many elements.

    The result is one line of elements. `op` is `Add`, `Mult`, `Min` or `Max`; the engine ignores the scale
    of `Mult`, which must be 1. Computed in single precision and rounded once.

    Args:
        op: what is computed: `Add`, `Mult`, `Min` or `Max`.
        scale: the factor of the result.

    Example:
        x = af.input((7,))
        z = af.input((7,))
        out = af.scaled_elementwise(x, z, op="Add", scale=0.5)
    """
    return _native.apply("scaled_elementwise", [value(x), value(z)], {"op": op, "scale": scale})
