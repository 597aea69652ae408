"""How alike vectors are: of each row of one array to each of another, or to the row beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from aneforge._late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Matrix: TypeAlias = "NDArray[np.float32]"

_BLOCK = 1 << 24
"""Differences that are held at once."""


def _rows(where: str, given: Any) -> Matrix:
    """Vectors as rows: of an array, a tensor of PyTorch, or a sequence of either."""
    if _is_tensor(given):
        given = given.detach().cpu().numpy()
    elif isinstance(given, (list, tuple)):
        given = [one.detach().cpu().numpy() if _is_tensor(one) else one for one in given]
    try:
        rows = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError):
        raise TypeError(f"{where} must be vectors of one length, got {type(given).__name__}") from None
    if rows.ndim not in (1, 2):
        raise ValueError(f"{where} must have one axis or two, got shape {list(rows.shape)}")
    return rows[None] if rows.ndim == 1 else rows


def _is_tensor(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "torch"


def _pair(name: str, a: Any, b: Any) -> tuple[Matrix, Matrix]:
    left, right = _rows(f"{name}: the first", a), _rows(f"{name}: the second", b)
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"{name}: vectors have {left.shape[1]} and {right.shape[1]} components")
    return left, right


def _unit(rows: Matrix) -> Matrix:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, np.float32(1e-12))


def _like(result: Matrix, *given: Any) -> Any:
    """A tensor of PyTorch where one was given."""
    if any(_is_tensor(one) or (isinstance(one, (list, tuple)) and any(map(_is_tensor, one))) for one in given):
        import torch

        return torch.from_numpy(result)
    return result


def _by_blocks(a: Matrix, b: Matrix, of: Callable[[Matrix, Matrix], Matrix]) -> Matrix:
    """What `of` gives for blocks of rows of the first, all of whose differences to the second are held at once."""
    step = max(1, _BLOCK // max(1, b.size))
    blocks = [of(a[start : start + step, None], b[None]) for start in range(0, len(a), step)]
    return np.concatenate(blocks) if blocks else np.zeros((0, len(b)), np.float32)


def _distance(a: Matrix, b: Matrix) -> Matrix:
    return -np.sqrt(((a - b) ** 2).sum(-1))


def _steps(a: Matrix, b: Matrix) -> Matrix:
    return -np.abs(a - b).sum(-1)


def cos_sim(a: Any, b: Any) -> Any:
    """The cosine of each vector of `a` and each of `b`: `[len(a), len(b)]`, as an array, or a tensor where one is given."""
    left, right = _pair("cos_sim", a, b)
    return _like(_unit(left) @ _unit(right).T, a, b)


def dot_score(a: Any, b: Any) -> Any:
    """The product of each vector of `a` and each of `b`."""
    left, right = _pair("dot_score", a, b)
    return _like(left @ right.T, a, b)


def euclidean_sim(a: Any, b: Any) -> Any:
    """The negative distance of each vector of `a` and each of `b`."""
    left, right = _pair("euclidean_sim", a, b)
    return _like(_by_blocks(left, right, _distance), a, b)


def manhattan_sim(a: Any, b: Any) -> Any:
    """The negative sum of the differences of each vector of `a` and each of `b`."""
    left, right = _pair("manhattan_sim", a, b)
    return _like(_by_blocks(left, right, _steps), a, b)


SIMILARITIES: dict[str, Callable[[Any, Any], Any]] = {
    "cosine": cos_sim,
    "dot": dot_score,
    "euclidean": euclidean_sim,
    "manhattan": manhattan_sim,
}
"""By the names that models' files have for them."""


def pairwise(name: str, a: Any, b: Any) -> Any:
    """How alike each vector of `a` is to the one beside it in `b`: `[len(a)]`."""
    left, right = _pair("similarity_pairwise", a, b)
    if len(left) != len(right):
        raise ValueError(f"similarity_pairwise: {len(left)} vectors and {len(right)} are no pairs")
    if name == "cosine":
        left, right, name = _unit(left), _unit(right), "dot"
    of = {"dot": lambda x, y: (x * y).sum(-1), "euclidean": _distance, "manhattan": _steps}[name]
    return _like(of(left, right), a, b)
