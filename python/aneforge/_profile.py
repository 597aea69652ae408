"""Where the time of a call goes."""

from __future__ import annotations

import json
import os
from os import PathLike
from pathlib import Path
from typing import Any

from aneforge import _native
from aneforge._operand import within


class Profile:
    """The steps of a model and how long they take: medians of several calls.

    Prints as a table, and shows as a picture in notebooks.
    """

    def __init__(self, table: str, trace: str, svg: str) -> None:
        self._table, self._trace, self._svg = table, trace, svg
        events = json.loads(trace)
        self.device: str = events["otherData"]["device"]
        """The device that ran them."""
        self.calls: int = events["otherData"]["calls"]
        """Calls that were measured."""
        self.roof: dict[str, float] | None = events["otherData"]["roof"]
        """What the machine can do at most, measured: `gflop_per_s` and `gb_per_s`."""
        self.steps: list[dict[str, Any]] = [
            {"segment": e["tid"], "name": e["name"], "us": e["dur"], **e["args"]} for e in events["traceEvents"]
        ]
        """In the order in which they run: `segment`, `name` (ops joined by `+`), `us`, `result` (its type), `flops`,
        `bytes`, `gflop_per_s`, `gb_per_s`, and `of_roof`: the least time that the machine allows over the time."""

    @property
    def us(self) -> float:
        """Microseconds of all steps."""
        return float(sum(step["us"] for step in self.steps))

    def to_trace(self) -> dict[str, Any]:
        """The format of Chrome's trace events, for Perfetto and `chrome://tracing`."""
        trace: dict[str, Any] = json.loads(self._trace)
        return trace

    def to_svg(self) -> str:
        """A picture: a bar per step, the dark part the least that it could take on this machine."""
        return self._svg

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the trace to a `.json`, the picture to an `.svg`, the table to a `.txt` file.

        A file that is there is replaced as a whole. Raises ValueError for another ending, OSError where it cannot be
        written.
        """
        texts = {".json": self._trace, ".svg": self._svg, ".txt": self._table}
        target = Path(path)
        if target.suffix not in texts:
            raise ValueError(f"profile: a file ends in {', '.join(texts)}, got {target.name!r}")
        _native.write_text(os.fspath(path), texts[target.suffix])

    def __str__(self) -> str:
        return self._table

    def __repr__(self) -> str:
        return f"Profile({len(self.steps)} steps, {self.us:.1f} us, medians of {self.calls} calls, device {self.device})"

    def _repr_svg_(self) -> str:
        return self._svg


def profile_model(self: Any, /, *arrays: Any, calls: int = 20, **named: Any) -> Profile:
    """Runs the model on these arrays, as a call does, and measures every step.

    Args:
        arrays: one array per input; without any, what was fed last.
        calls: how many calls the medians are of.

    Raises:
        ValueError: a wrong number of arrays, a wrong shape, or no calls.
    """
    calls = within("profile: calls", calls)
    if arrays or named:
        self._call(arrays, named)
    return Profile(*_native.profile(self, calls))
