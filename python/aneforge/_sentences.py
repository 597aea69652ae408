"""`SentenceTransformer`: an encoder with the interface of the library sentence-transformers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from aneforge._encoder import load
from aneforge._late import np
from aneforge._native import Encoder
from aneforge._operand import within
from aneforge._similarity import SIMILARITIES, pairwise
from aneforge._texts import SHARE, in_shares, tensors, texts

_QUERY = ("query",)
_DOCUMENT = ("document", "passage", "corpus")


class SentenceTransformer:
    """Texts to vectors, as the model's own files say: pooling, normalisation, prompts and the measure of similarity.

    Args:
        model_name_or_path: a directory in the layout of sentence-transformers or transformers, or a hub id.
        int8: whether the weights of the layers are stored as bytes with a scale per row, in half the memory.
        device: the device to run on: `"host"` or `"ane"`; see `compile`.
        prompts: what precedes texts of each kind, instead of what the model's files say.
        default_prompt_name: the kind that texts are of where `encode` is given none.
        similarity_fn_name: `"cosine"`, `"dot"`, `"euclidean"` or `"manhattan"`.
        truncate_dim: to how many components vectors are cut, of models that were trained for it.
        max_seq_length: the most tokens of a text, the rest being cut off.
        options: further arguments of `load`, such as `target` or `compress`.

    Raises:
        FileNotFoundError: there is no such directory, and no such model on the hub.
        ValueError: a file of the model is not what it should be.
    """

    def __init__(
        self,
        model_name_or_path: str | PathLike[str],
        *,
        int8: bool = False,
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        max_seq_length: int | None = None,
        **options: Any,
    ) -> None:
        self._given = {"name": model_name_or_path, "int8": int8, "device": device, **options}
        self._encoder: Encoder = load(max_seq_length=max_seq_length, **self._given)
        found, default, similarity, self._normalizes = self._encoder._conventions()
        self.prompts: dict[str, str] = {"query": "", "document": "", **(found if prompts is None else prompts)}
        self.default_prompt_name = default if default_prompt_name is None else default_prompt_name
        if self.default_prompt_name is not None:
            self._prompt(self.default_prompt_name, None)
        self.truncate_dim = _dimension("SentenceTransformer", truncate_dim, self._encoder.dim)
        self.similarity_fn_name = similarity_fn_name or similarity or "cosine"

    def encode(
        self,
        sentences: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        long: str = "cut",
    ) -> Any:
        """Encodes texts: one vector for a string, else one row for each, in the order in which they are given.

        Args:
            sentences: a string, or a sequence of them.
            prompt_name: the kind of text, whose prompt precedes each; see `prompts`.
            prompt: what precedes each text, instead of the prompt of a kind.
            batch_size: only says how often a progress bar moves: batches are formed by length, as `batches` prints.
            show_progress_bar: whether progress is shown on standard error, with tqdm where it is installed.
            output_value: `"sentence_embedding"`, the only one there is.
            precision: `"float32"`, the only one there is.
            convert_to_numpy: whether the result is one array; otherwise a list with an array for each text.
            convert_to_tensor: whether it is a tensor of PyTorch, which must be installed.
            device: changes nothing: a model runs where it was loaded.
            normalize_embeddings: whether vectors are brought to unit length; those of a model that ends in a normalisation
                have it anyway, where they are not cut.
            truncate_dim: to how many components vectors are cut; by default the model's `truncate_dim`.
            long: what becomes of texts of more than `max_seq_length` tokens: `"cut"`, or `"windows"`, which encodes them in
                parts and gives the mean, weighted by tokens.

        Raises:
            ValueError: a prompt, a precision or an output that there is not, or a text that is no text in UTF-8.
        """
        _only("encode: output_value", output_value, "sentence_embedding")
        _only("encode: precision", precision, "float32")
        share = max(SHARE, 8 * within("encode: batch_size", batch_size))
        single = isinstance(sentences, str)
        given = [sentences] if isinstance(sentences, str) else texts("encode: sentences", sentences)
        if before := self._prompt(prompt_name, prompt):
            given = [before + text for text in given]
        width = _dimension("encode", truncate_dim, self._encoder.dim) or self.truncate_dim
        rows = in_shares(
            len(given),
            show_progress_bar,
            share,
            lambda part: self._encoder(given[part], normalize=self._normalizes, long=long),
        )
        if width is not None:
            rows = np.ascontiguousarray(rows[:, :width])
        if normalize_embeddings and (width is not None or not self._normalizes):
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
        if convert_to_tensor:
            made = tensors("encode", rows)
            return made[0] if single else made
        if single:
            return rows[0]
        return rows if convert_to_numpy else list(rows)

    def encode_query(
        self, sentences: str | Sequence[str], prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Any:
        """`encode` of texts that are looked for: with the prompt of the kind `query`, where the model has one."""
        return self.encode(sentences, prompt_name or self._kind(_QUERY), prompt, **options)

    def encode_document(
        self, sentences: str | Sequence[str], prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Any:
        """`encode` of texts that are found: with the prompt of the kind `document`, `passage` or `corpus`, where the model
        has one.
        """
        return self.encode(sentences, prompt_name or self._kind(_DOCUMENT), prompt, **options)

    def _kind(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if self.prompts.get(name)), names[0])

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        """What precedes texts."""
        if prompt is not None:
            if not isinstance(prompt, str):
                raise TypeError(f"encode: prompt must be a str, got {type(prompt).__name__}")
            return prompt
        if name is None:
            name = self.default_prompt_name
        if name is None:
            return ""
        if name not in self.prompts:
            raise ValueError(f"there is no prompt {name!r}; there are {', '.join(map(repr, sorted(self.prompts)))}")
        return self.prompts[name]

    @property
    def similarity_fn_name(self) -> str:
        """How vectors are compared: `"cosine"`, `"dot"`, `"euclidean"` or `"manhattan"`."""
        return self._similarity

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: str) -> None:
        if name not in SIMILARITIES:
            raise ValueError(f"similarity_fn_name must be one of {', '.join(SIMILARITIES)}, got {name!r}")
        self._similarity = name

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """How alike each vector of the first is to each of the second, by `similarity_fn_name`: `[N, M]`, as an array, or as a
        tensor where one is given.
        """
        return SIMILARITIES[self._similarity](embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """How alike each vector of the first is to the one beside it in the second: `[N]`."""
        return pairwise(self._similarity, embeddings1, embeddings2)

    @property
    def max_seq_length(self) -> int:
        """The most tokens of a text, special ones included. Setting it loads the model again; no more than it has positions."""
        return self._encoder.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        most = within("max_seq_length", value)
        self._encoder = load(max_seq_length=most, **self._given)

    @property
    def device(self) -> str:
        """The device it runs on: `host`, `ane` or `ane (stand-in)`."""
        return self._encoder.device

    @property
    def encoder(self) -> Encoder:
        """The encoder, as `load` gives it."""
        return self._encoder

    def get_embedding_dimension(self) -> int:
        """The length of the vectors, after `truncate_dim`."""
        return self.truncate_dim or self._encoder.dim

    get_sentence_embedding_dimension = get_embedding_dimension

    def get_max_seq_length(self) -> int:
        """`max_seq_length`."""
        return self.max_seq_length

    def batches(self, sentences: str | Sequence[str]) -> str:
        """Which texts would run together, through programs for how many texts of which length, and why."""
        given = [sentences] if isinstance(sentences, str) else texts("batches: sentences", sentences)
        return self._encoder.batches(given)

    def __deepcopy__(self, memo: dict[int, Any]) -> SentenceTransformer:
        made = copy.copy(self)
        made._encoder = copy.deepcopy(self._encoder, memo)
        made.prompts = dict(self.prompts)
        return made

    def __repr__(self) -> str:
        return f"SentenceTransformer({self._encoder!r})"


def _dimension(where: str, width: int | None, most: int) -> int | None:
    """A number of components, none of which is more than there are."""
    return None if width is None else min(within(f"{where}: truncate_dim", width), most)


def _only(where: str, value: object, only: str) -> None:
    if value != only:
        raise ValueError(f"{where} must be {only!r}, got {value!r}")
