"""Batches as loaders of other libraries give them, what `fit` makes of them, and how many programs a stack of layers is."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
import pytest
from aneforge import _native
from numpy.typing import NDArray

CLASSES, FEATURES, BATCH = 4, 16, 32


class Values:
    """What tensors of PyTorch are to NumPy: an array, unless they have a gradient, are negated lazily, or are of a type it lacks."""

    def __init__(self, array: NDArray[Any], *, grad: bool = False, negated: bool = False, foreign: bool = False) -> None:
        self.held, self.grad, self.negated, self.foreign = np.asarray(array), grad, negated, foreign

    def numpy(self) -> NDArray[Any]:
        if self.grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if self.negated:
            raise RuntimeError("Can't call numpy() on Tensor that has negative bit set.")
        if self.foreign:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.held

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __len__(self) -> int:
        return len(self.held)

    def detach(self) -> Values:
        return Values(self.held, negated=self.negated, foreign=self.foreign)

    def resolve_neg(self) -> Values:
        return Values(-self.held if self.negated else self.held, grad=self.grad, foreign=self.foreign)

    def is_floating_point(self) -> bool:
        return self.held.dtype.kind == "f"

    def float(self) -> Values:
        return Values(self.held.astype(np.float32), grad=self.grad, negated=self.negated)


class Sparse(Values):
    """One that has no array in any way."""

    def numpy(self) -> NDArray[Any]:
        raise TypeError("can't convert Sparse layout tensor to numpy. Use Tensor.to_dense() first.")

    def detach(self) -> Sparse:
        return self

    def resolve_neg(self) -> Sparse:
        return self

    def float(self) -> Sparse:
        return self


class Loader:
    """Batches of several arrays together, again in each epoch, as a `DataLoader` gives them."""

    def __init__(self, *arrays: NDArray[Any], drop_last: bool = True, **kind: bool) -> None:
        self.arrays, self.drop_last, self.kind = arrays, drop_last, kind

    def __len__(self) -> int:
        full, rest = divmod(len(self.arrays[0]), BATCH)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[Values]]:
        for at in range(0, len(self) * BATCH, BATCH):
            yield [Values(array[at : at + BATCH], **self.kind) for array in self.arrays]


def examples() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    # Numbers that bfloat16 holds.
    x = (np.random.default_rng(1).integers(-64, 64, (100, FEATURES)) / 32).astype(np.float32)
    labels = x[:, :CLASSES].argmax(axis=1)
    return x, labels, np.eye(CLASSES, dtype=np.float32)[labels]


def trainer(**options: Any) -> af.Trainer:
    rng = np.random.default_rng(0)
    x, target = af.input((BATCH, FEATURES)), af.input((BATCH, CLASSES))
    params = [af.parameter(rng.normal(size=(FEATURES, 24)) / 4, "w1"), af.parameter(rng.normal(size=(24, CLASSES)) / 5, "w2")]
    objective = af.softmax_cross_entropy((x @ params[0]).gelu() @ params[1], target)
    return af.Trainer(objective, params, 0.01, 256, optimizer="adam", **options)


MODES: dict[str, dict[str, Any]] = {"host": {}, "device": {"device_optimizer": True}, "resident": {"resident_state": True}}


def values(made: af.Trainer) -> list[NDArray[np.float32]]:
    made.sync()
    return [p.attrs["value"] for p in made.params]


def losses(loader: Any, mode: str, epochs: int = 2) -> list[float]:
    made = trainer(**MODES[mode])
    for _ in range(epochs):
        made.fit(loader, progress=False)
    return [row["loss"] for row in made.history]


@pytest.mark.parametrize("mode", MODES)
def test_loaders_of_other_libraries_give_what_arrays_give(mode: str) -> None:
    x, labels, rows = examples()
    pairs = [(x[at : at + BATCH], rows[at : at + BATCH]) for at in range(0, 96, BATCH)]
    want = losses(pairs, mode)
    assert len(want) == 6 and want[-1] < want[0]
    for kind in ({}, {"grad": True}, {"foreign": True}, {"grad": True, "foreign": True}):
        assert losses(Loader(x, rows, **kind), mode) == want, kind
    assert losses(Loader(-x, -rows, negated=True), mode) == want
    # Labels, as PyTorch's cross entropy takes them, and rows of any type.
    for targets in (labels, labels.astype(np.uint8), rows.astype(np.int64), rows.astype(bool), rows.astype(np.float64)):
        assert losses(Loader(x, targets), mode) == pytest.approx(want, abs=1e-6), targets.dtype
    assert losses(Loader(x.astype(np.float64), labels), mode) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_loader_gives_wrong_is_told(mode: str) -> None:
    x, labels, rows = examples()
    bad = labels.copy()
    bad[5] = CLASSES
    nan = x.copy()
    nan[40, 3] = np.nan
    made = trainer(**MODES[mode])
    for loader, steps, why in [
        (Loader(x, rows, drop_last=False), 3, r"input of shape \[32, 16\] got an array of shape \[4, 16\].*drop_last=True"),
        (Loader(x, bad), 0, "labels are whole numbers from 0 to 3, got 0 to 4"),
        (Loader(x, labels - 1), 0, "labels are whole numbers from 0 to 3, got -1 to 2"),
        (Loader(x, labels[:, None]), 0, r"input of shape \[32, 4\] got an array of shape \[32, 1\]"),
        (Loader(x, labels.astype(np.float32)), 0, r"input of shape \[32, 4\] got an array of shape \[32\]"),
        (Loader(nan, rows), 1, r"value 131 of the input of shape .32, 16. is nan; clean the data"),
        (Loader(x), 0, "a batch has 1 arrays for 2 inputs"),
    ]:
        before = len(made.history)
        with pytest.raises(ValueError, match=why):
            made.fit(loader, progress=False)
        assert len(made.history) - before == steps
    with pytest.raises(TypeError, match=r"Use Tensor.to_dense\(\) first"):
        made.fit([(Sparse(x[:BATCH]), rows[:BATCH])], progress=False)


def test_values_of_other_libraries_are_read_wherever_arrays_are() -> None:
    x, labels, rows = examples()
    port = af.input((BATCH, FEATURES))
    model = af.compile(port * 2.0 + Values(x[0], grad=True, foreign=True))
    want = model(x[:BATCH])
    assert np.array_equal(want, x[:BATCH] * 2 + x[0])
    for kind in ({"grad": True}, {"foreign": True}):
        assert np.array_equal(model(Values(x[:BATCH], **kind)), want)
    made = trainer(resident_state=True)
    a, b = made._leaves
    made.set_dataset(a, Values(x, foreign=True), b, Values(labels))  # type: ignore[arg-type]
    assert made.fit(steps=60, progress=False)[-1]["loss"] < 0.5
    right = made.accuracy(x, labels)
    assert right > 0.8 and made.accuracy(Values(x, grad=True), Values(labels)) == right  # type: ignore[arg-type]
    inputs, targets = [af.input((BATCH, FEATURES)) for _ in range(2)], [af.input((BATCH, CLASSES)) for _ in range(2)]
    predicted = []
    for given in (labels, rows):
        rng = np.random.default_rng(0)
        weight = af.parameter(rng.normal(size=(FEATURES, CLASSES)) / 4)
        unrolled = af.UnrolledTrainer([weight], lambda P, x: x @ P[0], "ce", inputs, targets, (x, given), 0.05)
        unrolled.step()
        predicted.append(unrolled.predict(Values(x, grad=True)))  # type: ignore[arg-type]
    assert np.array_equal(*predicted)


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_of_a_row_is_that_before_its_step(mode: str) -> None:
    x, _, rows = examples()
    made = trainer(**MODES[mode])
    made.data = dict(zip(made._ports(), (x[:BATCH], rows[:BATCH]), strict=True))
    first = made.loss()
    row = made.fit([(x[:BATCH], rows[:BATCH])], progress=False)[0]
    assert row["loss"] == pytest.approx(first, abs=2e-3)
    assert abs(made.loss() - first) > 5e-3


@pytest.mark.parametrize("mode", MODES)
def test_updates_are_counted_and_void_steps_are_none(mode: str, tmp_path: Path) -> None:
    def begin() -> af.Trainer:
        # The weight is near the end of half precision.
        x, w = af.input((1, 2)), af.parameter(np.full((1, 2), 6e4), "w")
        return af.Trainer((w * x).sum((0, 1)), [w], 0.5, data_inputs={x: -np.ones((1, 2))}, **MODES[mode])

    made = begin()
    assert made.updates == 0
    made.step(), made.step()
    assert made.updates == 2
    made.lr = 9000.0
    with pytest.warns(UserWarning, match="would leave half precision"):
        made.step()
    assert made.updates == 2
    made.lr = 0.5
    made.step()
    # Rows of `fit` go on behind what was done, void or not.
    batch = {made._ports()[0]: -np.ones((1, 2))}
    assert made.updates == 3 and made.fit([batch, batch], progress=False)[1]["step"] == 6
    if mode == "resident":
        made.save(tmp_path / "c.safetensors")
        again = begin()
        again.load(tmp_path / "c.safetensors")
        assert again.updates == made.updates == 5
    with pytest.raises(AttributeError):
        made.updates = 0  # type: ignore[misc]


def test_batches_that_are_accumulated_are_one_update() -> None:
    x, labels, _ = examples()
    made = trainer(resident_state=True, accumulate=3)
    a, b = made._ports()
    made.set_dataset(a, x, b, labels)
    made.fit(steps=7, progress=False)
    assert made.updates == 2


class Interrupted:
    """Something of which a call of a method is interrupted, before or after it did what it does."""

    def __init__(self, real: Any, method: str, at: int, after: bool) -> None:
        self._real, self._method, self._at, self._after, self._calls = real, method, at, after, 0

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            return self._interrupted
        return getattr(self._real, name)

    def _interrupted(self, *args: Any) -> Any:
        self._calls += 1
        if self._calls == self._at and not self._after:
            raise KeyboardInterrupt
        made = getattr(self._real, self._method)(*args)
        if self._calls == self._at:
            raise KeyboardInterrupt
        return made


@pytest.mark.parametrize("when", ["the draw", "the step", "behind the step"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_that_is_interrupted_goes_on_with_the_batch_that_it_was_at(
    when: str, accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels, _ = examples()

    def begin() -> af.Trainer:
        made = trainer(resident_state=True, accumulate=accumulate)
        a, b = made._ports()
        made.set_dataset(a, x, b, labels)
        return made

    whole = begin()
    whole.fit(steps=14, progress=False)
    broken, kept = begin(), tmp_path / "c.safetensors"
    if when == "the draw":
        # A step itself draws, too, but not again.
        monkeypatch.setattr(broken, "_draw", Interrupted(broken._draw, "__call__", 17, after=True)._interrupted)
    else:
        broken._training = Interrupted(broken._training, "step", 9, when == "behind the step")  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        broken.fit(steps=14, progress=False, checkpoint=kept)
    made = 9 if when == "behind the step" else 8
    assert broken._steps == made and len(broken.history) == 8
    again = begin()
    again.load(kept)
    rows = again.fit(steps=14 - made, progress=False)
    assert rows == [{**row, "seconds": new["seconds"]} for row, new in zip(whole.history[made:], rows, strict=True)]
    for weight, other in zip(values(whole), values(again), strict=True):
        assert np.array_equal(weight, other)


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
import test_training_loader as tests
made = tests.with_dropout()
made.fit(steps=10**6, checkpoint=sys.argv[2], every=1, progress=False)
"""


