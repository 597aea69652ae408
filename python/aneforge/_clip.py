"""`CLIP`: pictures and texts as vectors of one space."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from aneforge import _env, _native
from aneforge._compile import _form
from aneforge._late import np
from aneforge._texts import texts as listed_texts
from aneforge._vision import Looking, Picture, _normalized, _pictures

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CLIP(Looking):
    """A pretrained model that compares pictures with texts, CLIP or SigLIP; `load_clip` makes it.

    Pictures and texts become vectors of unit length. The products of a picture's vector with those of texts say how well each text
    describes it, also texts that the model has never been trained to tell apart.
    """

    def __init__(self, model: _native.Clip) -> None:
        self._model: _native.Clip | None = model

    @property
    def _loaded(self) -> _native.Clip:
        if self._model is None:
            raise RuntimeError("this model was released; load it again")
        return self._model

    def encode_image(self, images: Picture | Sequence[Picture]) -> NDArray[np.float32]:
        """Vectors of unit length: `[D]` of one picture, `[N, D]` of several.

        Args:
            images: a path, the bytes of a file (JPEG, PNG, WebP, BMP), a picture of Pillow, an array of uint8 `[H, W, 3]`, or a
                list of these; or numbers that are prepared and normalised already, `[N, 3, H, W]`.
        """
        values = _normalized("encode_image", images)
        if values is not None:
            return self._loaded._run(values)
        pictures, one = _pictures("encode_image", images)
        rows = self._loaded._pictures(pictures)
        return rows[0] if one else rows

    def encode_text(self, texts: str | Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length: `[D]` of one text, `[N, D]` of several. What is longer than the model's positions is cut."""
        if isinstance(texts, str):
            return self._loaded._texts([texts])[0]
        return self._loaded._texts(listed_texts("encode_text: texts", texts))

    def classify(self, images: Picture | Sequence[Picture], labels: Sequence[str]) -> list[Any]:
        """How well each label describes a picture, the best first: `[(label, probability), ...]` of one picture, a list of such
        lists of several.

        With CLIP the probabilities of all labels sum to 1. SigLIP judges each label by itself.

        Args:
            images: as `encode_image` takes them.
            labels: texts such as `"a photo of a cat"`.
        """
        named = listed_texts("classify: labels", labels if not isinstance(labels, str) else None)
        if not named:
            raise ValueError("classify: there must be one label or more")
        vectors = self.encode_image(images)
        rows = self._loaded._judge(np.atleast_2d(vectors), named)
        return rows[0] if vectors.ndim == 1 else rows

    def release(self) -> None:
        """Lets go of programs and weights. Calls after it are errors."""
        self._model = None

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with before they are probabilities."""
        return self._loaded.scale[0]

    @property
    def logit_bias(self) -> float:
        """What is added to them then; 0 with CLIP."""
        return self._loaded.scale[1]

    def __repr__(self) -> str:
        if self._model is None:
            return "CLIP(released)"
        return f"CLIP({self.network}, target {self.target}, device {self.device})"


def load_clip(
    name: str | PathLike[str] = "openai/clip-vit-base-patch32",
    int8: bool = False,
    *,
    compress: str | None = None,
    compress_atol: float = 0.05,
    target: str | None = None,
    device: str | None = None,
    numerics: str | None = None,
    sums: str | None = None,
    isa: str | None = None,
    threads: int | None = None,
) -> CLIP:
    """Loads a model that compares pictures with texts: CLIP or SigLIP.

    Args:
        name: a directory in the layout of transformers, or a hub id.
        int8: whether weights are stored as bytes with a scale per row, in half the memory.
        compress: the form in which weights are stored, such as `"int4"`; see `compile`.
        compress_atol: the largest relative error; see `compile`.
        target, device, numerics, sums, isa, threads: see `compile`.

    Raises:
        FileNotFoundError: there is nothing of this name, and no such model on the hub.
        ValueError: a file is not what it should be, or its weights are those of another model.
    """
    return CLIP(
        _native.load_clip(
            os.fspath(name),
            **_env.placed(target, device, numerics, sums, isa, threads),
            offline=_env.offline(),
            compress=_form(bool(int8), compress, compress_atol, 32),
        )
    )
