"""Steps that are void, those of several workers, and what checkpoints know."""

from __future__ import annotations

import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aneforge as af
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from aneforge import autograd
from numpy.typing import NDArray

jax.config.update("jax_enable_x64", True)

MODES: dict[str, dict[str, object]] = {
    "host": {},
    "device": {"device_optimizer": True},
    "resident": {"resident_state": True},
    "paired": {"resident_state": True, "weights": "paired", "dynamic_scale": 200},
    "masters": {"resident_state": True, "weights": "masters", "dynamic_scale": 200},
}
KEPT = {name: options for name, options in MODES.items() if name not in ("host", "device")}


def two(lr: float, **options: object) -> tuple[af.Trainer, list[af.Tensor]]:
    """A trainer of two weights, of which the second is near the end of half precision."""
    x, a, b = af.input((1, 2)), af.parameter(np.ones((1, 2)), "a"), af.parameter(np.full((1, 2), 6e4), "b")
    return af.Trainer(((a + b) * x).sum((0, 1)), [a, b], lr, data_inputs={x: -np.ones((1, 2))}, **options), [a, b]


def values(trainer: af.Trainer) -> list[NDArray[np.float32]]:
    trainer.sync()
    return [p.attrs["value"].copy() for p in trainer.params]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("mode", MODES)
def test_a_step_that_would_leave_half_precision_is_void(mode: str, optimizer: str, tmp_path: Path) -> None:
    trainer, _ = two(0.5, optimizer=optimizer, **MODES[mode])
    assert trainer.step()["updated"]
    before = values(trainer)
    trainer.lr = 9000.0
    with pytest.warns(UserWarning, match="`b` would leave half precision, which ends at 65504.*the step is void .1 in a row"):
        report = trainer.step()
    assert (report["updated"], report["skipped"]) == (False, 1) and "`b`" in report["void"] and "`a`" not in report["void"]
    for old, new in zip(before, values(trainer), strict=True):
        assert np.array_equal(old, new)
    if mode not in ("host", "device"):
        trainer.save(tmp_path / "c.safetensors")
        again, _ = two(0.5, optimizer=optimizer, **MODES[mode])
        again.load(tmp_path / "c.safetensors")
        for old, new in zip(before, values(again), strict=True):
            assert np.array_equal(old, new)
    trainer.lr = 0.5
    report = trainer.step()
    assert (report["updated"], report["skipped"], report["void"]) == (True, 0, None)


def test_void_steps_are_told_of_at_the_first_and_each_hundredth() -> None:
    for optimizer in ("sgd", "adam"):
        trainer, _ = two(9000.0, optimizer=optimizer)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(101):
                trainer.step()
        assert ["in a row" in str(w.message) for w in caught] == [True, True]
    trainer, _ = two(9000.0, resident_state=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError, match="100 steps in a row were void, the last as `b` would leave half precision"):
            for _ in range(101):
                trainer.step()
    assert sum("void" in str(w.message) for w in caught) == 1


@pytest.mark.parametrize("resident", [False, True])
def test_unrolled_steps_are_watched(resident: bool) -> None:
    xs, ts = ([af.input((2, 2)) for _ in range(3)] for _ in range(2))
    w = af.parameter(np.ones((1, 2)), "w")
    X, Y = np.full((12, 2), 0.5), np.zeros((12, 2))

    def trainer(X: NDArray[np.float64], scale: float = 1.0, lr: float = 0.1) -> af.UnrolledTrainer:
        return af.UnrolledTrainer([w], lambda P, x: x * P[0], "mse", xs, ts, (X, Y), lr, scale, resident=resident)

    made = trainer(X)
    assert made.step() == {"updated": [True] * 3, "overflowed": []} and made.t == 3
    moved = made._weights()[0].copy()
    assert not np.array_equal(moved, np.ones((1, 2)))
    # One bad batch of the three: its step alone is void.
    bad = X.copy()
    order = np.random.default_rng(0).permutation(12)
    bad[order[2]] = 3e4
    made = trainer(bad)
    with pytest.warns(UserWarning, match="non-finite gradients or weights of `w`: the step is void.*1 in a row"):
        report = made.step()
    assert report == {"updated": [True, False, True], "overflowed": ["`w`"]} and made.t == 2
    assert np.isfinite(made._weights()[0]).all() and np.isfinite(made.predict(X[:2])).all()
    # All are void: nothing moves, and moments stay zeros.
    made = trainer(np.full((12, 2), 3e4))
    with pytest.warns(UserWarning, match="non-finite"):
        assert made.step()["updated"] == [False] * 3
    assert np.array_equal(made._weights()[0], np.ones((1, 2))) and made.t == 0
    made.lr = 1e4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(33):
            made.step()
    assert sum("101 in a row" in str(w.message) for w in caught) == 1


