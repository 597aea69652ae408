"""The interface of the library sentence-transformers, for its users: the same classes and arguments, on the engine or the host.

    from aneforge.sentence_transformers import SentenceTransformer
    model = SentenceTransformer("path/to/all-MiniLM-L6-v2")
    vectors = model.encode(["a cat on a mat", "stock prices fell"])
    print(model.similarity(vectors, vectors))

Arguments that choose how PyTorch works there (`batch_size`, `device` of `encode`) are taken and change nothing: batches are
formed by length, and results do not depend on them.
"""

from aneforge._reranker import CrossEncoder
from aneforge._sentences import SentenceTransformer
from aneforge._similarity import cos_sim, dot_score, euclidean_sim, manhattan_sim

__all__ = ["CrossEncoder", "SentenceTransformer", "cos_sim", "dot_score", "euclidean_sim", "manhattan_sim"]
