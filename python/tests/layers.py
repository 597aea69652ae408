"""What each native layer computes, in JAX at double precision: written from their definitions, not from ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def attention(q, k, v, *mask, scale, causal, parts, layer):
    scores = q @ jnp.swapaxes(k, -1, -2) * scale
    if causal:
        scores = scores - 1e4 * np.triu(np.ones(scores.shape[-2:]), 1)
    return jax.nn.softmax(sum(mask, scores), -1) @ v


def sdpa(q, k, v, *mask, scale, causal):
    scores = jnp.einsum("nhsd,nhtd->nhst", q, k) * scale
    if causal:
        s = scores.shape[-1]
        scores = jnp.where(np.tril(np.ones((s, s), bool)), scores, scores - 1e4)
    if mask:
        scores = scores + mask[0]
    return jnp.einsum("nhst,nhtd->nhsd", jax.nn.softmax(scores, -1), v)


def topk(x, k, largest):
    best, _ = lax.top_k(x if largest else -x, k)
    return best if largest else -best


def sort(x, descending, return_indices):
    key = -x if descending else x
    if return_indices:
        return jnp.argsort(lax.stop_gradient(key), axis=1, stable=True).astype(jnp.float64)
    return -jnp.sort(key, axis=1) if descending else jnp.sort(key, axis=1)


def cross_correlation(x, template):
    return lax.conv_general_dilated(x[None, None], template[None, None], (1, 1), "VALID")[0, 0]


def cost_volume(aux, ref, disparity_range):
    line, other = aux.ravel(), ref.ravel()
    return jnp.stack([jnp.abs(line - other[d : d + line.size]) for d in range(disparity_range + 1)])


def fps(points, k):
    values = np.asarray(lax.stop_gradient(points))
    chosen = [0]
    while len(chosen) < k:
        apart = ((values[:, None] - values[chosen][None]) ** 2).sum(-1).min(1)
        chosen.append(int(np.argmax(apart)))
    return points[np.array(chosen)]


def radius_search(points, centroids, radius):
    apart = jnp.linalg.norm(lax.stop_gradient(points[:, None] - centroids[None]), axis=-1)
    return (apart <= radius).astype(jnp.float64)


def minmax_norm(x, dimension, eps):
    axis = {"Width": 3, "Height": 2}[dimension]
    least, greatest = x.min(axis, keepdims=True), x.max(axis, keepdims=True)
    return (x - least) / (greatest - least + eps)


def lrn(x, alpha, beta, k):
    c = x.shape[1]
    sums = []
    for i in range(c):
        window = slice(max(0, i - (c - 1) // 2), min(c, i + c // 2 + 1))
        sums.append((x[:, window] ** 2).sum(1))
    return x / (k + alpha * jnp.stack(sums, 1)) ** beta


def space_to_channel(x, r):
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // r, r, w // r, r)
    return blocks.transpose(0, 3, 5, 1, 2, 4).reshape(n, c * r * r, h // r, w // r)


def channel_to_space(x, r):
    n, c, h, w = x.shape
    blocks = x.reshape(n, r, r, c // (r * r), h, w)
    return blocks.transpose(0, 3, 4, 1, 5, 2).reshape(n, c // (r * r), h * r, w * r)


def space_to_batch(x, bh, bw):
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // bh, bh, w // bw, bw)
    return blocks.transpose(0, 3, 5, 1, 2, 4).reshape(n * bh * bw, c, h // bh, w // bw)


def batch_to_space(x, bh, bw):
    b, c, h, w = x.shape
    n = b // (bh * bw)
    return x.reshape(n, bh, bw, c, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c, h * bh, w * bw)


def scaled_elementwise(x, z, op, scale):
    combine = {"Add": jnp.add, "Mult": jnp.multiply, "Min": jnp.minimum, "Max": jnp.maximum}[op]
    return scale * combine(x.ravel(), z.ravel())


LAYERS: dict[str, Callable[..., Any]] = {
    "attention": attention,
    "sdpa": sdpa,
    "argmax": lambda x, axis: jnp.argmax(x, axis, keepdims=True).astype(jnp.float64),
    "topk": topk,
    "sort": sort,
    "cross_product": lambda a, b: jnp.cross(a.ravel(), b.ravel()),
    "cross_correlation": cross_correlation,
    "cost_volume": cost_volume,
    "fps": fps,
    "radius_search": radius_search,
    "minmax_norm": minmax_norm,
    "lrn": lrn,
    "space_to_channel": space_to_channel,
    "channel_to_space": channel_to_space,
    "space_to_batch": space_to_batch,
    "batch_to_space": batch_to_space,
    "flatten": lambda x: x.ravel(),
    "input_view": lambda x, offset, size: x.ravel()[offset : offset + size],
    "dynamic_slice": lambda x, start, size: x.ravel()[start : start + size],
    "scaled_elementwise": scaled_elementwise,
}
