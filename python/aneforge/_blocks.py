"""Parts of networks that are trained."""

from __future__ import annotations

from collections.abc import Sequence

from aneforge import _native
from aneforge._functions import input
from aneforge._late import np
from aneforge._native import Tensor
from aneforge.autograd import conv2d, conv_param, parameter


def group_norm_train(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
    """Normalisation over groups of channels, for any number of images, differentiable in everything.

    Args:
        x: `[N, C, H, W]`.
        gamma: `[1, C, 1, 1]`.
        beta: `[1, C, 1, 1]`.
        groups: how many; they divide `C`.
        eps: what is added to the variance.
    """
    if x.ndim != 4 or groups < 1 or x.shape[1] % groups:
        raise ValueError(f"group_norm_train: {groups} groups do not divide the channels of x, {tuple(x.shape)}")
    n, c, h, w = x.shape
    grouped = x.reshape(n, groups, c // groups * h * w)
    apart = grouped - grouped.mean((2,))
    variance = apart.square().mean((2,))
    unit = apart * _native.apply("rsqrt", [variance], {"eps": eps})
    return unit.reshape(n, c, h, w) * gamma + beta


def conv_block(x: Tensor, conv_w: Tensor, gamma: Tensor, beta: Tensor, groups: int, pool: int = 0) -> Tensor:
    """`conv2d` that keeps the extents, `group_norm_train`, a rectifier, and with `pool` a pool of that size."""
    kernel = conv_w.attrs.get("conv_shape", (0, 0, 3, 3)) if conv_w.op == "input" else (0, 0, 3, 3)
    y = conv2d(x, conv_w, pad=kernel[2] // 2)
    y = group_norm_train(y, gamma, beta, groups).relu()
    return y.max_pool(pool) if pool else y


def cifar_cnn(
    batch: int,
    widths: Sequence[int] = (32, 64, 128),
    groups: int = 8,
    classes: int = 10,
    seed: int = 0,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A convolutional network for images `[batch, 3, 32, 32]`: its input, its logits, and its parameters.

    Three blocks, the first two of which halve the extents, the mean over the image, and a linear layer.
    """
    rng = np.random.default_rng(seed)
    x = input((batch, 3, 32, 32))
    params: list[Tensor] = []
    h, channels = x, 3
    for width, pool in zip(widths, (2, 2, 0), strict=True):
        deviation = (2 / (channels * 9)) ** 0.5
        kernel = conv_param(rng.normal(size=(width, channels, 3, 3)) * deviation)
        gamma, beta = parameter(np.ones((1, width, 1, 1))), parameter(np.zeros((1, width, 1, 1)))
        params += [kernel, gamma, beta]
        h, channels = conv_block(h, kernel, gamma, beta, groups, pool), width
    weight = parameter(rng.normal(size=(channels, classes)) * (2 / channels) ** 0.5)
    bias = parameter(np.zeros((1, classes)))
    logits = h.mean((2, 3)).reshape(batch, channels) @ weight + bias
    return x, logits, [*params, weight, bias]
