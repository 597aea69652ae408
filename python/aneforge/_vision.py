"""`Vision`: networks that look at pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aneforge import _env, _native
from aneforge._compile import _form
from aneforge._late import np
from aneforge._operand import within

if TYPE_CHECKING:
    from numpy.typing import NDArray

Picture = Any
"""A path, the bytes of a file, a picture of Pillow, or an array of uint8 `[H, W, 3]`."""

# What torchvision calls its weights, and where the hub has the same ones.
_WEIGHTS = {"IMAGENET1K_V1": "tv_in1k", "IMAGENET1K_V2": "tv2_in1k", "DEFAULT": "tv_in1k"}
_DEPTHS = (18, 34, 50, 101)


class Looking:
    """What networks that look at pictures have in common; `_loaded` is the network."""

    _loaded: Any

    def attention(self, image: Picture) -> NDArray[np.float32]:
        """How much the network looks at each part of a picture, `[heads, rows, columns]`: in the last layer, the class token, or
        SigLIP's question.

        What a head looks at sums to 1, but for what it looks at beside the parts. Networks of convolutions have none: an error.
        """
        pictures, _ = _pictures("attention", [image])
        return self._loaded._looks(pictures[0])

    def heat_map(self, image: Picture, path: str | PathLike[str] | None = None) -> NDArray[np.uint8]:
        """The mean of `attention` over all heads, in colours on the picture as it is prepared: `[H, W, 3]`.

        Args:
            image: as `Vision.classify` takes it.
            path: a file for it, a PNG.
        """
        pictures, _ = _pictures("heat_map", [image])
        return self._loaded._heat_map(pictures[0], None if path is None else os.fspath(path))

    @property
    def n_ops(self) -> int:
        """How many nodes the program for one picture has."""
        return self._loaded.n_ops

    @property
    def network(self) -> str:
        """Which network it is, such as `ResNet-18`."""
        return self._loaded.network

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of what it takes for one picture, `(3, H, W)`."""
        return self._loaded.input_shape

    @property
    def device(self) -> str:
        """The device it runs on: `host`, `ane` or `ane (stand-in)`."""
        return self._loaded.device

    @property
    def target(self) -> str:
        """The chip it is compiled for."""
        return self._loaded.target


class Vision(Looking):
    """A pretrained network that looks at pictures; `load_vision` and `load_resnet` make them.

    Pictures are read, turned upright, resized and cut on the host, as the files beside the weights say; the rest is one program.
    Several pictures at a time run together.
    """

    def __init__(self, network: _native.Vision) -> None:
        self._network: _native.Vision | None = network

    @property
    def _loaded(self) -> _native.Vision:
        if self._network is None:
            raise RuntimeError("this network was released; load it again")
        return self._network

    def __call__(self, images: Picture | Sequence[Picture]) -> NDArray[np.float32]:
        """Logits `[N, classes]`, or features `[N, D]` of a network without classes.

        Args:
            images: numbers that are prepared and normalised already, `[3, H, W]` or `[N, 3, H, W]`; or one picture or several, as
                `classify` takes them.
        """
        values = _normalized("Vision", images)
        if values is not None:
            return self._loaded._run(values)
        pictures, _ = _pictures("Vision", images)
        return self._loaded._logits(pictures) if self.labels else self._loaded._features(pictures)

    def classify(self, images: Picture | Sequence[Picture], top_k: int = 5) -> list[Any]:
        """The likeliest classes, the likeliest first: `[(label, probability), ...]` of one picture, a list of such lists of several.

        Args:
            images: a path, the bytes of a file (JPEG, PNG, WebP, BMP), a picture of Pillow, an array of uint8 `[H, W, 3]`, or
                a list of these.
            top_k: how many classes.
        """
        pictures, one = _pictures("classify", images)
        ranked = self._loaded._classify(pictures, within("classify: top_k", top_k))
        rows = [[(label, probability) for _, label, probability in row] for row in ranked]
        return rows[0] if one else rows

    def features(self, images: Picture | Sequence[Picture]) -> NDArray[np.float32]:
        """What the network knows of pictures before a classifier reads it: `[D]` of one picture, `[N, D]` of several."""
        pictures, one = _pictures("features", images)
        rows = self._loaded._features(pictures)
        return rows[0] if one else rows

    def prepare(self, image: Picture) -> NDArray[np.uint8]:
        """A picture as the network takes it: bytes `[3, H, W]`, resized and cut, and not yet normalised."""
        pictures, _ = _pictures("prepare", [image])
        return self._loaded._prepare(pictures[0])

    def release(self) -> None:
        """Lets go of programs and weights. Calls after it are errors."""
        self._network = None

    @property
    def labels(self) -> list[str]:
        """What the classes are called; empty where that is not known."""
        return self._loaded.labels

    def __repr__(self) -> str:
        return "Vision(released)" if self._network is None else repr(self._network)


