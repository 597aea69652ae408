"""A transformer block that learns to turn sequences around.

    python examples/training/transformer_block.py [--steps 600]

The letter at place `i` of the answer is that at place `T - 1 - i` of what is given, so that only attention by place can find it. One
block with layer norms before attention and before a network of two layers, as in GPT-2, both with gains and offsets that are trained;
no letter is hidden from another. The score is the share of new sequences of which every letter is right.
"""

from __future__ import annotations

import argparse

import aneforge as af
import numpy as np
from numpy.typing import NDArray

BATCH, TOKENS, LETTERS, WIDTH, HEADS, HIDDEN = 32, 10, 12, 32, 2, 64


class Block:
    """Parameters by name, and the block that is made of them."""

    def __init__(self, seed: int = 1) -> None:
        self.params: list[af.Tensor] = []
        self._rng = np.random.default_rng(seed)

    def weight(self, name: str, rows: int, columns: int, deviation: float | None = None) -> af.Tensor:
        deviation = rows**-0.5 if deviation is None else deviation
        self.params.append(af.parameter(self._rng.normal(size=(rows, columns)) * deviation, name))
        return self.params[-1]

    def vector(self, name: str, size: int, value: float = 0.0) -> af.Tensor:
        self.params.append(af.parameter(np.full(size, value), name))
        return self.params[-1]

    def linear(self, name: str, x: af.Tensor, columns: int) -> af.Tensor:
        return x @ self.weight(f"{name}.weight", x.shape[1], columns) + self.vector(f"{name}.bias", columns)

    def norm(self, name: str, x: af.Tensor) -> af.Tensor:
        return x.layer_norm(self.vector(f"{name}.gamma", WIDTH, 1.0), self.vector(f"{name}.beta", WIDTH))

    def attention(self, x: af.Tensor) -> af.Tensor:
        size = WIDTH // HEADS
        q, k, v = (
            self.linear(name, x, WIDTH).reshape(BATCH, TOKENS, HEADS, size).transpose((0, 2, 1, 3))
            for name in ("query", "key", "value")
        )
        scores = (q @ k.transpose((0, 1, 3, 2))) * size**-0.5
        mixed = (scores.softmax(-1) @ v).transpose((0, 2, 1, 3)).reshape(BATCH * TOKENS, WIDTH)
        return self.linear("out", mixed, WIDTH)

    def logits(self, x: af.Tensor) -> af.Tensor:
        """Of rows of ones and zeros `[BATCH * TOKENS, LETTERS]`."""
        places = self.weight("places", TOKENS, WIDTH, 0.3).tile((BATCH, 1))
        h = x @ self.weight("embedding", LETTERS, WIDTH, 0.3) + places
        h = h + self.attention(self.norm("attention.norm", h))
        h = h + self.linear("down", self.linear("up", self.norm("network.norm", h), HIDDEN).gelu(), WIDTH)
        return self.linear("letters", self.norm("norm", h), LETTERS)


def sequences(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A batch of sequences, and the same turned around."""
    given = rng.integers(LETTERS, size=(BATCH, TOKENS))
    return given, given[:, ::-1]


def main(steps: int = 600) -> float:
    block, ones = Block(), np.eye(LETTERS, dtype=np.float32)
    x, target = af.input((BATCH * TOKENS, LETTERS)), af.input((BATCH * TOKENS, LETTERS))
    logits = block.logits(x)
    trainer = af.Trainer(
        af.softmax_cross_entropy(logits, target), block.params, 5e-3, 1024, optimizer="adamw", resident_state=True,
        weights="paired", dynamic_scale=200, clip=1.0, schedule=af.train.cosine(20, max(steps, 21), 0.05),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    for step in range(1, steps + 1):
        given, wanted = sequences(rng)
        trainer.data = {x: ones[given.ravel()], target: ones[wanted.ravel()]}
        report = trainer.step()
        if step % max(steps // 5, 1) == 0:
            print(f"step {step:5}  loss {report['loss']:.4f}", flush=True)
    model, right, asked = trainer.evaluator(logits), 0, 0
    for _ in range(10):
        given, wanted = sequences(rng)
        answer = model(ones[given.ravel()]).argmax(axis=1).reshape(wanted.shape)
        right, asked = right + int((answer == wanted).all(axis=1).sum()), asked + BATCH
    letters = np.array(list("abcdefghijkl"))
    print(f"{right / asked:.2%} of {asked} new sequences: {''.join(letters[given[0]])} -> {''.join(letters[answer[0]])}")
    return right / asked


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    main(**vars(parser.parse_args()))