def with_dropout() -> af.Trainer:
    """A trainer whose state is of every kind, with its data set."""
    x, labels, _ = examples()
    rng, noise = np.random.default_rng(0), af.train.Noise(3)
    leaf, target = af.input((BATCH, FEATURES)), af.input((BATCH, CLASSES))
    w = af.parameter(rng.normal(size=(FEATURES, CLASSES)) / 4, "w")
    made = af.Trainer(
        af.softmax_cross_entropy(noise.dropout(leaf, 0.2) @ w, target), [w], 0.003, 1024, optimizer="adamw",
        resident_state=True, weights="paired", dynamic_scale=7, noise=noise, accumulate=3, average=0.9,
    )  # fmt: skip
    made.set_dataset(leaf, x, target, labels)
    return made


def test_a_run_that_is_killed_goes_on_bit_for_bit(tmp_path: Path) -> None:
    kept = tmp_path / "c.safetensors"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(Path(__file__).parent), str(kept)])
    try:
        while not kept.exists():
            assert child.poll() is None, "it ended by itself"
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()
    again = with_dropout()
    again.load(kept)
    made = again._steps
    assert made > 0
    again.fit(steps=7, progress=False)
    whole = with_dropout()
    whole.fit(steps=made + 7, progress=False)
    assert again.last == whole.last
    for one, other in zip(values(again), values(whole), strict=True):
        assert np.array_equal(one, other)


