"""`Diffusion`: models that draw pictures of texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from numbers import Real
from os import PathLike
from typing import TYPE_CHECKING

from aneforge import _env, _native
from aneforge._compile import _form
from aneforge._late import np
from aneforge._operand import within

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class Diffusion:
    """A pretrained model that draws; `load_diffusion` makes them.

    A text is read, noise becomes latents step by step, and these become a picture. `text`, `unet` and `vae` are the three networks by
    themselves, each one program for each shape; samplers are computed on the host in double precision.
    """

    def __init__(self, model: _native.Diffusion) -> None:
        self._model: _native.Diffusion | None = model

    @property
    def _loaded(self) -> _native.Diffusion:
        if self._model is None:
            raise RuntimeError("this model was released; load it again")
        return self._model

    def __call__(
        self,
        prompt: str,
        negative_prompt: str = "",
        *,
        steps: int = 50,
        guidance: float = 7.5,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        sampler: str | None = None,
        eta: float = 0.0,
        progress: Callable[[int, int], object] | None = None,
    ) -> NDArray[np.uint8]:
        """Draws a picture of a text: an array of uint8 `[H, W, 3]`.

        Args:
            prompt: what should be on the picture.
            negative_prompt: what should not.
            steps: steps of the sampler.
            guidance: by how much what the text changes is multiplied; up to 1 there is no guidance, and half the work.
            seed: where the noise comes from, below 2**32. It is the noise of `torch.Generator("cpu").manual_seed(seed)`.
            size: columns and rows of the picture; by default those that the model is trained with.
            sampler: `"ddim"`, `"euler"` or `"pndm"`; by default the one that the model comes with.
            eta: how much new noise each step of DDIM adds, from 0 to 1.
            progress: called with how many steps of how many are done, before the first and after each. What it raises ends the drawing.

        Raises:
            ValueError: what is asked for cannot be drawn, or a network overflows in half precision.
        """
        for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            if not isinstance(value, str):
                raise TypeError(f"Diffusion: {name} must be a str, got {type(value).__name__}")
        if sampler is not None and not isinstance(sampler, str):
            raise TypeError(f"Diffusion: sampler must be a str, got {type(sampler).__name__}")
        if progress is not None and not callable(progress):
            raise TypeError(f"Diffusion: progress must be a function, got {type(progress).__name__}")
        asked = {
            "prompt": prompt,
            "negative": negative_prompt,
            "steps": within("Diffusion: steps", steps),
            "guidance": _number("guidance", guidance),
            "seed": within("Diffusion: seed", seed, 0, (1 << 32) - 1),
            "size": None if size is None else _size(size),
            "sampler": sampler,
            "eta": _number("eta", eta),
        }
        return self._loaded._draw(asked, progress)

    def text(self, prompts: str | Sequence[str]) -> NDArray[np.float32]:
        """The states of texts that the U-Net attends to, `[N, tokens, D]`; of a str, N is 1."""
        return self._loaded._text(prompts)

    def unet(self, latents: ArrayLike, timestep: float, states: ArrayLike) -> NDArray[np.float32]:
        """What the U-Net makes of latents `[N, C, H, W]` at a time, such as 981, with states of texts `[N, tokens, D]`."""
        values = _values("unet: latents", latents, 4)
        return self._loaded._unet(values, _number("timestep", timestep), _values("unet: states", states, 3))

    def vae(self, latents: ArrayLike) -> NDArray[np.float32]:
        """Pictures `[N, 3, H, W]`, from -1 to 1, of latents `[N, C, h, w]` as the U-Net has them."""
        return self._loaded._vae(_values("vae: latents", latents, 4))

    def release(self) -> None:
        """Lets go of programs and weights. Calls after it are errors."""
        self._model = None

    @property
    def latents_shape(self) -> tuple[int, int, int]:
        """The shape of the latents that the model is trained with, `(C, H, W)`."""
        return self._loaded.latents

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the pictures that the model is trained with."""
        _, rows, columns = self._loaded.latents
        return columns * self._loaded.factor, rows * self._loaded.factor

    @property
    def device(self) -> str:
        """The device it runs on: `host`, `ane` or `ane (stand-in)`."""
        return self._loaded.device

    @property
    def target(self) -> str:
        """The chip it is compiled for."""
        return self._loaded.target

    def __repr__(self) -> str:
        return "Diffusion(released)" if self._model is None else repr(self._model)


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (Real, np.number)) and not (isinstance(value, np.ndarray) and value.ndim == 0):
        raise TypeError(f"Diffusion: {name} must be a number, got {type(value).__name__}")
    return float(value)


def _size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise TypeError(f"Diffusion: size must be (columns, rows), got {size!r}")
    return within("Diffusion: size", size[0]), within("Diffusion: size", size[1])


def _values(name: str, given: ArrayLike, rank: int) -> NDArray[np.float32]:
    values = np.asarray(given)
    if values.dtype.kind not in "fiu" and values.dtype.name != "bfloat16":
        raise TypeError(f"{name} must be numbers, got {values.dtype}")
    if values.ndim != rank:
        axes = "[N, C, H, W]" if rank == 4 else "[N, tokens, D]"
        raise ValueError(f"{name} must be {axes}, got {list(values.shape)}")
    return np.ascontiguousarray(values, np.float32)


def load_diffusion(
    path: str | PathLike[str],
    int8: bool = False,
    *,
    compress: str | None = None,
    compress_atol: float = 0.05,
    target: str | None = None,
    device: str | None = None,
    norms: str | None = None,
    numerics: str | None = None,
    sums: str | None = None,
    isa: str | None = None,
    threads: int | None = None,
) -> Diffusion:
    """Loads a model that draws: Stable Diffusion 1 or 2, from a directory in the layout of diffusers.

    Args:
        path: the directory, with model_index.json and a folder for each part. Nothing is downloaded.
        int8: whether weights are stored as bytes with a scale per row, in half the memory.
        compress: the form in which weights are stored, such as `"int4"`; see `compile`.
        compress_atol: the largest relative error; see `compile`.
        norms: how norms are written, `"plain"` or `"robust"`, which is the default; see `compile`.
        target, device, numerics, sums, isa, threads: see `compile`.

    Raises:
        FileNotFoundError: a file of the pipeline is not there.
        ValueError: a file is not what it should be, or asks for what is not done here, such as the parts of Stable Diffusion XL.
    """
    if not isinstance(path, (str, PathLike)):
        raise TypeError(f"load_diffusion: path must be a str or a path, got {type(path).__name__}")
    return Diffusion(
        _native.load_diffusion(
            os.fspath(path),
            **_env.placed(target, device, numerics, sums, isa, threads),
            compress=_form(bool(int8), compress, compress_atol, 32),
            norms=norms,
        )
    )