@pytest.mark.parametrize("mode", MODES)
def test_parameters_without_axes_and_images_of_bytes(mode: str) -> None:
    pixels, w = af.input((2, 3), "uint8"), af.parameter(np.float32(0.5), "w")
    x = pixels.astype("fp16")
    images = np.array([[1, 2, 3], [1, 0, 1]], np.uint8)
    options = dict(MODES[mode], optimizer="adam")
    for more in ({}, {"clip": 1.0, "average": 0.9}) if mode not in ("host", "device") else ({},):
        w.attrs["value"] = np.array(0.5, np.float32)
        trainer = af.Trainer(af.mse(x * w, x), [w], 0.01, 64, data_inputs={pixels: images}, **options, **more)
        for _ in range(100):
            assert trainer.step()["updated"]
        trainer.sync()
        assert w.attrs["value"].shape == () and abs(float(w.attrs["value"]) - 1) < 0.05


def test_targets_that_do_not_sum_to_1_are_weights() -> None:
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(4, 5)), rng.uniform(size=(4, 5)) * np.array([[0.0], [1], [2], [3]])

    def exact(z: jax.Array) -> jax.Array:
        return -jnp.mean(jnp.sum(jnp.asarray(target) * jax.nn.log_softmax(z), axis=1))

    value, slope = jax.value_and_grad(exact)(jnp.asarray(logits))
    z, t = af.input((4, 5)), af.input((4, 5))
    loss = af.softmax_cross_entropy(z, t)
    got = af.compile([loss.value, af.backward(loss, [z])[z]])(logits, target)
    assert abs(float(got[0].reshape(())) - value) < 5e-3 * abs(value)
    assert np.abs(got[1] - np.asarray(slope)).max() < 2e-3
    for options in MODES.values():
        w = af.parameter(logits, "w")
        trainer = af.Trainer(af.softmax_cross_entropy(z * 0.0 + w, t), [w], 1.0, 64, {z: logits, t: target}, **options)
        trainer.step(), trainer.sync()
        assert np.abs(logits - w.attrs["value"] - np.asarray(slope)).max() < 4e-3


def small(seed: int = 1, noise: af.train.Noise | None = None) -> tuple[af.Tensor, af.Tensor, af.Tensor, list[af.Tensor]]:
    rng = np.random.default_rng(seed)
    x, t = af.input((4, 6)), af.input((4, 3))
    params = [af.parameter(rng.normal(size=(6, 8)), "w1"), af.parameter(rng.normal(size=(8, 3)), "w2")]
    h = (x @ params[0]).relu()
    return x, t, (noise.dropout(h, 0.2) if noise is not None else h) @ params[1], params


def data(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(26, 6)), np.eye(3)[rng.integers(0, 3, 26)]


def learner(seed: int = 0, of: int = 0, shard: tuple[int, int] = (0, 1), batches: bool = True, **options: object) -> af.Trainer:
    noise = af.train.Noise(3)
    x, t, logits, params = small(noise=noise)
    words = {"optimizer": "momentum", "resident_state": True, **options}
    trainer = af.Trainer(af.softmax_cross_entropy(logits, t), params, 0.05, 64, noise=noise, **words)
    if batches:
        X, Y = data(of)
        trainer.set_dataset(x, X, t, Y, seed, shard)
    return trainer


@pytest.mark.parametrize("mode", KEPT)
@pytest.mark.parametrize("workers", [2, 3])
def test_workers_on_shards_make_the_steps_of_one_that_accumulates(mode: str, workers: int, tmp_path: Path) -> None:
    options = {**KEPT[mode], "average": 0.9, "clip": 1.0}
    one = learner(accumulate=workers, **options)
    team = [learner(split=True, shard=(at, workers), **options) for at in range(workers)]
    for round in range(8):
        losses = [one.step()["loss"] for _ in range(workers)]
        found = [worker.gradients() for worker in team]
        assert [loss for loss, _ in found] == losses
        mean = af.train.average([gradients for _, gradients in found])
        assert mean[0].dtype == (np.float32 if mode == "masters" else np.float16)
        for worker in team:
            assert worker.apply(mean)["updates"] == round + 1
        if round == 4:
            team[0].save(tmp_path / "c.safetensors")
            team = [learner(split=True, shard=(at, workers), **options) for at in range(workers)]
            for worker in team:
                worker.load(tmp_path / "c.safetensors")
    for worker in team:
        for a, b in zip(values(one), values(worker), strict=True):
            assert np.array_equal(a, b)
    # One worker's overflow makes the step of all void, and they agree on the scale.
    found = [worker.gradients()[1] for worker in team]
    found[-1] = [np.full_like(gradient, np.inf) for gradient in found[-1]]
    with pytest.warns(UserWarning, match="the gradients of `w1`, `w2` are not finite"):
        reports = [worker.apply(af.train.average(found)) for worker in team]
    assert not any(report["updated"] for report in reports) and len({worker.scale for worker in team}) == 1
    for a, b in zip(values(one), values(team[0]), strict=True):
        assert np.array_equal(a, b)