def test_layers_of_a_stack_share_two_programs_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []
    real = _native.compile

    def counting(*args: Any, **words: Any) -> af.Model:
        model = real(*args, **words)
        compiled.append(model.n_ops)
        return model

    monkeypatch.setattr(_native, "compile", counting)
    rng = np.random.default_rng(4)
    calls: list[int] = []

    def layer(P: list[af.Tensor], x: af.Tensor) -> af.Tensor:
        calls.append(1)
        return x + ((x @ P[0]) * P[1]).tanh()

    found, traced = {}, {}
    for depth in (2, 4, 16):
        compiled.clear(), calls.clear()
        layers = [[rng.normal(size=(8, 8)) * 0.1, np.ones((1, 8))] for _ in range(depth)]
        stack = af.CheckpointedStack(layer, layers[0], (4, 8))
        out, kept = stack.forward(layers, rng.normal(size=(4, 8)))
        gradients, _ = stack.backward(layers, kept, np.ones((4, 8)))
        assert len(kept) == len(gradients) == depth and np.isfinite(out).all()
        found[depth], traced[depth] = list(compiled), len(calls)
    assert len(found[2]) == 2 and found[2] == found[4] == found[16], found
    assert traced == {2: 1, 4: 1, 16: 1}
    # The count sees what grows: the same layers in one program.
    sizes = []
    for depth in (2, 4, 16):
        compiled.clear()
        y = af.input((4, 8))
        for _ in range(depth):
            y = layer([af.parameter(rng.normal(size=(8, 8))), af.parameter(np.ones((1, 8)))], y)
        af.compile(y)
        sizes += compiled
    assert sizes[1] == 2 * sizes[0] and sizes[2] == 8 * sizes[0]


