"""Examples, at a small size."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from safetensors.numpy import save_file
from test_clip import model as clip
from test_diffusion import pipeline
from test_vision import transformer

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "training"


def example(name: str) -> Callable[..., Any]:
    return runpy.run_path(str(FOLDER / f"{name}.py"))["main"]


def test_digits_are_read_and_a_run_goes_on(tmp_path: Path) -> None:
    main = example("digits_mlp")
    assert main(steps=200, checkpoint=tmp_path / "digits.safetensors") > 0.95
    assert main(steps=400, checkpoint=tmp_path / "digits.safetensors") > 0.96


def test_a_text_is_learned_letter_by_letter() -> None:
    # By the frequencies of letters alone it is 3.2.
    assert example("char_lm")(steps=120, length=10) < 2.7


def test_digits_of_a_fetched_file_and_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main = example("mnist_mlp")
    assert main(steps=150) > 0.93
    # What `aneforge fetch` writes: a bright row for each class, and a test set.
    labels = np.arange(640) % 10
    images = np.zeros((640, 28, 28), np.uint8)
    images[np.arange(640), 4 + 2 * labels] = 255
    kept = {"images": images, "labels": labels.astype(np.uint8)}
    held = {"test_images": images[:130], "test_labels": kept["labels"][:130]}
    save_file({**kept, **held}, tmp_path / "mnist.safetensors")
    assert main(steps=50, weights="half", shift=0) == 1.0
    # Test labels that are others show which images the score is of.
    held["test_labels"] = (held["test_labels"] + 1) % 10
    save_file({**kept, **held}, tmp_path / "other.safetensors")
    assert main(data=tmp_path / "other.safetensors", steps=50, shift=0) == 0.0
    with pytest.raises(SystemExit, match="`aneforge fetch mnist` writes it"):
        main(data=tmp_path / "none.safetensors")


def test_a_convolutional_network_reads_digits() -> None:
    assert example("cnn")(steps=150) > 0.97


def test_a_transformer_block_turns_sequences_around() -> None:
    assert example("transformer_block")(steps=150) > 0.95


def test_a_block_of_llama_repeats_what_it_read() -> None:
    # Guessing is right in one of twelve.
    assert example("llama_block")(steps=300) > 0.9


def test_a_picture_grows_from_a_cell(tmp_path: Path) -> None:
    # An empty picture is off by 0.31.
    assert example("cellular_automaton")(steps=300, out=tmp_path / "stages") < 0.12
    files = sorted((tmp_path / "stages").iterdir())
    assert len(files) == 15 and all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert files[0].read_bytes() != files[-1].read_bytes()


def test_a_frozen_encoder_tells_praise_from_complaint() -> None:
    # 16 sentences are held out.
    assert example("transfer")(steps=60) > 0.85


def test_adapters_of_low_rank_learn_in_a_frozen_encoder() -> None:
    # That the graph is the encoder of `aneforge.load` is looked at before training.
    assert example("lora")(steps=9, rank=2) > 0.85


def walked(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path, **models: Path) -> dict[str, Any]:
    """What a walkthrough has made in the end."""
    monkeypatch.chdir(folder)
    for variable, model in models.items():
        monkeypatch.setenv(variable, str(model))
    return runpy.run_path(str(FOLDER.parent / "walkthroughs" / f"{name}.py"))


def test_walkthrough_of_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walked("encoders", monkeypatch, tmp_path, MODEL=made.MODELS / "tiny-bert")
    made_here = walked("encoders", monkeypatch, tmp_path, MODEL=made.minilm(), RERANKER=made.model("bert", tmp_path))
    assert made_here["nearest"].tolist()[:4] == [1, 0, 3, 2]
    assert made_here["order"][0] in (2, 3) and made_here["moved"].max() < 1e-3 and len(made_here["ranked"]) == 3


def test_walkthrough_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_here = walked("pictures", monkeypatch, tmp_path, TRANSFORMER=transformer("vit", tmp_path))
    assert made_here["alike"][0] == 1 and made_here["looks"].shape == (3, 14, 14) and Path("looks.png").exists()


def test_walkthrough_of_pictures_and_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_here = walked("clip", monkeypatch, tmp_path, MODEL=clip("siglip", tmp_path))
    assert made_here["logits"].shape == (4, 4)


def test_walkthrough_of_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPS", "2")
    made_here = walked("diffusion", monkeypatch, tmp_path, MODEL=pipeline("sd1", tmp_path))
    assert Path("lighthouse.png").exists() and len(made_here["samplers"]) == 3 and made_here["change"] > 0


def test_every_walkthrough_is_walked() -> None:
    names = {path.stem for path in (FOLDER.parent / "walkthroughs").glob("*.py")}
    assert names == {"encoders", "pictures", "clip", "diffusion"}
