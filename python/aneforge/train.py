"""What training has beside `af.Trainer`: schedules, dropout, the mean of several workers' gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aneforge import _native
from aneforge._batches import Shuffled, cosine, linear, steps
from aneforge._blame import all_fit, is_array
from aneforge._late import np
from aneforge._native import Noise
from aneforge._operand import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Noise", "Shuffled", "average", "cosine", "linear", "steps"]


def average(workers: Sequence[Sequence[Array]]) -> list[NDArray[Any]]:
    """The mean of what `Trainer.gradients` gave each of several workers, in their order.

    It is, to the bit, what one trainer with `accumulate` sums of the same batches, so that workers that `apply` it make its step.

    Args:
        workers: the gradients of each worker: float16, or float32 of `weights="masters"`.
    """
    if isinstance(workers, (str, bytes, np.ndarray)) or not isinstance(workers, Sequence):
        raise TypeError(f"average: workers must be a sequence of lists of arrays, got {type(workers).__name__}")
    for at, gradients in enumerate(workers):
        if not all_fit(is_array, gradients):
            raise TypeError(f"average: workers[{at}] must be a sequence of arrays, got {type(gradients).__name__}")
    return _native.average([list(gradients) for gradients in workers])
