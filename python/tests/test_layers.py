"""Native layers: public signatures, the cut, property lists read by an independent reader, and limits."""

from __future__ import annotations

import plistlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
import pytest
from aneforge import Tensor

def image(*shape: int) -> Tensor:
    return af.input(shape)


def test_cut_programs_are_segmented_models() -> None:
    x = image(2, 12)
    y = x.relu()
    model = af.compile(af.topk(y, 5) + af.sort(y)[:, :5], device="host")
    assert isinstance(model, af.SegmentedModel)
    assert (model.n_netplist, model.n_sdpa, model.n_ops) == (2, 2, 3)
    values = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float16)
    ordered = np.sort(np.maximum(values, 0), axis=1).astype(np.float32)
    want = (ordered[:, ::-1][:, :5] + ordered[:, :5]).astype(np.float16)
    np.testing.assert_array_equal(model(values), want.astype(np.float32))
    model.input_view()[...] = -values
    model.execute()
    ordered = np.sort(np.maximum(-values, 0), axis=1).astype(np.float32)
    want = (ordered[:, ::-1][:, :5] + ordered[:, :5]).astype(np.float16)
    np.testing.assert_array_equal(model.output_view(), want)
    model.release()
    with pytest.raises(RuntimeError, match="released"):
        model(values)


def test_layers_with_a_fused_route_are_cut_only_when_asked() -> None:
    x = image(1, 2, 4, 6)
    values = np.random.default_rng(1).normal(size=(1, 2, 4, 6))
    y = af.minmax_norm(x)
    fused, native = af.compile(y, device="host"), af.compile(y, opt=0, device="host")
    assert not isinstance(fused, af.SegmentedModel) and fused.n_ops == 6
    assert isinstance(native, af.SegmentedModel) and native.n_ops == 0
    np.testing.assert_array_equal(fused(values), native(values))


@pytest.mark.parametrize("masked", [False, True])
def test_attention_agrees_with_numpy_within_the_native_regime_and_beyond(masked: bool) -> None:
    rng = np.random.default_rng(2)
    for queries, keys in [(9, 9), (5, 700), (600, 600)]:
        q, k, v = (rng.normal(size=(1, 2, n, 8)).astype(np.float16) for n in (queries, keys, keys))
        mask = np.where(rng.random((1, 1, queries, keys)) < 0.7, 0, -1e4).astype(np.float16)
        tensors = [af.input(a.shape) for a in (q, k, v)]
        y = af.sdpa(*tensors, attn_mask=mask if masked else None)
        scores = q.astype(float) @ k.astype(float).swapaxes(2, 3) / np.sqrt(8) + (mask if masked else 0.0)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        want = p / p.sum(-1, keepdims=True) @ v.astype(float)
        assert y.op == ("sdpa" if min(queries, keys) < 512 else "concat" if queries >= 768 else "bmm")
        for opt in ("routes", 0):
            got = af.compile(y, opt=opt, device="host")(q, k, v)
            np.testing.assert_allclose(got, want, atol=6e-3)


def test_causal_attention_hides_later_keys() -> None:
    x = np.random.default_rng(3).normal(size=(1, 1, 6, 4)).astype(np.float16)
    t = af.input(x.shape)
    model = af.compile(af.sdpa(t, t, t, is_causal=True), device="host")
    assert isinstance(model, af.SegmentedModel) and model.n_netplist == 1
    changed = x.copy()
    changed[:, :, 4:] = 9
    np.testing.assert_array_equal(model(x)[:, :, :4], model(changed)[:, :, :4])
    assert model.n_ops == 0


DOCUMENTS: dict[str, Callable[[], Tensor]] = {
    "sdpa": lambda: af.sdpa(image(1, 2, 3, 8), image(1, 2, 5, 8), image(1, 2, 5, 8)),
    "topk": lambda: af.topk(image(2, 9), 5, largest=False),
    "sort": lambda: af.sort(image(2, 9), descending=True, return_indices=True),
    "radius_search": lambda: af.radius_search(image(4, 3), image(2, 3), 0.5),
    "dynamic_slice": lambda: af.dynamic_slice(image(4), 1),
    "minmax_norm": lambda: af.minmax_norm(image(1, 2, 3, 4), "Height"),
    "space_to_batch": lambda: af.space_to_batch(image(1, 2, 4, 6), 2, 3),
    "scaled_elementwise": lambda: af.scaled_elementwise(image(4), image(4), "Max", 0.125),
}


