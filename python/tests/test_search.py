"""Indexes of folders, and what is found in them."""

from __future__ import annotations

import multiprocessing
import pickle
import re
from pathlib import Path
from typing import Any

import aneforge as af
import made
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from test_clip import model as clip

MODEL = made.MODELS / "tiny-bert"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text("the cat sat on the mat\n\n\nthe dog ran in the house\n")
    (folder / "more" / "b.md").write_text("a bird in the sea")
    (folder / "code.rs").write_text("fn cat() {}")
    return folder


def test_passages_are_found_and_vectors_are_those_of_the_encoder(notes: Path, tmp_path: Path) -> None:
    index = af.SearchIndex.build(tmp_path / "notes.index", notes, MODEL, passage=30)
    assert index.changes == (2, 3, 2, 0, 0, []) and len(index) == 3 and index.kind == "texts" and index.files == 2
    texts = ["the cat sat on the mat", "the dog ran in the house", "a bird in the sea"]
    np.testing.assert_allclose(index.vectors, af.load(MODEL)(texts), atol=3e-3)
    for text, line in zip(texts, (1, 4, 1), strict=True):
        for quantized in (False, True):
            hits = index.search(text, top_k=2, quantized=quantized)
            assert len(hits) == 2 and hits[0].text == text and hits[0].line == line and hits[0].score > 0.998
    assert index.search(texts[2])[0].path == notes / "more" / "b.md"
    stored = load_file(tmp_path / "notes.index")
    np.testing.assert_array_equal(stored["vectors"].astype(np.float32), index.vectors)
    restored = stored["bytes"] * stored["scales"][:, None]
    np.testing.assert_allclose(restored, index.vectors, atol=np.abs(index.vectors).max() / 127)


def test_an_index_is_brought_up_to_date(notes: Path, tmp_path: Path) -> None:
    before = af.SearchIndex.build(tmp_path / "notes.index", str(notes), str(MODEL), endings=[".txt", "md"])
    (notes / "a.txt").write_text("rain in the morning")
    (notes / "more" / "b.md").unlink()
    (tmp_path / "else.log").write_text("a red house")
    after = before.update([tmp_path / "else.log"])
    assert after.changes == (2, 2, 1, 1, 1, []) and len(after) == 2 and len(before) == 2
    assert {hit.text for hit in after.search("rain")} == {"rain in the morning", "a red house"}
    # What was found in a file that has changed since is not shown as if it were there.
    assert before.search("the bird")[0].text == ""
    assert len(af.SearchIndex(tmp_path / "notes.index")) == 2
    assert repr(after).startswith("SearchIndex('") and repr(after).endswith("2 texts of 2 files)")


def test_pictures_are_found_by_pictures_and_words(tmp_path: Path) -> None:
    photographs, weights = tmp_path / "photographs", tmp_path / "model"
    photographs.mkdir()
    weights.mkdir()
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(4)]
    for at, picture in enumerate(pixels):
        Image.fromarray(picture).save(photographs / f"{at}.png")
    (photographs / "broken.jpg").write_bytes(b"\xff\xd8")
    index = af.SearchIndex.build(tmp_path / "p.index", [photographs], clip("clip", weights), pictures=True)
    assert index.changes is not None and len(index) == 4 and index.changes.skipped[0][0] == photographs / "broken.jpg"
    for at, picture in enumerate(pixels):
        assert [hit.path.name for hit in index.search(picture=picture, top_k=1)] == [f"{at}.png"]
    hits = index.search("a cat")
    assert len(hits) == 4 and hits[0].text == "" and hits[0].line == 0


def asked(index: af.SearchIndex) -> str:
    return index.search("the dog ran in the house")[0].text


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_ask_it_too(start: str, notes: Path, tmp_path: Path) -> None:
    index = af.SearchIndex.build(tmp_path / "notes.index", notes, MODEL, passage=30)
    want = asked(index)
    assert asked(pickle.loads(pickle.dumps(index))) == want
    with multiprocessing.get_context(start).Pool(2) as pool:
        assert pool.map(asked, [index] * 2) == [want] * 2


def test_what_is_wrong_is_an_error(notes: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes.index"
    for wrong, want in [
        (lambda: af.SearchIndex(path), FileNotFoundError),
        (lambda: af.SearchIndex(MODEL / "model.safetensors"), ValueError),
        (lambda: af.SearchIndex.build(path, tmp_path / "none", MODEL), FileNotFoundError),
        (lambda: af.SearchIndex.build(path, notes / "more", MODEL, endings=["rst"]), ValueError),
        (lambda: af.SearchIndex.build(path, notes, MODEL, passage=3), ValueError),
        (lambda: af.SearchIndex.build(path, notes, MODEL, endings="txt"), TypeError),
        (lambda: af.SearchIndex.build(path, 3, MODEL), TypeError),  # type: ignore[arg-type]
    ]:
        with pytest.raises(want):
            wrong()
    assert not path.exists()
    index = af.SearchIndex.build(path, notes, MODEL)
    for given in ({}, {"question": "a", "picture": np.zeros((4, 4, 3), np.uint8)}):
        with pytest.raises(ValueError, match="search: give a question or a picture, and not both"):
            index.search(**given)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="search: question must be a str, got int"):
        index.search(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="makes no vectors of pictures; ask with a text"):
        index.search(picture=np.zeros((4, 4, 3), np.uint8))
    other = af.SearchIndex(path, model=made.model("bert", tmp_path))
    with pytest.raises(ValueError, match="name that model, or build the index again"):
        other.search("a cat")


def test_blocks_of_the_guide_run(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"NOTES": notes, "MODEL": MODEL}
    blocks = re.findall(r"^```python\n(.*?)^```$", (made.ROOT / "docs" / "search.md").read_text(), re.S | re.M)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/search.md", "exec"), scope)
    assert "a.txt:1 the cat sat on the mat" in capsys.readouterr().out
