"""A two-layer network for handwritten digits, trained on the device.

    python examples/training/digits_mlp.py [--steps 1500] [--checkpoint FILE]

The digits are those of scikit-learn, 1,797 images of 8 by 8. Everything that is kept stays on the device; with `--checkpoint` a run
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import aneforge as af
import numpy as np
from sklearn.datasets import load_digits

BATCH, WIDTH = 128, 128


def main(steps: int = 1500, checkpoint: Path | None = None) -> float:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images, labels = (data.data[order] / 16).astype(np.float32), data.target[order]
    held_out = 360
    rng = np.random.default_rng(1)

    x, target = af.input((BATCH, 64)), af.input((BATCH, 10))
    w1, b1 = af.parameter(rng.normal(size=(64, WIDTH)) / 8, "hidden.weight"), af.parameter(np.zeros((1, WIDTH)), "hidden.bias")
    w2, b2 = af.parameter(rng.normal(size=(WIDTH, 10)) / WIDTH**0.5, "out.weight"), af.parameter(np.zeros((1, 10)), "out.bias")
    logits = (x @ w1 + b1).gelu() @ w2 + b2
    trainer = af.Trainer(
        af.softmax_cross_entropy(logits, target), [w1, b1, w2, b2], 3e-3, 1024, optimizer="adamw",
        resident_state=True, weights="paired", dynamic_scale=500, average=0.99,
        schedule=af.train.cosine(50, max(steps, 51), 0.02),
    )  # fmt: skip
    trainer.set_dataset(x, images[held_out:], target, np.eye(10, dtype=np.float32)[labels[held_out:]])
    if checkpoint is not None and checkpoint.exists():
        # With other --steps the schedule is another one, which is meant.
        trainer.load(checkpoint, anew=True)
    start = time.perf_counter()
    first = done = trainer.updates
    while done < steps:
        report = trainer.step()
        done = report["updates"]
        if done % max(steps // 5, 1) == 0 and report["updated"]:
            accuracy = trainer.accuracy(images[:held_out], labels[:held_out])
            print(f"step {done:5}  loss {report['loss']:.4f}  held-out {accuracy:.2%}", flush=True)
            if checkpoint is not None:
                trainer.save(checkpoint)
    accuracy = trainer.accuracy(images[:held_out], labels[:held_out], averaged=True)
    rate = (done - first) / max(time.perf_counter() - start, 1e-9)
    print(f"average of weights: {accuracy:.2%} of {held_out} held-out digits; {rate:.0f} steps/s; {trainer!r}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--checkpoint", type=Path)
    main(**vars(parser.parse_args()))