def document(y: Tensor, folder: Path) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """The property list of a layer as Python reads it, its network, and its folder."""
    af.compile(y, opt=0, device="host", build_dir=folder)
    [path] = folder.rglob("net.plist")
    root = plistlib.loads(path.read_bytes())
    [name] = root["Networks"]
    return root, root[name], path.parent


@pytest.mark.parametrize("name", DOCUMENTS)
def test_property_lists_hold_together(name: str, tmp_path: Path) -> None:
    root, network, folder = document(DOCUMENTS[name](), tmp_path)
    [procedure] = root["ProcedureList"]
    [unit_name] = network["Units"]
    unit = network[unit_name]
    assert root["Version"] == "1.0.10"
    assert procedure["OperationList"] == [{"NetworkName": root["Networks"][0], "OperationName": "op0"}]
    assert procedure["Name"] == root["Networks"][0].replace("network_", "procedure_")
    [output] = procedure["OutputList"]
    assert (output["Name"], output["OutputName"]) == (unit_name, "y")
    assert network["y"]["Bottom"] == unit_name
    fed = [entry["InputName"] for entry in procedure["InputList"]]
    constants = network.get("Constants", [])
    assert sorted(unit["Bottom"]) == sorted(fed + constants)
    assert len(unit["InputType"]) == len(unit["Bottom"])
    assert all(entry["Name"] == unit_name and entry["InputDepth"] == 1 for entry in procedure["InputList"])
    assert network["Weights"][0] == "weights.0"
    for file in network["Weights"]:
        assert (folder / file).exists()
    for constant in constants:
        entry = network[constant]
        data = (folder / network["Weights"][entry["ConstantIndex"]]).read_bytes()
        assert len(data) == 2


def test_property_lists_say_what_the_reference_says(tmp_path: Path) -> None:
    def parts(name: str) -> tuple[dict[str, Any], dict[str, Any], list[Any], Path]:
        root, network, folder = document(DOCUMENTS[name](), tmp_path / name)
        return network["op-1"], root["ProcedureList"][0]["OutputList"][0], root["ProcedureList"][0]["InputList"], folder

    unit, output, inputs, folder = parts("sdpa")
    assert unit["Bottom"] == ["query", "key", "value", "scale"] and unit["Params"] == {"SubtractMax": True}
    assert (unit["OutputChannels"], output["OutputChannels"]) == (5, 3)
    extents = [(i["InputChannels"], i["InputHeight"], i["InputWidth"]) for i in inputs]
    assert extents == [(3, 2, 8), (5, 2, 8), (5, 2, 8)]
    scale = np.frombuffer((folder / "weights.1").read_bytes(), np.float16)
    assert scale == np.float16(1 / np.sqrt(8))

    unit, _, inputs, _ = parts("topk")
    assert unit["Params"] == {
        "Type": "Min", "K": 5, "SortDimension": "Width", "VectorDimension": "Channel", "SortIndices": [0],
    }
    assert (inputs[0]["InputChannels"], inputs[0]["InputWidth"]) == (1, 9)
    assert parts("sort")[0]["Params"]["Indices"] is True
    assert parts("radius_search")[0]["Bottom"] == ["centroids", "points"]
    assert parts("minmax_norm")[0]["Params"] == {"Dimension": "Height", "Epsilon": 0x068E}
    assert parts("space_to_batch")[0]["Params"] == {"FactorX": 3, "FactorY": 2, "FactorZ": 1}
    assert parts("scaled_elementwise")[0]["Params"] == {"Type": "Max", "Scale": 12288}
    unit, _, _, folder = parts("dynamic_slice")
    assert unit["InputType"] == ["Float16", "UInt16"] and "OutputChannels" not in unit
    assert (folder / "weights.1").read_bytes() == b"\x01\x00"


