"""Every public name of ANEForge 0.4.0 outside training, importers, models and toolkits, with its signature."""

from __future__ import annotations

import inspect
from typing import Any

import aneforge as af
import pytest
from aneforge import Tensor

EMPTY = inspect.Parameter.empty

FUNCTIONS: dict[str, dict[str, Any]] = {
    # Inputs, convolutions, norms, combinations.
    "input": {"shape": EMPTY, "dtype": "fp16", "max_abs": None},
    "image_input": {"shape": EMPTY, "scale": 1 / 255, "bias": 0.0},
    "conv": {"x": EMPTY, "weight": EMPTY, "stride": 1, "pad": 0, "dilation": 1, "groups": 1, "bias": None},
    "dynamic_conv": {"x": EMPTY, "weight": EMPTY, "stride": 1, "pad": 0, "dilation": 1, "groups": 1},
    "conv_transpose": {
        "x": EMPTY, "weight": EMPTY, "stride": 1, "pad": 0, "dilation": 1, "groups": 1, "bias": None,
    },
    "batch_norm": {"x": EMPTY, "gamma": EMPTY, "beta": EMPTY, "mean": EMPTY, "var": EMPTY, "eps": 1e-5},
    "instance_norm": {"x": EMPTY, "gamma": EMPTY, "beta": EMPTY, "eps": 1e-5},
    "local_response_norm": {"x": EMPTY, "size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0},
    "maximum": {"a": EMPTY, "b": EMPTY},
    "minimum": {"a": EMPTY, "b": EMPTY},
    "concat": {"tensors": EMPTY, "axis": 1},
    "stack": {"tensors": EMPTY, "axis": 0},
    "split": {"x": EMPTY, "num_splits": EMPTY, "axis": 0},
    "select": {"cond": EMPTY, "a": EMPTY, "b": EMPTY},
    "where": {"cond": EMPTY, "a": EMPTY, "b": EMPTY},
    "gather": {"x": EMPTY, "indices": EMPTY, "axis": 0},
    "einsum_native": {"equation": EMPTY, "a": EMPTY, "b": EMPTY},
    # Spatial and layout functions.
    "pixel_shuffle": {"x": EMPTY, "r": EMPTY},
    "pixel_unshuffle": {"x": EMPTY, "r": EMPTY},
    "depth_to_space": {"x": EMPTY, "block_size": 2},
    "space_to_depth": {"x": EMPTY, "block_size": 2},
    "channel_to_space": {"x": EMPTY, "r": EMPTY},
    "space_to_channel": {"x": EMPTY, "r": EMPTY},
    "space_to_batch": {"x": EMPTY, "bh": EMPTY, "bw": EMPTY},
    "batch_to_space": {"x": EMPTY, "bh": EMPTY, "bw": EMPTY},
    "crop": {"x": EMPTY, "top": EMPTY, "bottom": EMPTY, "left": EMPTY, "right": EMPTY},
    "resize_nearest_neighbor": {"x": EMPTY, "target_h": EMPTY, "target_w": EMPTY},
    "resize_bilinear": {"x": EMPTY, "target_h": EMPTY, "target_w": EMPTY, "align_corners": False},
    "upsample_bilinear": {"x": EMPTY, "scale": 2, "align_corners": False},
    "affine": {"x": EMPTY, "transform": EMPTY, "output_h": EMPTY, "output_w": EMPTY, "align_corners": False},
    "flatten": {"x": EMPTY, "start_dim": None, "end_dim": None},
    "input_view": {"x": EMPTY, "offset": EMPTY, "size": EMPTY},
    "dynamic_slice": {"x": EMPTY, "start": EMPTY, "size": 2},
    # Ranking, geometry, norms, attention.
    "topk": {"x": EMPTY, "k": EMPTY, "largest": True},
    "sort": {"x": EMPTY, "descending": False, "return_indices": False},
    "cross_product": {"a": EMPTY, "b": EMPTY},
    "cross_correlation": {"x": EMPTY, "template": EMPTY},
    "cost_volume": {"aux": EMPTY, "ref": EMPTY, "disparity_range": 1},
    "fps": {"points": EMPTY, "k": EMPTY},
    "radius_search": {"points": EMPTY, "centroids": EMPTY, "radius": EMPTY},
    "minmax_norm": {"x": EMPTY, "dimension": "Width", "eps": 1e-4},
    "lrn": {"x": EMPTY, "alpha": 1.0, "beta": 0.75, "k": 1.0},
    "scaled_elementwise": {"x": EMPTY, "z": EMPTY, "op": "Add", "scale": 1.0},
    "sdpa": {"q": EMPTY, "k": EMPTY, "v": EMPTY, "scale": None, "is_causal": False, "attn_mask": None},
    # Composites.
    "mha": {
        "x": EMPTY, "Wq": EMPTY, "bq": EMPTY, "Wk": EMPTY, "bk": EMPTY, "Wv": EMPTY, "bv": EMPTY, "Wo": EMPTY,
        "bo": EMPTY, "n_heads": EMPTY, "mask": None,
    },
    "cross_attention": {
        "x": EMPTY, "context": EMPTY, "Wq": EMPTY, "Wk": EMPTY, "Wv": EMPTY, "Wo": EMPTY, "n_heads": EMPTY,
        "bq": None, "bk": None, "bv": None, "bo": None,
    },
    "geglu": {"x": EMPTY, "W": EMPTY, "b": EMPTY},
    "attention_tiles": {
        "S": EMPTY, "n_heads": EMPTY, "dh": EMPTY, "T": None, "tune": False,
        "candidates": (1, 2, 3, 4, 5, 6, 8),
    },
    "tune_attention": {
        "S": EMPTY, "n_heads": EMPTY, "dh": EMPTY, "T": None, "candidates": (1, 2, 3, 4, 5, 6, 8),
    },
    # Compiling, costs, extended precision: sections 8 and 9.
    "compile": {
        "out": EMPTY, "int8": False, "build_dir": None, "opt": "routes", "compress": None,
        "compress_atol": 0.05, "block_size": 32, "validate": False, "target": None,
    },
    "estimate": {"out": EMPTY, "int8": False, "target": None},
    "estimate_provenance": {"target": EMPTY},
    "project_peak": {"arch": EMPTY},
    "precision_risk": {"out": EMPTY, "verbose": False},
    "reduce_sum_to_matmul": {"out": EMPTY, "only_idx": None},
    "tune": {
        "out": EMPTY, "budget": 8, "inputs": None, "prune_factor": 1.5, "reps": 20, "atol": 5e-3,
        "min_lossy_speedup": 1.10, "verbose": False, "target_error": None,
    },
    "tune_precision": {
        "out": EMPTY, "target_error": None, "cost_budget_us": None, "inputs": None, "reps": 20,
        "verbose": False,
    },
    "paired": {"hi": EMPTY, "lo": None},
    "paired_subtract": {"a": EMPTY, "b": EMPTY},
    "reset_compile_breaker": {},
    # The catalog.
    "op_info": {"name": EMPTY},
    "device_status": {"name": EMPTY, "chip": "m1"},
    "is_native": {"name": EMPTY, "chip": "m1"},
    "ops_on": {"chip": "m1", "status": "native"},
    "min_native_family": {"name": EMPTY},
    "walled_everywhere": {},
    "categories": {},
}

UNARY = """relu gelu silu sigmoid tanh exp sqrt abs square sin cos erf softplus relu6 softsign atan exp2 floor ceil
round sign logical_not""".split()

METHODS: dict[str, dict[str, Any]] = {
    **{name: {} for name in UNARY},
    **{name: {"eps": 0.0} for name in ("log", "rsqrt", "inverse")},
    "elu": {"alpha": 1.0},
    "leaky_relu": {"alpha": 0.01},
    "clip": {"lo": EMPTY, "hi": EMPTY},
    "clamp": {"lo": EMPTY, "hi": EMPTY},
    "scaled_tanh": {"alpha": 1.0, "beta": 1.0},
    "threshold": {"alpha": 0.0},
    "thresholded_relu": {"alpha": 1.0},
    "clamped_relu": {"alpha": 0.0, "beta": 6.0},
    "sigmoid_hard": {"alpha": 0.2, "beta": 0.5},
    "linear_activation": {"alpha": 1.0, "beta": 0.0},
    "adds": {"k": EMPTY},
    "prelu": {"alpha": EMPTY},
    "linear": {"W": EMPTY, "bias": None},
    "bmm_weight": {"W": EMPTY},
    "transpose": {"perm": None, "more": EMPTY},
    "reshape": {"shape": EMPTY},
    "squeeze": {"axes": None},
    "expand_dims": {"axes": None},
    "flatten2d": {"axis": 1},
    "slice_by_size": {"begin": EMPTY, "size": EMPTY},
    "reverse": {"axes": None},
    "tile": {"reps": EMPTY},
    **{name: {"axes": None} for name in ("mean", "sum", "amax", "amin")},
    **{name: {"axes": None} for name in ("l1_norm", "log_sum", "sum_square", "reduce_log_sum_exp")},
    "cumsum": {"axis": -1},
    "softmax": {"axis": -1},
    "l2_norm": {"axis": -1, "eps": 1e-12},
    "argmax": {"axis": -1},
    "rms_norm": {"gamma": EMPTY, "eps": 1e-5},
    "layer_norm": {"gamma": EMPTY, "beta": EMPTY, "eps": 1e-5},
    "channel_layer_norm": {"gamma": EMPTY, "beta": EMPTY, "eps": 1e-5},
    "group_norm": {"gamma": EMPTY, "beta": EMPTY, "num_groups": EMPTY, "eps": 1e-5},
    "max_pool": {"k": EMPTY, "stride": None, "pad": 0, "ceil_mode": False},
    "avg_pool": {"k": EMPTY, "stride": None, "pad": 0, "ceil_mode": False, "exclude_pad": False},
    "upsample": {"scale": 2},
    "pow": {"exponent": EMPTY},
}
"""Section 3.2. The comparisons take `other`; the reference writes `o`. Axes may be left out; the reference insists."""

CLASSES = """Tensor Model SegmentedModel Paired CompileBackoffError PrecisionWarning DispatchFloorWarning
CrossChipFP16Warning""".split()


def parameters(function: Any) -> dict[str, Any]:
    """Names and defaults, without `self` and what this package adds as keywords."""
    listed = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in listed if p.kind is not p.KEYWORD_ONLY and p.name != "self"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    assert parameters(getattr(af, name)) == FUNCTIONS[name]
    assert name in af.__all__ and getattr(af, name).__doc__


@pytest.mark.parametrize("name", METHODS)
def test_method(name: str) -> None:
    assert parameters(getattr(Tensor, name)) == METHODS[name]
    assert getattr(Tensor, name).__doc__


@pytest.mark.parametrize("name", ["greater", "less", "equal", "not_equal", "less_equal", "greater_equal"])
def test_comparison(name: str) -> None:
    assert len(parameters(getattr(Tensor, name))) == 1


def test_classes_and_data() -> None:
    for name in CLASSES:
        assert inspect.isclass(getattr(af, name)), name
    assert len(af.OP_CATALOG) == 187
    assert issubclass(af.CompileBackoffError, RuntimeError)
    for warning in (af.PrecisionWarning, af.DispatchFloorWarning, af.CrossChipFP16Warning):
        assert issubclass(warning, UserWarning)


@pytest.mark.parametrize("name", ["input_view", "output_view", "execute", "release", "n_ops"])
def test_models(name: str) -> None:
    assert hasattr(af.Model, name) and hasattr(af.SegmentedModel, name)
