"""`CrossEncoder`: pairs of texts, read as one, to scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

from aneforge import _env, _native
from aneforge._late import np
from aneforge._operand import within
from aneforge._texts import SHARE, in_shares, listed, tensors, texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

Activation: TypeAlias = "Callable[[NDArray[np.float32]], Any]"


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    # Of the smaller exponent, which does not overflow.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


class CrossEncoder:
    """A reranker: says how well a document goes with a query.

    Scores are what the model's head gives; ranking needs no more. `activation_fn="sigmoid"` makes probabilities of them, which
    the library sentence-transformers does by itself for models with one label whose files do not say otherwise.

    Args:
        name: a directory in the layout of transformers, or a hub id. BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, MPNet,
            ModernBERT, Nomic and GTE with a head for classification.
        int8: whether the weights of the layers are stored as bytes with a scale per row, in half the memory.
        max_length: the most tokens of a pair; the rest of its longer text is cut off.
        activation_fn: what is done to scores: `None`, `"sigmoid"`, or a function of an array.
        target, device, numerics, sums, isa, threads: see `compile`.

    Raises:
        FileNotFoundError: there is no such directory, and no such model on the hub.
        ValueError: a file of the model is not what it should be, or it has no head.
    """

    def __init__(
        self,
        name: str | PathLike[str],
        int8: bool = False,
        *,
        max_length: int | None = None,
        activation_fn: str | Activation | None = None,
        target: str | None = None,
        device: str | None = None,
        numerics: str | None = None,
        sums: str | None = None,
        isa: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.activation_fn = _function("CrossEncoder", activation_fn)
        self._reranker = _native.load_reranker(
            os.fspath(name),
            bool(int8),
            None if max_length is None else within("CrossEncoder: max_length", max_length),
            **_env.placed(target, device, numerics, sums, isa, threads),
            offline=_env.offline(),
        )

    def predict(
        self,
        sentences: Sequence[Any],
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: str | Activation | None = None,
        apply_softmax: bool = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
    ) -> Any:
        """The scores of pairs: one number for each, or one row where the model has several labels.

        Args:
            sentences: pairs of texts, or one pair, for which the result is one number or row.
            batch_size: only says how often a progress bar moves: batches are formed by length.
            show_progress_bar: whether progress is shown on standard error.
            activation_fn: what is done to scores, instead of what the model was made with.
            apply_softmax: whether the scores of several labels are made probabilities.
            convert_to_numpy: whether the result is one array; otherwise a list.
            convert_to_tensor: whether it is a tensor of PyTorch, which must be installed.

        Raises:
            TypeError: what is given are no pairs of texts.
        """
        share = max(SHARE, 8 * within("predict: batch_size", batch_size))
        given = listed("predict: sentences", sentences, "a pair of texts or a sequence of pairs")
        single = len(given) == 2 and all(isinstance(text, str) for text in given)
        first, second = _pairs([given] if single else given)
        scores = in_shares(
            len(first), show_progress_bar, share, lambda part: self._reranker.predict(first[part], second[part])
        )
        function = self.activation_fn if activation_fn is None else _function("predict", activation_fn)
        if function is not None:
            scores = np.asarray(function(scores), dtype=np.float32)
        if apply_softmax and self.num_labels > 1:
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores = powers / powers.sum(axis=1, keepdims=True)
        rows = scores[:, 0] if self.num_labels == 1 else scores
        if convert_to_tensor:
            made = tensors("predict", np.ascontiguousarray(rows))
            return made[0] if single else made
        if single:
            return rows[0]
        return rows if convert_to_numpy else list(rows)

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: str | Activation | None = None,
    ) -> list[dict[str, Any]]:
        """The documents that go best with a query, the best first: `corpus_id`, the place of each, `score`, and with
        `return_documents` its `text`.

        Args:
            query: what is looked for.
            documents: what is ranked.
            top_k: how many are returned; by default all.
            return_documents: whether texts are returned.
            batch_size, show_progress_bar, activation_fn: see `predict`.

        Raises:
            ValueError: the model has several labels, none of which is a rank.
        """
        if self.num_labels != 1:
            raise ValueError(f"rank: the model has {self.num_labels} labels, and ranks need one; use predict")
        if not isinstance(query, str):
            raise TypeError(f"rank: query must be a str, got {type(query).__name__}")
        given = texts("rank: documents", documents)
        most = len(given) if top_k is None else within("rank: top_k", top_k)
        pairs = [(query, document) for document in given]
        scores = self.predict(pairs, batch_size, show_progress_bar, activation_fn)
        order = np.argsort(-scores, kind="stable")[:most]
        ranked: list[dict[str, Any]] = [{"corpus_id": int(at), "score": float(scores[at])} for at in order]
        if return_documents:
            for row in ranked:
                row["text"] = given[row["corpus_id"]]
        return ranked

    @property
    def num_labels(self) -> int:
        """How many scores a pair gets."""
        return self._reranker.labels

    @property
    def max_length(self) -> int:
        """The most tokens of a pair, special ones included."""
        return self._reranker.max_length

    @property
    def device(self) -> str:
        """The device it runs on: `host`, `ane` or `ane (stand-in)`."""
        return self._reranker.device

    @property
    def target(self) -> str:
        """The chip it is compiled for."""
        return self._reranker.target

    def __repr__(self) -> str:
        return repr(self._reranker)


def _function(where: str, given: object) -> Activation | None:
    """What is done to scores."""
    if given is None or callable(given):
        return given
    if given == "sigmoid":
        return _sigmoid
    raise TypeError(f"{where}: activation_fn must be None, 'sigmoid' or a function, got {given!r}")


def _pairs(given: Sequence[Any]) -> tuple[list[str], list[str]]:
    """The first and the second texts of pairs."""
    first: list[str] = []
    second: list[str] = []
    for index, pair in enumerate(given):
        found = list(pair) if isinstance(pair, (list, tuple, np.ndarray)) else []
        if len(found) != 2 or not all(isinstance(text, str) for text in found):
            raise TypeError(f"predict: sentences must be pairs of texts, got {pair!r:.60} at {index}")
        first.append(found[0])
        second.append(found[1])
    return first, second
