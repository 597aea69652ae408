"""Choosing among ways to compile a graph, by measuring them on the device that models run on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

from aneforge import _env, _judge, _native
from aneforge._compile import compile
from aneforge._native import Model, Tensor
from aneforge._operand import within

Feeds: TypeAlias = Sequence[NDArray[Any]]


def tune(
    out: Tensor,
    budget: int = 8,
    inputs: Feeds | None = None,
    prune_factor: float = 1.5,
    reps: int = 20,
    atol: float = 5e-3,
    min_lossy_speedup: float = 1.10,
    verbose: bool = False,
    target_error: float | None = None,
) -> Model:
    """The fastest correct way to compile `out`, measured on the device that models run on.

    Tried are native layers kept, and written out. What was found for a graph of the same structure on this
    machine before is taken from the cache, in `ANEFORGE_CACHE_DIR`, without measuring.

    Args:
        out: the result.
        budget: how many ways are measured at most.
        inputs: arrays to measure with; by default random ones.
        prune_factor: ways with a loss of precision are skipped beyond this multiple of the least estimate.
        reps: calls per way; the least time counts.
        atol: how far results may be from the first way's, in units of the largest.
        min_lossy_speedup: how much faster a way with a loss of precision must be.
        verbose: print one line per way.
        target_error: choose by precision instead, with `tune_precision`.
    """
    if target_error is not None:
        return tune_precision(out, target_error, inputs=inputs, reps=reps, verbose=verbose)[0]
    reps = within("tune: reps", reps)
    search = (within("tune: budget", budget), atol, prune_factor, min_lossy_speedup)
    native = _native.tune(out, inputs, _env.bench(reps), search, print if verbose else None)
    return compile(out, opt=0 if native else "routes")


def tune_precision(
    out: Tensor,
    target_error: float | None = None,
    cost_budget_us: float | None = None,
    inputs: Feeds | None = None,
    reps: int = 20,
    verbose: bool = False,
) -> tuple[Model, dict[str, Any]]:
    """The cheapest way to compile `out` that is precise enough, and a report of all.

    Tried are the graph as it is, and with its long sums as products with ones. Errors are measured against
    the graph in double precision.

    Args:
        out: the result.
        target_error: the relative error to stay within; the cheapest such way wins, else the most precise.
        cost_budget_us: the estimated time to stay within; the most precise such way wins.
        inputs: arrays to measure with; by default random ones.
        reps: calls per way; the least time counts.
        verbose: print one line per way.

    Returns:
        The model, and a report with `rows`, `risk`, `chosen`, `reason`, `ref_available` and `ref_kind`.
    """
    reps = within("tune_precision: reps", reps)
    goal = (target_error, cost_budget_us)
    best, report = _native.tune_precision(out, inputs, _env.bench(reps), *goal, print if verbose else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _judge.PrecisionWarning)
        return compile(best), report