def _normalized(name: str, images: Any) -> NDArray[np.float32] | None:
    """Numbers that are normalised already; of bytes, which are a picture, and of anything else, none."""
    if isinstance(images, (str, bytes, PathLike, list, tuple)) or hasattr(images, "convert"):
        return None
    values = np.asarray(images)
    if values.ndim == 0 or values.dtype == np.uint8 or values.dtype.kind not in "fiu" and values.dtype.name != "bfloat16":
        return None
    several = values[None] if values.ndim == 3 else values
    if several.ndim != 4 or several.shape[1] != 3:
        raise ValueError(f"{name}: numbers must be [3, H, W] or [N, 3, H, W], got {list(values.shape)}")
    return np.ascontiguousarray(several, np.float32)


def _pictures(name: str, images: Any) -> tuple[list[Any], bool]:
    """Pictures as paths, bytes or arrays, and whether one was given and no list."""
    if isinstance(images, (list, tuple)):
        return [_picture(name, image) for image in images], False
    values = None if isinstance(images, (str, bytes, PathLike)) or hasattr(images, "convert") else np.asarray(images)
    if values is not None and values.ndim == 4:
        return [_picture(name, image) for image in values], False
    return [_picture(name, images)], True


def _picture(name: str, image: Any) -> Any:
    if isinstance(image, bytes):
        return image
    if isinstance(image, (str, PathLike)):
        return os.fspath(image)
    if hasattr(image, "convert") and hasattr(image, "mode"):
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] != 3:
        kind = f"{values.dtype} {list(values.shape)}" if values.dtype != object else type(image).__name__
        raise TypeError(
            f"{name}: a picture must be a path, the bytes of a file, a picture of Pillow or an array of uint8 [H, W, 3], got {kind}"
        )
    return np.ascontiguousarray(values)


def load_vision(
    name: str | PathLike[str],
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
) -> Vision:
    """Loads a network that looks at pictures: ResNet 18 to 101, EfficientNet-lite, MobileNetV3, ViT, DeiT, DINOv2
    or ConvNeXt,
    and what CLIP and SigLIP look at pictures with.

    Args:
        name: a file of weights (safetensors, or what `torch.save` wrote, which is read and never run), a directory in the layout of
            transformers or timm, or a hub id; or `"resnet18"` to `"resnet101"`, as `load_resnet` takes them.
        int8: whether weights are stored as bytes with a scale per row, in half the memory.
        compress: the form in which weights are stored, such as `"int4"`; see `compile`.
        compress_atol: the largest relative error; see `compile`.
        target, device, numerics, sums, isa, threads: see `compile`.

    Raises:
        FileNotFoundError: there is nothing of this name, and no such model on the hub.
        ValueError: a file is not what it should be, or its weights are those of no network that is known.
    """
    if name in {f"resnet{depth}" for depth in _DEPTHS}:
        name = _resnet(name, "IMAGENET1K_V1")
    return Vision(
        _native.load_vision(
            os.fspath(name),
            **_env.placed(target, device, numerics, sums, isa, threads),
            offline=_env.offline(),
            compress=_form(bool(int8), compress, compress_atol, 32),
        )
    )


