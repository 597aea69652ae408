"""One version of the package against another, in turns: what a change costs.

    python benches/paired.py BEFORE AFTER [--rounds 9] [--only TEXT] [--output FILE.json]

BEFORE and AFTER are folders that hold a package `aneforge` each, as `pip install --target FOLDER .` makes them. Every
round starts a process per version, in alternating order; each builds the same models, warms up, and reports the fastest
call: other work on the machine only ever adds time. The ratios are medians over rounds of AFTER to BEFORE in one round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path


def measure(only: str) -> dict[str, float]:
    """Microseconds per call of each model with `only` in its name, in this process."""
    import aneforge as af
    import numpy as np

    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.prod(shape[:-1]) ** 0.5).astype(np.float32)

    def encoder() -> tuple[af.Tensor, tuple[int, ...]]:
        x = h = af.input((128, 384))
        for _ in range(2):
            projections = [part for _ in range(4) for part in (weight(384, 384), np.zeros(384, "f4"))]
            h = (h + af.mha(h, *projections, n_heads=12)).layer_norm(np.ones(384, "f4"), np.zeros(384, "f4"))
            h = (h + ((h @ weight(384, 1536)).gelu() @ weight(1536, 384))).layer_norm(
                np.ones(384, "f4"), np.zeros(384, "f4")
            )
        return h, x.shape

    def convolutions() -> tuple[af.Tensor, tuple[int, ...]]:
        x = h = af.input((1, 3, 112, 112))
        for cin, cout, stride in [(3, 32, 2), (32, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]:
            kernel = weight(cin * 9, cout).T.reshape(cout, cin, 3, 3)
            h = af.conv(h, kernel, stride=stride, pad=1, bias=np.zeros(cout, "f4")).relu()
        return h.avg_pool(28), x.shape

    def elementwise(count: int) -> tuple[af.Tensor, tuple[int, ...]]:
        x = af.input((count >> 11, 1 << 11))
        return ((x * 1.5 + 0.25).sigmoid() * x - x / (x.abs() + 1.0)).tanh(), x.shape

    models = {
        "one op, 64 elements": (lambda x: (x.relu(), x.shape))(af.input((64,))),
        "elementwise, 16 thousand": elementwise(1 << 14),
        "elementwise, 4 million": elementwise(1 << 22),
        "product 64x64x64": (lambda x: (x @ weight(64, 64), x.shape))(af.input((64, 64))),
        "product 512x512x512": (lambda x: ((x @ weight(512, 512)).gelu(), x.shape))(af.input((512, 512))),
        "product 1x768x3072": (lambda x: (x @ weight(768, 3072), x.shape))(af.input((1, 768))),
        "encoder, 2 layers of 384, 128 tokens": encoder(),
        "5 convolutions, 112 pixels": convolutions(),
    }
    times = {}
    for name, (y, shape) in models.items():
        if only not in name:
            continue
        model = af.compile(y, device="host")
        feed = rng.normal(size=shape).astype(np.float32)
        until, spent = time.perf_counter() + 0.5, []
        for _ in range(3):
            model(feed)
        while time.perf_counter() < until or len(spent) < 5:
            start = time.perf_counter()
            model(feed)
            spent.append(time.perf_counter() - start)
        times[name] = min(spent) * 1e6
    return times


def child(folder: str, only: str) -> dict[str, float]:
    """What `measure` says with the package in `folder`."""
    environment = os.environ | {"PYTHONPATH": folder, "ANEFORGE_DEVICE": "host", "ANEFORGE_PAIRED": f"only {only}"}
    done = subprocess.run([sys.executable, __file__], env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Takes turns and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="models with this in their name")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rounds: list[dict[str, dict[str, float]]] = []
    for turn in range(args.rounds):
        order = ["before", "after"] if turn % 2 == 0 else ["after", "before"]
        rounds.append({side: child(getattr(args, side), args.only) for side in order})
        print(f"round {turn + 1} of {args.rounds}", file=sys.stderr)
    rows = {}
    for name in rounds[0]["before"]:
        before, after = ([r[side][name] for r in rounds] for side in ("before", "after"))
        ratios = sorted(a / b for a, b in zip(after, before, strict=True))
        rows[name] = {
            "before_us": statistics.median(before),
            "after_us": statistics.median(after),
            "ratio": statistics.median(ratios),
            "ratio_least": ratios[0],
            "ratio_most": ratios[-1],
        }
        print(
            f"{name:40} {rows[name]['before_us']:10.1f} us {rows[name]['after_us']:10.1f} us "
            f"{rows[name]['ratio']:6.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )
    if args.output:
        about = {"machine": platform.platform(), "cpus": os.cpu_count(), "rounds": args.rounds, "models": rows}
        args.output.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    if asked := os.environ.get("ANEFORGE_PAIRED"):
        print(json.dumps(measure(asked.removeprefix("only "))))
    else:
        main()
