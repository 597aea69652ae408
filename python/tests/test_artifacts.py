"""Folders that `build_dir` writes: replaced as a whole, and careful with what is not theirs."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import aneforge as af
import numpy as np
import pytest

SINGLE = {"aneforge.manifest", "model.mil", "plan.aneforge", "report.txt", "weights.bin"}


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def scaled(factor: float) -> af.Tensor:
    return af.input((1, 4)).linear(np.eye(4, dtype=np.float32) * factor)


def test_the_second_program_takes_the_place_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "program"
    af.compile(scaled(2), build_dir=folder)
    (folder / "notes.txt").write_text("mine")
    cut = af.minmax_norm(af.input((1, 2, 3, 4)).relu(), "Height").sigmoid()
    af.compile(cut, opt=0, build_dir=folder)
    segments = {path for path in names(folder) if path.startswith("segment")}
    assert names(folder) == segments | {"aneforge.manifest", "plan.aneforge", "report.txt", "notes.txt"}
    assert {path.split("/")[0] for path in segments} == {"segment0", "segment1", "segment2"}
    af.compile(scaled(3), build_dir=str(folder))
    assert names(folder) == SINGLE | {"notes.txt"}
    assert not (folder / "segment0").exists()


def test_a_folder_keeps_its_program_when_the_next_cannot_be_written(tmp_path: Path) -> None:
    af.compile(scaled(2), build_dir=tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in SINGLE}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
        with pytest.raises(OSError, match="cannot write .*/model.mil: "):
            af.compile(scaled(3), build_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "report.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="report.txt` is there and was not written by a compile"):
        af.compile(scaled(2), build_dir=tmp_path)
    assert names(tmp_path) == {"report.txt"}
    assert (tmp_path / "report.txt").read_text() == "mine"
