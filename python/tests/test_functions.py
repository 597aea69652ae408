"""What functions of images, norms and pairs compute and refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aneforge as af
import numpy as np
import pytest

RNG = np.random.default_rng(11)
IMAGE = RNG.uniform(-2.0, 2.0, (1, 4, 6, 4)).astype(np.float16).astype(np.float64)
C = np.array([0.5, -1.0, 2.0, 0.25])


def run(y: af.Tensor, *feeds: Any) -> np.ndarray:
    return af.compile(y, device="host", numerics="ieee")(*feeds)


FUNCTIONS: dict[str, tuple[Callable[[af.Tensor], af.Tensor], str, Callable[[np.ndarray], Any]]] = {
    "prelu": (
        lambda x: x.prelu(C),
        "prelu",
        lambda x: np.where(x > 0, x, C.reshape(1, 4, 1, 1) * x),
    ),
    "instance_norm": (
        lambda x: af.instance_norm(x, C, C),
        "instance_norm",
        lambda x: normalized(x, (2, 3)) * C.reshape(1, 4, 1, 1) + C.reshape(1, 4, 1, 1),
    ),
    "group_norm": (
        lambda x: x.group_norm(C, C, 2),
        "group_norm",
        lambda x: (
            normalized(x.reshape(1, 2, -1), 2).reshape(x.shape) * C.reshape(1, 4, 1, 1)
            + C.reshape(1, 4, 1, 1)
        ),
    ),
    "channel_layer_norm": (
        lambda x: x.reshape(1, 4, 1, 24).channel_layer_norm(C, C),
        "channel_layer_norm",
        lambda x: normalized(x.reshape(1, 4, 1, 24), 1) * C.reshape(1, 4, 1, 1) + C.reshape(1, 4, 1, 1),
    ),
    "local_response_norm": (
        lambda x: af.local_response_norm(x, size=1, alpha=0.5, beta=0.5, k=2.0),
        "local_response_norm",
        lambda x: x / np.sqrt(2 + 0.5 * x * x),
    ),
    "pixel_shuffle": (lambda x: af.pixel_shuffle(x, 2), "pixel_shuffle", lambda x: shuffled(x, 2)),
    "pixel_unshuffle": (
        lambda x: af.pixel_shuffle(af.pixel_unshuffle(x, 2), 2),
        "pixel_shuffle",
        lambda x: x,
    ),
    "space_to_depth": (
        lambda x: af.space_to_depth(x),
        "space_to_depth",
        lambda x: np.concatenate([x[:, :, i::2, j::2] for i in range(2) for j in range(2)], 1),
    ),
    "depth_to_space": (
        lambda x: af.depth_to_space(af.space_to_depth(x)),
        "depth_to_space",
        lambda x: x,
    ),
    "crop": (lambda x: af.crop(x, 1, 2, 0, 3), "crop", lambda x: x[:, :, 1:4, :1]),
    "upsample": (lambda x: x.upsample(3), "upsample", lambda x: x.repeat(3, 2).repeat(3, 3)),
    "tile": (lambda x: x.tile((1, 2, 1, 5)), "tile", lambda x: np.tile(x, (1, 2, 1, 5))),
    "resize_nearest_neighbor": (
        lambda x: af.resize_nearest_neighbor(x, 3, 8),
        "resize_nearest_neighbor",
        lambda x: x[:, :, ::2].repeat(2, 3),
    ),
    "resize_bilinear": (
        lambda x: af.resize_bilinear(x, 6, 8),
        "resize_bilinear",
        lambda x: doubled(x),
    ),
    "upsample_bilinear": (
        lambda x: af.upsample_bilinear(x)[:, :, :, :1],
        "slice_by_size",
        lambda x: half_pixel(x),
    ),
    "affine": (
        lambda x: af.affine(x, np.array([[1.0, 0, 0, 0, -1.0, 0]]), 6, 4),
        "affine",
        lambda x: x[:, :, ::-1],
    ),
    "einsum_native": (
        lambda x: af.einsum_native("nchw, nwhu -> nchu", x, np.ones((1, 4, 6, 2))),
        "einsum",
        lambda x: x.sum(3, keepdims=True).repeat(2, 3),
    ),
}


def normalized(x: np.ndarray, axes: Any) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def shuffled(x: np.ndarray, r: int) -> np.ndarray:
    y = np.empty((1, x.shape[1] // r**2, x.shape[2] * r, x.shape[3] * r))
    for i in range(r):
        for j in range(r):
            y[:, :, i::r, j::r] = x[:, i * r + j :: r * r]
    return y


def doubled(x: np.ndarray) -> np.ndarray:
    """Twice the columns: each, and its mean with the next, the last of which is itself."""
    following = np.concatenate([x[..., 1:], x[..., -1:]], -1)
    return np.stack([x, (x + following) / 2], -1).reshape(*x.shape[:3], -1)


def half_pixel(x: np.ndarray) -> np.ndarray:
    """The first of twice the columns, with twice the rows: quarters of the neighbours, clamped."""
    first = x[..., :1]
    before = np.concatenate([first[:, :, :1], first[:, :, :-1]], 2)
    after = np.concatenate([first[:, :, 1:], first[:, :, -1:]], 2)
    both = [0.25 * before + 0.75 * first, 0.75 * first + 0.25 * after]
    return np.stack(both, 3).reshape(1, x.shape[1], -1, 1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    build, op, reference = FUNCTIONS[name]
    x = af.input(IMAGE.shape)
    y = build(x)
    want = reference(IMAGE)
    assert (y.op, y.shape) == (op, want.shape)
    np.testing.assert_allclose(run(y, IMAGE), want, rtol=2e-3, atol=1e-2)


MISTAKES: dict[str, tuple[Callable[[af.Tensor], Any], type[Exception], str]] = {
    "prelu": (lambda x: x.prelu(C[:3]), ValueError, r"prelu: alpha must be \[4\], one per channel of x"),
    "prelu_rank": (
        lambda x: x.reshape(4, 24).prelu(C),
        ValueError,
        r"prelu: x must be \[N, C, ...\] of rank 3 or more, got \[4, 24\]",
    ),
    "groups": (lambda x: x.group_norm(C, C, 3), ValueError, "4 channels do not divide into 3 groups"),
    "group_norm_lengths": (
        lambda x: x.group_norm(C, C[:2], 2),
        ValueError,
        r"beta must be \[4\] or \[1, 4, 1, 1\]",
    ),
    "group_norm_batch": (
        lambda x: x.reshape(2, 2, 6, 4).group_norm(C[:2], C[:2], 2),
        ValueError,
        r"group_norm: the batch must be 1, got shape \(2, 2, 6, 4\)",
    ),
    "group_norm_extent": (
        lambda x: af.input((1, 2, 512, 256)).group_norm(C[:2], C[:2], 1),
        ValueError,
        "131072 pixels must be at most 65536",
    ),
    "group_norm_kinds": (
        lambda x: x.group_norm(x, C, 2),
        TypeError,
        "group_norm: gamma and beta must both be arrays or both be Tensors",
    ),
    "channel_layer_norm": (lambda x: x.channel_layer_norm(C, C), ValueError, r"x must be \[N, C, 1, S\]"),
    "instance_norm": (lambda x: af.instance_norm(x, C, C[:1]), ValueError, r"beta must be \[4\]"),
    "instance_norm_weights": (
        lambda x: af.instance_norm(x, np.arange(4) * 1j, C),
        TypeError,
        "instance_norm: gamma must be an array of real numbers, got complex128",
    ),
    "local_response_norm": (
        lambda x: af.local_response_norm(x, 0),
        ValueError,
        "size must be at least 1, got 0",
    ),
    "dynamic_conv": (
        lambda x: af.dynamic_conv(x, np.ones((1, 4, 1, 1))),
        TypeError,
        "weight must be a Tensor",
    ),
    "dynamic_conv_batch": (
        lambda x: af.dynamic_conv(af.input((2, 4, 3, 3)), af.input((1, 4, 1, 1))),
        ValueError,
        "dynamic_conv: the batch must be 1, got 2; use conv",
    ),
    "dynamic_conv_width": (
        lambda x: af.dynamic_conv(af.input((1, 4, 3, 30)), af.input((1, 4, 1, 16))),
        ValueError,
        "kernel width 16 is above 15",
    ),
    "einsum": (lambda x: af.einsum_native("ij,jk->ik", x, x), NotImplementedError, "nchw,nwhu->nchu only"),
    "einsum_extents": (
        lambda x: af.einsum_native("nchw,nwhu->nchu", x, np.ones((1, 6, 4, 2))),
        ValueError,
        r"b must be \[1, 4, 6, U\] for a \[1, 4, 6, 4\], got \[1, 6, 4, 2\]",
    ),
    "bmm_weight": (
        lambda x: x.reshape(4, 6, 4).bmm_weight(np.ones((2, 4, 3))),
        ValueError,
        "must share the batch, 4 and 2",
    ),
    "stack": (lambda x: af.stack([x[0], x[0, 0]]), ValueError, "stack: value 1 is"),
    "stack_axis": (
        lambda x: af.stack([x[0]], 7),
        ValueError,
        "axis 7 is out of range for a result of rank 4",
    ),
    "stack_rank": (lambda x: af.stack([af.input((1,) * 8)] * 2), ValueError, "rank 9 is above"),
    "tile": (lambda x: x.tile((2, 2)), ValueError, "one factor per axis"),
    "tile_zero": (lambda x: x.tile((1, 1, 1, 0)), ValueError, "must be at least 1"),
    "pixel_shuffle": (
        lambda x: af.pixel_shuffle(x, 3),
        ValueError,
        "4 channels do not divide into blocks of 3 by 3",
    ),
    "pixel_unshuffle": (
        lambda x: af.pixel_unshuffle(x, 4),
        ValueError,
        "6 by 4 pixels do not divide into blocks of 4 by 4",
    ),
    "crop": (lambda x: af.crop(x, 0, 0, 2, 2), ValueError, "cutting 2 and 2 of axis 3 leaves nothing"),
    "crop_negative": (lambda x: af.crop(x, -1, 0, 0, 0), ValueError, "must not be negative"),
    "upsample": (lambda x: x.upsample(0), ValueError, "would have 0 by 0 pixels"),
    "resize": (lambda x: af.resize_bilinear(x, 0, 3), ValueError, "would have 0 by 3 pixels"),
    "resize_rank": (
        lambda x: af.resize_nearest_neighbor(x[0], 2, 2),
        ValueError,
        r"x must be \[N, C, H, W\]",
    ),
    "affine": (
        lambda x: af.affine(x, np.ones((2, 6)), 2, 2),
        ValueError,
        r"transform must be \[1, 6\] or \[1, 6\]",
    ),
    "paired": (lambda x: af.paired(C), TypeError, "paired: hi must be a Tensor, got ndarray"),
    "paired_shapes": (lambda x: af.paired(x, x[0]), ValueError, "hi and lo must have one shape"),
    "sums": (lambda x: af.reduce_sum_to_matmul(x, -1), ValueError, "only_idx must be at least 0, got -1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    build, error, message = MISTAKES[name]
    with pytest.raises(error, match=message):
        build(af.input(IMAGE.shape))


NORMS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[..., af.Tensor]]] = {
    "layer_norm": ((3, 4), (1, 4), lambda x, g, b: x.layer_norm(g, b)),
    "rms_norm": ((3, 4), (1, 4), lambda x, g, _: x.rms_norm(g)),
    "group_norm": ((1, 4, 3, 2), (1, 4, 1, 1), lambda x, g, b: x.group_norm(g, b, 2)),
    "channel_layer_norm": ((1, 4, 1, 5), (1, 4, 1, 1), lambda x, g, b: x.channel_layer_norm(g, b)),
    "instance_norm": ((1, 4, 3, 2), (4,), lambda x, g, b: af.instance_norm(x, g, b)),
    "batch_norm": ((1, 4, 3, 2), (4,), lambda x, g, b: af.batch_norm(x, g, b, C, C * C)),
    "prelu": ((1, 4, 3), (4,), lambda x, g, _: x.prelu(g)),
}


@pytest.mark.parametrize("name", NORMS)
def test_parameters_may_be_trained(name: str) -> None:
    shape, extents, build = NORMS[name]
    values = RNG.standard_normal(shape)
    x, gamma, beta = af.input(shape), af.input(extents), af.input(extents)
    baked = run(build(x, C.reshape(extents), C.reshape(extents)), values)
    feeds = [values, C.reshape(extents), C.reshape(extents)][
        : 3 if "norm" in name and name != "rms_norm" else 2
    ]
    got = run(build(x, gamma, beta), *feeds)
    np.testing.assert_allclose(got, baked, rtol=4e-3, atol=4e-3)


def test_sums_become_products() -> None:
    x = af.input((2, 3, 8))
    y = x.sum(1) + x.sum((0, 2)).relu()
    z = af.reduce_sum_to_matmul(y)
    assert z.srcs[0].op == "transpose"
    assert z.srcs[1] == y.srcs[1]
    assert af.reduce_sum_to_matmul(y, only_idx=5) == y
    values = RNG.standard_normal((2, 3, 8))
    np.testing.assert_allclose(run(z, values), run(y, values), atol=4e-3)


def half(x: Any) -> np.ndarray:
    return np.asarray(x).astype(np.float16).astype(np.float64)


def test_pairs_keep_what_rounding_loses() -> None:
    shape = (4, 32)
    exact = [RNG.uniform(0.5, 2.0, shape) for _ in range(2)]
    his = [half(v) for v in exact]
    los = [half(v - h) for v, h in zip(exact, his, strict=True)]
    a, b = (h + low for h, low in zip(his, los, strict=True))
    tensors = [af.input(shape) for _ in range(4)]
    p, q = af.paired(tensors[0], tensors[1]), af.paired(tensors[2], tensors[3])
    feeds = [his[0], los[0], his[1], los[1]]
    results = {
        "sum": (p + q, a + b),
        "difference": (p - q, a - b),
        "product": (p * q, a * b),
        "scaled": (2 * p, 2 * a),
        "negative": (-p, -a),
        "dot": (p.dot(q), (a * b).sum(-1, keepdims=True)),
        "dot_first": (p.dot(q, axis=0), (a * b).sum(0)[:, None]),
    }
    for name, (pair, want) in results.items():
        model = af.compile([pair.hi, pair.lo], device="host", numerics="ieee")
        used = feeds if name not in ("scaled", "negative") else feeds[:2]
        hi, lo = (part.astype(np.float64) for part in model(*used))
        error = np.abs(hi + lo - want).max() / np.abs(want).max()
        assert error < 2e-5, (name, error)
        plain = np.abs(half(want) - want).max() / np.abs(want).max()
        assert plain > 5 * error or name in ("scaled", "negative")
    assert repr(p) == "Paired(shape=(4, 32))"
    total = (p + q).to_tensor()
    assert total.op == "add"
    np.testing.assert_array_equal(run(total, *feeds), half(a + b))


def test_a_difference_of_sums_survives_in_pairs() -> None:
    x, y = af.input((8,)), af.input((8,))
    values = [np.full(8, 1.0), np.full(8, 1 / 4096)]
    pair = (af.paired(x) + af.paired(y)) - af.paired(x)
    np.testing.assert_array_equal(run(pair.combine(), *values), np.full(8, np.float32(1 / 4096)))
    np.testing.assert_array_equal(run((x + y) - x, *values), np.zeros(8))
    np.testing.assert_array_equal(run(af.paired_subtract(x, y), *values), half(values[0] - values[1]))


@pytest.mark.parametrize("convolve", [af.conv, af.conv_transpose])
def test_a_convolution_takes_a_tensor_of_one_bias_per_channel(convolve: Callable[..., af.Tensor]) -> None:
    x, bias = af.input((1, 3, 4, 4)), af.input((3,))
    model = af.compile(convolve(x, np.zeros((3, 3, 1, 1), np.float32), bias=bias), device="host")
    y = model(np.ones((1, 3, 4, 4)), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(y, np.broadcast_to(np.reshape([1, 2, 3], (1, 3, 1, 1)), (1, 3, 4, 4)))
