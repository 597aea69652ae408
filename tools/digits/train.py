"""Trains the digit classifier that `aneforge demo` runs, and writes its data and weights to one file.

Run it from any directory; README.md beside it gives the exact versions. The result depends on nothing but
the seed below, the versions, and the order in which the CPU adds.
"""

import json
import os
import struct
from pathlib import Path

# One core: XLA splits sums by the number of cores it sees, and the result must not depend on it.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

OUTPUT = Path(__file__).resolve().parents[2] / "crates" / "cli" / "assets" / "digits.safetensors"
SEED = 7
EPOCHS = 60
BATCH = 64
PEAK_RATE = 3e-3
WEIGHT_DECAY = 2e-2

SHAPES = {
    "conv1.weight": (16, 1, 3, 3),
    "conv1.bias": (16,),
    "conv2.weight": (32, 16, 3, 3),
    "conv2.bias": (32,),
    "fc1.weight": (64, 512),
    "fc1.bias": (64,),
    "fc2.weight": (10, 64),
    "fc2.bias": (10,),
}


def load():
    """Pixels 0..16 as bytes `[1797, 8, 8]`, labels as bytes, and which images are held out."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    assert (images == digits.images).all() and images.max() == 16
    held_out = np.arange(len(images)) % 5 == 0
    return images, digits.target.astype(np.uint8), held_out


def initial(rng):
    """He-normal weights and zero biases."""
    weights = {}
    for name, shape in SHAPES.items():
        fan_in = np.prod(shape[1:], dtype=np.int64)
        scale = np.sqrt(2.0 / fan_in) if name.endswith("weight") else 0.0
        weights[name] = jnp.asarray(rng.normal(size=shape) * scale, jnp.float32)
    return weights


def conv(x, weight, bias):
    dims = ("NCHW", "OIHW", "NCHW")
    y = jax.lax.conv_general_dilated(x, weight, (1, 1), ((1, 1), (1, 1)), dimension_numbers=dims)
    return y + bias[None, :, None, None]


def logits(w, x, store=lambda v: v):
    """The network on `x` `[N, 1, 8, 8]`, pixels already divided by 16. `store` rounds what a node stores."""
    x = store(jax.nn.relu(store(conv(x, w["conv1.weight"], w["conv1.bias"]))))
    x = store(jax.nn.relu(store(conv(x, w["conv2.weight"], w["conv2.bias"]))))
    n, c, height, width = x.shape
    x = x.reshape(n, c, height // 2, 2, width // 2, 2).max((3, 5)).reshape(n, -1)
    x = store(jax.nn.relu(store(x @ w["fc1.weight"].T + w["fc1.bias"])))
    return store(x @ w["fc2.weight"].T + w["fc2.bias"])


def loss(w, x, labels):
    scores = jax.nn.log_softmax(logits(w, x))
    smooth = 0.9 * jax.nn.one_hot(labels, 10) + 0.01
    return -(smooth * scores).sum(1).mean()


@jax.jit
def step(w, m, v, x, labels, rate, t):
    """One step of Adam with decoupled weight decay."""
    grads = jax.grad(loss)(w, x, labels)
    m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, grads)
    v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, v, grads)

    def update(p, a, b):
        move = a / (1 - 0.9**t) / (jnp.sqrt(b / (1 - 0.999**t)) + 1e-8)
        return p - rate * (move + (WEIGHT_DECAY * p if p.ndim > 1 else 0.0))

    return jax.tree.map(update, w, m, v), m, v


def shifted(x, rng):
    """Every image moved by -1, 0 or 1 pixels each way, with zeros moved in."""
    out = np.zeros_like(x)
    for image, target, (dy, dx) in zip(x, out, rng.integers(-1, 2, size=(len(x), 2))):
        rows, cols = slice(max(dy, 0), 8 + min(dy, 0)), slice(max(dx, 0), 8 + min(dx, 0))
        from_rows, from_cols = slice(max(-dy, 0), 8 + min(-dy, 0)), slice(max(-dx, 0), 8 + min(-dx, 0))
        target[:, rows, cols] = image[:, from_rows, from_cols]
    return out


def train(x, labels):
    rng = np.random.default_rng(SEED)
    w = initial(rng)
    m = v = jax.tree.map(jnp.zeros_like, w)
    steps_per_epoch = len(x) // BATCH
    t = 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, steps_per_epoch * BATCH, BATCH):
            at = order[start : start + BATCH]
            rate = PEAK_RATE * 0.5 * (1 + np.cos(np.pi * t / (EPOCHS * steps_per_epoch)))
            t += 1
            w, m, v = step(w, m, v, shifted(x[at], rng), labels[at], rate, float(t))
    return w


def safetensors(tensors, metadata):
    """The bytes of a safetensors file: the same for the same contents, unlike those of the usual writer."""
    names = {np.dtype(np.float16): "F16", np.dtype(np.uint8): "U8"}
    # Wider elements first, so that every tensor is aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header, data = {"__metadata__": metadata}, b""
    for name, array in ordered:
        end = len(data) + array.nbytes
        header[name] = {"dtype": names[array.dtype], "shape": array.shape, "data_offsets": [len(data), end]}
        data += np.ascontiguousarray(array).tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def main():
    images, labels, held_out = load()
    x = (images.astype(np.float32) / 16.0)[:, None]
    w = train(x[~held_out], labels[~held_out])
    half = {name: np.asarray(value, np.float16) for name, value in w.items()}
    rounded = {name: jnp.asarray(value, jnp.float32) for name, value in half.items()}

    def correct(weights, where, store=lambda v: v):
        return int((np.argmax(logits(weights, x[where], store), 1) == labels[where]).sum())

    as_half = lambda v: v.astype(jnp.float16).astype(jnp.float32)
    counts = {
        "test_correct_float32": correct(w, held_out),
        "test_correct_fp16_weights": correct(rounded, held_out),
        "test_correct_fp16_throughout": correct(rounded, held_out, as_half),
        "test_images": int(held_out.sum()),
        "train_correct_fp16_weights": correct(rounded, ~held_out),
        "train_images": int((~held_out).sum()),
    }
    print(json.dumps(counts, indent=2))
    metadata = {name: str(count) for name, count in counts.items()}
    metadata |= {
        "test_accuracy_float32": f"{counts['test_correct_float32'] / counts['test_images']:.4f}",
        "source": "Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, "
        "doi 10.24432/C50P49; the 1797 images of its test part, as in scikit-learn's load_digits",
        "citation": "E. Alpaydin, C. Kaynak (1998)",
        "licence": "images and labels: CC BY 4.0; weights: MIT OR Apache-2.0",
        "split": "image i is held out for testing when i % 5 == 0; the rest train",
        "input": "pixels 0..16, divided by 16",
        "network": "conv 3x3 pad 1, relu, conv 3x3 pad 1, relu, max_pool 2, linear, relu, linear",
        "script": "tools/digits/train.py",
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_bytes(safetensors({"images": images, "labels": labels, **half}, dict(sorted(metadata.items()))))
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
