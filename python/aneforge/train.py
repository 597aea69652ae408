"""What training has beside `af.Trainer`: schedules, dropout, low-rank corrections."""

from __future__ import annotations

from aneforge._native import Noise
from aneforge._trainer import Shuffled, cosine, linear, steps

__all__ = ["Noise", "Shuffled", "cosine", "linear", "steps"]
