"""A convolutional network for handwritten digits, trained on the device.

    python examples/training/cnn.py [--steps 600]

Two blocks of a convolution whose kernel is trained, a group norm, a rectifier and a pool, and a linear layer. The digits are those
of scikit-learn, 1,797 images of 8 by 8; a fifth is held out.
"""

from __future__ import annotations

import argparse
import time

import aneforge as af
import numpy as np
from sklearn.datasets import load_digits

BATCH, SIDE, WIDTHS, CLASSES = 64, 8, (16, 32), 10


def network(batch: int = BATCH, seed: int = 1) -> tuple[af.Tensor, af.Tensor, list[af.Tensor]]:
    """Images `[batch, 1, 8, 8]`, the logits of their digits, and parameters."""
    rng = np.random.default_rng(seed)
    x = h = af.input((batch, 1, SIDE, SIDE))
    params: list[af.Tensor] = []
    channels = 1
    for block, width in enumerate(WIDTHS):
        kernel = af.conv_param(rng.normal(size=(width, channels, 3, 3)) * (2 / (9 * channels)) ** 0.5, f"{block}.kernel")
        gamma = af.parameter(np.ones((1, width, 1, 1)), f"{block}.gamma")
        beta = af.parameter(np.zeros((1, width, 1, 1)), f"{block}.beta")
        h, channels = af.conv_block(h, kernel, gamma, beta, groups=4, pool=2), width
        params += [kernel, gamma, beta]
    features = channels * (SIDE // 2 ** len(WIDTHS)) ** 2
    weight = af.parameter(rng.normal(size=(features, CLASSES)) * features**-0.5, "out.weight")
    bias = af.parameter(np.zeros((1, CLASSES)), "out.bias")
    return x, h.reshape(batch, features) @ weight + bias, [*params, weight, bias]


def main(steps: int = 600) -> float:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images, labels = (data.images[order, None] / 16).astype(np.float32), data.target[order]
    held_out = 360
    x, logits, params = network()
    target = af.input((BATCH, CLASSES))
    trainer = af.Trainer(
        af.softmax_cross_entropy(logits, target), params, 5e-3, 256, optimizer="adamw", resident_state=True,
        weights="paired", dynamic_scale=200, average=0.98, schedule=af.train.cosine(20, max(steps, 21), 0.05),
    )  # fmt: skip
    trainer.set_dataset(x, images[held_out:], target, np.eye(CLASSES, dtype=np.float32)[labels[held_out:]])
    start = time.perf_counter()
    for step in range(1, steps + 1):
        report = trainer.step()
        if step % max(steps // 5, 1) == 0:
            accuracy = trainer.accuracy(images[:held_out], labels[:held_out])
            print(f"step {step:5}  loss {report['loss']:.4f}  held-out {accuracy:.2%}", flush=True)
    rate = steps / (time.perf_counter() - start)
    accuracy = trainer.accuracy(images[:held_out], labels[:held_out], averaged=True)
    print(f"average of weights: {accuracy:.2%} of {held_out} held-out digits; {rate:.0f} steps/s; {trainer!r}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    main(**vars(parser.parse_args()))
