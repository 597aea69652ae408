"""Numbers as sums of two halves: more digits than half precision has, from ordinary ops of the graph."""

from __future__ import annotations

from aneforge import _native
from aneforge._native import Tensor
from aneforge._tensor import integer


class Paired:
    """An unevaluated sum `hi + lo` of two tensors of one shape, about 22 bits of precision together.

    `+` and `-` take a pair or a tensor; `*` takes these, or a number, which scales both halves. Products need
    magnitudes up to 1000: splitting multiplies by 65.
    """

    __slots__ = ("hi", "lo")
    __array_ufunc__ = None

    def __init__(self, hi: Tensor, lo: Tensor) -> None:
        for name, half in (("hi", hi), ("lo", lo)):
            if not isinstance(half, Tensor):
                raise TypeError(f"Paired: {name} must be a Tensor, got {type(half).__name__}")
        if hi.shape != lo.shape:
            raise ValueError(f"Paired: hi and lo must have one shape, got {hi.shape} and {lo.shape}")
        self.hi = hi
        self.lo = lo

    def __repr__(self) -> str:
        return f"Paired(shape={self.shape})"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both halves."""
        return self.hi.shape

    @staticmethod
    def _other(other: object) -> Paired | None:
        if isinstance(other, Tensor):
            return paired(other)
        return other if isinstance(other, Paired) else None

    def _apply(self, name: str, other: object) -> Paired:
        pair = self._other(other)
        if pair is None:
            return NotImplemented
        return Paired(*_native.paired_apply(name, (self.hi, self.lo), (pair.hi, pair.lo)))

    def __add__(self, other: Paired | Tensor) -> Paired:
        return self._apply("add", other)

    def __sub__(self, other: Paired | Tensor) -> Paired:
        return self._apply("sub", other)

    def __mul__(self, other: Paired | Tensor | float) -> Paired:
        if isinstance(other, (bool, int, float)):
            return Paired(*_native.paired_muls((self.hi, self.lo), float(other)))
        return self._apply("mul", other)

    __rmul__ = __mul__

    def __neg__(self) -> Paired:
        return self * -1.0

    def neg(self) -> Paired:
        """Both halves negated."""
        return -self

    def add(self, other: Paired | Tensor) -> Paired:
        """The sum."""
        return self + other

    def sub(self, other: Paired | Tensor) -> Paired:
        """The difference."""
        return self - other

    def mul(self, other: Paired | Tensor | float) -> Paired:
        """The product, element by element or with a number."""
        return self * other

    def dot(self, other: Paired | Tensor, axis: int = -1) -> Paired:
        """The sum of products along `axis`, which becomes the last and has size one."""
        pair = self._other(other)
        if pair is None:
            raise TypeError(f"Paired.dot: takes a Paired or a Tensor, got {type(other).__name__}")
        at = integer("Paired.dot: axis", axis)
        return Paired(*_native.paired_dot((self.hi, self.lo), (pair.hi, pair.lo), at))

    def to_tensor(self) -> Tensor:
        """`hi + lo`, rounded to half precision."""
        return self.hi + self.lo

    combine = to_tensor


def paired(hi: Tensor, lo: Tensor | None = None) -> Paired:
    """A pair from its halves; the low one is zero when it is left out."""
    if not isinstance(hi, Tensor):
        raise TypeError(f"paired: hi must be a Tensor, got {type(hi).__name__}")
    return Paired(*_native.paired_of(hi)) if lo is None else Paired(hi, lo)


def paired_subtract(a: Tensor, b: Tensor) -> Tensor:
    """`a - b` in pairs, rounded at the end."""
    return (paired(a) - paired(b)).to_tensor()
