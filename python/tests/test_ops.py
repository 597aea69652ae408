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
    return y + bias[0] if bias else y


def conv_transpose(x, w, *bias, strides, pad, dilations, groups):
    cin, per_group, kh, kw = w.shape
    grouped = w.reshape(groups, cin // groups, per_group, kh, kw).swapaxes(1, 2)
    flipped = grouped.reshape(groups * per_group, cin // groups, kh, kw)[..., ::-1, ::-1]
    reach = [d * (k - 1) for d, k in zip(dilations, (kh, kw), strict=True)]
    padding = [(reach[i] - pad[2 * i], reach[i] - pad[2 * i + 1]) for i in range(2)]
    y = lax.conv_general_dilated(
        x, flipped, (1, 1), padding, lhs_dilation=strides, rhs_dilation=dilations, feature_group_count=groups
    )
    return y + bias[0] if bias else y


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
    "conv": conv,
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
    "batch_norm": batch_norm,
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
    "reverse": lambda x, axes: jnp.flip(x, axes),
    "cast": lambda x: x,
    **LAYERS,
}
"""What each op computes, from its inputs and attributes."""

NOT_COMPARED = {
    "input": "a leaf: its value is fed, as every other case does",
    "const_array": "a leaf: its value is given, as the weights of other cases are",
}
"""Ops without an expression, and why."""

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
    if case["op"] in ("matmul", "conv_transpose", "layer_norm", "rms_norm", "batch_norm", "conv"):
        tensors[1:] = [_native.constant(values) for values in feeds[1:]]
        del feeds[1:]
    y = _native.apply(case["op"], tensors, case["attrs"])
    if y.dtype == "bool":
        one = _native.constant(np.float16(1))
        y = af.select(y, one, one * 0.0)
    model = af.compile(y, numerics="ieee", device="host")
    np.testing.assert_array_equal(model(*feeds), case["value"].astype(np.float32))
