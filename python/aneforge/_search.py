"""`SearchIndex`: folders of texts or pictures, looked through by meaning."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aneforge import _env, _native
from aneforge._late import np
from aneforge._operand import within
from aneforge._texts import listed
from aneforge._vision import Picture, _picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST = 1 << 20
"""The most bytes of a passage; a file that says more is damaged."""


class Hit(NamedTuple):
    """What was found."""

    score: float
    """The cosine of its vector with that of what was looked for."""
    path: Path
    """The file."""
    line: int
    """The line on which the passage begins, from 1; 0 of a picture."""
    text: str
    """The passage; empty of a picture, and where the file has changed or is gone."""


class Changes(NamedTuple):
    """What making an index, or bringing it up to date, has done."""

    files: int
    """Files that are in it."""
    rows: int
    """Passages or pictures."""
    added: int
    """Files that are new."""
    changed: int
    """Files that are other than they were."""
    removed: int
    """Files that are gone."""
    skipped: list[tuple[Path, str]]
    """Files that could not be read, and why."""


class SearchIndex:
    """An index of folders of texts or pictures: a file that `build` or `aneforge index` has made, mapped.

    Args:
        path: the file.
        model: where its model is now; by default where it was. Another model is an error.
        target, device, numerics, sums, isa, threads: see `compile`.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        model: str | PathLike[str] | None = None,
        target: str | None = None,
        device: str | None = None,
        numerics: str | None = None,
        sums: str | None = None,
        isa: str | None = None,
        threads: int | None = None,
    ) -> None:
        self._how = {**_env.placed(target, device, numerics, sums, isa, threads), "offline": _env.offline()}
        self._index = _native.open_index(os.fspath(path), model=None if model is None else os.fspath(model), **self._how)
        self.changes: Changes | None = None
        """What `build` or `update` has done, if it was made by one of these."""

    @classmethod
    def build(
        cls,
        path: str | PathLike[str],
        roots: str | PathLike[str] | Sequence[str | PathLike[str]],
        model: str | PathLike[str],
        *,
        pictures: bool = False,
        passage: int = 1000,
        endings: Sequence[str] = (),
        target: str | None = None,
        device: str | None = None,
        numerics: str | None = None,
        sums: str | None = None,
        isa: str | None = None,
        threads: int | None = None,
    ) -> SearchIndex:
        """Makes an index; one that is there is replaced.

        Args:
            path: the file.
            roots: folders and files.
            model: what makes vectors, a directory or a hub id: a sentence encoder, or with `pictures` CLIP, SigLIP or another
                network that looks at pictures.
            pictures: whether pictures are taken and no texts.
            passage: the most bytes of a passage of text.
            endings: endings of the files that are taken from folders; by default those of texts or of pictures.
            target, device, numerics, sums, isa, threads: see `compile`.

        Raises:
            ValueError: there is nothing to put into it.
        """
        how = {**_env.placed(target, device, numerics, sums, isa, threads), "offline": _env.offline()}
        ends = listed("build: endings", endings, "a sequence of endings")
        size = within("build: passage", passage)
        if not 16 <= size <= _MOST:
            raise ValueError(f"build: passage must be from 16 to {_MOST} bytes, got {size}")
        told = _native.build_index(os.fspath(path), os.fspath(model), bool(pictures), _roots(roots), ends, size, False, **how)
        return cls._made(path, told, None, how)

    @classmethod
    def _made(cls, path: str | PathLike[str], told: Any, model: str | None, how: dict[str, Any]) -> SearchIndex:
        made = cls.__new__(cls)
        made._how = how
        made._index = _native.open_index(os.fspath(path), model=model, **how)
        files, rows, added, changed, removed, skipped = told
        made.changes = Changes(files, rows, added, changed, removed, [(Path(path), why) for path, why in skipped])
        return made

    def update(self, roots: str | PathLike[str] | Sequence[str | PathLike[str]] = ()) -> SearchIndex:
        """The same index, up to date: files that are as they were keep their vectors. This one stays as it is.

        Args:
            roots: more folders and files.
        """
        index = self._index
        every = sorted({*map(os.fspath, index.roots), *map(os.path.abspath, _roots(roots))})
        told = _native.build_index(
            os.fspath(index.path), index.model, index.kind == "pictures", every, index.endings, index.passage, True, **self._how
        )
        return self._made(index.path, told, index.model, self._how)

    def search(
        self, question: str | None = None, *, picture: Picture | None = None, top_k: int = 10, quantized: bool = False
    ) -> list[Hit]:
        """What is nearest to words or to a picture, the nearest first.

        Args:
            question: words.
            picture: a picture, as `Vision.classify` takes it.
            top_k: how many.
            quantized: whether bytes are compared first: half as much is read, and what is as near as bytes are coarse may be missed.
        """
        if (question is None) == (picture is None):
            raise ValueError("search: give a question or a picture, and not both")
        if question is not None and not isinstance(question, str):
            raise TypeError(f"search: question must be a str, got {type(question).__name__}")
        given = None if picture is None else _picture("search", picture)
        found = self._index._search(question, given, within("search: top_k", top_k), bool(quantized))
        return [Hit(score, Path(path), line, text) for score, path, line, text in found]

    @property
    def vectors(self) -> NDArray[np.float32]:
        """A vector of unit length for each passage or picture, `[N, D]`."""
        return self._index._vectors()

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self._index.path)

    @property
    def kind(self) -> str:
        """`texts` or `pictures`."""
        return self._index.kind

    @property
    def model(self) -> str:
        """The directory or hub id of its model."""
        return self._index.model

    @property
    def files(self) -> int:
        """How many files it has."""
        return self._index.files

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"SearchIndex({str(self.path)!r}, {len(self)} {self.kind} of {self.files} files)"


def _roots(roots: Any) -> list[str]:
    if isinstance(roots, (str, PathLike)):
        return [os.fspath(roots)]
    return [os.fspath(root) for root in listed("roots", roots, "a path or a sequence of paths")]

