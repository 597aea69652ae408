"""Pretrained models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike

from aneforge import _env, _native
from aneforge._compile import _form
from aneforge._native import Encoder
from aneforge._operand import within


def load(
    name: str | PathLike[str],
    int8: bool = False,
    pooling: str | None = None,
    *,
    target: str | None = None,
    device: str | None = None,
    numerics: str | None = None,
    sums: str | None = None,
    isa: str | None = None,
    threads: int | None = None,
    compress: str | None = None,
    compress_atol: float = 0.05,
    calibrate: Sequence[str] | None = None,
    max_seq_length: int | None = None,
) -> Encoder:
    """Loads a sentence encoder; call it with texts.

    Families: BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, MPNet, ModernBERT, Nomic and GTE, by `model_type` in
    `config.json`.

    Args:
        name: a directory in the layout of transformers or sentence-transformers, or a hub id.
        int8: whether the weights of the layers are stored as bytes with a scale per row, in half the memory.
        pooling: how token states become one vector: `"mean"`, `"cls"` or `"max"`; by default what the
            model's own files say, and the mean where they say nothing.
        target: the chip to compile for; see `compile`.
        device: the device to run on; see `compile`.
        numerics, sums, isa, threads: how the host computes; see `compile`.
        compress: the form in which the weights of the layers are stored, such as `"int4"`; see `compile`.
        compress_atol: the largest relative error; see `compile`.
        calibrate: with `compress` or `int8`, texts like those that are to be encoded: weights are chosen by what they are
            multiplied with in these. Some hundred sentences of all kinds take half a minute.
        max_seq_length: the most tokens of a text; by default what the model's own files say, and never more than it has
            positions.

    Raises:
        FileNotFoundError: there is no such directory, and no such model on the hub.
        ValueError: a file of the model is not what it should be, or `pooling` is unknown.
    """
    if calibrate is not None and isinstance(calibrate, str):
        raise TypeError("load: calibrate must be a list of texts, got str")
    form = _form(False, compress, compress_atol, 32)
    return _native.load(
        os.fspath(name),
        bool(int8),
        pooling,
        **_env.placed(target, device, numerics, sums, isa, threads),
        offline=_env.offline(),
        compress=form,
        calibrate=calibrate,
        max_seq_length=None if max_seq_length is None else within("load: max_seq_length", max_seq_length),
    )
