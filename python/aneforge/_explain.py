"""Why a program is what it is."""

from __future__ import annotations

import json
from typing import Any

from aneforge import _native


class Explanation:
    """What each stage of compiling a model did and refused to do, and why. Prints as text."""

    def __init__(self, data: str, text: str) -> None:
        self._text = text
        told = json.loads(data)
        self.target: str = told["target"]
        """The chip it was compiled for."""
        self.stages: list[dict[str, Any]] = told["stages"]
        """For each stage its name (`stage`), the `nodes` after it, and `events`, each with `rule`, `node` (its op and the line that
        built it), `refused` (why, or None if it fired) and `said` (what it did, where its name does not say it)."""
        self.estimate: dict[str, Any] | None = told["estimate"]
        """What a call may cost, as `estimate_report`; None for chips that are known by name only."""
        self.ways: list[dict[str, Any]] = told["ways"]
        """The ways to compile it: `name`, `estimate_us` by ANEForge's formula, `lossy`, `taken`, and `refused`, why it is not taken
        without measuring, or None."""
        self.weights: list[dict[str, Any]] = told["weights"]
        """With `compress`, as `weight_report`."""
        self.segments: list[dict[str, Any]] = told["segments"]
        """Of each program its `weight_bytes`, and of a native layer its kind (`layer`) and the line `at` which it was built."""
        self.most_bytes: int = told["most_bytes"]
        """The longest weight file that one program may have."""
        self.notices: list[dict[str, Any]] = told["notices"]
        """What the chip does in its own way."""

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        events = [event for stage in self.stages for event in stage["events"]]
        refused = sum(event["refused"] is not None for event in events)
        return f"<Explanation for {self.target}: {len(events) - refused} rules fired, {refused} refused>"


def explain_model(self: Any) -> Explanation:
    """Why the program is what it is: the rules that fired or refused at each node, with their reasons and the lines that built
    the nodes; the ways to compile it and what ANEForge's formula says of each; what a call may cost; its weights; and where it is cut.

    Compiles again, which takes as long as `compile`. Raises ValueError for a model that was loaded: how it was compiled
    is not kept.
    """
    return Explanation(*_native.explain(self))
