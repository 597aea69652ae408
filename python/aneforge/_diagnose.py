"""What half precision and an engine's arithmetic do to a model."""

from __future__ import annotations

import json
import math
import os
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

from aneforge import _native


class Diagnosis:
    """Every node of a model in half precision, with the published behaviour of a family of chips, against double precision.

    Prints as a table of the nodes in trouble, and shows as a page in notebooks. None of it has run on an engine.
    """

    def __init__(self, data: str, table: str, page: str) -> None:
        self._json, self._table, self._page = data, table, page
        found = json.loads(data)
        self.target: str = found["target"]
        """The chip it was compiled for."""
        self.numerics: str = found["numerics"]
        """The arithmetic it was computed with."""
        self.tolerance: float = found["tolerance"]
        """The relative error that was allowed."""
        self.safe: bool = found["safe"]
        """Whether no result has an error beyond the tolerance, and no node a trouble but such an error, which then did not reach
        the results."""
        self.outputs: list[float] = [math.inf if error is None else error for error in found["outputs"]]
        """The relative error of each result against the graph as written, in double precision."""
        self.nodes: list[dict[str, Any]] = found["nodes"]
        """Every node in order: `op`, `at` (the line that built it), `type`, `largest` magnitude, relative `error`,
        `narrow_error` (of a sum that is accumulated in half precision) and `troubles`, each with `trouble`, `values` and
        `remedy`."""
        self.notes: list[dict[str, Any]] = found["notes"]
        """What the structure, declared bounds and constants say without any data."""
        self.seconds: list[float] = found["seconds"]
        """How long the half-precision run took, and the double-precision one."""

    @property
    def troubled(self) -> list[dict[str, Any]]:
        """Nodes with troubles, in order."""
        return [node for node in self.nodes if node["troubles"]]

    @property
    def first(self) -> dict[str, Any] | None:
        """The first node with a trouble."""
        return next(iter(self.troubled), None)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        data: dict[str, Any] = json.loads(self._json)
        return data

    def to_html(self) -> str:
        """One page that stands alone: the errors as a curve over the nodes, and the table."""
        return self._page

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the page to an `.html`, the data to a `.json`, the table to a `.txt` file.

        A file that is there is replaced as a whole. Raises ValueError for another ending, OSError where it cannot be
        written.
        """
        texts = {".html": self._page, ".json": self._json, ".txt": self._table}
        target = Path(path)
        if target.suffix not in texts:
            raise ValueError(f"diagnose: a file ends in {', '.join(texts)}, got {target.name!r}")
        _native.write_text(os.fspath(path), texts[target.suffix])

    def __str__(self) -> str:
        return self._table

    def __repr__(self) -> str:
        count = len(self.troubled)
        trouble = f"{count} node{'' if count == 1 else 's'} in trouble" if count else "results differ"
        return f"Diagnosis({self.target}, {'safe' if self.safe else trouble})"

    def _repr_html_(self) -> str:
        return self._page


class Departures:
    """Settings of the arithmetic on the same inputs: where each parts from the model's own, and how far its results are.

    Prints as a table. None of it has run on an engine.
    """

    def __init__(self, data: str, table: str) -> None:
        found = json.loads(data)
        self._table = table
        self.baseline: str = found["baseline"]
        """The model's own setting."""
        self.settings: list[dict[str, Any]] = found["settings"]
        """For each other: `numerics`, `chips` that compute so as far as is published, `first` (the first node whose bits are others:
        `segment`, `op`, `at`, `type`, `values`, `difference`; or None), how many `nodes` differ, and `outputs`, the largest difference
        of each result by the largest magnitude (None is infinite)."""

    def __str__(self) -> str:
        return self._table

    def __repr__(self) -> str:
        same = sum(setting["first"] is None for setting in self.settings)
        return f"Departures({self.baseline}, {same} of {len(self.settings)} settings the same)"


class AllChips:
    """A model on every chip: whether it is safe there, how long it is estimated to take, and whether the engine is the place
    for it.

    Prints as a table. Estimates order chips; they are no measurements.
    """

    def __init__(self, data: str, table: str) -> None:
        found = json.loads(data)
        self._table = table
        self.chips: list[dict[str, Any]] = found["chips"]
        """For each: `target`, `family`, `verdict` (`safe`, `risky` or `refused`), `why`, `estimate_us`, and
        `estimate`, all of it as `estimate_report` (None for chips that are known by name only)."""
        self.host_us: float | None = found["host_us"]
        """Microseconds of a call on this machine's processor, a median."""
        self.place: str = found["place"]
        """Whether the engine is the right place, in a sentence."""

    def __str__(self) -> str:
        return self._table

    def __repr__(self) -> str:
        safe = sum(chip["verdict"] == "safe" for chip in self.chips)
        return f"AllChips(safe on {safe} of {len(self.chips)})"


def _tolerance(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"diagnose: tolerance must be a number, got {type(value).__name__}")
    if not value > 0:
        raise ValueError(f"diagnose: tolerance must be greater than 0, got {value}")
    return float(value)


def diagnose_model(
    self: Any,
    /,
    *arrays: Any,
    target: str | None = None,
    numerics: str | None = None,
    tolerance: float = 1e-2,
    **named: Any,
) -> Diagnosis:
    """Computes every node twice, in half precision as a chip of this family would, and in double precision.

    It finds saturations, overflows, results that are not a number, whole numbers that are lost, sums that need a wide
    accumulator, and the first node whose relative error exceeds the tolerance: by the line that built it, with a remedy where
    one is known.

    Args:
        arrays: one array per input, as in a call; without any, only what structure, constants and the bounds that inputs
            declare (`max_abs`) say is told, in `notes`.
        target: the chip to compile for and whose arithmetic to follow; by default that of the model.
        numerics: the arithmetic to follow, as for `compile`: `"faithful"` is all that is published of the chip's; by default that
            of the model.
        tolerance: the relative error that is allowed: the largest difference by the largest magnitude of a node.

    Raises:
        ValueError: a wrong number of arrays, a wrong shape, or another target for a model that was read from a file.
    """
    if target is not None and not isinstance(target, str):
        raise TypeError(f"diagnose: target must be a string, got {type(target).__name__}")
    if numerics is not None and not isinstance(numerics, str):
        raise TypeError(f"diagnose: numerics must be a string, got {type(numerics).__name__}")
    return Diagnosis(*_native.diagnose(self, arrays, named, target, numerics, _tolerance(tolerance)))


def diagnose_all_chips(self: Any, /, *arrays: Any, tolerance: float = 1e-2, **named: Any) -> AllChips:
    """Diagnoses the model for every family of chips, and estimates its time on every chip.

    Args:
        arrays: one array per input, as in a call.
        tolerance: the relative error that is allowed.
    """
    return AllChips(*_native.diagnose_all_chips(self, arrays, named, _tolerance(tolerance)))


def diff_numerics(self: Any, /, *arrays: Any, **named: Any) -> Departures:
    """Says where settings of the arithmetic part on these arrays: the first node whose bits are others, how far, and on which chips.

    Compares `ieee`, and of each family what costs nothing (`ane`) and all that is published (`faithful`), with the model's own setting.

    Args:
        arrays: one array per input, as in a call.

    Raises:
        ValueError: a wrong number of arrays or a wrong shape.
    """
    return Departures(*_native.diff_numerics(self, arrays, named))
