"""How accurate real networks are under every setting of the arithmetic, for the table in docs/numerics.md.

Run by `cargo xtask bench numerics`. The digits network is the demo's; MiniLM and EfficientNet-lite0 are those of
`benches/compress.py`, on inputs that those hold out. Every setting is compiled for a chip of its family.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import aneforge as af
import compress
import compress_vision as vision
import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
CHIPS = {"a13": "h13", "a14": "h14", "a15": "h15", "a16": "h17s"}
SETTINGS = [
    ("ieee", "h17s"),
    *CHIPS.items(),
    *((f"faithful-{family}", chip) for family, chip in CHIPS.items()),
]
SENTENCES, PARTS = 60, 6
START, END = "<!-- cargo xtask bench numerics -->\n", "<!-- end -->\n"


def digits() -> tuple[Callable[[dict[str, str]], np.ndarray], np.ndarray, np.ndarray]:
    """Logits of the held-out images by options, those of double precision, and the labels."""
    arrays = load_file(ROOT / "crates" / "cli" / "assets" / "digits.safetensors")
    held = np.arange(len(arrays["labels"])) % 5 == 0
    images, labels = arrays["images"][held][:, None].astype(np.float64) / 16, arrays["labels"][held]
    w = {name: array.astype(np.float64) for name, array in arrays.items() if "." in name}

    def conv(x: np.ndarray, at: str) -> np.ndarray:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        return np.einsum("nchwij,ocij->nohw", windows, w[f"{at}.weight"], optimize=True) + w[f"{at}.bias"][:, None, None]

    x = np.maximum(conv(np.maximum(conv(images, "conv1"), 0), "conv2"), 0)
    x = x.reshape(len(x), 32, 4, 2, 4, 2).max((3, 5)).reshape(len(x), 512)
    x = np.maximum(x @ w["fc1.weight"].T + w["fc1.bias"], 0)
    exact = x @ w["fc2.weight"].T + w["fc2.bias"]

    def run(options: dict[str, str]) -> np.ndarray:
        x = af.input((1, 1, 8, 8))
        y = af.conv(x, w["conv1.weight"], bias=w["conv1.bias"], pad=1).relu()
        y = af.conv(y, w["conv2.weight"], bias=w["conv2.bias"], pad=1).relu().max_pool(2).reshape(1, 512)
        y = y.linear(w["fc1.weight"], w["fc1.bias"]).relu().linear(w["fc2.weight"], w["fc2.bias"])
        model = af.compile(y, device="host", **options)
        return np.array([np.asarray(model(image[None]))[0] for image in images], np.float64)

    return run, exact, labels


def minilm() -> tuple[Callable[[dict[str, str]], np.ndarray], np.ndarray]:
    """Vectors of held-out sentences by options, and those of single precision."""
    folder = compress.model()
    held = compress.sentences()[compress.CALIBRATED : compress.CALIBRATED + SENTENCES]
    reference = compress.Reference(folder)
    exact = np.array([reference(text) for text in held], np.float64)
    return lambda options: np.asarray(af.load(folder, device="host", **options)(held), np.float64), exact


def efficientnet() -> tuple[Callable[[dict[str, str]], np.ndarray], np.ndarray]:
    """Logits of held-out pictures by options, and those of single precision."""
    w = vision.weights()
    held = vision.pictures(vision.HELD, PARTS)
    reference = vision.reference(w)
    exact = np.array([reference.run(None, {"x": x})[0][0] for x in held], np.float64)

    def run(options: dict[str, str]) -> np.ndarray:
        model = af.compile(vision.network(w), device="host", **options)
        return np.array([np.asarray(model(x))[0] for x in held], np.float64)

    return run, exact


def cosines(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    return (got * want).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(want, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "numerics.md")
    page = parser.parse_args().output
    (small, small_exact, labels), (texts, texts_exact), (seen, seen_exact) = digits(), minilm(), efficientnet()
    lines = [
        f"The digits network of the demo on its {len(labels)} held-out images (right answers, and the largest error of a logit by the",
        f"largest logit, against double precision); all-MiniLM-L6-v2 on {SENTENCES} held-out sentences and EfficientNet-lite0 on "
        f"{len(seen_exact)}",
        "parts of held-out photographs (distance of cosines from 1 against single precision, mean and greatest; how often the class is",
        "the same). `cargo xtask bench numerics`:", "",
        "| numerics | digits: right | error | MiniLM: 1 - cosine, mean | greatest | EfficientNet-lite0: 1 - cosine, mean | greatest | class |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for numerics, target in SETTINGS:
        options = {"target": target, "numerics": numerics}
        logits, vectors, classes = small(options), texts(options), seen(options)
        error = np.abs(logits - small_exact).max() / np.abs(small_exact).max()
        far, off = 1 - cosines(vectors, texts_exact), 1 - cosines(classes, seen_exact)
        same = (classes.argmax(1) == seen_exact.argmax(1)).mean()
        lines.append(
            f"| `{numerics}` | {(logits.argmax(1) == labels).sum()} | {error:.1e} | {far.mean():.1e} | {far.max():.1e} "
            f"| {off.mean():.1e} | {off.max():.1e} | {100 * same:.0f} % |"
        )
        print(lines[-1], flush=True)
    text = page.read_text()
    start, end = text.index(START) + len(START), text.index(END)
    page.write_text(text[:start] + "\n".join(lines) + "\n" + text[end:])


if __name__ == "__main__":
    main()