def test_mistakes_of_workers_are_told() -> None:
    with pytest.raises(ValueError, match="there are no gradients to average"):
        af.train.average([])
    with pytest.raises(ValueError, match="the gradients of worker 1 are not of the types and shapes"):
        af.train.average([[np.zeros(2, np.float16)], [np.zeros(3, np.float16)]])
    with pytest.raises(ValueError, match="half or single precision, got fp64"):
        af.train.average([[np.zeros(2)]])
    with pytest.raises(ValueError, match="shard is a worker from 0 on and how many there are, got .2, 2."):
        learner(shard=(2, 2))
    with pytest.raises(ValueError, match="accumulate must be 1, got 2"):
        learner(split=True, accumulate=2)
    with pytest.raises(ValueError, match="gradients needs a trainer with `split`"):
        learner().gradients()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seed": 1}, "the seed was 0 when it was written, and is 1 now"),
        ({"of": 1}, "the data set was 26 examples with checksum .* and is 26 examples with checksum"),
        ({"schedule": af.train.cosine(1, 9)}, "the schedule was constant when it was written, and is a cosine to 0 in 9 steps"),
        ({"accumulate": 2}, "the accumulate was 1 when|it has no|it has `"),
        ({"clip": 1.0}, "the clip was none when it was written, and is 1 now"),
    ],
)
def test_checkpoints_know_what_they_are_of(change: dict[str, object], why: str, tmp_path: Path) -> None:
    path, first = tmp_path / "c.safetensors", learner()
    for _ in range(8):
        first.step()
    first.save(path)
    other = learner(**change)
    before = values(other)
    with pytest.raises(ValueError, match=why + ".*"):
        other.load(path)
    for a, b in zip(before, values(other), strict=True):
        assert np.array_equal(a, b)
    if "accumulate" not in change:
        other.load(path, anew=True)
        assert other._dataset is not None and other._dataset[2].done == (0 if {"seed", "of"} & {*change} else 8)
        for a, b in zip(values(first), values(other), strict=True):
            assert np.array_equal(a, b)


def test_a_data_set_may_be_set_after_the_checkpoint_was_loaded(tmp_path: Path) -> None:
    path, first = tmp_path / "c.safetensors", learner()
    for _ in range(8):
        first.step()
    first.save(path)
    x, t = first._leaves
    for of in (0, 1):
        again = learner(batches=False)
        again.load(path)
        x, t = again._leaves
        if of == 0:
            again.set_dataset(x, data()[0], t, data()[1])
            continued = learner()
            continued.load(path)
            assert again.step() == continued.step()
        else:
            with pytest.warns(UserWarning, match="the checkpoint is of another data set, seed or batch"):
                again.set_dataset(x, data(of)[0], t, data(of)[1])
            assert again._dataset is not None and again._dataset[2].done == 0


def test_a_trainer_that_was_released_keeps_no_program() -> None:
    for mode, options in MODES.items():
        trainer, (a, _) = two(0.5, **options)
        trainer.step()
        training = getattr(trainer, "_training", None)
        trainer.release()
        assert (a.attrs["value"] == 1.5).all()
        trainer.release()
        if mode != "host":
            # The test has the last reference.
            import sys

            assert sys.getrefcount(training) == 2
            assert repr(trainer) == "Trainer(released)"
        with pytest.raises(RuntimeError, match="was released"):
            trainer.step()


