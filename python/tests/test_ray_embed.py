"""A corpus embedded by workers of Ray Data, of which one is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import aneforge as af
import made
import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import dataset, feather, parquet

EXAMPLE = made.ROOT / "examples" / "ray_embed.py"
MODEL = made.MODELS / "tiny-bert"
WORDS = "the cat dog bird sat on mat ran in house".split()


def corpus(folder: Path, kind: str, count: int = 150) -> dict[int, str]:
    """Three files with texts of all lengths; what is in them."""
    folder.mkdir()
    rng, all = np.random.default_rng(0), {}
    for shard in range(3):
        texts = [" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(count)]
        ids = [1000 * shard + at for at in range(count)]
        all.update(zip(ids, texts, strict=True))
        table = arrow.table({"id": ids, "text": texts})
        write = parquet.write_table if kind == "parquet" else feather.write_feather
        write(table, folder / f"{shard}.{kind}")
    return all


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.run([sys.executable, str(EXAMPLE), *words], env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(("kind", "falls"), [("parquet", True), ("arrow", False)])
def test_no_row_is_lost_or_doubled(kind: str, falls: bool, tmp_path: Path) -> None:
    texts = corpus(tmp_path / "corpus", kind)
    out, fall = tmp_path / "out", tmp_path / "fall"
    words = [str(MODEL), str(tmp_path / "corpus"), str(out), "--id", "id", "--batch", "16"]
    if falls:
        fall.touch()
        words += ["--fall", str(fall)]
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not fall.exists() and f"450 rows in {out}" in done.stdout and "2 workers: " in done.stdout
    made_here = dataset.dataset(out).to_table()
    ids = made_here["id"].to_pylist()
    assert sorted(ids) == sorted(texts) and [texts[id] for id in ids] == made_here["text"].to_pylist()
    want = af.load(MODEL)([texts[id] for id in ids])
    got = np.stack(made_here["vector"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(got, want, atol=2e-3)
    assert not out.with_name("out.part").exists()


def test_what_is_no_corpus_is_told(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = run(tmp_path, str(MODEL), str(tmp_path / "none"), str(tmp_path / "out"))
    assert done.returncode == 1 and "has no .parquet, .arrow or .feather files" in done.stderr
    corpus(tmp_path / "corpus", "parquet", 3)
    done = run(tmp_path, str(MODEL), str(tmp_path / "corpus"), str(tmp_path / "out"), "--text", "words")
    assert done.returncode == 1 and "has no column `words`; its columns are id, text" in done.stderr
