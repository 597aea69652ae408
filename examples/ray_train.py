"""A network for handwritten digits, trained by several workers whose gradients are averaged through Ray.

    pip install ray scikit-learn
    python examples/ray_train.py [--workers 2] [--steps 60] [--every 10] [--kill-at 25] [--checkpoint FILE] [--address auto]

Each worker is an actor of Ray with a trainer of its own. In a step each makes the gradients of its batch, a task averages them in the
order of workers, and all apply the mean, so that they have the same weights, the same scale of gradients and the same moments, bit
for bit. They are those, too, of one trainer that takes the same batches with `accumulate`: `--alone` makes that, without Ray.

Every so many steps the driver keeps what the first worker saves. Where a worker is lost, as with `--kill-at`, a new one takes its
place, all go back to what was kept, and the weights at the end are what they would have been.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
from sklearn.datasets import load_digits

BATCH, WIDTH, HELD_OUT = 32, 64, 360


def trainer_of(**options: Any) -> af.Trainer:
    """The network with its data, which is the same in every process."""
    x, target = af.input((BATCH, 64)), af.input((BATCH, 10))
    rng, noise = np.random.default_rng(1), af.train.Noise(3)
    w1, b1 = af.parameter(rng.normal(size=(64, WIDTH)) / 8, "hidden.weight"), af.parameter(np.zeros((1, WIDTH)), "hidden.bias")
    w2, b2 = af.parameter(rng.normal(size=(WIDTH, 10)) / 8, "out.weight"), af.parameter(np.zeros((1, 10)), "out.bias")
    logits = noise.dropout((x @ w1 + b1).gelu(), 0.1) @ w2 + b2
    shard = options.pop("shard", (0, 1))
    trainer = af.Trainer(
        af.softmax_cross_entropy(logits, target), [w1, b1, w2, b2], 3e-3, 1024, optimizer="adamw", resident_state=True,
        weights="paired", dynamic_scale=20, noise=noise, **options,
    )  # fmt: skip
    images, labels = digits()
    trainer.set_dataset(x, images[HELD_OUT:], target, np.eye(10, dtype=np.float32)[labels[HELD_OUT:]], shard=shard)
    return trainer


def digits() -> tuple[Any, Any]:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return (data.data[order] / 16).astype(np.float32), data.target[order]


def told(trainer: af.Trainer) -> tuple[float, str]:
    """How much of the held-out digits is read, and a checksum of the weights."""
    images, labels = digits()
    trainer.sync()
    sum = hashlib.sha256(b"".join(param.attrs["value"].tobytes() for param in trainer.params))
    return trainer.accuracy(images[:HELD_OUT], labels[:HELD_OUT]), sum.hexdigest()


class Worker:
    """What an actor does."""

    def __init__(self, worker: int, workers: int, state: bytes | None) -> None:
        self.trainer = trainer_of(split=True, shard=(worker, workers))
        if state is not None:
            self.restore(state)

    def gradients(self) -> list[Any]:
        return self.trainer.gradients()[1]

    def apply(self, mean: list[Any]) -> dict[str, Any]:
        return self.trainer.apply(mean)

    def state(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.safetensors"
            self.trainer.save(path)
            return path.read_bytes()

    def restore(self, state: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.safetensors"
            path.write_bytes(state)
            self.trainer.load(path)

    def told(self) -> tuple[float, str]:
        return told(self.trainer)

    def alive(self) -> bool:
        return True


def mean(*workers: list[Any]) -> list[Any]:
    return af.train.average(workers)


def keep(path: Path | None, state: bytes) -> None:
    """Writes a file as a whole."""
    if path is not None:
        part = path.with_name(path.name + ".part")
        part.write_bytes(state)
        os.replace(part, path)


def together(workers: int, steps: int, every: int, kill_at: int | None, checkpoint: Path | None, address: str | None) -> tuple[float, str]:
    """Trains with actors of Ray."""
    import ray

    # A machine of its own needs little memory for gradients; a cluster has its own settings.
    ray.init(address, **({} if address else {"num_cpus": workers + 1, "object_store_memory": 100_000_000, "include_dashboard": False}))
    actor, average = ray.remote(num_cpus=1)(Worker), ray.remote(num_cpus=0)(mean)
    state = checkpoint.read_bytes() if checkpoint is not None and checkpoint.exists() else None
    team = [actor.remote(at, workers, state) for at in range(workers)]
    kept = state if state is not None else ray.get(team[0].state.remote())
    done = kept_at = 0
    while done < steps:
        try:
            gradients = [worker.gradients.remote() for worker in team]
            if kill_at == done:
                kill_at = None
                ray.kill(team[-1])
            averaged = average.remote(*gradients)
            reports = ray.get([worker.apply.remote(averaged) for worker in team])
            assert len({(report["updates"], report["scale"]) for report in reports}) == 1, "workers went apart"
            done += 1
            if done % every == 0 or done == steps:
                kept, kept_at = ray.get(team[0].state.remote()), done
                keep(checkpoint, kept)
        except ray.exceptions.RayError:
            lost = [at for at, worker in enumerate(team) if not answers(ray, worker)]
            if not lost:
                raise
            print(f"step {done}: workers {lost} were lost; back to step {kept_at}", flush=True)
            for at in lost:
                team[at] = actor.remote(at, workers, kept)
            ray.get([worker.restore.remote(kept) for worker in team])
            done = kept_at
    found = ray.get([worker.told.remote() for worker in team])
    ray.shutdown()
    assert len({sum for _, sum in found}) == 1, "workers went apart"
    return found[0]


def answers(ray: Any, worker: Any) -> bool:
    try:
        return bool(ray.get(worker.alive.remote()))
    except ray.exceptions.RayError:
        return False


def alone(workers: int, steps: int) -> tuple[float, str]:
    """Trains with one trainer that takes the batches of all workers."""
    trainer = trainer_of(accumulate=workers)
    for _ in range(workers * steps):
        trainer.step()
    return told(trainer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="actors")
    parser.add_argument("--steps", type=int, default=60, help="steps, in each of which a worker takes a batch")
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--kill-at", type=int, metavar="STEP", help="kill the last worker in this step")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="keep checkpoints here, and go on from what is there")
    parser.add_argument("--address", metavar="ADDRESS", help="of a cluster; by default one is started on this machine")
    parser.add_argument("--alone", action="store_true", help="one trainer instead, without Ray")
    args = parser.parse_args()
    if args.workers < 1 or args.every < 1 or args.steps < 0:
        parser.error("--workers and --every must be at least 1, --steps at least 0")
    if args.alone:
        accuracy, sum = alone(args.workers, args.steps)
    else:
        accuracy, sum = together(args.workers, args.steps, args.every, args.kill_at, args.checkpoint, args.address)
    print(f"{accuracy:.2%} of {HELD_OUT} held-out digits; weights {sum}")
