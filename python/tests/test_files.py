"""Compiled models in one file, in folders and in the cache."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import warnings
from pathlib import Path

import aneforge as af
import numpy as np
import pytest

X = np.linspace(-3, 3, 24, dtype=np.float32).reshape(1, 2, 3, 4)


def built() -> dict[str, af.Tensor]:
    """Two named results of a named input, cut at a layer when it is kept."""
    image = af.input((1, 2, 3, 4), name="image")
    cut = af.minmax_norm(image.relu(), "Height").sigmoid()
    return {"cut": cut, "sum": image + cut}


def plain() -> af.Tensor:
    return af.input((3, 8), name="x").linear(np.arange(32, dtype=np.float32).reshape(4, 8)).square()


def test_a_loaded_model_is_the_one_that_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "model.aneforge"
    model = af.compile(built(), opt=0, target="h13")
    model.save(path)
    again = af.load_model(path)
    assert type(again) is type(model) is af.SegmentedModel
    for name in ("n_ops", "n_netplist", "target", "numerics", "device", "input_names", "output_names", "input_shapes"):
        assert getattr(again, name) == getattr(model, name), name
    assert again.output_names == ["cut", "sum"] and again.input_names == ["image"]
    assert again.describe() == model.describe()
    want, got = model(X), again(image=X)
    assert list(got) == list(want)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(again))(X)["sum"], want["sum"])
    assert os.listdir(tmp_path) == ["model.aneforge"]


def test_one_and_several_results_are_told_apart(tmp_path: Path) -> None:
    y = plain()
    x = np.zeros((3, 8))
    for out, kind in ((y, np.ndarray), ([y], tuple), ((y, y.relu()), tuple), ({"y": y}, dict)):
        af.compile(out).save(tmp_path / "m")
        assert type(af.load_model(tmp_path / "m")(x)) is kind


def test_how_a_loaded_model_runs_is_an_option(tmp_path: Path) -> None:
    af.compile(plain()).save(tmp_path / "m")
    model = af.load_model(str(tmp_path / "m"), device="host", numerics="ieee", sums="defined", threads=1)
    assert model.numerics == "ieee" and "defined sums, 1 thread" in repr(model)
    with pytest.raises(ValueError, match="unknown numerics"):
        af.load_model(tmp_path / "m", numerics="x")
    with pytest.raises(TypeError, match="load_model: "):
        af.load_model(tmp_path / "m", sums=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="load_model: path is empty"):
        af.load_model("")


def test_reports_and_lines_survive(tmp_path: Path) -> None:
    model = af.compile(plain(), int8=True)
    model.save(tmp_path / "m")
    again = af.load_model(tmp_path / "m")
    assert again.weight_report() == model.weight_report() != []
    with pytest.warns(af.PrecisionWarning, match=r"test_files.py:\d+"):
        again(np.full((3, 8), 1e3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model(np.full((3, 8), 1e3))
    assert again.overflows() == model.overflows() != []


def test_a_folder_is_loaded_too(tmp_path: Path) -> None:
    model = af.compile(built(), opt=0, build_dir=tmp_path / "d")
    again = af.load_model(tmp_path / "d")
    np.testing.assert_array_equal(again(X)["sum"], model(X)["sum"])
    with pytest.raises(FileNotFoundError, match="holds no aneforge.manifest"):
        af.load_model(tmp_path)
    (tmp_path / "d" / "segment0" / "model.mil").write_text("program")
    with pytest.raises(OSError, match="was changed after it was compiled"):
        af.load_model(tmp_path / "d")


def test_what_is_damaged_is_refused_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "m.aneforge"
    af.compile(plain()).save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for damaged, why in (
        (b"", "this is no file with a compiled program"),
        (b"%0 = input(feed=0) : fp16[2]", "this is no file with a compiled program"),
        (whole[:50], "it was cut off: 50 bytes are there, and 64 were written"),
        (whole[:-1], "it was cut off"),
        (whole + b"x", "bytes are there, and"),
        (bytes(flipped), "it was changed after it was written"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"m.aneforge`: .*{why}"):
            af.load_model(path)
    with pytest.raises(FileNotFoundError):
        af.load_model(tmp_path / "none")
    with pytest.raises(OSError, match="cannot write"):
        af.compile(plain()).save(tmp_path / "no" / "m")


def test_a_compile_is_kept_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANEFORGE_CACHE_DIR", str(tmp_path / "cache"))
    programs = tmp_path / "cache" / "plans"

    def made(cache: bool | Path = True, **options: str) -> af.Model:
        return af.compile(built(), opt=0, cache=cache, **options)  # type: ignore[arg-type]

    want = made(cache=False)(X)
    assert not programs.exists()
    first, second = made(), made()
    assert len(list(programs.iterdir())) == 1
    for model in (first, second):
        assert model.output_names == ["cut", "sum"]
        np.testing.assert_array_equal(model(image=X)["sum"], want["sum"])
    # Inputs are fed by their tensors, also those of a program that was kept.
    x = af.input((3,))
    for _ in range(2):
        np.testing.assert_array_equal(af.compile(x.relu(), cache=True)._call(([1, -1, 2],), {}), [1, 0, 2])
    assert len(list(programs.iterdir())) == 2
    made(target="h13")
    made(cache=tmp_path / "other")
    assert len(list(programs.iterdir())) == 3 and len(list((tmp_path / "other/plans").iterdir())) == 1
    # What is damaged is compiled again.
    for path in programs.iterdir():
        path.write_bytes(path.read_bytes()[:70])
    np.testing.assert_array_equal(made()(X)["sum"], want["sum"])
    monkeypatch.setenv("ANEFORGE_CACHE_LIMIT", "1K")
    made(norms="robust")
    with pytest.raises(ValueError, match="opt=2 measures on the default device and takes no cache"):
        af.compile(built()["sum"], opt=2, cache=True)
    monkeypatch.setenv("ANEFORGE_CACHE_LIMIT", "much")
    with pytest.raises(ValueError, match="ANEFORGE_CACHE_LIMIT: `much` is no number of bytes"):
        made()


def test_a_cache_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.warns(RuntimeWarning, match="compile: the program is not kept in the cache: cannot make folder"):
        model = af.compile(plain(), cache=tmp_path / "taken")
    assert model.n_ops == 2


def _compiled(folder: str, by: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = af.input((1, 64))
        return float(af.compile(x.linear(np.full((64, 64), float(by))), cache=folder)(np.ones((1, 64)))[0, 0])


def test_processes_share_a_cache(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        got = pool.starmap(_compiled, [(str(tmp_path), i % 3) for i in range(12)])
    assert got == [64.0 * (i % 3) for i in range(12)]
    assert len(list((tmp_path / "plans").iterdir())) == 3


def test_a_process_that_is_killed_while_it_saves_leaves_the_old_model(tmp_path: Path) -> None:
    path = tmp_path / "m"
    y = af.input((1, 300))
    models = [af.compile(y.linear(np.full((300, 300), float(by)))) for by in (1, 2)]
    whole = []
    for model in models:
        model.save(path)
        whole.append(path.read_bytes())
    script = (
        "import aneforge as af, sys, os\n"
        "a, b = af.load_model(sys.argv[1]), af.load_model(sys.argv[2])\n"
        "print(flush=True)\n"
        "while True: a.save(sys.argv[3]), b.save(sys.argv[3])\n"
    )
    for i, model in enumerate(models):
        model.save(tmp_path / str(i))
    for tenth in range(8):
        arguments = [sys.executable, "-c", script, tmp_path / "0", tmp_path / "1", path]
        child = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.003 * tenth)
        child.kill()
        child.wait()
        child.stdout.close()
        assert path.read_bytes() in whole
        af.load_model(path)
    models[0].save(path)
    if Path("/proc/self").exists():  # Without a list of processes, only age tells what the dead have left.
        assert sorted(os.listdir(tmp_path)) == ["0", "1", "m"]
