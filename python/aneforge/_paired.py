"""Numbers as sums of two halves: more digits than half precision has, from ordinary ops of the graph.

The sums and products whose rounding errors are recovered here are exact in IEEE arithmetic: Knuth's sum of two
numbers, Dekker's product with Veltkamp's splitting. They hold because no pass reorders or distributes anything.
"""

from __future__ import annotations

import numpy as np

from aneforge._functions import concat
from aneforge._native import Tensor
from aneforge._tensor import integer

_SPLITTER = 65.0
"""`2**6 + 1`: parts a half-precision number of 11 bits into two of which each has at most six."""


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """`a + b` rounded, and what the rounding lost."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` as a sum of two numbers with half of the digits each."""
    c = x * _SPLITTER
    high = c - (c - x)
    return high, x - high


def _two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """`a * b` rounded, and what the rounding lost."""
    p = a * b
    (ah, al), (bh, bl) = _split(a), _split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _sum_last(x: Tensor) -> Tensor:
    """The sum over the last axis as a product, which accumulates wide."""
    return x @ np.ones((x.shape[-1], 1), dtype=np.float16)


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

    @classmethod
    def _settled(cls, s: Tensor, e: Tensor) -> Paired:
        """The pair of a sum and its error, with the digits moved up."""
        hi = s + e
        return cls(hi, e - (hi - s))

    @staticmethod
    def _other(other: object) -> Paired | None:
        if isinstance(other, Tensor):
            return paired(other)
        return other if isinstance(other, Paired) else None

    def __add__(self, other: Paired | Tensor) -> Paired:
        pair = self._other(other)
        if pair is None:
            return NotImplemented
        s, e = _two_sum(self.hi, pair.hi)
        return self._settled(s, e + (self.lo + pair.lo))

    def __sub__(self, other: Paired | Tensor) -> Paired:
        pair = self._other(other)
        if pair is None:
            return NotImplemented
        s, e = _two_sum(self.hi, pair.hi * -1.0)
        return self._settled(s, e + (self.lo - pair.lo))

    def __mul__(self, other: Paired | Tensor | float) -> Paired:
        if isinstance(other, (bool, int, float)):
            return Paired(self.hi * float(other), self.lo * float(other))
        pair = self._other(other)
        if pair is None:
            return NotImplemented
        p, e = self._product(pair)
        return self._settled(p, e)

    __rmul__ = __mul__

    def __neg__(self) -> Paired:
        return Paired(self.hi * -1.0, self.lo * -1.0)

    def _product(self, other: Paired) -> tuple[Tensor, Tensor]:
        """The product of the high halves, and its error with the mixed products; the low ones' is dropped."""
        p, e = _two_product(self.hi, other.hi)
        return p, e + (self.hi * other.lo + self.lo * other.hi)

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
        p, e = self._product(pair)
        at = integer("Paired.dot: axis", axis)
        if not -p.ndim <= at < p.ndim:
            raise ValueError(f"Paired.dot: axis {at} is out of range for shape {p.shape}")
        at %= p.ndim
        if at != p.ndim - 1:
            order = [i for i in range(p.ndim) if i != at] + [at]
            p, e = p.transpose(order), e.transpose(order)
        total = _sum_last(p)
        # What rounding the sum lost comes out of the same wide sum with the rounded one taken away.
        lost = _sum_last(concat([p, total * -1.0], -1))
        return self._settled(*_two_sum(total, _sum_last(e) + lost))

    def to_tensor(self) -> Tensor:
        """`hi + lo`, rounded to half precision."""
        return self.hi + self.lo

    combine = to_tensor


def paired(hi: Tensor, lo: Tensor | None = None) -> Paired:
    """A pair from its halves; the low one is zero when it is left out."""
    if not isinstance(hi, Tensor):
        raise TypeError(f"paired: hi must be a Tensor, got {type(hi).__name__}")
    return Paired(hi, hi - hi if lo is None else lo)


def paired_subtract(a: Tensor, b: Tensor) -> Tensor:
    """`a - b` in pairs, rounded at the end."""
    return (paired(a) - paired(b)).to_tensor()
