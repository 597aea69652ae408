"""The weight file, read by Apple's own reader from coremltools."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import aneforge as af
import numpy as np

storage = importlib.import_module("coremltools.libmilstoragepython")


def offsets(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"offset\s*=\s*uint64\((\d+)\)", text)]


def test_coremltools_reads_our_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    first, second = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 5), (3, 8)))
    bias = rng.standard_normal(8).astype(np.float32)
    x = af.input((2, 5))
    model = af.compile(x.linear(first, bias).relu().linear(second), build_dir=tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    files = {"aneforge.manifest", "model.mil", "weights.bin", "report.txt"}
    assert {path.name for path in folder.iterdir()} == files
    text = (folder / "model.mil").read_text()
    assert "program(1.3)" in text
    assert model(np.zeros((2, 5))).shape == (2, 3)
    reader = storage._BlobStorageReader(str(folder / "weights.bin"))
    found = [np.array(reader.read_fp16_data(offset)) for offset in offsets(text)]
    found = [a.view(np.float16) if a.dtype == np.uint16 else a.astype(np.float16) for a in found]
    wanted = [a.astype(np.float16).ravel() for a in (first, bias, second)]
    assert sorted(map(len, found)) == sorted(map(len, wanted))
    for want in wanted:
        assert any(np.array_equal(want, got) for got in found)