def test_words_that_a_rule_does_not_take_are_told() -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"optimizer": "adam", "momentum": 0.9}, "adam takes no momentum; leave it out"),
        ({"optimizer": "lion", "momentum": 0.9}, "lion takes no momentum"),
        ({"optimizer": "sgd", "betas": (0.9, 0.99)}, "sgd takes no betas; leave it out"),
        ({"optimizer": "nesterov", "betas": (0.9, 0.99)}, "nesterov takes no betas"),
    ]
    for options, why in cases:
        with pytest.raises(ValueError, match=why):
            two(0.1, resident_state=True, **options)
    with pytest.raises(ValueError, match="sgd takes no betas"):
        two(0.1, betas=(0.9, 0.99))


def test_names_that_files_keep_are_refused(tmp_path: Path) -> None:
    w = af.parameter(np.ones((1,)), "__metadata__")
    with pytest.raises(ValueError, match="no parameter may be called `__metadata__`"):
        af.Trainer((w * 2.0).sum((0,)), [w], 0.1, resident_state=True)


def test_the_forward_direction_and_the_profile() -> None:
    for mode, options in MODES.items():
        trainer, (a, b) = two(0.5, **options)
        call: Callable[[], object] = trainer.profile
        with pytest.raises(ValueError, match="profile"):
            call()
        trainer.step()
        if mode == "host":
            continue
        assert float(trainer._fwd(-np.ones((1, 2))).reshape(())) < -1e5
        profile = trainer.profile(calls=2)
        assert profile.calls == 2 and profile.us > 0 and len(profile.steps) > 3
        before = values(trainer)
        trainer.profile(1)
        for old, new in zip(before, values(trainer), strict=True):
            assert np.array_equal(old, new)
        with pytest.raises(TypeError, match="profile: calls"):
            trainer.profile("many")  # type: ignore[arg-type]


def test_host_optimizers_say_what_would_leave_half_precision() -> None:
    w = af.parameter(np.zeros(2), "w")
    for optimizer in (autograd.SGD([w], 1e9), autograd.Adam([w], 1e9)):
        with pytest.warns(UserWarning, match="`w` would leave half precision"):
            optimizer.step([np.ones(2)])
        assert (w.attrs["value"] == 0).all() and optimizer._nonfinite_skips == 1
        optimizer.lr = 1.0
        optimizer.step([np.ones(2)])
        assert optimizer._nonfinite_skips == 0 and (w.attrs["value"] != 0).all()
        w.attrs["value"] = np.zeros(2, np.float32)


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC by a table, turned and moved as record files have it."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def fields(data: bytes) -> dict[int, Any]:
    """A protocol buffer whose fields are met once."""
    found: dict[int, Any] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            found[key >> 3] = varint()
            continue
        size = {1: 8, 5: 4}[key & 7] if key & 7 != 2 else varint()
        found[key >> 3], at = data[at : at + size], at + size
    return found


def scalars(path: Path) -> list[tuple[str, int, float]]:
    """The numbers of a file of events, all checksums checked."""
    data, at, rows = path.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        body = data[at + 12 : at + 12 + size]
        sums = struct.unpack_from("<I", data, at + 8) + struct.unpack_from("<I", data, at + 12 + size)
        assert sums == (crc32c(data[at : at + 8]), crc32c(body))
        at += size + 16
        event = fields(body)
        assert abs(struct.unpack("<d", event[1])[0] - time.time()) < 3600
        if 3 in event:
            assert not rows and event[3] == b"brain.Event:2"
            continue
        value = fields(fields(event[5])[1])
        rows.append((value[1].decode(), event[2], struct.unpack("<f", value[2])[0]))
    return rows


def test_tensorboard_finds_the_metrics(tmp_path: Path) -> None:
    trainer = learner()
    rows = trainer.fit(steps=200, tensorboard=tmp_path / "runs" / "1", progress=False)
    (path,) = (tmp_path / "runs" / "1").iterdir()
    assert "tfevents" in path.name
    found = scalars(path)
    assert [(tag, step) for tag, step, _ in found[:4]] == [("train/loss", 1), ("train/lr", 1), ("train/scale", 1), ("train/loss", 2)]
    assert [value for tag, _, value in found if tag == "train/loss"] == [np.float32(row["loss"]) for row in rows]
    trainer.fit(steps=1, tensorboard=tmp_path / "runs" / "1", progress=False)
    assert len(list((tmp_path / "runs" / "1").iterdir())) == 2
    with pytest.raises(OSError):
        trainer.fit(steps=1, tensorboard=path)
    with pytest.raises(TypeError, match="fit: tensorboard must be a string, a path or None, got int"):
        trainer.fit(steps=1, tensorboard=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fit: tensorboard is empty; name a folder"):
        trainer.fit(steps=1, tensorboard="")
