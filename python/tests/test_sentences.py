"""Encoders and rerankers through the interface of sentence-transformers."""

from __future__ import annotations

import copy
import json
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import aneforge as af
import made
import numpy as np
import onnxruntime as ort
import pytest
from aneforge.sentence_transformers import CrossEncoder, SentenceTransformer, cos_sim

TINY = made.MODELS / "tiny-bert"
FAMILIES = ["bert", "roberta", "distilbert", "mpnet", "modernbert", "nomic-bert", "gte"]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_agree_with_transformers(family: str, tmp_path: Path) -> None:
    want = made.expected(family)
    folder = made.model(family, tmp_path)
    model = SentenceTransformer(folder, device="host")
    got = model.encode([row["text"] for row in want["texts"]])
    cosines = (unit(got.astype(np.float64)) * unit(np.array([row["mean"] for row in want["texts"]]))).sum(1)
    assert cosines.min() >= 0.9999
    scores = CrossEncoder(folder, device="host").predict([row["pair"] for row in want["pairs"]])
    np.testing.assert_allclose(scores, [row["score"] for row in want["pairs"]], atol=1e-2)


def test_minilm_is_what_onnxruntime_computes() -> None:
    folder = made.minilm()
    texts = made.sentences(200)
    assert len(set(texts)) == 200 and min(map(len, texts)) < 20 and max(map(len, texts)) > 800
    model = SentenceTransformer(folder, device="host")
    session = ort.InferenceSession(made.bert_onnx(folder), providers=["CPUExecutionProvider"])
    states = [session.run(None, {"ids": np.array([ids])})[0][0] for ids in model.encoder.tokens(texts)]
    want = unit(np.array([x.mean(0) for x in states], dtype=np.float64))
    got = model.encode(texts).astype(np.float64)
    cosines = (unit(got) * want).sum(1)
    assert cosines.min() >= 0.9999, cosines.min()
    # Of every text, the others by likeness: no two that are farther apart than 1e-3 change places.
    theirs, ours = want @ want.T, got @ got.T
    for row, other in zip(theirs, ours, strict=True):
        order = np.argsort(-other)
        best_below = np.maximum.accumulate(row[order][::-1])[::-1]
        assert (best_below - row[order]).max() < 1e-3


def test_blocks_of_the_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANEFORGE_DEVICE", "host")
    text = (made.ROOT / "docs" / "models.md").read_text()
    scope: dict[str, Any] = {"FOLDER": made.model("bert", tmp_path)}
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)
    assert len(blocks) == 6
    for block in blocks:
        exec(block, scope)
    shown = re.search(r"^```text\n(.*?)^```$", text, re.S | re.M)
    given = ["the cat sat"] * 40 + ["a dog ran over the old house and the bird flew in the night"]
    assert shown and SentenceTransformer(made.minilm(), device="host").batches(given).strip() == shown[1].strip("\n").strip()


def test_shapes_and_kinds_of_results() -> None:
    model = SentenceTransformer(str(TINY), device="host")
    one = model.encode("the cat sat")
    assert one.shape == (32,) and one.dtype == np.float32
    rows = model.encode(["the cat sat", "a dog ran"])
    assert rows.shape == (2, 32)
    np.testing.assert_array_equal(rows[0], one)
    np.testing.assert_array_equal(model.encode(("the cat sat",))[0], one)
    np.testing.assert_array_equal(model.encode(np.array(["the cat sat"]))[0], one)
    assert model.encode([]).shape == (0, 32)
    listed = model.encode(["the cat sat"], convert_to_numpy=False)
    assert isinstance(listed, list) and np.array_equal(listed[0], one)
    assert (model.max_seq_length, model.get_max_seq_length()) == (40, 40)
    assert (model.get_sentence_embedding_dimension(), model.device) == (32, "host")
    assert repr(model).startswith("SentenceTransformer(Encoder(") and model.encoder.dim == 32
    assert model.batches("the cat").startswith("1 texts of 4 tokens in 1 runs, 0 % padding")


def test_tensors_are_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SentenceTransformer(TINY, device="host")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="convert_to_tensor needs PyTorch, which is not installed"):
        model.encode("cat", convert_to_tensor=True)

    class Torch:
        @staticmethod
        def from_numpy(rows: np.ndarray) -> tuple[str, np.ndarray]:
            return ("tensor", rows)

    monkeypatch.setitem(sys.modules, "torch", Torch)  # type: ignore[arg-type]
    kind, rows = model.encode(["cat"], convert_to_tensor=True)
    assert kind == "tensor" and rows.shape == (1, 32)


