"""Environment variables, which a fresh interpreter reads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import aneforge as af

SCRIPT = """
import aneforge as af
x = af.input((4,))
model = af.compile(x.relu())
print(repr(model), model.numerics, af.devices()[1].description)
"""


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ANEFORGE_")}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT],
        check=False,
        env=clean | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_variables_choose_the_defaults() -> None:
    done = run(ANEFORGE_TARGET="H13", ANEFORGE_DEVICE="host", ANEFORGE_NUMERICS="ieee", ANEFORGE_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "target h13, device host) ieee" in done.stdout
    assert re.search(r"\b1 threads", done.stdout), done.stdout


def test_wrong_variables_are_errors() -> None:
    assert "unknown target `m1`" in run(ANEFORGE_TARGET="m1").stderr
    assert "unknown device `gpu`" in run(ANEFORGE_DEVICE="gpu").stderr
    assert "unknown numerics `x`" in run(ANEFORGE_NUMERICS="x").stderr
    assert "ANEFORGE_THREADS must be a positive integer, got 'two'" in run(ANEFORGE_THREADS="two").stderr
    assert "threads must be at least 1" in run(ANEFORGE_THREADS="0").stderr


def test_one_module_reads_them() -> None:
    package = Path(af.__file__).parent
    readers = [p.name for p in package.rglob("*.py") if re.search(r"environ|getenv", p.read_text())]
    assert readers == ["_env.py"]
