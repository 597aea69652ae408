"""What is said of a graph without running it: what it may cost, and where it may lose precision."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aneforge import _native
from aneforge._blame import some, warn
from aneforge._native import Tensor

MOST_NOTICES = 3
"""How many nodes `compile` warns of, each for itself, that a chip computes in its own way."""


class PrecisionWarning(UserWarning):
    """A sum or a difference of the graph may lose precision in half-precision arithmetic."""


class DispatchFloorWarning(UserWarning):
    """The program is so small that starting it on the engine takes most of its time."""


class CrossChipFP16Warning(UserWarning):
    """A program may compute other values on another chip."""


def estimate(
    out: Tensor | Sequence[Tensor],
    int8: bool = False,
    target: str | None = None,
    *,
    model: str = "measured",
) -> float:
    """Microseconds that a call of `out` may take on the engine, from shapes and the forms of weights alone.

    By default from what was measured of an M1, an M2 Pro and an M5 Pro: of the 80 graphs that it was fitted to, every one within
    1.4 times, of others up to 1.96; other chips are scaled. `estimate_report` says how far it may be off and where the time goes. `model="package"` is ANEForge's own
    formula: without `target` one fitted to an M5 Pro, which ranks ways to write a program (`tune` and `compile(opt=1)` go by it),
    with one a roofline scaled from the nearest chip. None of them replaces a measurement.

    Args:
        out: the result, or several.
        int8: count weights of products that are stored in full as bytes.
        target: a chip such as `"h13"`; by default the M5 Pro.
        model: `"measured"` or `"package"`.
    """
    some("estimate", out)
    if model == "package":
        return _native.estimate(out, int8, target)
    if model != "measured":
        raise ValueError(f'estimate: model must be "measured" or "package", got {model!r}')
    microseconds: float = json.loads(_native.estimate_report(out, int8, target))["microseconds"]
    return microseconds


def estimate_report(
    out: Tensor | Sequence[Tensor], int8: bool = False, target: str | None = None
) -> dict[str, Any]:
    """What a call of `out` may cost, how far that may be off, and whether the engine is the place for it.

    The keys: `microseconds` of a call among others, the least of many; `low` and `high`, between which it should be;
    `millijoules`, and `energy_band`, the factor by which they may be off; `cold_us`, what a call after some seconds without one
    may take more; `programs`; `measured`, whether the chip and every term was; `terms`, the microseconds by what they are spent
    on; `place`, the fastest of `engine`, `cpu` and `gpu`; `least_energy`, the same for energy, or None; `why`, a sentence; and
    `target`.

    Args:
        out: the result, or several.
        int8: count weights of products that are stored in full as bytes.
        target: a chip such as `"h13"`; by default the M5 Pro.
    """
    some("estimate_report", out)
    report: dict[str, Any] = json.loads(_native.estimate_report(out, int8, target))
    return report


def estimate_provenance(target: str) -> dict[str, Any]:
    """Where `estimate(..., target=target, model="package")` comes from: `target`, `anchor`, `measured` and `basis`."""
    return _native.estimate_provenance(target)


def project_peak(arch: str) -> dict[str, float]:
    """A chip's ceiling: `tflops`, `rel_m1` (in units of an M1), `cores` and `ghz`.

    Measured speed-ups end to end are about half of what ceilings promise.
    """
    return _native.project_peak(arch)


def precision_risk(out: Tensor | Sequence[Tensor], verbose: bool = False) -> dict[str, Any]:
    """Where `out` may lose precision, judged from its structure: `graph_error`, `nodes` and `hotspots`.

    The judgement is pessimistic: it takes sums as accumulated in half precision. Each node has `idx`, `op`,
    `kind`, `est_error`, `fixable` and `reason`.

    Args:
        out: the result, or several.
        verbose: print one line per node.
    """
    some("precision_risk", out)
    report = _native.precision_risk(out)
    if verbose:
        for node in report["nodes"]:
            print(f"{node['kind']}: {node['op']} {node['reason']}, error up to {node['est_error']:.2g}")
    return report


def signal(
    out: Tensor | Sequence[Tensor],
    validate: bool,
    on_engine: bool = False,
    norms: str = "auto",
    target: str | None = None,
) -> None:
    """What `compile` says of a graph before it compiles it, for a chip if one is named, with norms written in this way."""
    report = _native.precision_risk(out)
    hotspots = list(report["hotspots"])
    if norms == "plain":
        hotspots += [node for node in report["nodes"] if node["kind"] == "plain_norm"]
    if norms == "robust":
        hotspots = [node for node in hotspots if node["kind"] != "lost_eps"]
    if hotspots:
        said = "; ".join(f"{h['op']} {h['reason']}: {h['fixable']}" for h in hotspots[:3])
        places = "1 place" if len(hotspots) == 1 else f"{len(hotspots)} places"
        message = f"compile: {places} may lose precision: {said}"
        if validate:
            raise ValueError(message)
        warn(message, PrecisionWarning)
    notices = _native.notices(out, target)
    for notice in notices[:MOST_NOTICES]:
        warn(f"compile: {notice}")
    if len(notices) > MOST_NOTICES:
        warn(f"compile: the same, or the like, at {len(notices) - MOST_NOTICES} more places")
    if on_engine or target is not None:
        small(out, target)


def small(out: Tensor | Sequence[Tensor], target: str | None) -> None:
    """Warns of a program that is mostly its start: on the chip, or on an M5 Pro where nothing is known of it."""
    try:
        report = json.loads(_native.estimate_report(out, False, target))
    except ValueError:
        report = json.loads(_native.estimate_report(out))
    took, floor = report["microseconds"], report["terms"]["floor"]
    if took <= 1.5 * floor:
        message = (
            f"compile: the program may take {took:.0f} us on {report['target']}, and starting one takes {floor:.0f} us; "
            "use larger batches or fewer, longer programs"
        )
        warn(message, DispatchFloorWarning)