def test_vectors_are_normalized_and_cut_as_asked(tmp_path: Path) -> None:
    texts = ["the cat sat on the mat", "stone"]
    normalizes = SentenceTransformer(TINY, device="host")
    np.testing.assert_allclose(np.linalg.norm(normalizes.encode(texts), axis=1), 1, atol=1e-6)
    plain = SentenceTransformer(made.model("bert", tmp_path), device="host")
    rows = plain.encode(texts)
    assert abs(np.linalg.norm(rows, axis=1) - 1).min() > 0.1
    np.testing.assert_allclose(plain.encode(texts, normalize_embeddings=True), unit(rows), atol=1e-6)
    np.testing.assert_array_equal(plain.encode(texts, truncate_dim=8), rows[:, :8])
    short = SentenceTransformer(tmp_path, device="host", truncate_dim=8)
    assert short.get_embedding_dimension() == 8
    np.testing.assert_array_equal(short.encode(texts), rows[:, :8])
    np.testing.assert_allclose(short.encode(texts, normalize_embeddings=True), unit(rows[:, :8]), atol=1e-6)
    assert short.encode(texts, truncate_dim=99).shape == (2, 32)
    cut = normalizes.encode(texts, truncate_dim=8)
    assert np.linalg.norm(cut, axis=1).max() < 0.99
    np.testing.assert_allclose(normalizes.encode(texts, truncate_dim=8, normalize_embeddings=True), unit(cut), atol=1e-6)


PROMPTS = {"prompts": {"query": "is the ", "passage": "the cat "}, "default_prompt_name": "query", "similarity_fn_name": "dot"}


def test_prompts_are_those_of_the_model(tmp_path: Path) -> None:
    folder = made.model("bert", tmp_path)
    (folder / "config_sentence_transformers.json").write_text(json.dumps(PROMPTS))
    model = SentenceTransformer(folder, device="host")
    assert (model.similarity_fn_name, model.default_prompt_name) == ("dot", "query")
    plain = SentenceTransformer(folder, device="host", prompts={}, default_prompt_name="document", similarity_fn_name="cosine")

    def same(got: np.ndarray, text: str) -> None:
        np.testing.assert_array_equal(got, plain.encode(text))

    same(model.encode("dog"), "is the dog")
    same(model.encode(["dog"])[0], "is the dog")
    same(model.encode("dog", prompt_name="passage"), "the cat dog")
    same(model.encode("dog", prompt="old "), "old dog")
    same(model.encode("dog", prompt=""), "dog")
    same(model.encode_query("dog"), "is the dog")
    same(model.encode_document("dog"), "the cat dog")
    same(model.encode_document("dog", prompt_name="document"), "dog")
    same(plain.encode_query("dog"), "dog")
    np.testing.assert_array_equal(model.encode_query(["dog"], normalize_embeddings=True), unit(model.encode_query(["dog"])))
    with pytest.raises(ValueError, match="there is no prompt 'title'; there are 'document', 'passage', 'query'"):
        model.encode("dog", prompt_name="title")
    with pytest.raises(ValueError, match="there is no prompt 'title'"):
        SentenceTransformer(folder, device="host", default_prompt_name="title")
    (folder / "config_sentence_transformers.json").write_text('{"prompts": 3}')
    with pytest.raises(ValueError, match="config_sentence_transformers.json` is not valid"):
        SentenceTransformer(folder, device="host")


