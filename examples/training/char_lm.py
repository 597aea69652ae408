"""A small causal transformer that learns a text letter by letter, and then goes on with a prompt.

    python examples/training/char_lm.py [--text FILE] [--steps 600] [--prompt "the "]

By default it reads ARCHITECTURE.md of this repository. Blocks are those of LLaMA: RMS norms with gains that are trained, causal
attention, and a gated unit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import aneforge as af
import numpy as np

TOKENS, WIDTH, HEADS, HIDDEN, LAYERS = 64, 64, 4, 128, 2


def network(vocabulary: int) -> tuple[af.Tensor, af.Tensor, list[af.Tensor]]:
    """Rows of ones and zeros `[TOKENS, vocabulary]`, the logits of the letters that follow, and parameters."""
    rng = np.random.default_rng(0)
    params: list[af.Tensor] = []

    def weight(rows: int, columns: int, name: str, scale: float | None = None) -> af.Tensor:
        deviation = scale if scale is not None else rows**-0.5
        params.append(af.parameter(rng.normal(size=(rows, columns)) * deviation, name))
        return params[-1]

    def gain(name: str) -> af.Tensor:
        params.append(af.parameter(np.ones(WIDTH), name))
        return params[-1]

    x = af.input((TOKENS, vocabulary))
    hidden = af.Tensor((TOKENS, TOKENS), "const_array", [], {"value": np.triu(np.full((TOKENS, TOKENS), -1e4), 1)})
    h = x @ weight(vocabulary, WIDTH, "embedding", 0.1) + weight(TOKENS, WIDTH, "positions", 0.1)
    for layer in range(LAYERS):
        at = f"layers.{layer}"
        n = h.rms_norm(gain(f"{at}.attention.norm"))
        size = WIDTH // HEADS
        q, k, v = (
            (n @ weight(WIDTH, WIDTH, f"{at}.attention.{name}")).reshape(TOKENS, HEADS, size).transpose((1, 0, 2))
            for name in ("q", "k", "v")
        )
        scores = (q @ k.transpose((0, 2, 1))) * size**-0.5 + hidden
        mixed = (scores.softmax(-1) @ v).transpose((1, 0, 2)).reshape(TOKENS, WIDTH)
        h = h + mixed @ weight(WIDTH, WIDTH, f"{at}.attention.out")
        n = h.rms_norm(gain(f"{at}.unit.norm"))
        gated = (n @ weight(WIDTH, HIDDEN, f"{at}.unit.gate")).silu() * (n @ weight(WIDTH, HIDDEN, f"{at}.unit.up"))
        h = h + gated @ weight(HIDDEN, WIDTH, f"{at}.unit.down")
    return x, h.rms_norm(gain("norm")) @ weight(WIDTH, vocabulary, "out"), params


def main(text: Path | None = None, steps: int = 600, prompt: str = "The ", length: int = 120) -> float:
    path = text if text is not None else Path(__file__).resolve().parents[2] / "ARCHITECTURE.md"
    if not path.is_file():
        raise SystemExit(f"there is no {path}")
    letters = path.read_text(encoding="utf-8")[:20_000]
    alphabet = sorted(set(letters))
    numbers = np.array([alphabet.index(letter) for letter in letters])
    if len(numbers) <= TOKENS + 1:
        raise SystemExit(f"{path}: {len(letters)} letters are too few; {TOKENS + 2} are needed")
    ones = np.eye(len(alphabet), dtype=np.float32)
    x, logits, params = network(len(alphabet))
    target = af.input((TOKENS, len(alphabet)))
    trainer = af.Trainer(
        af.softmax_cross_entropy(logits, target), params, 3e-3, 1024, optimizer="adamw", resident_state=True,
        weights="paired", dynamic_scale=200, clip=1.0, accumulate=4, schedule=af.train.cosine(20, max(steps, 21), 0.1),
    )  # fmt: skip
    rng, losses = np.random.default_rng(1), []
    while trainer.updates < steps:
        at = rng.integers(len(numbers) - TOKENS - 1)
        window = numbers[at : at + TOKENS + 1]
        trainer.data = {x: ones[window[:-1]], target: ones[window[1:]]}
        report = trainer.step()
        losses.append(report["loss"])
        if report["updated"] and report["updates"] % max(steps // 6, 1) == 0:
            print(f"step {report['updates']:5}  loss {np.mean(losses[-100:]):.3f}", flush=True)
    model = trainer.evaluator(logits)
    written = "".join(letter for letter in prompt if letter in alphabet) or letters[:4]
    for _ in range(length):
        last = [alphabet.index(letter) for letter in written[-TOKENS:]]
        rows = np.zeros((TOKENS, len(alphabet)), np.float32)
        rows[: len(last)] = ones[last]
        scores = model(rows)[len(last) - 1].astype(np.float64) / 0.6
        chances = np.exp(scores - scores.max())
        written += alphabet[rng.choice(len(alphabet), p=chances / chances.sum())]
    print(written)
    return float(np.mean(losses[-100:])) if losses else float("nan")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--prompt", default="The ")
    main(**vars(parser.parse_args()))
