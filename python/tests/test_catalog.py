"""The catalog of MIL's ops, against the totals and patterns of the reference."""

from __future__ import annotations

import aneforge as af
import pytest

FIRST_A14 = """argsort topk affine crop_resize resample resize resize_bilinear resize_nearest_neighbor
upsample_bilinear upsample_nearest_neighbor gather_nd""".split()
# `constexpr_sparse_to_dense` is native from A13 on, measured on M1; the reference has it here.
FIRST_A15 = """random_uniform constexpr_blockwise_shift_scale constexpr_sparse_blockwise_shift_scale
reduce_argmin sin cos""".split()
# Without `non_maximum_suppression`, which does not run on the engine, where the reference has 131, 21 and 35.
NEWEST = (130, 22, 35)


@pytest.mark.parametrize(
    ("chip", "totals"), [("m1", (113, 34, 40)), ("m2", (124, 28, 35)), ("m3", NEWEST), ("m5", NEWEST)]
)
def test_totals(chip: str, totals: tuple[int, int, int]) -> None:
    assert tuple(len(af.ops_on(chip, status)) for status in ("native", "bridge", "walled")) == totals


def test_records() -> None:
    assert len(af.OP_CATALOG) == 187 and len(af.categories()) == 14
    info = af.op_info("matmul")
    assert info is not None
    assert set(info) == {"category", "m1", "m2", "m3", "m4_m5", "kernel", "mil_status", "note"}
    assert info["kernel"] == "Matmul" and info["m1"] == "native"
    info["m1"] = "changed"
    assert af.is_native("matmul")
    assert af.op_info("nope") is None and af.device_status("nope") is None
    assert len(af.walled_everywhere()) == 35 and "lstm" in af.walled_everywhere()


def test_first_families() -> None:
    first = {name: af.min_native_family(name) for name in af.OP_CATALOG}
    assert sorted(name for name, family in first.items() if family == 3) == sorted(FIRST_A14)
    assert sorted(name for name, family in first.items() if family == 4) == sorted(FIRST_A15)
    assert sum(family is None for family in first.values()) == 57
    assert af.min_native_family("nope") is None


def test_chips_are_known_by_any_name() -> None:
    assert af.device_status("sin", "h13g") == af.device_status("sin", "M1") == "bridge"
    assert af.device_status("sin", "h17s") == af.device_status("sin", "a17") == "native"
    with pytest.raises(ValueError, match="chip `m9x` is unknown"):
        af.device_status("sin", "m9x")
    with pytest.raises(ValueError, match="runs no MIL program"):
        af.is_native("sin", "h11")
    with pytest.raises(ValueError, match="status must be"):
        af.ops_on("m1", "maybe")
