"""Pretrained models, under the module's name in ANEForge."""

from aneforge._encoder import load
from aneforge._native import Encoder
from aneforge._reranker import CrossEncoder
from aneforge._sentences import SentenceTransformer

__all__ = ["CrossEncoder", "Encoder", "SentenceTransformer", "load"]
