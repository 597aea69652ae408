"""Trainings beside the same network, data and rule in JAX, in single precision."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import aneforge as af
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[2]
STEPS, BATCHES = 60, 4


def rms(x: jax.Array, gain: jax.Array) -> jax.Array:
    width = x.shape[-1]
    length = jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), (width * 1e-5) ** 0.5)
    return x / length * width**0.5 * gain


def reference(example: dict[str, object], numbers: np.ndarray, alphabet: int) -> float:
    """The mean of the last 100 losses."""
    _, _, params = example["network"](alphabet)  # type: ignore[operator]
    weights = [jnp.asarray(param.attrs["value"], jnp.float32) for param in params]
    sizes = ("TOKENS", "WIDTH", "HEADS", "LAYERS")
    tokens, width, heads, layers = (int(example[name]) for name in sizes)  # type: ignore[call-overload]
    hidden, size = jnp.triu(jnp.full((tokens, tokens), -1e4, jnp.float32), 1), width // heads

    def loss(weights: list[jax.Array], x: jax.Array, target: jax.Array) -> jax.Array:
        rest = iter(weights)
        h = x @ next(rest) + next(rest)
        for _ in range(layers):
            n = rms(h, next(rest))
            q, k, v = ((n @ next(rest)).reshape(tokens, heads, size).transpose(1, 0, 2) for _ in range(3))
            scores = q @ k.transpose(0, 2, 1) * size**-0.5 + hidden
            h = h + (jax.nn.softmax(scores) @ v).transpose(1, 0, 2).reshape(tokens, width) @ next(rest)
            n = rms(h, next(rest))
            h = h + (jax.nn.silu(n @ next(rest)) * (n @ next(rest))) @ next(rest)
        logits = rms(h, next(rest)) @ next(rest)
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=1))

    def update(state: tuple, gradients: list[jax.Array], t: int) -> tuple:
        weights, mean, moment = state
        falling = 0.1 + 0.9 * (1 + math.cos(math.pi * (t - 20) / (STEPS - 20))) / 2
        lr = 3e-3 * (t / 20 if t < 20 else falling)
        rate = lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradients))
        gradients = [g / jnp.maximum(norm, 1.0) for g in gradients]
        mean = [0.9 * m + 0.1 * g for m, g in zip(mean, gradients, strict=True)]
        moment = [0.999 * v + 0.001 * g * g for v, g in zip(moment, gradients, strict=True)]
        moved = zip(weights, mean, moment, strict=True)
        return [w - lr * 0.01 * w - rate * m / (jnp.sqrt(v) + 1e-8) for w, m, v in moved], mean, moment

    graded = jax.jit(jax.value_and_grad(loss))
    state = (weights, [jnp.zeros_like(w) for w in weights], [jnp.zeros_like(w) for w in weights])
    rng, ones, losses = np.random.default_rng(1), np.eye(alphabet, dtype=np.float32), []
    for t in range(1, STEPS + 1):
        total = None
        for _ in range(BATCHES):
            at = rng.integers(len(numbers) - tokens - 1)
            window = numbers[at : at + tokens + 1]
            value, gradients = graded(state[0], ones[window[:-1]], ones[window[1:]])
            losses.append(float(value))
            shares = [g / BATCHES for g in gradients]
            total = shares if total is None else [a + b for a, b in zip(total, shares, strict=True)]
        state = update(state, total, t)
    return float(np.mean(losses[-100:]))


def test_a_character_model_learns_as_in_single_precision() -> None:
    example = runpy.run_path(str(ROOT / "examples" / "training" / "char_lm.py"))
    got = example["main"](steps=STEPS, length=1)
    letters = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")[:20_000]
    alphabet = sorted(set(letters))
    want = reference(example, np.array([alphabet.index(letter) for letter in letters]), len(alphabet))
    assert want < 3.2, "it learns something: by the frequencies of letters alone it is 3.2"
    assert got == pytest.approx(want, rel=0.01)


def test_a_convolutional_network_learns_as_in_single_precision() -> None:
    data, batch, rng = load_digits(), 32, np.random.default_rng(0)
    images = (data.images[:960, None] / 16).astype(np.float32)
    ones = np.eye(10, dtype=np.float32)[data.target[:960]]
    shapes = [((8, 1, 3, 3), 9), ((16, 8, 3, 3), 72), ((64, 10), 64)]
    arrays = [(rng.normal(size=shape) * fan**-0.5).astype(np.float32) for shape, fan in shapes]

    x, target = af.input((batch, 1, 8, 8)), af.input((batch, 10))
    params = [af.conv_param(arrays[0]), af.conv_param(arrays[1]), af.parameter(arrays[2])]
    h = af.conv2d(x, params[0], pad=1).relu().max_pool(2)
    h = af.conv2d(h, params[1], pad=1).relu().max_pool(2)
    objective = af.softmax_cross_entropy(h.reshape(batch, 64) @ params[2], target)
    options = {"optimizer": "adam", "resident_state": True, "weights": "paired", "dynamic_scale": 500}
    trainer = af.Trainer(objective, params, 5e-3, 1024, **options)

    def loss(weights: list[jax.Array], x: jax.Array, target: jax.Array) -> jax.Array:
        for kernel in weights[:2]:
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)]))
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(x.reshape(batch, 64) @ weights[2]), axis=1))

    graded = jax.jit(jax.value_and_grad(loss))
    weights = [jnp.asarray(array) for array in arrays]
    mean, moment = ([jnp.zeros_like(w) for w in weights] for _ in range(2))
    got, want = [], []
    for t in range(1, 61):
        rows = slice((t - 1) % 30 * batch, ((t - 1) % 30 + 1) * batch)
        trainer.data = {x: images[rows], target: ones[rows]}
        got.append(trainer.step()["loss"])
        value, gradients = graded(weights, images[rows], ones[rows])
        want.append(float(value))
        mean = [0.9 * m + 0.1 * g for m, g in zip(mean, gradients, strict=True)]
        moment = [0.999 * v + 0.001 * g * g for v, g in zip(moment, gradients, strict=True)]
        rate = 5e-3 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        moved = zip(weights, mean, moment, strict=True)
        weights = [w - rate * m / (jnp.sqrt(v) + 1e-8) for w, m, v in moved]
    assert want[-1] < 0.5 * want[0], "it learns something"
    off = np.abs(np.subtract(got, want)).max()
    # The losses go from 2.5 to 0.84; 0.024 was seen.
    assert off < 0.05, off
