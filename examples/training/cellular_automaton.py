"""A neural cellular automaton that grows a picture from one cell.

    python examples/training/cellular_automaton.py [--steps 500] [--out stages]

Every cell holds a few numbers, of which the first three are its colour. In each round it sees the slopes of its surroundings, and one
small network, the same for all cells, says what is added to it. All rounds are one graph, and the gradient of the last picture goes
back through all of them. With `--out` the stages are written there as PNG files. The score is the root of the mean square by which
the grown picture is off, where colours are from 0 to 1.
"""

from __future__ import annotations

import argparse
import struct
import zlib
from pathlib import Path

import aneforge as af
import numpy as np
from numpy.typing import NDArray

SIDE, CHANNELS, HIDDEN, ROUNDS = 16, 8, 32, 14

Picture = NDArray[np.float32]


def flower() -> Picture:
    """The picture to be grown, `[3, SIDE, SIDE]`: five petals around a middle, on black."""
    y, x = (np.indices((SIDE, SIDE)) - (SIDE - 1) / 2) / (SIDE / 2)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    petals, middle = radius < 0.55 + 0.25 * np.cos(5 * angle), radius < 0.3
    yellow, pink = (np.reshape(colour, (3, 1, 1)) for colour in ((1.0, 0.8, 0.1), (0.8, 0.2, 0.5)))
    return np.select([middle[None], petals[None]], [yellow, pink]).astype(np.float32)


def seed() -> Picture:
    """Cells that are empty, but one: `[1, CHANNELS, SIDE, SIDE]`."""
    cells = np.zeros((1, CHANNELS, SIDE, SIDE), np.float32)
    cells[0, 3:, SIDE // 2, SIDE // 2] = 1
    return cells


def senses() -> Picture:
    """Kernels by which a cell sees itself, the slopes to the right and down, and what it differs by from its neighbours."""
    itself = np.outer([0, 1, 0], [0, 1, 0])
    right = np.outer([1, 2, 1], [-1, 0, 1]) / 8
    around = np.outer([1, 2, 1], [1, 2, 1]) / 16 - itself
    return np.tile(np.stack([itself, right, right.T, around])[:, None], (CHANNELS, 1, 1, 1)).astype(np.float32)


def grow(cells: af.Tensor, params: list[af.Tensor], rounds: int) -> list[af.Tensor]:
    """The cells after each round."""
    up, offset, down = params
    stages, kernels = [], senses()
    for _ in range(rounds):
        seen = af.conv(cells, kernels, pad=1, groups=CHANNELS).reshape(4 * CHANNELS, SIDE * SIDE)
        change = down @ (up @ seen + offset).relu()
        cells = cells + change.reshape(1, CHANNELS, SIDE, SIDE)
        stages.append(cells)
    return stages


def png(picture: Picture, scale: int = 8) -> bytes:
    """A picture `[3, H, W]` with colours from 0 to 1 as a file."""
    levels = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    rows = levels.repeat(scale, 0).repeat(scale, 1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(lines)) + part(b"IEND", b"")


def main(steps: int = 500, rounds: int = ROUNDS, out: Path | None = None) -> float:
    rng = np.random.default_rng(0)
    params = [
        af.parameter(rng.normal(size=(HIDDEN, 4 * CHANNELS)) * (4 * CHANNELS) ** -0.5, "up"),
        af.parameter(np.zeros((HIDDEN, 1)), "offset"),
        # Cells that do not change are a good beginning.
        af.parameter(rng.normal(size=(CHANNELS, HIDDEN)) * 0.02, "down"),
    ]
    cells, wanted = af.input((1, CHANNELS, SIDE, SIDE)), flower()
    stages = grow(cells, params, rounds)
    target = af.input((1, 3, SIDE, SIDE))
    loss = af.mse(stages[-1][:, :3], target)
    trainer = af.Trainer(
        loss, params, 5e-3, 256, {cells: seed(), target: wanted[None]}, optimizer="adam", resident_state=True,
        weights="paired", dynamic_scale=100, clip=1.0, schedule=af.train.cosine(20, max(steps, 21), 0.05),
    )  # fmt: skip
    for step in range(1, steps + 1):
        report = trainer.step()
        if step % max(steps // 5, 1) == 0:
            print(f"step {step:5}  loss {report['loss']:.5f}", flush=True)
    grown = [seed()[0, :3], *(np.asarray(stage)[0, :3] for stage in trainer.evaluator(stages)(seed()))]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for at, stage in enumerate(grown):
            (out / f"{at:02}.png").write_bytes(png(stage))
        print(f"{len(grown)} stages in {out}")
    off = float(np.sqrt(np.mean((grown[-1].astype(np.float64) - wanted) ** 2)))
    print(f"after {rounds} rounds colours are off by {off:.4f}; those of an empty picture by {np.sqrt(np.mean(wanted**2)):.4f}")
    return off


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path)
    main(**vars(parser.parse_args()))
