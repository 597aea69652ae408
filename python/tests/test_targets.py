"""Chips, families, and what is said of a graph for one of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType

import aneforge as af
import numpy as np
import pytest
from aneforge import targets
from aneforge.targets import Family

X = af.input((2, 8))


def conv(height: int, width: int, size: int = 40) -> af.Tensor:
    return af.conv(af.input((1, 1, size, size)), np.ones((1, 1, height, width), np.float32))


def test_families_and_chips() -> None:
    assert {f.name: int(f) for f in Family} == {"OLDER": 1, "A13": 2, "A14": 3, "A15": 4, "A16": 5}
    assert [targets.supports_mil(f) for f in Family] == [False, True, True, True, True]
    assert targets.MIN_FAMILY is Family.A13
    of = {f: [c.name for c in targets.CHIPS if c.family is f] for f in Family}
    assert of[Family.A14] == ["h14", "h14g", "h14c"] and len(targets.CHIPS) == 27
    assert len(of[Family.A16]) == 13 and of[Family.A16][-2:] == ["h18p", "h19p"]
    assert all("family before" in c.note and c.cores is None for c in targets.CHIPS[-2:])
    for name, family in [("h13g", 2), (" M1 ", 2), ("t1", 2), ("M2", 3), ("a14", 3), ("m11", 4), ("H17S", 5), ("a17", 5), ("h11", 1)]:
        assert af.arch_family(name) is Family(family), name
    for error in (KeyError, ValueError):
        with pytest.raises(error, match="^arch_family: unknown target 'u1'; known are m1 to m5"):
            af.arch_family("u1")
    for chip in ("h18p", "h19p", "h16c"):
        with pytest.warns(af.DispatchFloorWarning):
            assert af.compile(X.softmax(), target=chip, device="host").target == chip


def test_limits_floors_and_streams() -> None:
    table = {
        "max_tensor_dim": (16384, 16384, 16384, 65536),
        "channel_extent": (65536, 65536, 65536, 65536),
        "transpose_extent": (8388607, 8388607, 8388607, 16777215),
        "conv_kw_max": (13, 13, 13, 15),
        "reduction_transpose_extent": (192, 192, 384, 384),
        "conv_kh_max": (29, 32, 32, 32),
    }
    for name, want in table.items():
        assert tuple(targets.limit(name, family) for family in (2, "h14", Family.A15, "M5")) == want, name
    with pytest.raises(ValueError, match="limit: OLDER runs no programs"):
        targets.limit("conv_kw_max", 1)
    with pytest.raises(KeyError, match="unknown limit 'nope'; known are max_tensor_dim"):
        targets.limit("nope", 2)
    assert [targets.op_status("sin", f) for f in Family] == ["reject", "decompose", "decompose", "native", "native"]
    assert [targets.op_status("resample", f) for f in Family] == ["reject", "reject", "native", "native", "native"]
    assert [targets.has_texture_engine(f) for f in Family] == [False, False, True, True, True]
    assert [sorted(af.native_streams(f)) for f in Family] == [
        [], ["int4", "sparse"], ["int4", "int8", "sparse"], *[["blockwise", "int4", "int8", "sparse"]] * 2,
    ]
    for wrong, error, said in [
        (6, ValueError, "native_streams: families are numbered from 1"),
        ("z", KeyError, "native_streams: unknown target 'z'"),
        (2.0, TypeError, "native_streams: family must be"),
        (True, TypeError, "native_streams: family must be"),
    ]:
        with pytest.raises(error, match=said):
            af.native_streams(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "a", "b", "begin", "max_abs", "want"),
    [
        ("slice", 2, 5, (0, 1), None, "saturation"),
        ("slice", 5, 3, (0, 1), 4096.0, "saturation"),
        ("crop", 3, 4, (2,), None, "saturation"),
        ("slice", 2, 5, (0, 1), 4094.0, "none"),
        ("slice", 2, 5, (1, 0), None, "none"),
        ("slice", 2, 5, None, None, "none"),
        ("slice", 2, 5, (), None, "none"),
        ("slice", 2, 3, (1,), None, "none"),
        ("slice", 4, 5, (1,), None, "none"),
        ("reduce_sum", 2, 4, None, None, "ulp1"),
        ("square_variance", 3, 5, None, None, "ulp1"),
        ("softmax", 2, 3, None, None, "none"),
        ("matmul", 2, 5, None, None, "none"),
    ],
)
def test_divergence(
    kind: str, a: int, b: int, begin: tuple[int, ...] | None, max_abs: float | None, want: str
) -> None:
    assert targets.predict_fp16_divergence(kind, (2, 8), a, b, begin=begin, max_abs=max_abs) == want
    assert targets.FP16_SLICE_SAT == targets.Q4_X16_SAT == 4094.0 == 65504 / 16


def test_preflight() -> None:
    older = [False, False, False, True]
    cases: list[tuple[af.Tensor, list[bool]]] = [
        (af.input((1, 20000)).relu(), older),
        (af.input((1, 65536, 1, 1)).relu(), [True] * 4),
        (af.input((2**20, 2)).transpose((1, 0)), [True] * 4),
        (af.input((1, 32, 130, 130)).group_norm(np.ones(32), np.zeros(32), 1), older),
        (af.input((1, 640, 64, 64)).group_norm(np.ones(640), np.zeros(640), 32), [True] * 4),
        (conv(1, 14), older),
        (conv(30, 1), [False, True, True, True]),
        (X.sin(), [True] * 4),
        (X.sin().argmax(), [True] * 4),
    ]
    for at, (y, want) in enumerate(cases):
        assert [af.preflight(y, family).ok for family in list(Family)[1:]] == want, at
        assert not af.preflight(y, "h11").ok
    report = af.preflight([X.sin() @ np.ones((8, 3), np.float32)], "M1")
    assert report.family is Family.A13 and report.ok
    assert [n.op for n in report.native] == ["input", "matmul"] and [n.op for n in report.decompose] == ["sin"]
    [node, _] = af.preflight(af.input((1, 20000)).relu(), 2).oversize
    assert (node.op, node.shape, node.status, node.oversize) == ("input", (1, 20000), "native", True)
    assert "axis 1 of [1, 20000] is above the 16384 that A13 allows" in node.why and __file__ in node.at
    assert [n.op for n in af.preflight(af.topk(X, 2), "h13").reject] == ["topk"]


@pytest.mark.parametrize(
    ("brand", "family", "said"),
    [
        ("Apple M1 Ultra", Family.A13, None),
        ("Apple M2 Pro", Family.A14, None),
        ("Apple M3", Family.A15, None),
        ("Apple M4", Family.A16, None),
        ("Apple M5 Max", Family.A16, None),
        ("Apple M6", Family.A16, "M6 is newer than the chips that are known, M1 to M5, and is taken for A16"),
        ("Intel(R) Core(TM) i7-8700B CPU @ 3.20GHz", Family.A16, None),
        ("", Family.A16, None),
    ],
)
def test_the_family_of_this_machine(
    brand: str, family: Family, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANEFORGE_TARGET", raising=False)
    monkeypatch.setattr(targets, "_brand", lambda: brand)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert af.detect_family() is family
    assert [str(w.message).removeprefix("detect_family: ").partition(";")[0] for w in caught] == ([said] if said else [])
    monkeypatch.setenv("ANEFORGE_TARGET", "h14c")
    assert af.detect_family() is Family.A14
    monkeypatch.setenv("ANEFORGE_TARGET", "h99")
    with pytest.raises(ValueError, match="ANEFORGE_TARGET: unknown target `h99`"):
        af.detect_family()


def test_the_brand_is_read_on_macs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    read = targets._brand.__wrapped__
    asked: list[list[str]] = []

    class Answer:
        stdout = "Apple M2\n"

    def run(command: list[str], **_: object) -> Answer:
        asked.append(command)
        return Answer()

    def missing(*_: object, **__: object) -> Answer:
        raise FileNotFoundError("sysctl")

    monkeypatch.setattr(targets.subprocess, "run", run)
    monkeypatch.setattr(targets.sys, "platform", "linux")
    assert read() == "" and asked == []
    monkeypatch.setattr(targets.sys, "platform", "darwin")
    assert read() == "Apple M2" and asked == [["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]]
    monkeypatch.setattr(targets.subprocess, "run", missing)
    assert read() == ""


def warned(work: Callable[[], object]) -> list[tuple[str, str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    assert all(w.filename == __file__ for w in caught)
    return [(w.category.__name__, str(w.message)) for w in caught]


def test_compiling_for_a_named_chip_warns_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANEFORGE_TARGET", raising=False)
    slices = X[:, 1:5]
    floor, saturates = "DispatchFloorWarning", "UserWarning"

    def names(y: af.Tensor, target: str | None) -> list[str]:
        return [name for name, _ in warned(lambda: af.compile(y, target=target, device="host"))]

    assert names(slices, None) == []
    assert names(slices, "h17s") == [floor]
    assert names(slices, "h13") == names(slices, "h15") == [saturates, floor]
    assert names(X[:, :4], "h13") == names(X[1:], "h13") == [floor]
    assert names(af.input((2, 8), max_abs=4000.0)[:, 1:5], "h13") == [floor]
    assert names(af.input((1, 4096)) @ np.ones((4096, 4096), np.float32), "h13") == []
    said = warned(lambda: af.compile(slices, target="h13", device="host"))[0][1]
    assert "slice_by_size" in said and "A13 saturates: magnitudes above 4094 become infinite" in said
    both = af.concat([af.input((2, 8), max_abs=1.0)[:, 1:5], af.input((2, 8), max_abs=1.0)[:, 2:5]], 1)
    [(_, said), _] = warned(lambda: af.compile(both, target="h15", device="host"))
    assert "joins 2 slices" in said and "wrong elements" in said
    many = af.stack([X[:, i : i + 2] for i in range(1, 6)], 0)
    told = warned(lambda: af.compile(many, target="h14", device="host"))
    assert "stack joins 5 slices" in told[0][1] and "slice_by_size" in told[1][1]
    assert told[3][1] == "compile: the same, or the like, at 3 more places"
    monkeypatch.setenv("ANEFORGE_TARGET", "h14")
    assert names(slices, None) == [saturates, floor]
    with pytest.warns(af.PrecisionWarning, match="may lose precision"):
        af.compile(af.input((4, 1024)).sum(1), target="h13", device="host")


def test_cross_compile_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANEFORGE_TARGET", raising=False)
    monkeypatch.setattr(targets, "_brand", lambda: "")

    def check(y: af.Tensor, target: Family | int | str) -> tuple[bool, list[tuple[str, str]]]:
        result: list[bool] = []
        caught = warned(lambda: result.append(af.cross_compile_check(y, target)))
        return result[0], caught

    assert check(X.relu(), "h13") == check(X.relu(), 3) == check(X.relu(), "a15") == (True, [])
    # The reference refuses sine before A15, which it writes with other ops only when it compiles.
    assert check(X.sin(), "h13") == (True, [])
    ok, [(name, said)] = check(X[:, 1:5].softmax(), "h14")
    assert ok and name == "CrossChipFP16Warning"
    assert "saturation" in said and "ulp1" in said and "between A16, at hand, and A14" in said
    assert check(X[:, 1:5].softmax(), "h17")[1] == []
    monkeypatch.setenv("ANEFORGE_TARGET", "h13g")
    assert check(X[:, 1:5].softmax(), "h14")[1] == []
    monkeypatch.delenv("ANEFORGE_TARGET")
    for y, target, said in [
        (af.topk(X, 2), "h13", "topk: A13 does not compute it"),
        (af.input((1, 20000)).relu(), Family.A14, "does not compile for A14: input: axis 1 of [1, 20000] is above"),
        (X.relu(), "h11", "OLDER runs no MIL program"),
        (X.relu(), 1, "OLDER runs no MIL program"),
        # Too long for any program, which is found by compiling.
        (af.input((2**20, 2)).transpose((1, 0)), "h17s", "is above the 65536 that MIL allows"),
    ]:
        ok, [(name, text)] = check(y, target)
        assert not ok and name == "UserWarning" and said in text, text
    with pytest.raises(ValueError, match="cross_compile_check: unknown target 'h99'"):
        af.cross_compile_check(X.relu(), "h99")
    with pytest.raises(TypeError, match="cross_compile_check: int8 must be True or False"):
        af.cross_compile_check(X.relu(), "h13", int8="yes")  # type: ignore[arg-type]
    assert af.cross_compile_check(X @ np.ones((8, 4), np.float32), "h17s", int8=True)


def test_the_module_is_public() -> None:
    assert isinstance(af.targets, ModuleType)
    assert all(hasattr(targets, name) for name in targets.__all__)
