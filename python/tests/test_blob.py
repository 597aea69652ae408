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
    files = {"aneforge.manifest", "model.mil", "plan.aneforge", "weights.bin", "report.txt"}
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


def test_coremltools_reads_encoded_weights(tmp_path: Path) -> None:
    """Weights of a graph's text, as NumPy decodes them from what Apple's reader finds."""
    rng = np.random.default_rng(4)
    codes = rng.integers(-127, 128, (8, 16), dtype=np.int8)
    indices = rng.integers(0, 16, (8, 16), dtype=np.uint8)
    mask = rng.integers(0, 2, (8, 16), dtype=np.uint8)
    scales, table, values = (rng.random(n).astype(np.float16) for n in (8, 16, int(mask.sum())))
    blocks = rng.random((8, 4)).astype(np.float16)
    nibbles = indices.ravel()[::2] | indices.ravel()[1::2] << 4
    bits = np.packbits(mask.ravel(), bitorder="little")
    parts = {
        "int8": (codes, scales),
        "lut4": (nibbles, table),
        "sparse": (bits, values),
        "blockwise": (codes, blocks),
    }
    sparse = np.zeros((8, 16), np.float16)
    sparse[mask == 1] = values
    dense = {
        "int8": codes.astype(np.float16) * scales[:, None],
        "lut4": table[indices],
        "sparse": sparse,
        "blockwise": codes.astype(np.float16) * np.repeat(blocks, 4, axis=1),
    }
    for encoding, (first, second) in parts.items():
        lists = (" ".join(map(str, part.ravel().tolist())) for part in (first, second))
        graph = tmp_path / f"{encoding}.ir"
        graph.write_text(
            f"@0 : fp16[8, 16] = {encoding} {'; '.join(lists)}\n"
            "%0 = input(feed=0) : fp16[2, 16]\n%1 = const_array(index=0) : fp16[8, 16]\n"
            "%2 = matmul(%0, %1) : fp16[2, 8]\nreturn %2\n"
        )
        y = af.load_graph(graph)
        assert isinstance(y, af.Tensor)
        assert np.array_equal(y.attrs["wt"], dense[encoding])
        folder = tmp_path / encoding
        x = rng.random((2, 16)).astype(np.float32)
        want = af.input((2, 16)).linear(dense[encoding].astype(np.float32))
        assert np.array_equal(af.compile(y, build_dir=folder)(x), af.compile(want)(x))
        reader = storage._BlobStorageReader(str(folder / "weights.bin"))
        at = offsets((folder / "model.mil").read_text())
        read = {
            "int8": reader.read_int8_data,
            "lut4": reader.read_uint4_data,
            "sparse": reader.read_uint1_data,
            "blockwise": reader.read_int8_data,
        }
        wanted = {"int8": codes, "lut4": indices, "sparse": mask, "blockwise": codes}
        assert np.array_equal(np.array(read[encoding](at[0])).ravel(), wanted[encoding].ravel())
        halves = np.array(reader.read_fp16_data(at[1]))
        assert np.array_equal(halves.view(np.float16).ravel(), second.ravel())
