"""Embeds a corpus in Parquet or Arrow files on several workers of Ray Data.

    pip install "ray[data]" pyarrow
    python examples/ray_embed.py MODEL CORPUS OUT [--workers 2] [--threads 1] [--batch 256] [--text text] [--address auto]
    python examples/ray_embed.py MODEL CORPUS OUT --measure

CORPUS is a folder of `.parquet`, `.arrow` or `.feather` files with a column of texts. OUT becomes a folder of Parquet files with the
same rows and a column `vector`. The encoder is loaded once, here, and travels to the workers as what pickle keeps of it: where its
files are and what they hold, so that each worker maps them. On several machines they must be at the same place on each, such as a
folder that all have mounted, or a hub id.

A worker that is lost is replaced, and what it had not given back is embedded again. Rows are counted, and by `--id` told apart, before
OUT is there: none is lost, and none is there twice. `--measure` embeds with one worker and with two, and prints rows per second.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aneforge as af
import pyarrow as arrow
import ray
from pyarrow import dataset


class Embed:
    """What a worker does with a batch of rows."""

    def __init__(self, encoder: af.Encoder, text: str, fall: Path | None) -> None:
        self.encoder, self.text, self.fall = encoder, text, fall

    def __call__(self, rows: arrow.Table) -> arrow.Table:
        # For trying what happens: the first worker that finds this file dies.
        if self.fall is not None:
            try:
                self.fall.unlink()
                os._exit(1)
            except FileNotFoundError:
                pass
        vectors = self.encoder(rows[self.text].to_pylist())
        column = arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.ravel()), vectors.shape[1])
        return rows.append_column("vector", column)


def corpus(folder: Path) -> ray.data.Dataset:
    """The rows of all files of a folder."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".parquet", ".arrow", ".feather"))
    if not files:
        raise SystemExit(f"{folder}: has no .parquet, .arrow or .feather files; name a folder with some")
    kinds = {"parquet" if path.suffix == ".parquet" else "feather" for path in files}
    if len(kinds) > 1:
        raise SystemExit(f"{folder}: has files of Parquet and of Arrow; keep them apart")
    if kinds == {"parquet"}:
        return ray.data.read_parquet([str(path) for path in files])
    return ray.data.from_arrow([dataset.dataset(path, format="feather").to_table() for path in files])


def embed(rows: ray.data.Dataset, out: Path, encoder: af.Encoder, args: argparse.Namespace, workers: int) -> float:
    """Embeds all rows into files of `out`; how many a second."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    start = time.perf_counter()
    # Small files are read as one block; in parts of a few batches no worker waits for another.
    made = rows.repartition(target_num_rows_per_block=4 * args.batch).map_batches(
        Embed,
        fn_constructor_args=(encoder, args.text, args.fall),
        batch_size=args.batch,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    made.write_parquet(str(part))
    seconds = time.perf_counter() - start
    count = check(rows, part, args.id)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    return count / seconds


def check(rows: ray.data.Dataset, part: Path, name: str | None) -> int:
    """Whether every row is there once; how many there are."""
    wrote = dataset.dataset(part)
    want, got = rows.count(), wrote.count_rows()
    if want != got:
        raise SystemExit(f"{want} rows went in, and {got} came out; {part} is left for a look")
    if name is not None:
        ids = wrote.to_table([name])[name]
        if len(ids.unique()) != got:
            raise SystemExit(f"some rows of `{name}` are there twice; {part} is left for a look")
    return got


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Embeds a corpus on several workers of Ray Data.")
    parser.add_argument("model", help="a directory or a hub id")
    parser.add_argument("corpus", type=Path, help="a folder of .parquet, .arrow or .feather files")
    parser.add_argument("out", type=Path, help="the folder that is made; one that is there is replaced")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="threads of each worker")
    parser.add_argument("--batch", type=int, default=256, help="rows that a worker is given at a time")
    parser.add_argument("--text", default="text", help="the column of texts")
    parser.add_argument("--id", help="a column by which rows are told apart, to check that none is there twice")
    parser.add_argument("--address", help="a cluster of Ray, such as auto; by default one of this machine's own")
    parser.add_argument("--measure", action="store_true", help="embed with one worker and with two")
    parser.add_argument("--fall", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {"num_cpus": args.workers + 1, "object_store_memory": 200_000_000, "include_dashboard": False}
    ray.init(args.address, **({} if args.address else own))
    ray.data.DataContext.get_current().enable_progress_bars = sys.stderr.isatty()
    encoder = af.load(args.model, threads=args.threads)
    rows = corpus(args.corpus)
    if args.text not in (rows.columns() or []):
        raise SystemExit(f"{args.corpus}: has no column `{args.text}`; its columns are {', '.join(rows.columns() or [])}")
    speeds = {workers: embed(rows, args.out, encoder, args, workers) for workers in ([1, 2] if args.measure else [args.workers])}
    for workers, speed in speeds.items():
        print(f"{workers} workers: {speed:.0f} rows per second")
    if args.measure:
        print(f"2 workers are {speeds[2] / speeds[1]:.2f} times as fast as 1")
    print(f"{dataset.dataset(args.out).count_rows()} rows in {args.out}")
    ray.shutdown()


if __name__ == "__main__":
    main()
