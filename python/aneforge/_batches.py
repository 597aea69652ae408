"""Batches of a training: where they come from, and what is looked at before they are fed."""

from __future__ import annotations

import numbers
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aneforge import _native
from aneforge._blame import is_row
from aneforge._late import np
from aneforge._native import Tensor
from aneforge._operand import Array, within

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cosine(warmup: int, total: int, least: float = 0.0) -> tuple[str, int, int, float]:
    """A schedule: from 0 to the learning rate in `warmup` steps, then along half a cosine to `least` of it in step `total`."""
    return ("cosine", within("cosine: warmup", warmup, 0), within("cosine: total", total), _number("cosine: least", least))


def linear(warmup: int, total: int, least: float = 0.0) -> tuple[str, int, int, float]:
    """A schedule: from 0 to the learning rate in `warmup` steps, then straight to `least` of it in step `total`."""
    return ("linear", within("linear: warmup", warmup, 0), within("linear: total", total), _number("linear: least", least))


def steps(every: int, factor: float) -> tuple[str, int, int, float]:
    """A schedule: times `factor` after every `every` steps."""
    return ("steps", within("steps: every", every), 0, _number("steps: factor", factor))


def _number(where: str, value: float) -> float:
    """A number that is no string."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{where} must be a number, got {type(value).__name__}")
    return float(value)


class Shuffled:
    """Batches of a data set, in a new order in each epoch. What is left of an epoch and fills no batch is left out.

    With `shard=(k, K)` they are those of worker `k` of `K`, who take them by turns: all workers together have the batches that one
    has who takes all.
    """

    def __init__(self, X: Array, Y: Array, batch: int, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> None:
        self.X, self.Y = _native.array(X, "set_dataset: X_full"), _native.array(Y, "set_dataset: Y_onehot")
        if self.X.ndim == 0 or self.Y.ndim == 0:
            raise ValueError("set_dataset: examples and targets are arrays with a row for each, got a number")
        if len(self.X) != len(self.Y):
            raise ValueError(f"set_dataset: {len(self.X)} examples and {len(self.Y)} targets")
        if len(self.X) < batch:
            raise ValueError(f"set_dataset: {len(self.X)} examples fill no batch of {batch}")
        if not is_row(shard, "int", "int"):
            raise TypeError(f"set_dataset: shard must be a pair of integers, got {shard!r}")
        worker, workers = (int(number) for number in shard)
        if not 0 <= worker < workers:
            raise ValueError(f"set_dataset: shard is a worker from 0 on and how many there are, got {shard}")
        self.batch, self.shard, self.done = batch, (worker, workers), 0
        self.seed = within("set_dataset: seed", seed, 0, 2**64 - 1)
        self._begin()
        self._known: dict[str, str] | None = None

    def _begin(self) -> None:
        self._rng, self._epoch = np.random.default_rng(self.seed), 0
        self._order = self._rng.permutation(len(self.X))

    def __next__(self) -> tuple[NDArray[Any], NDArray[Any]]:
        worker, workers = self.shard
        epoch, place = divmod(self.done + worker, len(self.X) // self.batch)
        if epoch < self._epoch:
            self._begin()
        for _ in range(epoch - self._epoch):
            self._order = self._rng.permutation(len(self.X))
        self._epoch = epoch
        rows = self._order[place * self.batch : (place + 1) * self.batch]
        self.done += workers
        return self.X[rows], self.Y[rows]

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        return self

    def seek(self, done: int) -> None:
        """Goes on as if so many batches had been taken, those of all workers."""
        self.done = done

    def identity(self) -> dict[str, str]:
        """What tells it from others: in checkpoints."""
        if self._known is None:
            sum = 0
            for array in (self.X, self.Y):
                sum = zlib.crc32(f"{array.dtype} {array.shape}".encode(), sum)
                sum = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, sum)
            examples = f"{len(self.X)} examples with checksum {sum:08x}"
            self._known = {"data set": examples, "seed": str(self.seed), "batch": str(self.batch)}
        return self._known


def _values(leaf: Tensor, data: Mapping[Tensor, Array]) -> Array:
    """What an input is fed with; values that are not finite are refused."""
    given = data[leaf] if leaf in data else leaf.attrs.get("value")
    if given is None:
        raise ValueError(
            f"an input of shape {tuple(leaf.shape)} has no values; give them in data_inputs, or in its attrs['value']"
        )
    array = given if isinstance(given, np.ndarray) else _native.array(given, "the batch")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = int(np.flatnonzero(~np.isfinite(array).ravel())[0])
        name = leaf.attrs.get("name")
        what = f"`{name}`" if name else f"the input of shape {tuple(leaf.shape)}"
        raise ValueError(f"the batch: value {at} of {what} is {array.ravel()[at]}; clean the data")
    return given if isinstance(given, bytes) else array


def _labels(y: Array, rows: int, classes: int) -> NDArray[np.int64]:
    """Labels as whole numbers: of numbers, or of rows of ones and zeros."""
    labels = _native.array(y, "accuracy: labels")
    if labels.ndim == 2 and labels.shape[1] == classes and classes > 1:
        labels = labels.argmax(axis=1)
    elif labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iuf" or len(labels) != rows:
        raise ValueError(f"accuracy: labels are {rows} numbers, or rows of {classes}, got shape {np.shape(y)}")
    if rows and (labels.min() < 0 or labels.max() >= classes or (labels != labels.round()).any()):
        raise ValueError(f"accuracy: labels are whole numbers from 0 to {classes - 1}")
    return labels.astype(np.int64)


def _targets(array: Array, shape: Sequence[int]) -> Array:
    """What a cross entropy compares with: labels, whole numbers, as rows of ones and zeros; rows as they are."""
    if np.ndim(array) != 1 or len(array) != shape[0] or array.dtype.kind not in "iu":
        return array
    if len(array) and (array.min() < 0 or array.max() >= shape[1]):
        least, most = array.min(), array.max()
        raise ValueError(f"the batch: labels are whole numbers from 0 to {shape[1] - 1}, got {least} to {most}")
    rows = np.zeros(tuple(shape), np.float32)
    rows[np.arange(len(array)), array] = 1
    return rows


def _rate(value: float) -> float:
    """A learning rate."""
    rate = _number("training: lr", value)
    if not 0 <= rate <= 1e4:
        raise ValueError(f"training: lr must be from 0 to 10000, got {rate}")
    return rate