def test_similarities() -> None:
    model = SentenceTransformer(TINY, device="host")
    a, b = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]])
    by_hand: dict[str, Any] = {
        "cosine": lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y),
        "dot": lambda x, y: x @ y,
        "euclidean": lambda x, y: -np.linalg.norm(x - y),
        "manhattan": lambda x, y: -abs(x - y).sum(),
    }
    assert model.similarity_fn_name == "cosine"
    for name, of in by_hand.items():
        model.similarity_fn_name = name
        want = [[of(x, y) for y in b] for x in a]
        np.testing.assert_allclose(model.similarity(a, b), want, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(model.similarity_pairwise(a, b[:2]), [want[0][0], want[1][1]], rtol=1e-6, atol=1e-6)
        assert model.similarity(a[0], b.tolist()).shape == (1, 3) and model.similarity(a[:0], b[:0]).shape == (0, 0)
    with pytest.raises(ValueError, match="similarity_fn_name must be one of cosine, dot, euclidean, manhattan, got 'l3'"):
        model.similarity_fn_name = "l3"
    with pytest.raises(ValueError, match="cos_sim: vectors have 2 and 3 components"):
        cos_sim(a, np.ones((1, 3)))
    with pytest.raises(ValueError, match="2 vectors and 3 are no pairs"):
        model.similarity_pairwise(a, b)
    with pytest.raises(TypeError, match="must be vectors of one length, got list"):
        cos_sim([[1.0], [1.0, 2.0]], a)


def test_long_texts(tmp_path: Path) -> None:
    model = SentenceTransformer(made.model("bert", tmp_path), device="host", max_seq_length=12)
    words = ["cat", "dog", "bird", "sun", "moon", "fire", "stone", "house", "tree", "mat"] * 3
    parts = model.encode([" ".join(words[start : start + 10]) for start in (0, 10, 20)])
    whole = model.encode(" ".join(words), long="windows")
    np.testing.assert_allclose(whole, parts.mean(0), atol=1e-6)
    np.testing.assert_array_equal(model.encode(" ".join(words)), parts[0])
    model.max_seq_length = 34
    assert model.max_seq_length == 34 and not np.array_equal(model.encode(" ".join(words)), parts[0])
    with pytest.raises(ValueError, match="long must be 'cut' or 'windows', got 'drop'"):
        model.encode("cat", long="drop")
    with pytest.raises(ValueError, match="max_seq_length 2 leaves no room"):
        model.max_seq_length = 2


def test_progress_changes_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    model = SentenceTransformer(TINY, device="host")
    texts = [f"{'the cat ' * (i % 9)} {i % 7}" for i in range(600)]
    quiet = model.encode(texts)
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(model.encode(texts, show_progress_bar=True), quiet)
    assert capsys.readouterr().err == "\r256 of 600 texts\r512 of 600 texts\r600 of 600 texts\n"
    model.encode(texts, batch_size=75, show_progress_bar=True)
    assert capsys.readouterr().err == ""


HOSTILE: dict[str, tuple[Any, type[Exception], str]] = {
    "number": (7, TypeError, "encode: sentences must be a str or a sequence of str, got int"),
    "numbers": (["cat", 7], TypeError, "encode: sentences must be a str or a sequence of str, got int at 1"),
    "bytes": (b"cat", TypeError, "encode: sentences must be a str or a sequence of str, got bytes"),
    "lone surrogate": (["cat", "\udcff"], ValueError, "text 1 has a lone surrogate, which is no character"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_text_is_told(case: str) -> None:
    given, kind, said = HOSTILE[case]
    with pytest.raises(kind, match=said):
        SentenceTransformer(TINY, device="host").encode(given)


def test_arguments_are_told() -> None:
    model = SentenceTransformer(TINY, device="host")
    for options, kind, said in (
        ({"precision": "int8"}, ValueError, "encode: precision must be 'float32', got 'int8'"),
        ({"output_value": "token_embeddings"}, ValueError, "encode: output_value must be 'sentence_embedding'"),
        ({"batch_size": 0}, ValueError, "encode: batch_size must be from 1"),
        ({"truncate_dim": 0}, ValueError, "encode: truncate_dim must be from 1"),
        ({"prompt": 3}, TypeError, "encode: prompt must be a str, got int"),
    ):
        with pytest.raises(kind, match=said):
            model.encode("cat", **options)
    with pytest.raises(TypeError, match="load\\(\\) got an unexpected keyword argument 'trust_remote_code'"):
        SentenceTransformer(TINY, trust_remote_code=True)


def test_texts_of_ten_million_characters() -> None:
    model = SentenceTransformer(TINY, device="host")
    beginning = "the cat sat on the mat and ran over the house, " * 40
    for huge in (beginning * 6000, beginning + "x" * 10_000_000):
        np.testing.assert_array_equal(model.encode(huge), model.encode(beginning))


def test_weights_that_are_cut_off_are_told(tmp_path: Path) -> None:
    folder = made.model("bert", tmp_path)
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for kept in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match="model.safetensors.*download it again"):
            SentenceTransformer(folder, device="host")
    path.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    with pytest.raises(ValueError, match="has shape .*, config.json asks for .*; the two belong to different models"):
        CrossEncoder(folder, device="host")


def test_copies_of_models(tmp_path: Path) -> None:
    folder = made.model("roberta", tmp_path)
    model, reranker = SentenceTransformer(folder, device="host", truncate_dim=9), CrossEncoder(folder, device="host")
    want, score = model.encode("the cat"), reranker.predict(("the cat", "a dog"))
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again.encode("the cat"), want)
    for once_more in (copy.deepcopy(reranker), pickle.loads(pickle.dumps(reranker))):
        assert once_more.predict(("the cat", "a dog")) == score and repr(once_more) == repr(reranker)


def test_reranking(tmp_path: Path) -> None:
    folder = made.model("roberta", tmp_path)
    reranker = CrossEncoder(folder, device="host", max_length=64)
    assert (reranker.num_labels, reranker.max_length, reranker.device, reranker.target) == (1, 64, "host", "h17s")
    documents = ["the cat sat on the mat", "a dog ran", "fire and water", ""]
    scores = reranker.predict([("is the cat on the mat", document) for document in documents])
    assert scores.shape == (4,) and scores.dtype == np.float32
    one = reranker.predict(("is the cat on the mat", documents[0]))
    assert one.shape == () and one == scores[0]
    assert reranker.predict([]).shape == (0,)
    assert reranker.predict([["is the cat on the mat", documents[0]]], convert_to_numpy=False) == [scores[0]]
    ranked = reranker.rank("is the cat on the mat", documents, return_documents=True)
    assert [row["score"] for row in ranked] == sorted(scores.tolist(), reverse=True)
    assert all(row["text"] == documents[row["corpus_id"]] and row["score"] == scores[row["corpus_id"]] for row in ranked)
    assert reranker.rank("is the cat on the mat", documents, top_k=2) == [
        {key: row[key] for key in ("corpus_id", "score")} for row in ranked[:2]
    ]
    probable = CrossEncoder(folder, device="host", activation_fn="sigmoid").predict([("a", "dog"), ("x" * 9, "")])
    raw = reranker.predict([("a", "dog"), ("x" * 9, "")])
    np.testing.assert_allclose(probable, 1 / (1 + np.exp(-raw.astype(np.float64))), rtol=1e-6)
    np.testing.assert_array_equal(reranker.predict([("a", "dog")], activation_fn=lambda x: 2 * x), 2 * raw[:1])


def test_several_labels(tmp_path: Path) -> None:
    reranker = CrossEncoder(made.model("distilbert", tmp_path, classifier=3), device="host")
    scores = reranker.predict([("a cat", "a dog"), ("fire", "water")])
    assert scores.shape == (2, 3) and reranker.predict(("a cat", "a dog")).shape == (3,)
    powers = np.exp(scores.astype(np.float64))
    np.testing.assert_allclose(
        reranker.predict([("a cat", "a dog"), ("fire", "water")], apply_softmax=True),
        powers / powers.sum(1, keepdims=True),
        rtol=1e-5,
    )
    with pytest.raises(ValueError, match="rank: the model has 3 labels, and ranks need one; use predict"):
        reranker.rank("a cat", ["a dog"])


def test_what_is_no_pair_is_told(tmp_path: Path) -> None:
    reranker = CrossEncoder(made.model("bert", tmp_path), device="host")
    for given, said in (
        ("cat", "predict: sentences must be a pair of texts or a sequence of pairs, got str"),
        (3, "predict: sentences must be a pair of texts or a sequence of pairs, got int"),
        ([("a", "b"), "cd"], "predict: sentences must be pairs of texts, got 'cd' at 1"),
        ([("a", "b", "c")], r"predict: sentences must be pairs of texts, got \('a', 'b', 'c'\) at 0"),
        ([("a", 1)], "predict: sentences must be pairs of texts"),
    ):
        with pytest.raises(TypeError, match=said):
            reranker.predict(given)
    with pytest.raises(TypeError, match="rank: query must be a str, got list"):
        reranker.rank(["cat"], ["dog"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rank: documents must be a str or a sequence of str, got str"):
        reranker.rank("cat", "dog")
    with pytest.raises(TypeError, match="activation_fn must be None, 'sigmoid' or a function, got 'relu'"):
        reranker.predict([("a", "b")], activation_fn="relu")
    with pytest.raises(ValueError, match="have no head that scores pairs"):
        CrossEncoder(TINY, device="host")