REFUSED: list[tuple[type[Exception], str, Callable[[], object]]] = [
    (ValueError, "topk: the engine's compiler fails for k = 3", lambda: af.topk(image(2, 8), 3)),
    (ValueError, "topk: k must be from 1 to the 8", lambda: af.topk(image(2, 8), 9)),
    (ValueError, "topk: x must have two axes", lambda: af.topk(image(8), 2)),
    (TypeError, "topk: k must be an integer", lambda: af.topk(image(2, 8), 2.0)),
    (ValueError, "argmax: x must have two axes", lambda: image(2, 3, 4).argmax()),
    (ValueError, "sort: x must have two axes", lambda: af.sort(image(4))),
    (ValueError, "cross_product: b must have 3 elements", lambda: af.cross_product(image(3), image(4))),
    (ValueError, "larger than the map", lambda: af.cross_correlation(image(3, 3), image(4, 2))),
    (ValueError, "template width 16 is above 15", lambda: af.cross_correlation(image(3, 30), image(1, 16))),
    (ValueError, "disparity_range must be at least 0", lambda: af.cost_volume(image(4), image(9), -1)),
    (ValueError, "needs 4 \\+ 2", lambda: af.cost_volume(image(4), image(5), 2)),
    (ValueError, "fps: points must be", lambda: af.fps(image(4, 2), 2)),
    (ValueError, "beyond the engine's 1024 of 8192", lambda: af.fps(image(9000, 3), 4)),
    (ValueError, "fps: k must be from 1", lambda: af.fps(image(4, 3), 5)),
    (ValueError, "radius must be above 0", lambda: af.radius_search(image(4, 3), image(2, 3), 0.0)),
    (ValueError, 'dimension must be "Width" or "Height"', lambda: af.minmax_norm(image(1, 2, 3, 4), "Channel")),
    (ValueError, "one image at a time", lambda: af.space_to_channel(image(2, 1, 2, 2), 2)),
    (ValueError, "height of 3 does not divide", lambda: af.space_to_batch(image(1, 1, 3, 4), 2, 2)),
    (ValueError, "batch of 3 does not divide", lambda: af.batch_to_space(image(3, 1, 1, 1), 2, 2)),
    (ValueError, "channels of 6 does not divide", lambda: af.channel_to_space(image(1, 6, 1, 1), 2)),
    (ValueError, "flatten: x must be \\[C, H, W\\]", lambda: af.flatten(image(2, 3))),
    (ValueError, "outside the 6 elements", lambda: af.input_view(image(2, 3), 4, 3)),
    (ValueError, "2 of 4 elements only", lambda: af.dynamic_slice(image(5), 0)),
    (ValueError, "start must be from 0 to 2", lambda: af.dynamic_slice(image(4), 3)),
    (ValueError, "op must be Add", lambda: af.scaled_elementwise(image(4), image(4), "Sub")),
    (ValueError, "ignores the scale of Mult", lambda: af.scaled_elementwise(image(4), image(4), "Mult", 2.0)),
    (ValueError, "sdpa: takes batch 1", lambda: af.sdpa(*[image(2, 1, 4, 4)] * 3)),
    (ValueError, "as many queries as keys", lambda: af.sdpa(image(1, 1, 3, 4), *[image(1, 1, 4, 4)] * 2, is_causal=True)),
    (ValueError, "not both", lambda: af.sdpa(*[image(1, 1, 4, 4)] * 3, is_causal=True, attn_mask=image(1, 1, 4, 4))),
    (ValueError, "mask must be \\[1, 1, 4, 4\\]", lambda: af.sdpa(*[image(1, 2, 4, 4)] * 3, attn_mask=image(1, 2, 4, 4))),
]


@pytest.mark.parametrize(("error", "message", "build"), REFUSED, ids=[m for _, m, _ in REFUSED])
def test_limits_are_named_where_the_layer_is_built(
    error: type[Exception], message: str, build: Callable[[], object]
) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("build", [lambda: af.topk(image(2, 8), 2), lambda: af.sort(image(2, 8))])
def test_families_below_the_floor_are_refused(build: Callable[[], Tensor]) -> None:
    with pytest.raises(NotImplementedError, match="needs A14 or newer; target h13 is A13"):
        af.compile(build(), target="h13", device="host")


def test_wide_templates_need_a16() -> None:
    y = af.cross_correlation(image(3, 30), image(1, 14))
    with pytest.raises(NotImplementedError, match="kernel width 14 is above the 13 that h14"):
        af.compile(y, target="h14", device="host")
    assert af.compile(y, target="h17s", device="host").output_shapes == [(3, 17)]
