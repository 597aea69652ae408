# Written by `cargo xtask gen` from the declarations in crates/aneforge/src/ir/ops. Do not edit.
"""Methods of `Tensor` whose signatures follow from the op list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from aneforge import _native
from aneforge._native import Tensor


class OpMethods:
    """One method per op of one input."""

    __slots__ = ()

    def relu(self) -> Tensor:
        """`max(x, 0)`."""
        return _native.apply("relu", [cast(Tensor, self)])

    def gelu(self) -> Tensor:
        """`x * Phi(x)` with the normal distribution's `Phi`: the exact form, through the error function."""
        return _native.apply("gelu", [cast(Tensor, self)])

    def silu(self) -> Tensor:
        """`x * sigmoid(x)`, also called swish."""
        return _native.apply("silu", [cast(Tensor, self)])

    def sigmoid(self) -> Tensor:
        """The logistic function, `1 / (1 + exp(-x))`."""
        return _native.apply("sigmoid", [cast(Tensor, self)])

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return _native.apply("tanh", [cast(Tensor, self)])

    def exp(self) -> Tensor:
        """`e` to the power `x`. Overflows to infinity above 11.09."""
        return _native.apply("exp", [cast(Tensor, self)])

    def exp2(self) -> Tensor:
        """Two to the power `x`."""
        return _native.apply("exp2", [cast(Tensor, self)])

    def sqrt(self) -> Tensor:
        """The square root."""
        return _native.apply("sqrt", [cast(Tensor, self)])

    def abs(self) -> Tensor:
        """The magnitude."""
        return _native.apply("abs", [cast(Tensor, self)])

    def square(self) -> Tensor:
        """`x * x`. Written as a product: the engine's own square op miscompiles at some widths."""
        return _native.apply("square", [cast(Tensor, self)])

    def sin(self) -> Tensor:
        """The sine of `x` in radians. Before A15 a polynomial, within 1.5e-3 for magnitudes up to 400."""
        return _native.apply("sin", [cast(Tensor, self)])

    def cos(self) -> Tensor:
        """The cosine of `x` in radians. Before A15 a polynomial, within 1.5e-3 for magnitudes up to 400."""
        return _native.apply("cos", [cast(Tensor, self)])

    def atan(self) -> Tensor:
        """The angle in radians whose tangent is `x`."""
        return _native.apply("atan", [cast(Tensor, self)])

    def erf(self) -> Tensor:
        """The error function."""
        return _native.apply("erf", [cast(Tensor, self)])

    def relu6(self) -> Tensor:
        """`min(max(x, 0), 6)`."""
        return _native.apply("relu6", [cast(Tensor, self)])

    def softsign(self) -> Tensor:
        """`x / (1 + abs(x))`."""
        return _native.apply("softsign", [cast(Tensor, self)])

    def softplus(self) -> Tensor:
        """`ln(1 + exp(x))`. Written as `softplus(min(x, 10)) + relu(x - 10)`, because the engine's own op
        returns 0 from 11.09 on; the error of the sum is at most 4.6e-5.
        """
        return _native.apply("softplus", [cast(Tensor, self)])

    def floor(self) -> Tensor:
        """The greatest integer not above `x`."""
        return _native.apply("floor", [cast(Tensor, self)])

    def ceil(self) -> Tensor:
        """The least integer not below `x`."""
        return _native.apply("ceil", [cast(Tensor, self)])

    def round(self) -> Tensor:
        """The nearest integer, ties away from zero. Magnitudes from 1024 on are integers already and are
        passed through, because the engine's own op adds a half to them.
        """
        return _native.apply("round", [cast(Tensor, self)])

    def sign(self) -> Tensor:
        """-1, 0 or 1."""
        return _native.apply("sign", [cast(Tensor, self)])

    def muls(self, k: float = 1.0) -> Tensor:
        """`x * k` with a scalar.

        Args:
            k: the factor.
        """
        return _native.apply("muls", [cast(Tensor, self)], {"k": k})

    def adds(self, k: float = 0.0) -> Tensor:
        """`x + k` with a scalar.

        Args:
            k: the summand.
        """
        return _native.apply("adds", [cast(Tensor, self)], {"k": k})

    def log(self, eps: float = 0.0) -> Tensor:
        """`ln(x + eps)`.

        Args:
            eps: added to `x`; rounded to half precision.
        """
        return _native.apply("log", [cast(Tensor, self)], {"eps": eps})

    def rsqrt(self, eps: float = 0.0) -> Tensor:
        """`1 / sqrt(x + eps)`.

        Args:
            eps: added to `x`; rounded to half precision.
        """
        return _native.apply("rsqrt", [cast(Tensor, self)], {"eps": eps})

    def inverse(self, eps: float = 0.0) -> Tensor:
        """`1 / (x + eps)`.

        Args:
            eps: added to `x`; rounded to half precision.
        """
        return _native.apply("inverse", [cast(Tensor, self)], {"eps": eps})

    def elu(self, alpha: float = 1.0) -> Tensor:
        """`x` where it is positive, else `alpha * (exp(x) - 1)`.

        Args:
            alpha: the limit far below zero, negated.
        """
        return _native.apply("elu", [cast(Tensor, self)], {"alpha": alpha})

    def leaky_relu(self, alpha: float = 0.01) -> Tensor:
        """`x` where it is positive, else `alpha * x`.

        Args:
            alpha: the slope below zero.
        """
        return _native.apply("leaky_relu", [cast(Tensor, self)], {"alpha": alpha})

    def threshold(self, alpha: float = 0.0) -> Tensor:
        """`max(x, alpha)`.

        Args:
            alpha: the lower bound.
        """
        return _native.apply("threshold", [cast(Tensor, self)], {"alpha": alpha})

    def thresholded_relu(self, alpha: float = 1.0) -> Tensor:
        """`x` where it is at least `alpha`, else 0.

        Args:
            alpha: the least value kept.
        """
        return _native.apply("thresholded_relu", [cast(Tensor, self)], {"alpha": alpha})

    def clip(self, lo: float = 0.0, hi: float = 1.0) -> Tensor:
        """`min(max(x, lo), hi)`.

        Args:
            lo: the lower bound.
            hi: the upper bound.
        """
        return _native.apply("clip", [cast(Tensor, self)], {"lo": lo, "hi": hi})

    def scaled_tanh(self, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
        """`alpha * tanh(beta * x)`.

        Args:
            alpha: the bound of the result.
            beta: the factor of the argument.
        """
        return _native.apply("scaled_tanh", [cast(Tensor, self)], {"alpha": alpha, "beta": beta})

    def clamped_relu(self, alpha: float = 0.0, beta: float = 6.0) -> Tensor:
        """`min(x, beta)` where `x` is not negative, else `min(alpha * x, beta)`.

        Args:
            alpha: the slope below zero.
            beta: the upper bound.
        """
        return _native.apply("clamped_relu", [cast(Tensor, self)], {"alpha": alpha, "beta": beta})

    def sigmoid_hard(self, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
        """`min(max(alpha * x + beta, 0), 1)`, a sigmoid made of straight lines.

        Args:
            alpha: the slope.
            beta: the value at zero.
        """
        return _native.apply("sigmoid_hard", [cast(Tensor, self)], {"alpha": alpha, "beta": beta})

    def linear_activation(self, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
        """`alpha * x + beta`, rounded once.

        Args:
            alpha: the slope.
            beta: the value at zero.
        """
        return _native.apply("linear_activation", [cast(Tensor, self)], {"alpha": alpha, "beta": beta})

    def logical_not(self) -> Tensor:
        """Whether `x` does not hold, for each element."""
        return _native.apply("logical_not", [cast(Tensor, self)])

    def mean(self, axes: int | Sequence[int]) -> Tensor:
        """The mean over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.
        """
        return _native.apply("reduce_mean", [cast(Tensor, self)], {"axes": axes})

    def sum(self, axes: int | Sequence[int]) -> Tensor:
        """The sum over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.
        """
        return _native.apply("reduce_sum", [cast(Tensor, self)], {"axes": axes})

    def amax(self, axes: int | Sequence[int]) -> Tensor:
        """The greatest element over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.
        """
        return _native.apply("reduce_max", [cast(Tensor, self)], {"axes": axes})

    def amin(self, axes: int | Sequence[int]) -> Tensor:
        """The least element over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.
        """
        return _native.apply("reduce_min", [cast(Tensor, self)], {"axes": axes})

    def l1_norm(self, axes: int | Sequence[int]) -> Tensor:
        """The sum of magnitudes over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.
        """
        return _native.apply("reduce_l1_norm", [cast(Tensor, self)], {"axes": axes})

    def reduce_l2_norm(self, axes: int | Sequence[int]) -> Tensor:
        """The square root of the sum of squares over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.
        """
        return _native.apply("reduce_l2_norm", [cast(Tensor, self)], {"axes": axes})

    def log_sum(self, axes: int | Sequence[int]) -> Tensor:
        """The natural logarithm of the sum over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.
        """
        return _native.apply("reduce_log_sum", [cast(Tensor, self)], {"axes": axes})

    def sum_square(self, axes: int | Sequence[int]) -> Tensor:
        """The sum of squares over `axes`.

        Args:
            axes: the axes reduced; negative ones count from the last.
        """
        return _native.apply("reduce_sum_square", [cast(Tensor, self)], {"axes": axes})

    def reduce_log_sum_exp(self, axes: int | Sequence[int]) -> Tensor:
        """The natural logarithm of the sum of exponentials over `axes`, without overflow.

        Args:
            axes: the axes reduced; negative ones count from the last.
        """
        return _native.apply("reduce_log_sum_exp", [cast(Tensor, self)], {"axes": axes})

    def softmax(self, axis: int = -1) -> Tensor:
        """Exponentials along one axis, scaled to sum to one.

        The greatest element of each lane is subtracted first, so no finite input overflows. The sum is
        taken in single precision, element `i` in lane `i % 16`; results are rounded once.

        Args:
            axis: the axis normalised over; negative counts from the last.
        """
        return _native.apply("softmax", [cast(Tensor, self)], {"axis": axis})

    def l2_norm(self, axis: int = -1, eps: float = 1e-12) -> Tensor:
        """`x / max(|x|, sqrt(eps))`, where `|x|` is the length along one axis.

        Args:
            axis: the axis; negative counts from the last.
            eps: the floor of the squared length.
        """
        return _native.apply("l2_norm", [cast(Tensor, self)], {"axis": axis, "eps": eps})

    def transpose(self, perm: int | Sequence[int]) -> Tensor:
        """Axes in another order: axis `i` of the result is axis `perm[i]` of `x`.

        Args:
            perm: a permutation of the axes.
        """
        return _native.apply("transpose", [cast(Tensor, self)], {"perm": perm})

    def squeeze(self, axes: int | Sequence[int]) -> Tensor:
        """Without these axes, which must have size one.

        Args:
            axes: axes of `x`.
        """
        return _native.apply("squeeze", [cast(Tensor, self)], {"axes": axes})

    def expand_dims(self, axes: int | Sequence[int]) -> Tensor:
        """With axes of size one at these places of the result.

        Args:
            axes: axes of the result.
        """
        return _native.apply("expand_dims", [cast(Tensor, self)], {"axes": axes})

    def flatten2d(self, axis: int = 1) -> Tensor:
        """As a matrix: axes before `axis` are rows, the others columns.

        Args:
            axis: the first axis that is part of the columns.
        """
        return _native.apply("flatten2d", [cast(Tensor, self)], {"axis": axis})

    def slice_by_size(self, begin: int | Sequence[int], size: int | Sequence[int]) -> Tensor:
        """The window of `size` that starts at `begin`.

        Args:
            begin: the first element, per axis.
            size: extents of the window.
        """
        return _native.apply("slice_by_size", [cast(Tensor, self)], {"begin": begin, "size": size})

    def reverse(self, axes: int | Sequence[int]) -> Tensor:
        """The elements of some axes in the opposite order.

        Args:
            axes: the axes turned around.
        """
        return _native.apply("reverse", [cast(Tensor, self)], {"axes": axes})

    def tile(self, reps: int | Sequence[int]) -> Tensor:
        """`x` repeated along its axes, as a whole: `y[i] = x[i mod d]` per axis of size `d`.

        The engine repeats 2, 3, 4 and 8 times; legalization writes other factors with these, and with
        `concat`.

        Args:
            reps: how often each axis repeats, at least once.
        """
        return _native.apply("tile", [cast(Tensor, self)], {"reps": reps})

    def upsample(self, scale: int = 2) -> Tensor:
        """Every pixel as a square of `scale` by `scale` equal ones: `y[h, w] = x[h / scale, w / scale]`, rounded
        down. `x` is `[N, C, H, W]`.

        Args:
            scale: the factor of height and width, at least 1.
        """
        return _native.apply("upsample", [cast(Tensor, self)], {"scale": scale})

    def cast(self) -> Tensor:
        """As half precision. Bytes convert exactly."""
        return _native.apply("cast", [cast(Tensor, self)])
