"""A block of LLaMA that learns to repeat what it has read.

    python examples/training/llama_block.py [--steps 800]

A sequence is some letters, and then the same letters again. Each letter of the second half is to be predicted from those before it,
which takes attention to the place that lies half a sequence back: rotary positions tell how far places are apart, and nothing else
tells places at all. RMS norms with gains that are trained, causal attention, and a gated unit (SwiGLU). The score is the share of
letters of the second half that are right.
"""

from __future__ import annotations

import argparse

import aneforge as af
import numpy as np
from numpy.typing import NDArray

BATCH, HALF, LETTERS, WIDTH, HEADS, HIDDEN, LAYERS = 16, 8, 12, 32, 2, 64, 2
TOKENS = 2 * HALF - 1
SIZE = WIDTH // HEADS


def rotary(x: af.Tensor, base: float = 100.0) -> af.Tensor:
    """Turns pairs of components of `[BATCH, HEADS, TOKENS, SIZE]` by angles that grow with the place."""
    angles = np.arange(TOKENS)[:, None] * base ** (-np.arange(SIZE // 2) / (SIZE // 2))
    cos, sin = (np.tile(f(angles), 2)[None, None] for f in (np.cos, np.sin))
    a, b = x[..., : SIZE // 2], x[..., SIZE // 2 :]
    return x * cos + af.concat([-b, a], axis=3) * sin


def network(seed: int = 1) -> tuple[af.Tensor, af.Tensor, list[af.Tensor]]:
    """Rows of ones and zeros `[BATCH * TOKENS, LETTERS]`, the logits of the letters that follow, and parameters."""
    rng = np.random.default_rng(seed)
    params: list[af.Tensor] = []

    def weight(name: str, rows: int, columns: int) -> af.Tensor:
        params.append(af.parameter(rng.normal(size=(rows, columns)) * rows**-0.5, name))
        return params[-1]

    def normed(name: str, h: af.Tensor) -> af.Tensor:
        params.append(af.parameter(np.ones(WIDTH), f"{name}.gain"))
        return h.rms_norm(params[-1])

    x = af.input((BATCH * TOKENS, LETTERS))
    later = np.triu(np.full((1, 1, TOKENS, TOKENS), -1e4), 1)
    h = x @ weight("embedding", LETTERS, WIDTH)
    for layer in range(LAYERS):
        n = normed(f"{layer}.attention", h)
        q, k, v = (
            (n @ weight(f"{layer}.{name}", WIDTH, WIDTH)).reshape(BATCH, TOKENS, HEADS, SIZE).transpose((0, 2, 1, 3))
            for name in ("q", "k", "v")
        )
        scores = (rotary(q) @ rotary(k).transpose((0, 1, 3, 2))) * SIZE**-0.5 + later
        mixed = (scores.softmax(-1) @ v).transpose((0, 2, 1, 3)).reshape(BATCH * TOKENS, WIDTH)
        h = h + mixed @ weight(f"{layer}.out", WIDTH, WIDTH)
        n = normed(f"{layer}.unit", h)
        gated = (n @ weight(f"{layer}.gate", WIDTH, HIDDEN)).silu() * (n @ weight(f"{layer}.up", WIDTH, HIDDEN))
        h = h + gated @ weight(f"{layer}.down", HIDDEN, WIDTH)
    return x, normed("last", h) @ weight("letters", WIDTH, LETTERS), params


def sequences(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A batch of sequences without their last letter, and the letters that follow each."""
    half = rng.integers(LETTERS, size=(BATCH, HALF))
    whole = np.concatenate([half, half], axis=1)
    return whole[:, :-1], whole[:, 1:]


def main(steps: int = 800) -> float:
    x, logits, params = network()
    target, ones = af.input((BATCH * TOKENS, LETTERS)), np.eye(LETTERS, dtype=np.float32)
    trainer = af.Trainer(
        af.softmax_cross_entropy(logits, target), params, 5e-3, 1024, optimizer="adamw", resident_state=True,
        weights="paired", dynamic_scale=200, clip=1.0, schedule=af.train.cosine(20, max(steps, 21), 0.05),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    for step in range(1, steps + 1):
        given, wanted = sequences(rng)
        trainer.data = {x: ones[given.ravel()], target: ones[wanted.ravel()]}
        report = trainer.step()
        if step % max(steps // 5, 1) == 0:
            print(f"step {step:5}  loss {report['loss']:.4f}", flush=True)
    model, right = trainer.evaluator(logits), []
    for _ in range(20):
        given, wanted = sequences(rng)
        answer = model(ones[given.ravel()]).argmax(axis=1).reshape(wanted.shape)
        right.append((answer == wanted)[:, HALF - 1 :].mean())
    score = float(np.mean(right))
    print(f"{score:.2%} of the letters of {20 * BATCH} new second halves; guessing gets {1 / LETTERS:.2%}")
    return score


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800)
    main(**vars(parser.parse_args()))
