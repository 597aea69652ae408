"""What a call costs from Python: through the engine's interface, on a stand-in whose runs compute nothing.

`ANEFORGE_STANDIN=execute=nothing ANEFORGE_ENGINE_LIBRARY=target/release/libaneforge_standin.so python benches/calls.py` prints
medians and tenths, in microseconds, of two ports of 64 values.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import aneforge as af
import numpy as np

BATCHES, CALLS = 100, 2000


def measure(name: str, call: Callable[[], object]) -> None:
    for _ in range(CALLS):
        call()
    times = []
    for _ in range(BATCHES):
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            call()
        times.append((time.perf_counter_ns() - start) / CALLS / 1e3)
    times.sort()
    tenths = [round(times[BATCHES // 10], 3), round(times[BATCHES * 9 // 10], 3)]
    print(json.dumps({"call": name, "median_us": round(statistics.median(times), 3), "tenths_us": tenths}))


def main() -> None:
    model = af.compile(af.input((64,)) * 2, device="ane")
    fed, got = model.input_view(), model.output_view()
    values = np.ones(64, np.float16)

    def whole() -> None:
        fed[:] = values
        model.execute()
        got[0]

    measure("model.execute()", model.execute)
    measure("fill a view, model.execute(), look at a view", whole)
    measure("model(array)", lambda: model(values))


if __name__ == "__main__":
    main()
