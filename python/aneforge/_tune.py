"""Choosing among ways to compile a graph, by measuring them on the device that models run on."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aneforge import _autotune, _judge, _native
from aneforge._compile import compile
from aneforge._functions import reduce_sum_to_matmul
from aneforge._native import Model, Tensor

Feeds: TypeAlias = Sequence[NDArray[Any]]

_WARM_UPS = 5
_SEED = 0xA9E


@dataclass(frozen=True)
class Variant:
    """One way to compile a graph."""

    name: str
    out: Tensor
    opt: str | int
    lossy: bool

    @property
    def estimate(self) -> float:
        """Microseconds by the measured model."""
        return _native.estimate_route(self.out, self.opt != "routes")


def _routes(out: Tensor) -> list[Variant]:
    """With native layers kept, and written out where that can be."""
    native = Variant("native", out, 0, lossy=False)
    fused = Variant("fused", out, "routes", lossy=False)
    return [native, fused] if _native.has_routes(out) else [fused]


def _synthetic(out: Tensor) -> list[NDArray[Any]]:
    """Values for every input: normal, none of them close to zero, where functions have kinks."""
    rng = np.random.default_rng(_SEED)
    feeds: list[NDArray[Any]] = []
    for shape, dtype in _native.feeds(out):
        if dtype == "uint8":
            feeds.append(rng.integers(0, 256, shape, dtype=np.uint8))
            continue
        values = rng.standard_normal(shape)
        small = np.abs(values) < 0.25
        feeds.append(np.where(small, values + 0.5 * np.sign(values + 1e-6), values).astype(np.float16))
    return feeds


def _run(variant: Variant, feeds: Feeds, reps: int) -> tuple[NDArray[Any] | None, float]:
    """The result and the least time in microseconds; None and infinity when it does not compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _judge.PrecisionWarning)
        warnings.simplefilter("ignore", _judge.DispatchFloorWarning)
        try:
            model = compile(variant.out, opt=variant.opt)
        except (NotImplementedError, RuntimeError):
            return None, float("inf")
    for _ in range(_WARM_UPS):
        result = model(*feeds)
    times = []
    for _ in range(max(1, reps)):
        start = time.perf_counter()
        result = model(*feeds)
        times.append(time.perf_counter() - start)
    model.release()
    return np.asarray(result), 1e6 * min(times)


def _error(got: NDArray[Any], want: NDArray[Any], floor: float) -> float:
    """The largest difference in units of the largest value; infinite for NaN and other shapes."""
    if got.shape != want.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        error = float(np.max(np.abs(got - want), initial=0.0) / (np.max(np.abs(want), initial=0.0) + floor))
    return error if np.isfinite(error) else float("inf")


def _checked(out: Tensor, inputs: Feeds | None) -> list[NDArray[Any]]:
    return _synthetic(out) if inputs is None else [np.asarray(a) for a in inputs]


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
    variants = sorted(_routes(out), key=lambda v: (v.lossy, v.estimate))
    key = hashlib.sha256(_native.structure(out).encode()).hexdigest()[:32]
    stored = _autotune.stored().get(key)
    known = next((v for v in variants if isinstance(stored, dict) and stored.get("config") == v.name), None)
    if known is not None:
        return compile(known.out, opt=known.opt)
    feeds = _checked(out, inputs)
    best, best_time = None, float("inf")
    reference, baseline = None, float("inf")
    least = min(v.estimate for v in variants)
    for variant in variants[: max(1, budget)]:
        if variant.lossy and (reference is None or variant.estimate > prune_factor * least):
            continue
        result, taken = _run(variant, feeds, reps)
        if result is None:
            continue
        if reference is None:
            reference, baseline = result, taken
        error = _error(result, reference, 1e-6)
        if verbose:
            print(f"{variant.name}: {taken:.1f} us, error {error:.2g}, estimated {variant.estimate:.1f} us")
        fast = not variant.lossy or taken * min_lossy_speedup <= baseline
        if error <= atol and fast and taken < best_time:
            best, best_time = variant, taken
    if best is None:
        return compile(out)
    _autotune.store(key, {"config": best.name, "us": round(best_time, 1)})
    return compile(best.out, opt=best.opt)


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
    risk = _native.precision_risk(out)
    variants = [Variant("baseline", out, "routes", lossy=False)]
    if risk["hotspots"]:
        rewritten = out
        for spot in reversed(risk["hotspots"]):
            rewritten = reduce_sum_to_matmul(rewritten, spot["idx"])
        variants.append(Variant("reduce_sum->matmul", rewritten, "routes", lossy=False))
    feeds = _checked(out, inputs)
    want = _native.exact(out, [np.asarray(a, dtype=np.float64) for a in feeds])
    rows = []
    for variant in variants:
        result, taken = _run(variant, feeds, reps)
        error = float("inf") if result is None else _error(result, want, 1e-9)
        row = {"name": variant.name, "est_us": variant.estimate, "us": taken, "relerr": error}
        rows.append(row)
        if verbose:
            print(f"{variant.name}: {taken:.1f} us, error {error:.2g}, estimated {variant.estimate:.1f} us")
    chosen, reason = _choose(rows, target_error, cost_budget_us)
    report = {
        "rows": rows, "risk": risk, "chosen": rows[chosen]["name"], "reason": reason,
        "ref_available": True, "ref_kind": "fp64",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _judge.PrecisionWarning)
        return compile(variants[chosen].out), report


def _choose(rows: list[dict[str, Any]], target: float | None, budget: float | None) -> tuple[int, str]:
    """Which row wins, and why."""
    precise = min(range(len(rows)), key=lambda i: rows[i]["relerr"])
    if target is not None:
        enough = [i for i in range(len(rows)) if rows[i]["relerr"] <= target]
        if enough:
            return min(enough, key=lambda i: rows[i]["est_us"]), f"the cheapest within {target:g}"
        return precise, f"none is within {target:g}; the most precise"
    if budget is not None:
        cheap = [i for i in range(len(rows)) if rows[i]["est_us"] <= budget]
        if cheap:
            best = min(cheap, key=lambda i: rows[i]["relerr"])
            return best, f"the most precise within {budget:g} us"
        return precise, f"none is within {budget:g} us; the most precise"
    return precise, "the most precise"
