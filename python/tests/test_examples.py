"""Examples, at a small size."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