def test_a_log_goes_on_with_its_checkpoint(tmp_path: Path) -> None:
    x, labels, _ = examples()
    log, kept = tmp_path / "log.csv", tmp_path / "c.safetensors"

    def begin() -> af.Trainer:
        made = trainer(resident_state=True, accumulate=2)
        a, b = made._ports()
        made.set_dataset(a, x, b, labels)
        return made

    def rows() -> list[list[str]]:
        return [line.split(",")[:2] for line in log.read_text().splitlines()]

    begin().fit(steps=12, log=log, progress=False)
    whole = rows()
    first = begin()
    first.fit(steps=5, log=log, checkpoint=kept, progress=False)
    assert rows() == whole[:6]
    # What was logged behind the checkpoint is not part of what goes on.
    first.fit(steps=2, log=log, progress=False)
    assert rows() == whole[:8]
    again = begin()
    again.load(kept)
    assert [row["step"] for row in again.fit(steps=7, log=log, progress=False)] == list(range(6, 13))
    assert rows() == whole and again.updates == 6
    # Without a checkpoint, or where the file is something else, it begins anew.
    begin().fit(steps=3, log=log, progress=False)
    assert rows() == whole[:4]
    for text in ("step,loss\n1,2\n", "\0", "step,loss,lr,scale,updated,seconds\none,1,1,1,1,1\n", "a\n"):
        log.write_text(text)
        other = begin()
        other.load(kept)
        other.fit(steps=1, log=log, progress=False)
        assert rows() == [whole[0], whole[6]]


