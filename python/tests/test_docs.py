"""Every example of the reference pages builds, compiles and runs, and so do the guides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "ops.md").read_text()
EXAMPLES = re.findall(r"^### (\w+)$(?:(?!^### ).)*?^```python\n(.*?)^```", PAGE, re.S | re.M)


def test_every_op_has_an_example() -> None:
    documented = set(re.findall(r"^### (\w+)$", PAGE, re.M))
    made_by_compiling = {"reduce_l2_norm", "native_softplus", "native_round"}
    assert documented - {name for name, _ in EXAMPLES} <= made_by_compiling
    assert len(EXAMPLES) >= 118


@pytest.mark.parametrize(("name", "code"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_example(name: str, code: str) -> None:
    names: dict[str, Any] = {"af": af, "np": np}
    exec(code, names)
    out = names["out"]
    if out.dtype == "bool":
        out = af.select(out, af.input(out.shape), af.input(out.shape))
    model = af.compile(out, device="host")
    feeds = [np.full(shape, 0.5) for shape in model.input_shapes]
    if any(line.endswith('"uint8")') for line in code.splitlines()):
        feeds = [np.ones(shape, np.uint8) for shape in model.input_shapes]
    assert model(*feeds).shape == out.shape


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/python.md", "docs/training.md"])
def test_blocks_of_guides_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANEFORGE_DEVICE", "host")
    text = (ROOT / page).read_text()
    scope: dict[str, Any] = {}
    found = [
        block
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.S | re.M)
        if "path/to/" not in block[1]
    ]
    assert found
    for block in found:
        line = text.count("\n", 0, block.start()) + 1
        exec(compile("\n" * line + block[1], str(ROOT / page), "exec"), scope)
