"""What is said of a graph without running it: what it may cost, and where it may lose precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aneforge import _native
from aneforge._blame import some, warn
from aneforge._native import Tensor

FLOOR_US = 63.3
"""Time of an empty program on an M5 Pro, in microseconds."""

MOST_NOTICES = 3
"""How many nodes `compile` warns of, each for itself, that a chip computes in its own way."""


class PrecisionWarning(UserWarning):
    """A sum or a difference of the graph may lose precision in half-precision arithmetic."""


class DispatchFloorWarning(UserWarning):
    """The program is so small that starting it on the engine takes most of its time."""


class CrossChipFP16Warning(UserWarning):
    """A program may compute other values on another chip."""


def estimate(out: Tensor | Sequence[Tensor], int8: bool = False, target: str | None = None) -> float:
    """Microseconds that `out` may take on the engine, from shapes alone.

    Without `target` by a model fitted to an M5 Pro, which ranks ways to write a program; with one by a roofline
    scaled from the nearest chip that was measured. See `estimate_provenance`. Neither replaces a measurement: of 68
    graphs that were measured on an M1, the roofline is off by more than 31 % for half, and one community report has
    each cut between programs at 720 us, where the first model has 75.6.

    Args:
        out: the result, or several.
        int8: count weights of products in eight bits.
        target: a chip such as `"h13"`.
    """
    some("estimate", out)
    return _native.estimate(out, int8, target)


def estimate_provenance(target: str) -> dict[str, Any]:
    """Where `estimate(..., target=target)` comes from: `target`, `anchor`, `measured` and `basis`."""
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
    if (on_engine or target is not None) and (cost := _native.estimate(out)) <= 1.5 * FLOOR_US:
        message = (
            f"compile: the program may take {cost:.0f} us, and starting one takes {FLOOR_US} us; "
            "use larger batches or fewer, longer programs"
        )
        warn(message, DispatchFloorWarning)
