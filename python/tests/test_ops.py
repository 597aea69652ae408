"""Every worked example of every op, held to an independent expression in JAX at double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aneforge as af
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from aneforge import _native
from jax import lax
from jax.scipy.ndimage import map_coordinates
from jax.scipy.special import erf, logsumexp
from layers import LAYERS

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")

Expression = Callable[..., Any]


def away(x):
    """Rounds to the nearest integer, ties away from zero."""
    return jnp.trunc(x + jnp.copysign(0.5, x))


def conv(x, w, *bias, strides, pad, dilations, groups):
    top, bottom, left, right = pad
    y = lax.conv_general_dilated(
        x, w, strides, [(top, bottom), (left, right)], rhs_dilation=dilations, feature_group_count=groups
    )
    return y + bias[0].reshape(1, -1, 1, 1) if bias else y


def conv_transpose(x, w, *bias, strides, pad, dilations, groups):
    cin, per_group, kh, kw = w.shape
    grouped = w.reshape(groups, cin // groups, per_group, kh, kw).swapaxes(1, 2)
    flipped = grouped.reshape(groups * per_group, cin // groups, kh, kw)[..., ::-1, ::-1]
    reach = [d * (k - 1) for d, k in zip(dilations, (kh, kw), strict=True)]
    padding = [(reach[i] - pad[2 * i], reach[i] - pad[2 * i + 1]) for i in range(2)]
    y = lax.conv_general_dilated(
        x, flipped, (1, 1), padding, lhs_dilation=strides, rhs_dilation=dilations, feature_group_count=groups
    )
    return y + bias[0].reshape(1, -1, 1, 1) if bias else y


def windows(x, init, combine, kernel_sizes, strides, pad, ceil_mode):
    padding = [(0, 0), (0, 0)]
    for axis in range(2):
        k, s, before, after = kernel_sizes[axis], strides[axis], pad[2 * axis], pad[2 * axis + 1]
        extent = x.shape[2 + axis]
        if ceil_mode:
            count = -(-(extent + before + after - k) // s) + 1
            count -= (count - 1) * s >= extent + before
            after = max(after, (count - 1) * s + k - extent - before)
        padding.append((before, after))
    return lax.reduce_window(x, init, combine, (1, 1, *kernel_sizes), (1, 1, *strides), padding)


def max_pool(x, **window):
    return windows(x, -jnp.inf, lax.max, **window)


def avg_pool(x, exclude_pad, **window):
    total = windows(x, 0.0, lax.add, **window)
    if exclude_pad:
        return total / windows(jnp.ones_like(x), 0.0, lax.add, **window)
    return total / np.prod(window["kernel_sizes"])


def layer_norm(x, gamma, beta, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + eps) * gamma.ravel() + beta.ravel()


def rms_norm(x, gamma, eps):
    d = x.shape[-1]
    length = jnp.sqrt((x**2).sum(-1, keepdims=True))
    return x / jnp.maximum(length, np.sqrt(d * eps)) * np.sqrt(d) * gamma.ravel()


def batch_norm(x, gamma, beta, mean, variance, eps):
    g, b, m, v = (p.reshape(1, -1, *[1] * (x.ndim - 2)) for p in (gamma, beta, mean, variance))
    return (x - m) / jnp.sqrt(v + eps) * g + b


def per_channel(v, x):
    return v.reshape(1, -1, *[1] * (x.ndim - 2))


def normalized(x, axes, eps):
    return (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + eps)


def channel_layer_norm(x, gamma, beta, eps):
    return normalized(x, 1, eps) * per_channel(gamma, x) + per_channel(beta, x)


def group_norm(x, gamma, beta, num_groups, eps):
    n, c, h, w = x.shape
    groups = x.reshape(n, num_groups, c // num_groups, h, w)
    return normalized(groups, (2, 3, 4), eps).reshape(x.shape) * per_channel(gamma, x) + per_channel(beta, x)


def instance_norm(x, gamma, beta, eps):
    return normalized(x, (2, 3), eps) * per_channel(gamma, x) + per_channel(beta, x)


def local_response_norm(x, size, alpha, beta, k):
    channels = x.shape[1]
    sums = [
        (x[:, max(0, c - (size - 1) // 2) : min(channels, c + size // 2 + 1)] ** 2).sum(1)
        for c in range(channels)
    ]
    return x / (k + alpha / size * jnp.stack(sums, 1)) ** beta


def to_space(x, block, channel_of):
    """Channels to pixels: `channel_of(c, i, j, channels)` is the one that pixel `(i, j)` of a block comes from."""
    n, c, h, w = x.shape
    channels = c // block**2
    y = jnp.zeros((n, channels, h * block, w * block))
    for c in range(channels):
        for i in range(block):
            for j in range(block):
                y = y.at[:, c, i::block, j::block].set(x[:, channel_of(c, i, j, channels)])
    return y


def to_depth(x, block, channel_of):
    """Pixels to channels: the other way round."""
    n, c, h, w = x.shape
    y = jnp.zeros((n, c * block**2, h // block, w // block))
    for k in range(c):
        for i in range(block):
            for j in range(block):
                y = y.at[:, channel_of(k, i, j, c)].set(x[:, k, i::block, j::block])
    return y


def sampled(x, rows, columns, mode):
    """Every plane at places of its rows and columns, `[n, ...]` per image."""
    n, c = x.shape[:2]
    planes = [[map_coordinates(x[i, k], [rows[i], columns[i]], 1, mode) for k in range(c)] for i in range(n)]
    return jnp.stack([jnp.stack(image) for image in planes])


def resized(x, places):
    """Interpolated at `places(extent, axis)` of either axis, clamped to the border."""
    rows, columns = jnp.meshgrid(places(x.shape[2], 0), places(x.shape[3], 1), indexing="ij")
    return sampled(x, [rows] * len(x), [columns] * len(x), "nearest")


def corners(extent, to):
    return jnp.arange(to) * (extent - 1) / max(to - 1, 1)


def resize_bilinear(x, target_h, target_w, align_corners):
    target = (target_h, target_w)
    if align_corners:
        return resized(x, lambda extent, axis: corners(extent, target[axis]))
    return resized(x, lambda extent, axis: jnp.arange(target[axis]) * extent / target[axis])


def upsample_bilinear(x, scale, align_corners):
    if align_corners:
        return resized(x, lambda extent, _: corners(extent, extent * scale))
    n, c, h, w = x.shape
    return jax.image.resize(x, (n, c, h * scale, w * scale), "bilinear")


def resize_nearest_neighbor(x, target_h, target_w):
    h, w = x.shape[2:]
    return x[:, :, np.arange(target_h) * h // target_h][..., np.arange(target_w) * w // target_w]


def affine(x, transform, output_h, output_w, align_corners):
    def grid(extent):
        if align_corners:
            return jnp.linspace(-1.0, 1.0, extent) if extent > 1 else jnp.zeros(1)
        return (jnp.arange(extent) * 2 + 1) / extent - 1

    def pixels(coordinate, extent):
        return (coordinate + 1) / 2 * (extent - 1) if align_corners else ((coordinate + 1) * extent - 1) / 2

    v, u = jnp.meshgrid(grid(output_h), grid(output_w), indexing="ij")
    maps = jnp.broadcast_to(transform, (len(x), 6))
    columns = [pixels(m[0] * u + m[1] * v + m[2], x.shape[3]) for m in maps]
    rows = [pixels(m[3] * u + m[4] * v + m[5], x.shape[2]) for m in maps]
    return sampled(x, rows, columns, "constant")


def compared(holds) -> Expression:
    return lambda x, y: holds(x, y).astype(jnp.float64)


def reduced(reduce) -> Expression:
    return lambda x, axes: reduce(x, axis=tuple(axes), keepdims=True)


EXPRESSIONS: dict[str, Expression] = {
    "relu": lambda x: jnp.where(x > 0, x, 0.0),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "sqrt": jnp.sqrt,
    "abs": jnp.abs,
    "square": jnp.square,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "atan": jnp.arctan,
    "erf": erf,
    "relu6": jax.nn.relu6,
    "softsign": jax.nn.soft_sign,
    "softplus": jax.nn.softplus,
    "native_softplus": jax.nn.softplus,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": away,
    "native_round": away,
    "sign": jnp.sign,
    "muls": lambda x, k: x * k,
    "adds": lambda x, k: x + k,
    "log": lambda x, eps: jnp.log(x + eps),
    "rsqrt": lambda x, eps: lax.rsqrt(x + eps),
    "inverse": lambda x, eps: 1.0 / (x + eps),
    "elu": jax.nn.elu,
    "leaky_relu": lambda x, alpha: jax.nn.leaky_relu(x, alpha),
    "threshold": lambda x, alpha: jnp.maximum(x, alpha),
    "thresholded_relu": lambda x, alpha: jnp.where(x >= alpha, x, 0.0),
    "clip": lambda x, lo, hi: jnp.clip(x, lo, hi),
    "scaled_tanh": lambda x, alpha, beta: alpha * jnp.tanh(beta * x),
    "clamped_relu": lambda x, alpha, beta: jnp.minimum(jnp.where(x >= 0, x, alpha * x), beta),
    "sigmoid_hard": lambda x, alpha, beta: jnp.clip(alpha * x + beta, 0.0, 1.0),
    "linear_activation": lambda x, alpha, beta: alpha * x + beta,
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "real_div": jnp.divide,
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "pow": jnp.power,
    "greater": compared(jnp.greater),
    "less": compared(jnp.less),
    "equal": compared(jnp.equal),
    "not_equal": compared(jnp.not_equal),
    "less_equal": compared(jnp.less_equal),
    "greater_equal": compared(jnp.greater_equal),
    "logical_not": lambda x: 1.0 - x,
    "select": lambda c, a, b: jnp.where(c != 0, a, b),
    "matmul": lambda x, w, *b: jnp.einsum("...k,nk->...n", x, w) + (b[0].ravel() if b else 0.0),
    "bmm": jnp.matmul,
    "prelu": lambda x, alpha: jnp.where(x > 0, x, per_channel(alpha, x) * x),
    "bmm_w": jnp.matmul,
    "einsum": lambda a, b: jnp.einsum("nchw,nwhu->nchu", a, b),
    "conv": conv,
    "dynamic_conv": conv,
    "conv_transpose": conv_transpose,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "reduce_mean": reduced(jnp.mean),
    "reduce_sum": reduced(jnp.sum),
    "reduce_max": reduced(jnp.max),
    "reduce_min": reduced(jnp.min),
    "reduce_l1_norm": reduced(lambda x, **over: jnp.abs(x).sum(**over)),
    "reduce_l2_norm": reduced(lambda x, **over: jnp.sqrt((x * x).sum(**over))),
    "reduce_log_sum": reduced(lambda x, **over: jnp.log(x.sum(**over))),
    "reduce_sum_square": reduced(lambda x, **over: (x * x).sum(**over)),
    "reduce_log_sum_exp": reduced(logsumexp),
    "softmax": lambda x, axis: jax.nn.softmax(x, axis),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "l2_norm": lambda x, axis, eps: x / jnp.maximum(jnp.sqrt((x * x).sum(axis, keepdims=True)), np.sqrt(eps)),
    "channel_layer_norm": channel_layer_norm,
    "group_norm": group_norm,
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "local_response_norm": local_response_norm,
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, perm: x.transpose(perm),
    "squeeze": lambda x, axes: jnp.squeeze(x, axes),
    "expand_dims": lambda x, axes: jnp.expand_dims(x, axes),
    "flatten2d": lambda x, axis: x.reshape(int(np.prod(x.shape[:axis])), -1),
    "slice_by_size": lambda x, begin, size: x[
        tuple(slice(b, b + n) for b, n in zip(begin, size, strict=True))
    ],
    "split": lambda x, num_splits, axis, index: jnp.split(x, num_splits, axis)[index],
    "concat": lambda *values, axis: jnp.concatenate(values, axis),
    "crop": lambda x, crop_height, crop_width: x[
        :, :, crop_height[0] : x.shape[2] - crop_height[1], crop_width[0] : x.shape[3] - crop_width[1]
    ],
    "stack": lambda *values, axis: jnp.stack(values, axis),
    "reverse": lambda x, axes: jnp.flip(x, axes),
    "tile": lambda x, reps: jnp.tile(x, reps),
    "pixel_shuffle": lambda x, r: to_space(x, r, lambda c, i, j, _: (c * r + i) * r + j),
    "pixel_unshuffle": lambda x, r: to_depth(x, r, lambda c, i, j, _: (c * r + i) * r + j),
    "depth_to_space": lambda x, block_size: to_space(
        x, block_size, lambda c, i, j, n: (i * block_size + j) * n + c
    ),
    "space_to_depth": lambda x, block_size: to_depth(
        x, block_size, lambda c, i, j, n: (i * block_size + j) * n + c
    ),
    "upsample": lambda x, scale: x.repeat(scale, 2).repeat(scale, 3),
    "upsample_bilinear": upsample_bilinear,
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "resize_bilinear": resize_bilinear,
    "affine": affine,
    "cast": lambda x: x,
    **LAYERS,
}
"""What each op computes, from its inputs and attributes."""

NOT_COMPARED = {
    "input": "a leaf: its value is fed, as every other case does",
    "const_array": "a leaf: its value is given, as the weights of other cases are",
}
"""Ops without an expression, and why."""

WITH_CONSTANTS = {
    "affine",
    "batch_norm",
    "bmm_w",
    "channel_layer_norm",
    "conv",
    "conv_transpose",
    "einsum",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "matmul",
    "prelu",
    "rms_norm",
}
"""Ops whose inputs after the first are weights."""

CASES = _native.cases()
NAMES = [f"{case['op']}-{i}" for i, case in enumerate(CASES)]


def ulp(values: np.ndarray) -> np.ndarray:
    """The distance between neighbouring half-precision numbers at each value."""
    return 2.0 ** (np.floor(np.log2(np.maximum(np.abs(values), 2.0**-14))) - 10)


def expression(case: dict[str, Any]) -> Expression:
    return lambda *inputs: EXPRESSIONS[case["op"]](*inputs, **case["attrs"])


def test_every_op_has_an_expression_or_a_reason() -> None:
    listed = set(_native.ops())
    assert listed == set(EXPRESSIONS) | set(NOT_COMPARED)
    assert not set(EXPRESSIONS) & set(NOT_COMPARED)
    assert {case["op"] for case in CASES} == set(EXPRESSIONS)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_value(case: dict[str, Any]) -> None:
    exact = np.asarray(expression(case)(*case["inputs"]), dtype=np.float64)
    got = case["value"]
    assert got.shape == exact.shape
    # An op that runs as several rounds once more.
    more = 1.0 if case["decomposed"] and case["ulp"] > 0 else 0.0
    allowed = np.maximum((case["ulp"] + more) * ulp(exact), case["absolute"]) + 1e-12
    np.testing.assert_array_less(np.abs(got - exact), allowed + 1e-300)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_gradient(case: dict[str, Any]) -> None:
    inputs = [jnp.asarray(x) for x in case["inputs"]]
    value, pull_back = jax.vjp(expression(case), *inputs)
    assert value.shape == case["cotangent"].shape
    for want, got, dtype in zip(pull_back(case["cotangent"]), case["grads"], case["dtypes"], strict=True):
        if dtype != "fp16":
            assert got is None
            continue
        want = np.asarray(want)
        got = np.zeros_like(want) if got is None else got
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_python_builds_the_same(case: dict[str, Any]) -> None:
    tensors, feeds = [], []
    for dtype, values in zip(case["dtypes"], case["inputs"], strict=True):
        x = af.input(values.shape, "uint8" if dtype == "uint8" else "fp16")
        tensors.append(x.greater(x * 0.0) if dtype == "bool" else x)
        feeds.append(values.astype(np.uint8) if dtype == "uint8" else values)
    if case["op"] in WITH_CONSTANTS:
        tensors[1:] = [_native.constant(values) for values in feeds[1:]]
        del feeds[1:]
    y = _native.apply(case["op"], tensors, case["attrs"])
    if y.dtype == "bool":
        one = _native.constant(np.float16(1))
        y = af.select(y, one, one * 0.0)
    model = af.compile(y, numerics="ieee", device="host")
    np.testing.assert_array_equal(model(*feeds), case["value"].astype(np.float32))
