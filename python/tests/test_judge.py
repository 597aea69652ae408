"""Estimates and precision risks."""

from __future__ import annotations

import warnings

import aneforge as af
import numpy as np
import pytest


def test_estimates() -> None:
    w = np.zeros((4096, 4096), np.float16)
    y = af.input((1, 4096)) @ w
    assert af.estimate(y, model="package") == pytest.approx(305.189, abs=1e-3)
    assert af.estimate(y, int8=True, model="package") == pytest.approx(121.652, abs=1e-3)
    assert af.estimate(y, target="h13", model="package") == pytest.approx(3950.09, abs=1e-2)
    # Measured: 293 us on an M5 Pro, 800 on an M1, where bytes gain nothing, and 431 in bytes on an M2 Pro.
    assert af.estimate(y) == af.estimate(y, target="h17s") == pytest.approx(296.4, abs=0.1)
    assert af.estimate(y, target="m1") == af.estimate(y, True, "m1") == pytest.approx(850.3, abs=0.1)
    assert af.estimate(y, int8=True, target="h14g") == pytest.approx(451.7, abs=0.1)
    with pytest.raises(ValueError, match='estimate: model must be "measured" or "package", got \'analytic\''):
        af.estimate(y, model="analytic")
    with pytest.raises(ValueError, match="unknown target `m77`"):
        af.estimate(y, target="m77")
    with pytest.raises(ValueError, match="no recorded clock"):
        af.estimate(y, target="h12")
    with pytest.raises(ValueError, match="target h18p has no recorded clock and cores"):
        af.estimate(y, target="h18p")
    for wrong in (1, "yes", None):
        with pytest.raises(TypeError, match="estimate: int8 must be True or False, got"):
            af.estimate(y, int8=wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="compile: int8 must be True or False, got"):
            af.compile(y, int8=wrong)  # type: ignore[arg-type]


def test_reports_of_estimates() -> None:
    y = af.input((1, 4096)) @ np.zeros((4096, 4096), np.float16)
    report = af.estimate_report(y, target="m1")
    assert report["microseconds"] == af.estimate(y, target="m1") == pytest.approx(sum(report["terms"].values()))
    assert report["low"] < report["microseconds"] < report["high"] and report["measured"]
    assert report["terms"]["weights"] > 0.7 * report["microseconds"] and report["terms"]["floor"] == 190
    assert (report["place"], report["least_energy"], report["target"]) == ("gpu", "gpu", "h13")
    assert report["why"].startswith("the engine is the wrong place, the gpu is better: ")
    assert 0.5 < report["millijoules"] < 2 and report["energy_band"] == 1.31
    assert report["cold_us"] == 260_000 and report["programs"] == 1
    assert not af.estimate_report(y, target="m3")["measured"]
    with pytest.raises(TypeError, match="estimate_report: int8 must be True or False, got int"):
        af.estimate_report(y, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="estimate_report: out is empty"):
        af.estimate_report([])


def test_peaks_and_provenance() -> None:
    assert af.project_peak("h13") == pytest.approx({"tflops": 1.8, "rel_m1": 1.0, "cores": 4, "ghz": 1.1424})
    # The M2 Pro that was measured is an h14g; the reference has it as h14.
    assert af.estimate_provenance("h15") == {
        "target": "h15", "anchor": "h14g", "measured": False, "basis": "extrapolated-from-h14g",
    }
    assert af.estimate_provenance("h17s")["basis"] == "silicon"


def test_long_sums_are_hotspots(capsys: pytest.CaptureFixture[str]) -> None:
    x = af.input((4, 1024))
    report = af.precision_risk(x.sum(1), verbose=True)
    [spot] = report["hotspots"]
    assert (spot["kind"], spot["fixable"]) == ("narrow_sum", "reduce_sum->matmul")
    assert report["graph_error"] == spot["est_error"] == pytest.approx(0.032)
    assert "reduce_sum sums 1024 values of input" in capsys.readouterr().out
    assert not af.precision_risk(x.relu().sum(1))["hotspots"]
    assert not af.precision_risk(x[:, :255].sum(1))["hotspots"]
    difference = af.precision_risk(x - x.relu())
    assert [n["kind"] for n in difference["nodes"]] == ["cancel_sub"] and not difference["hotspots"]


def test_compile_warns_or_refuses() -> None:
    y = af.input((4, 1024)).sum(1)
    with pytest.warns(af.PrecisionWarning, match="1 place may lose precision") as caught:
        af.compile(y, device="host")
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match="may lose precision"):
        af.compile(y, device="host", validate=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        af.compile(af.input((4, 4)).sum(1), device="host", validate=True)
