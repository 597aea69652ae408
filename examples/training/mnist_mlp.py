"""A two-layer network 784-128-10 that learns MNIST's digits on the device.

    aneforge fetch mnist
    python examples/training/mnist_mlp.py [--data mnist.safetensors] [--steps 6000] [--weights paired]

The file is what `aneforge fetch mnist` or `fetch fashion-mnist` wrote (reading it needs the package `safetensors`). Without one the
digits are those of scikit-learn, 8 by 8, brought to 28 by 28. The authors' test images are held out, or a fifth where there are
none. Each step shifts its digits by up to two pixels, and everything that is kept stays on the device.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
from numpy.typing import NDArray

SIDE, WIDTH, CLASSES, BATCH = 28, 128, 10, 128

Pictures = NDArray[np.float32]
Labels = NDArray[np.int64]


def read(path: Path | None) -> tuple[Pictures, Labels, Pictures, Labels]:
    """Pictures `[N, 28, 28]` from 0 to 1 and their labels: those trained on, and those held out."""
    if path is not None and not path.exists():
        raise SystemExit(f"there is no {path}; `aneforge fetch mnist` writes it")
    if path is None:
        from sklearn.datasets import load_digits

        data = load_digits()
        # Each pixel becomes three by three, with two pixels of black around.
        images = np.pad(np.kron(data.images / 16, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2)))
        held: dict[str, Any] = {"images": images, "labels": data.target}
    else:
        from safetensors.numpy import load_file

        held = {name: array / 255 if "images" in name else array for name, array in load_file(path).items()}
    images, labels = held["images"].astype(np.float32), held["labels"].astype(np.int64)
    if "test_images" in held:
        return images, labels, held["test_images"].astype(np.float32), held["test_labels"].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    out, kept = np.split(order, [len(order) // 5])
    return images[kept], labels[kept], images[out], labels[out]


def batches(images: Pictures, labels: Labels, shift: int) -> Iterator[tuple[Pictures, Pictures]]:
    """Batches without end, in a new order in each epoch; every picture is shifted by up to so many pixels."""
    rng, ones = np.random.default_rng(2), np.eye(CLASSES, dtype=np.float32)
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), axis=(1, 2))
    while True:
        order = rng.permutation(len(images))
        for at in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[at : at + BATCH]
            down, right = rng.integers(2 * shift + 1, size=(2, BATCH))
            yield windows[rows, down, right].reshape(BATCH, -1), ones[labels[rows]]


def main(data: Path | None = None, steps: int = 6000, weights: str = "paired", shift: int = 2) -> float:
    if data is None and Path("mnist.safetensors").exists():
        data = Path("mnist.safetensors")
    images, labels, held_images, held_labels = read(data)
    held_images = held_images.reshape(len(held_images), -1)
    rng = np.random.default_rng(1)
    x, target = af.input((BATCH, SIDE * SIDE)), af.input((BATCH, CLASSES))
    params = [
        af.parameter(rng.normal(size=(SIDE * SIDE, WIDTH)) * (2 / SIDE**2) ** 0.5, "hidden.weight"),
        af.parameter(np.zeros((1, WIDTH)), "hidden.bias"),
        af.parameter(rng.normal(size=(WIDTH, CLASSES)) * WIDTH**-0.5, "out.weight"),
        af.parameter(np.zeros((1, CLASSES)), "out.bias"),
    ]
    logits = (x @ params[0] + params[1]).relu() @ params[2] + params[3]
    trainer = af.Trainer(
        af.softmax_cross_entropy(logits, target), params, 3e-3, 1024, optimizer="adamw", resident_state=True,
        weights=weights, dynamic_scale=500, average=0.99, schedule=af.train.cosine(100, max(steps, 101), 0.02),
    )  # fmt: skip
    source, start = batches(images, labels, shift), time.perf_counter()
    for _ in range(5):
        rows = trainer.fit(source, steps // 5, inputs=[x, target], progress=False)
        accuracy = trainer.accuracy(held_images, held_labels)
        if rows:
            print(f"step {rows[-1]['step']:5}  loss {rows[-1]['loss']:.4f}  held-out {accuracy:.2%}", flush=True)
    rate = steps / (time.perf_counter() - start)
    accuracy = trainer.accuracy(held_images, held_labels, averaged=True)
    print(f"average of weights: {accuracy:.2%} of {len(held_labels)} held-out images; {rate:.0f} steps/s; {trainer!r}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="by default ./mnist.safetensors, where it is")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--weights", choices=["half", "paired", "masters"], default="paired")
    parser.add_argument("--shift", type=int, default=2)
    main(**vars(parser.parse_args()))