def load_vit(
    name: str | PathLike[str],
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
) -> Vision:
    """Loads a vision transformer: ViT, DeiT or DINOv2, in the names of transformers or of timm; see `load_vision`.

    Raises:
        ValueError: it is another network.
    """
    loaded = load_vision(
        name, int8, compress=compress, compress_atol=compress_atol, target=target, device=device, numerics=numerics, sums=sums,
        isa=isa, threads=threads,
    )  # fmt: skip
    if not loaded.network.startswith(("ViT", "DINOv2")):
        raise ValueError(f"load_vit: `{os.fspath(name)}` holds {loaded.network}, no vision transformer; use load_vision")
    return loaded


def load_resnet(
    name_or_depth: int | str | PathLike[str] = 18,
    int8: bool = False,
    compress: str | None = None,
    compress_atol: float = 0.05,
    build_dir: str | PathLike[str] | None = None,
    weights: str = "IMAGENET1K_V1",
    *,
    target: str | None = None,
    device: str | None = None,
    numerics: str | None = None,
    sums: str | None = None,
    isa: str | None = None,
    threads: int | None = None,
) -> Vision:
    """Loads a ResNet by its depth, or by anything that `load_vision` takes.

    Args:
        name_or_depth: 18, 34, 50 or 101, also as `"50"` or `"resnet50"`: torchvision's weights, from its cache where they are, and
            else from the hub. Or a file, a directory or a hub id.
        int8, compress, compress_atol: how weights are stored; see `load_vision`.
        build_dir: taken for ANEForge's scripts; nothing is written there, as programs are made in memory.
        weights: which of torchvision's weights, `"IMAGENET1K_V1"` or `"IMAGENET1K_V2"`.
        target, device, numerics, sums, isa, threads: see `compile`.

    Raises:
        ValueError: there is no ResNet of this depth, or no such weights.
    """
    del build_dir
    return load_vision(
        _resnet(name_or_depth, weights), int8, compress=compress, compress_atol=compress_atol, target=target, device=device,
        numerics=numerics, sums=sums, isa=isa, threads=threads,
    )  # fmt: skip


def _resnet(name: int | str | PathLike[str], weights: str) -> str:
    """The file or the hub id of a ResNet."""
    if isinstance(name, bool) or not isinstance(name, (int, str, PathLike)):
        raise TypeError(f"load_resnet: name_or_depth must be a depth, a name or a path, got {type(name).__name__}")
    place = os.fspath(name) if not isinstance(name, int) else ""
    depth = str(name).removeprefix("resnet") if not isinstance(name, PathLike) else ""
    if place and Path(place).exists() or not depth.isdecimal():
        return place
    if int(depth) not in _DEPTHS:
        known = ", ".join(str(known) for known in _DEPTHS)
        raise ValueError(f"load_resnet: unsupported ResNet {name!r}; its depth must be one of {known}")
    if weights not in _WEIGHTS:
        raise ValueError(f"load_resnet: weights must be one of {', '.join(_WEIGHTS)}, got {weights!r}")
    if weights == "IMAGENET1K_V2" and depth not in ("50", "101"):
        raise ValueError(f"load_resnet: ResNet-{depth} has no weights IMAGENET1K_V2; take IMAGENET1K_V1")
    return _cached(depth, weights) or f"timm/resnet{depth}.{_WEIGHTS[weights]}"


# What follows the names of torchvision's files: the beginnings of their checksums.
_FILES = {
    ("18", "tv_in1k"): "f37072fd", ("34", "tv_in1k"): "b627a593", ("50", "tv_in1k"): "0676ba61", ("101", "tv_in1k"): "63fe2227",
    ("50", "tv2_in1k"): "11ad3fa6", ("101", "tv2_in1k"): "cd907fc2",
}  # fmt: skip


def _cached(depth: str, weights: str) -> str | None:
    """Weights that torchvision has downloaded."""
    file = f"resnet{depth}-{_FILES[depth, _WEIGHTS[weights]]}.pth"
    path = _env.torch_home() / "hub" / "checkpoints" / file
    return str(path) if path.is_file() else None


def load_resnet18(
    int8: bool = False,
    compress: str | None = None,
    compress_atol: float = 0.05,
    build_dir: str | PathLike[str] | None = None,
) -> Vision:
    """Loads ResNet-18; see `load_resnet`."""
    return load_resnet(18, int8, compress, compress_atol, build_dir)
