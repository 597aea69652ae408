"""CLIP and SigLIP: pictures and texts beside what transformers computes in double precision."""

from __future__ import annotations

import copy
import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import aneforge as af
import made
import numpy as np
import pytest
from fixture_random import normal
from safetensors.numpy import load_file, save_file
from test_vision import cosines, looked, photograph, weights


def model(kind: str, folder: Path) -> Path:
    """A directory with the model's generated weights, its description and its tokenizer."""
    source = made.MODELS / f"vision-{kind}"
    shapes = json.loads((source / "weights.json").read_text())
    arrays = {name: weights(name, tuple(shape)) for name, shape in shapes.items()}
    arrays["logit_scale"] = np.full(arrays["logit_scale"].shape, 1.5, np.float32)
    save_file(arrays, folder / "model.safetensors")
    for file in ("config.json", "tokenizer.json"):
        shutil.copyfile(source / file, folder / file)
    return folder


def expected(kind: str) -> dict[str, Any]:
    rows = json.loads((made.MODELS / f"vision-{kind}" / "expected.json").read_text())["rows"]
    return {name: value for row in rows for name, value in row.items()}


@pytest.fixture(scope="module", params=["clip", "siglip"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(kind, tmp_path_factory.mktemp(kind))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> af.CLIP:
    return af.load_clip(folder)


def test_vectors_and_probabilities_are_those_of_transformers(kind: str, loaded: af.CLIP) -> None:
    want = expected(kind)
    texts = loaded.encode_text(want["texts"])
    assert texts.dtype == np.float32 and cosines(texts, np.array(want["vectors"])).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(loaded.encode_text(want["texts"][1]), texts[1], atol=2e-3)
    x = normal(7, (len(want["pictures"]), 3, 64, 64))
    pictures = loaded.encode_image(x)
    assert cosines(pictures, np.array(want["pictures"])).min() > 0.9999
    for row, probabilities in zip(loaded.classify(x, want["texts"]), want["probabilities"], strict=True):
        found = dict(row)
        assert [found[text] for text in want["texts"]] == pytest.approx(probabilities, abs=2e-3)
        assert [p for _, p in row] == sorted(found.values(), reverse=True)
    logits = loaded.logit_scale * pictures @ texts.T + loaded.logit_bias
    first = dict(loaded.classify(x[:1], want["texts"])[0])
    shares = np.exp(logits[0]) / np.exp(logits[0]).sum() if kind == "clip" else 1 / (1 + np.exp(-logits[0]))
    assert [first[text] for text in want["texts"]] == pytest.approx(shares, abs=1e-5)


def test_pictures_of_all_kinds(loaded: af.CLIP) -> None:
    file = photograph("skimage/data/chelsea.png")
    want = loaded.encode_image(file)
    assert want.ndim == 1
    np.testing.assert_array_equal(loaded.encode_image(file.read_bytes()), want)
    many = loaded.encode_image([file] * 9)
    assert many.shape == (9, *want.shape) and cosines(many, want).min() > 1 - 1e-5
    labels = ["a cat", "two dogs", "a cat"]
    one = loaded.classify(file, labels)
    assert sorted(label for label, _ in one) == sorted(labels)
    assert loaded.classify([file], labels)[0] == one and loaded.classify([], labels) == []
    assert loaded.encode_text([]).shape[0] == 0


def test_where_it_looks(kind: str, loaded: af.CLIP, tmp_path: Path) -> None:
    looked(kind, loaded)
    map = loaded.heat_map(photograph("skimage/data/coffee.png"), tmp_path / "map.png")
    assert map.shape == (64, 64, 3) and (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_blocks_of_the_guide_run(loaded: af.CLIP, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = made.ROOT / "docs" / "clip.md"
    scope: dict[str, Any] = {"MODEL": folder, "PHOTOGRAPH": photograph("skimage/data/coffee.png")}
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.S | re.M)
    assert blocks
    for block in blocks:
        exec(compile(block, str(page), "exec"), scope)
    assert capsys.readouterr().out.count("%") == 3


def test_copies_pickle_and_release(folder: Path) -> None:
    loaded = af.load_clip(folder, int8=True)
    want = loaded.encode_text("a cat")
    for again in (pickle.loads(pickle.dumps(loaded)), copy.deepcopy(loaded)):
        np.testing.assert_array_equal(again.encode_text("a cat"), want)
    assert loaded.n_ops > 10 and loaded.input_shape == (3, 64, 64) and loaded.network.startswith(("CLIP-3x64/16", "SigLIP-"))
    loaded.release()
    with pytest.raises(RuntimeError, match="was released; load it again"):
        loaded.encode_text("a cat")
    assert repr(loaded) == "CLIP(released)"


def test_what_is_wrong_is_an_error(folder: Path, loaded: af.CLIP, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="classify: labels must be a str or a sequence of str"):
        loaded.classify(photograph("skimage/data/coffee.png"), "a cat")
    with pytest.raises(ValueError, match="classify: there must be one label or more"):
        loaded.classify(photograph("skimage/data/coffee.png"), [])
    with pytest.raises(TypeError, match="encode_text: texts must be a str or a sequence of str, got int at 1"):
        loaded.encode_text(["a", 1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="encode_image: a picture must be a path"):
        loaded.encode_image(3)
    with pytest.raises(ValueError, match=r"encode_image: numbers must be \[3, H, W\] or \[N, 3, H, W\], got \[1, 2, 3\]"):
        loaded.encode_image(np.zeros((1, 2, 3)))

    def changed(change: dict[str, Any]) -> af.CLIP:
        save_file({**load_file(folder / "model.safetensors"), **change}, tmp_path / "model.safetensors")
        return af.load_clip(tmp_path)

    shutil.copyfile(folder / "config.json", tmp_path / "config.json")
    with pytest.raises(FileNotFoundError, match="tokenizer.json"):
        changed({})
    shutil.copyfile(folder / "tokenizer.json", tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="its scale and bias are inf and"):
        changed({"logit_scale": np.full(load_file(folder / "model.safetensors")["logit_scale"].shape, np.inf, np.float32)})
    with pytest.raises(ValueError, match=r"`text_model.encoder.layers.0.more`, which its network for texts has not"):
        changed({"text_model.encoder.layers.0.more": np.zeros(3, np.float32)}).encode_text("a")
    name = "text_model.encoder.layers.1.mlp.fc2.bias"
    with pytest.raises(ValueError, match=f"weight `{name}` in .* has 1000000000 at element 0"):
        changed({name: np.full_like(load_file(folder / "model.safetensors")[name], 1e9)}).encode_text("a")
    bert = made.MODELS / "tiny-bert"
    with pytest.raises(ValueError, match="no network that this version knows"):
        af.load_clip(bert)


def test_other_networks_read_no_texts(tmp_path: Path) -> None:
    from test_vision import transformer

    with pytest.raises(ValueError, match="it is ViT-.*, which reads no texts; name a CLIP or a SigLIP"):
        af.load_clip(transformer("vit", tmp_path))