def test_arguments_of_a_wrong_type_are_named(tmp_path: Path) -> None:
    x, labels, rows = examples()

    def made(**options: Any) -> af.Trainer:
        return trainer(**{"resident_state": True, **options})

    def fit(*args: Any, **words: Any) -> Any:
        one = made()
        a, b = one._ports()
        one.set_dataset(a, x, b, labels)
        return one.fit(*args, **{"progress": False, **words})

    def dataset(**words: Any) -> None:
        one = made()
        a, b = one._ports()
        one.set_dataset(**{"x_input": a, "X_full": x, "target_input": b, "Y_onehot": labels, **words})

    w = af.parameter(np.ones((2, 2)))
    inputs = [af.input((2, 2))]
    wrong: dict[str, Any] = {
        "fit: steps must be an integer, got 1.5": lambda: fit(steps=1.5),
        "fit: steps must be an integer, got True": lambda: fit(steps=True),
        "fit: every must be an integer, got 'a'": lambda: fit(steps=1, every="a"),
        "fit: batches must be an iterable of tuples or dicts of arrays, got int": lambda: fit(5),
        "fit: batches must be an iterable of tuples or dicts of arrays, got str": lambda: fit("batches"),
        "fit: a batch is a dict of arrays by input, got the key 'x'": lambda: fit([{"x": x}]),
        "fit: inputs must be Tensors, got int at 1": lambda: fit([(x, rows)], inputs=[af.input((2,)), 3]),
        "fit: writer must have add_scalar, got int": lambda: fit(steps=1, writer=3),
        "fit: log must be a string, a path or None, got int": lambda: fit(steps=1, log=3),
        "fit: checkpoint must be a string, a path or None, got int": lambda: fit(steps=1, checkpoint=3),
        "fit: tensorboard must be a string, a path or None, got int": lambda: fit(steps=1, tensorboard=3),
        "curve: path must be a string or a path, got int": lambda: made().curve(3),
        "sparkline: width must be an integer, got 1.5": lambda: made().sparkline(1.5),
        "load: path must be a string or a path, got int": lambda: made().load(3),
        "save: path must be a string or a path, got int": lambda: made().save(3),
        "accuracy: X must be an array, got str": lambda: made().accuracy("x", labels),
        "evaluator: out must be a Tensor, .* got int": lambda: made().evaluator(3),
        "set_dataset: x_input must be a Tensor, got ndarray": lambda: dataset(x_input=x),
        "set_dataset: target_input must be a Tensor, got str": lambda: dataset(target_input="t"),
        "set_dataset: seed must be an integer, got 'a'": lambda: dataset(seed="a"),
        "set_dataset: shard must be a pair of integers, got 3": lambda: dataset(shard=3),
        "Trainer: clip must be a number or None, got str": lambda: made(clip="a"),
        "Trainer: average must be a number or None, got str": lambda: made(average="a"),
        "Trainer: accumulate must be an integer, got float": lambda: made(accumulate=1.5),
        "Trainer: schedule must be what af.train.cosine returned or None, got str": lambda: made(schedule="cosine"),
        "Trainer: betas must be a pair of numbers or None, got tuple": lambda: made(betas=(0.9,)),
        "Trainer: noise must be an af.train.Noise or None, got int": lambda: made(noise=3),
        "Trainer: frozen must be a sequence of Tensors, got int": lambda: made(frozen=3),
        "Trainer: weights must be a string or None, got int": lambda: made(weights=3),
        "Trainer: loss_scale must be a number, got str": lambda: af.Trainer(af.mse(w, w), [w], 0.1, "a"),  # type: ignore[arg-type]
        "Trainer: params must be a sequence of Tensors, got NoneType": lambda: af.Trainer(af.mse(w, w), None, 0.1),  # type: ignore[arg-type]
        "Trainer: dynamic_scale must be an integer, got 0.5": lambda: made(dynamic_scale=0.5),
        "training: lr must be a number, got str": lambda: setattr(made(), "lr", "a"),
        "cosine: warmup must be an integer, got 1.7": lambda: af.train.cosine(1.7, 3),  # type: ignore[arg-type]
        "linear: least must be a number, got str": lambda: af.train.linear(1, 3, "a"),  # type: ignore[arg-type]
        "steps: factor must be a number, got NoneType": lambda: af.train.steps(1, None),  # type: ignore[arg-type]
        "average: workers must be a sequence of lists of arrays, got int": lambda: af.train.average(3),  # type: ignore[arg-type]
        r"average: workers\[0\] must be a sequence of arrays, got int": lambda: af.train.average([3]),  # type: ignore[list-item]
        r"training: params\[0\] must come from af.parameter": lambda: af.SGD([af.input((2,))], 0.1),
        "Adam: betas must be a pair of numbers, got int": lambda: af.Adam([w], betas=3),  # type: ignore[arg-type]
        "UnrolledTrainer: params must be a sequence of Tensors, got int": lambda: af.UnrolledTrainer(
            3, lambda P, x: x, "ce", inputs, inputs, (x, rows), 0.1  # type: ignore[arg-type]
        ),
    }
    noise = af.train.Noise(1)
    stack = af.CheckpointedStack(lambda P, x: x @ P[0], [[[1, 2], [3, 4]]], (2, 2))
    pair = ([w], lambda P, x: x @ P[0], "mse", inputs, [af.input((2, 2))])
    wrong |= {
        "Noise: seed must be an integer, got 'a'": lambda: af.train.Noise("a"),  # type: ignore[arg-type]
        "dropout: x must be a Tensor, got ndarray": lambda: noise.dropout(x, 0.5),  # type: ignore[arg-type]
        "dropout: rate must be a number, got str": lambda: noise.dropout(w, "a"),  # type: ignore[arg-type]
        "UnrolledTrainer: dataset must be a pair of arrays": lambda: af.UnrolledTrainer(*pair, (x,), 0.1),  # type: ignore[arg-type]
        "UnrolledTrainer: forward must be a function, got int": lambda: af.UnrolledTrainer([w], 3, *pair[2:], (x, x), 0.1),  # type: ignore[arg-type]
        "UnrolledTrainer: forward must return a Tensor, got NoneType": lambda: af.UnrolledTrainer(
            [w], lambda P, x: None, *pair[2:], (x, x), 0.1  # type: ignore[arg-type, return-value]
        ),
    }
    for message, call in wrong.items():
        with pytest.raises(TypeError, match=f"^{message}"):
            call()
    for message, call in {
        "fit: steps must be from 0": lambda: fit(steps=-1),
        "fit: every must be from 1": lambda: fit(steps=1, every=0),
        r"fit: inputs must name each input of the loss once, those of shape \[32, 16\], \[32, 4\]": lambda: fit(
            [(x, rows)], inputs=[af.input((2,))]
        ),
        "fit: log is empty": lambda: fit(steps=1, log=""),
        "save: path is empty": lambda: made().save(""),
        "sparkline: width must be from 1": lambda: made().sparkline(0),
        r"set_dataset: examples must be of shape \[16\], as the input takes them, got \[3\]": lambda: dataset(X_full=x[:, :3]),
        "set_dataset: examples and targets are arrays with a row for each, got a number": lambda: dataset(X_full=np.float32(1)),
        "set_dataset: seed must be from 0": lambda: dataset(seed=-1),
        "Trainer: params is empty": lambda: af.Trainer(af.mse(w, w), [], 0.1),
        "Trainer: dynamic_scale must be from 0 to 2048": lambda: made(dynamic_scale=-1),
        "Noise: seed must be from 0 to": lambda: af.train.Noise(-1),
        "Trainer: params has two of the same; one is given twice": lambda: af.Trainer(af.mse(w, w * 2.0), [w, w], 0.1),
        "backward: loss_scale must be more than 0 and fit half": lambda: af.backward(af.mse(w, w * 2.0), [w], 1e6),
        "backward: loss_scale must be more than 0 and": lambda: af.backward(af.mse(w, w * 2.0), [w], np.nan),
        "UnrolledTrainer: params is empty": lambda: af.UnrolledTrainer([], *pair[1:], (x, x), 0.1),
        "UnrolledTrainer: betas must be at least 0 and less than 1": lambda: af.UnrolledTrainer(*pair, (x, x), 0.1, betas=(1.0, 0.9)),
        "backward: 2 layers need as many checkpoints": lambda: stack.backward([[w], [w]], [np.ones((2, 2))], np.ones((2, 2))),
        "an input of shape .2, 2. has no values": lambda: stack.forward([[af.input((2, 2))]], np.ones((2, 2))),
        "training: lr must be at least 0, got nan": lambda: af.Adam([w], np.nan),
        "training: loss_scale must be more than 0": lambda: af.SGD([w], 0.1, 0.0),
        "step: 1 gradients are needed, one for each parameter, got 2": lambda: af.SGD([w], 0.1).step([w, w]),
        "step: there is no gradient of parameter 0": lambda: af.SGD([w], 0.1).step({}),
    }.items():
        with pytest.raises(ValueError, match=f"^{message}"):
            call()
    # What cannot be written is told before anything is learned.
    (tmp_path / "file").write_text("")
    for words, kind, message in [
        ({"log": tmp_path}, IsADirectoryError, "fit: log: .* is a folder"),
        ({"checkpoint": tmp_path / "none" / "c"}, FileNotFoundError, "fit: checkpoint: there is no folder .*none"),
        ({"tensorboard": tmp_path / "file"}, OSError, "cannot write to .*file: "),
    ]:
        one = made()
        with pytest.raises(kind, match=message):
            one.fit([(x[:BATCH], rows[:BATCH])], progress=False, **words)
        assert one.updates == 0


