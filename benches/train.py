"""Steps of training per second, beside JAX on the same processor: loss, gradients and Adam's update in one compiled step.

    python benches/train.py [--rounds 7] [--only TEXT] [--threads 2] [--output FILE.json]

Every network is trained on one batch of drawn values, in turns: a round times so many steps of each engine that they take about
a third of a second, and what is shown are medians over rounds. JAX computes in single precision.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import aneforge as af


class Task(NamedTuple):
    """One network: how both engines make a step, and the loss of the first step of each."""

    ours: Callable[[str], Callable[[], float]]
    theirs: Callable[[], Callable[[], float]]


def adam(loss: Callable[..., Any], params: list[np.ndarray], batch: tuple[np.ndarray, ...]) -> Callable[[], float]:
    """JAX's step, with state that is given away."""
    import jax
    import jax.numpy as jnp

    def step(weights: Any, mean: Any, moment: Any, t: Any, *batch: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(weights, *batch)
        mean = [0.9 * m + 0.1 * g for m, g in zip(mean, grads, strict=True)]
        moment = [0.999 * v + 0.001 * g * g for v, g in zip(moment, grads, strict=True)]
        rate = 1e-3 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weights = [w - rate * m / (jnp.sqrt(v) + 1e-8) for w, m, v in zip(weights, mean, moment, strict=True)]
        return weights, mean, moment, t + 1, value

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    weights = [jnp.asarray(p, jnp.float32) for p in params]
    state = [weights, [jnp.zeros_like(w) for w in weights], [jnp.zeros_like(w) for w in weights], jnp.float32(1)]
    arrays = tuple(jnp.asarray(a, jnp.float32) for a in batch)

    def run() -> float:
        *state[:], value = compiled(*state, *arrays)
        return float(value)

    return run


def resident(objective: Any, params: list[af.Tensor], data: dict[af.Tensor, np.ndarray], weights: str) -> Callable[[], float]:
    """Our step."""
    trainer = af.Trainer(
        objective, params, 1e-3, 1024, data, "adam", resident_state=True, weights=weights, dynamic_scale=500
    )
    return lambda: trainer.step()["loss"]


def drawn(seed: int, *shape: int, scale: float | None = None) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape)
    return (values * (scale if scale is not None else shape[0] ** -0.5)).astype(np.float32)


