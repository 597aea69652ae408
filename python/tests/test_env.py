"""Environment variables, which a fresh interpreter reads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import aneforge as af
import pytest
from aneforge import _env

SCRIPT = """
import aneforge as af
import pytest
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
    assert "target h13, device host, numerics ieee) ieee" in done.stdout
    assert ", 1 thread, " in done.stdout, done.stdout


def test_wrong_variables_are_errors() -> None:
    target = "ValueError: ANEFORGE_TARGET: unknown target `m7`; known are m1 to m5 and h11 "
    assert target in run(ANEFORGE_TARGET="m7").stderr
    assert "ValueError: ANEFORGE_DEVICE: unknown device `gpu`" in run(ANEFORGE_DEVICE="gpu").stderr
    assert "ValueError: ANEFORGE_NUMERICS: unknown numerics `x`" in run(ANEFORGE_NUMERICS="x").stderr
    sums = "ValueError: ANEFORGE_SUMS: sums must be 'defined' or 'fast', got 'x'"
    assert sums in run(ANEFORGE_SUMS="x").stderr
    assert "ValueError: ANEFORGE_ISA: isa must name an instruction set" in run(ANEFORGE_ISA="x").stderr
    assert "ANEFORGE_THREADS must be a positive integer, got 'two'" in run(ANEFORGE_THREADS="two").stderr
    assert "ANEFORGE_THREADS must be from 1 to 1024, got 0" in run(ANEFORGE_THREADS="0").stderr
    assert f"ANEFORGE_THREADS must be from 1 to 1024, got {10**20}" in run(ANEFORGE_THREADS=str(10**20)).stderr
    for name in ("TARGET", "DEVICE", "NUMERICS", "SUMS", "ISA", "THREADS"):
        stderr = run(**{f"ANEFORGE_{name}": os.fsdecode(b"\xff")}).stderr
        assert f"ValueError: ANEFORGE_{name} is no text in UTF-8, got '\\udcff'" in stderr


def test_the_devices_are_what_the_variables_say() -> None:
    done = run(ANEFORGE_ISA="scalar", ANEFORGE_DEVICE="host")
    assert "scalar kernels" in done.stdout.rpartition("processor")[2].lower(), done.stderr
    done = run(ANEFORGE_ISA="avx9")
    assert "isa must name an instruction set" in done.stderr


def test_yes_and_no_are_what_the_command_line_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, read in (("HF_HUB_OFFLINE", _env.offline), ("ANEFORGE_TUNE_ATTENTION", _env.tune_attention)):
        for word in ("1", "true", "T", "Yes", "y", "on", " on "):
            monkeypatch.setenv(name, word)
            assert read() is True
        for word in ("", "0", "FALSE", "f", "no", "N", "off"):
            monkeypatch.setenv(name, word)
            assert read() is False
        for word in ("zzz", "2", " "):
            monkeypatch.setenv(name, word)
            with pytest.raises(ValueError, match=f"{name}: `{word}` is neither true .* nor false"):
                read()


def test_empty_variables_are_unset() -> None:
    names = ("TARGET", "DEVICE", "NUMERICS", "THREADS", "COMPILE_BACKOFF", "COMPILE_BREAKER_STRICT")
    names += ("CACHE_DIR", "CACHE_LIMIT")
    done = run(**{f"ANEFORGE_{name}": "" for name in names} | {"ANEFORGE_DEVICE": "host"})
    assert done.returncode == 0, done.stderr
    assert "target h17s, device host) ane(A16)" in done.stdout


def test_every_name_of_a_chip_is_taken() -> None:
    x = af.input((4,))
    for given, target in (("M1", "h13"), (" m2 ", "h14"), ("H17S", "h17s"), ("m5", "h17")):
        assert af.compile(x.relu(), target=given, device="Host").target == target
        assert af.estimate(x.relu(), target=given) == af.estimate(x.relu(), target=target)
        assert af.device_status("relu", given) == af.device_status("relu", target)
    for given, numerics in (("IEEE", "ieee"), ("M1", "ane(A13)"), ("a14", "ane(A14)"), ("h15g", "ane(A15)")):
        assert af.compile(x.relu(), numerics=given, device="host").numerics == numerics
        assert f" {numerics} " in run(ANEFORGE_NUMERICS=given, ANEFORGE_DEVICE="host").stdout
    with pytest.raises(NotImplementedError, match="h11 is older than A13, which runs no MIL program"):
        af.compile(x.relu(), target="h11", device="host")
    with pytest.raises(ValueError, match="runs no MIL program"):
        af.device_status("relu", "h11")
    with pytest.raises(ValueError, match="unknown numerics `h11`"):
        af.compile(x.relu(), numerics="h11", device="host")


def test_a_tilde_is_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANEFORGE_CACHE_DIR", "~/measured")
    assert _env.cache_dir() == tmp_path / "measured"


def test_words_are_taken_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    y = af.input((4,)).relu()
    assert "defined sums" in repr(af.compile(y, device="HOST", sums="DEFINED", norms="Robust"))
    monkeypatch.setenv("ANEFORGE_SUMS", "Defined")
    assert "defined sums" in repr(af.compile(y, device="host"))


def test_one_module_reads_them() -> None:
    package = Path(af.__file__).parent
    readers = [p.name for p in package.rglob("*.py") if re.search(r"environ|getenv", p.read_text())]
    assert readers == ["_env.py"]
