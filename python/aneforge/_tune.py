"""Choosing among ways to compile a graph, by measuring them on the device that models run on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from aneforge import _env, _judge, _native
from aneforge._compile import compile
from aneforge._native import Model, Tensor
from aneforge._operand import within

if TYPE_CHECKING:
    from numpy.typing import NDArray

Feeds: TypeAlias = "Sequence[NDArray[Any]]"


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
    *,
    device: str | None = None,
) -> Model:
    """The fastest correct way to compile `out`, measured on the device that it then runs on.

    Tried are native layers kept, and written out; then, on top of the cheaper of these, weights in bytes (`int8`) and chains of
    scalars as one (`scalarfold`), which lose precision. A way whose results are further than `atol` from the first's never
    wins. What was found for a graph of the same structure on this machine and device before is taken from the cache, in
    `ANEFORGE_CACHE_DIR`, without measuring, unless it loses precision: how much depends on the weights.

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
        device: where to measure and run; see `compile`.
    """
    if device is not None and not isinstance(device, str):
        raise TypeError(f"tune: device must be a string, got {type(device).__name__}")
    if target_error is not None:
        if device is not None:
            raise ValueError("tune: target_error measures on the default device; set ANEFORGE_DEVICE instead")
        return tune_precision(out, target_error, inputs=inputs, reps=reps, verbose=verbose)[0]
    reps = within("tune: reps", reps)
    search = (within("tune: budget", budget), atol, prune_factor, min_lossy_speedup)
    place = _env.bench(reps)
    if device is not None:
        place["device"] = device
    native, int8, folded = _native.tune(out, inputs, place, search, print if verbose else None)
    return compile(out, int8=int8, opt=0 if native else "routes", fold_scalars=folded, device=device)


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