@pytest.mark.parametrize("mode", MODES)
def test_warnings_name_the_line_that_calls(mode: str) -> None:
    x, w = af.input((1, 2)), af.parameter(np.full((1, 2), 6e4), "w")
    batch = {x: -np.ones((1, 2))}
    for call in (lambda made: made.step(), lambda made: made.fit([batch], progress=False)):
        made = af.Trainer((w * x).sum((0, 1)), [w], 9000.0, data_inputs=batch, **MODES[mode])
        with pytest.warns(UserWarning, match="would leave half precision") as caught:
            call(made)
        assert [each.filename for each in caught if each.category is UserWarning] == [__file__]


@pytest.mark.parametrize("mode", MODES)
def test_the_line_of_progress_counts_void_steps(mode: str, capfd: pytest.CaptureFixture[str]) -> None:
    x, w = af.input((1, 2)), af.parameter(np.full((1, 2), 6e4), "w")
    batch = {x: -np.ones((1, 2))}
    made = af.Trainer((w * x).sum((0, 1)), [w], 0.5, data_inputs=batch, **MODES[mode])
    made.fit([batch] * 2, progress=True)
    assert "void" not in capfd.readouterr().err
    made.lr = 9000.0
    with pytest.warns(UserWarning, match="would leave half precision"):
        made.fit([batch] * 3, progress=True)
    assert "  3 void  " in capfd.readouterr().err.splitlines()[-1]