def labels(rows: int, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[np.arange(rows) % classes]


def mlp() -> Task:
    batch, sizes = 64, (784, 256, 10)
    arrays = [drawn(1, 784, 256), np.zeros((1, 256), np.float32), drawn(2, 256, 10), np.zeros((1, 10), np.float32)]
    images, targets = np.abs(drawn(3, batch, sizes[0], scale=0.5)), labels(batch, sizes[2])

    def ours(weights: str) -> Callable[[], float]:
        x, t = af.input(images.shape), af.input(targets.shape)
        p = [af.parameter(a) for a in arrays]
        logits = (x @ p[0] + p[1]).gelu() @ p[2] + p[3]
        return resident(af.softmax_cross_entropy(logits, t), p, {x: images, t: targets}, weights)

    def theirs() -> Callable[[], float]:
        import jax
        import jax.numpy as jnp

        def loss(p: Any, x: Any, t: Any) -> Any:
            logits = jax.nn.gelu(x @ p[0] + p[1], approximate=False) @ p[2] + p[3]
            return -jnp.mean(jnp.sum(t * jax.nn.log_softmax(logits), axis=1))

        return adam(loss, arrays, (images, targets))

    return Task(ours, theirs)


def cnn(batch: int, channels: int, side: int, widths: tuple[int, int]) -> Callable[[], Task]:
    """Two convolutions with pools, and a linear layer."""

    def make() -> Task:
        a, b = widths
        flat = b * (side // 4) ** 2
        kernels = [
            drawn(1, a, channels, 3, 3, scale=(2 / (9 * channels)) ** 0.5),
            drawn(2, b, a, 3, 3, scale=(2 / (9 * a)) ** 0.5),
        ]
        rest = [drawn(3, flat, 10), np.zeros((1, 10), np.float32)]
        images, targets = drawn(4, batch, channels, side, side, scale=1.0), labels(batch, 10)

        def ours(weights: str) -> Callable[[], float]:
            x, t = af.input(images.shape), af.input(targets.shape)
            p = [af.conv_param(k) for k in kernels] + [af.parameter(r) for r in rest]
            h = af.conv2d(x, p[0], pad=1).relu().max_pool(2)
            h = af.conv2d(h, p[1], pad=1).relu().max_pool(2)
            logits = h.reshape(batch, flat) @ p[2] + p[3]
            return resident(af.softmax_cross_entropy(logits, t), p, {x: images, t: targets}, weights)

        def theirs() -> Callable[[], float]:
            import jax
            import jax.numpy as jnp

            def pooled(h: Any) -> Any:
                return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

            def loss(p: Any, x: Any, t: Any) -> Any:
                h = x
                for kernel in p[:2]:
                    h = pooled(jax.nn.relu(jax.lax.conv_general_dilated(h, kernel, (1, 1), [(1, 1), (1, 1)])))
                logits = h.reshape(batch, flat) @ p[2] + p[3]
                return -jnp.mean(jnp.sum(t * jax.nn.log_softmax(logits), axis=1))

            return adam(loss, [*kernels, *rest], (images, targets))

        return Task(ours, theirs)

    return make


def transformer() -> Task:
    layers, tokens, width, heads, hidden = 6, 128, 128, 4, 512
    arrays: list[np.ndarray] = []
    for layer in range(layers):
        arrays += [drawn(10 * layer + i, width, width) for i in range(4)]
        arrays += [drawn(10 * layer + 4, width, hidden), drawn(10 * layer + 5, hidden, width)]
        arrays += [np.ones((1, width), np.float32), np.ones((1, width), np.float32)]
    values, targets = drawn(98, tokens, width, scale=1.0), drawn(99, tokens, width, scale=1.0)
    mask = np.triu(np.full((tokens, tokens), -1e4, np.float32), 1)
    size = width // heads

    def ours(weights: str) -> Callable[[], float]:
        x, t = af.input(values.shape), af.input(targets.shape)
        p = [af.parameter(a) for a in arrays]
        h = x
        for at in range(0, len(p), 8):
            q, k, v, o, up, down, g1, g2 = p[at : at + 8]
            n = h.rms_norm(g1)
            q, k, v = (n @ w for w in (q, k, v))
            q, k, v = (w.reshape(tokens, heads, size).transpose((1, 0, 2)) for w in (q, k, v))
            scores = (q @ k.transpose((0, 2, 1))) * size**-0.5 + mask
            mixed = (scores.softmax(-1) @ v).transpose((1, 0, 2)).reshape(tokens, width)
            h = h + mixed @ o
            h = h + (h.rms_norm(g2) @ up).gelu() @ down
        return resident(af.mse(h, t), p, {x: values, t: targets}, weights)

    def theirs() -> Callable[[], float]:
        import jax
        import jax.numpy as jnp

        def norm(h: Any, gain: Any) -> Any:
            return h * jax.lax.rsqrt(jnp.mean(h * h, axis=-1, keepdims=True) + 1e-5) * gain

        def loss(p: Any, x: Any, t: Any) -> Any:
            h = x
            for at in range(0, len(p), 8):
                q, k, v, o, up, down, g1, g2 = p[at : at + 8]
                n = norm(h, g1)
                q, k, v = (
                    (n @ w).reshape(tokens, heads, size).transpose((1, 0, 2)) for w in (q, k, v)
                )
                scores = q @ k.transpose((0, 2, 1)) * size**-0.5 + mask
                mixed = (jax.nn.softmax(scores, axis=-1) @ v).transpose((1, 0, 2)).reshape(tokens, width)
                h = h + mixed @ o
                h = h + jax.nn.gelu(norm(h, g2) @ up, approximate=False) @ down
            return jnp.mean((h - t) ** 2)

        return adam(loss, arrays, (values, targets))

    return Task(ours, theirs)


TASKS: dict[str, Callable[[], Task]] = {
    "mlp 784-256-10, batch 64": mlp,
    "cnn 1x8x8, 16 and 32 channels, batch 64": cnn(64, 1, 8, (16, 32)),
    "cnn 3x32x32, 16 and 32 channels, batch 32": cnn(32, 3, 32, (16, 32)),
    "transformer 6x128, 128 tokens": transformer,
}


def timed(step: Callable[[], float], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def measure(task: Task, rounds: int) -> dict[str, dict[str, float]]:
    engines = {f"aneforge {kept}": task.ours(kept) for kept in ("half", "paired", "masters")}
    engines["jax f32"] = task.theirs()
    first = {name: step() for name, step in engines.items()}
    counts = {name: max(1, int(0.3 / max(timed(step, 3), 1e-5))) for name, step in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, step in engines.items():
            times[name].append(timed(step, counts[name]))
    median = {name: statistics.median(found) for name, found in times.items()}
    return {
        name: {
            "ms": round(1e3 * median[name], 3),
            "steps_per_second": round(1 / median[name], 1),
            "ratio": round(median["jax f32"] / median[name], 2),
            "first_loss": round(first[name], 5),
        }
        for name in engines
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("ANEFORGE_THREADS", str(args.threads))
    found = {}
    for name, make in TASKS.items():
        if args.only in name:
            found[name] = measure(make(), args.rounds)
            for engine, row in found[name].items():
                print(f"{name:44} {engine:18} {row['ms']:9.3f} ms  {row['ratio']:5.2f}  loss {row['first_loss']}", flush=True)
    if args.output:
        args.output.write_text(json.dumps({"threads": args.threads, "networks": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
