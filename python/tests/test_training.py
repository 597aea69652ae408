"""Training: gradients as JAX has them, rules as NumPy has them, and networks that learn."""

from __future__ import annotations

import warnings
from pathlib import Path

import aneforge as af
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from aneforge import autograd
from numpy.typing import NDArray
from sklearn.datasets import load_digits

jax.config.update("jax_enable_x64", True)


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return (data.data[order] / 16).astype(np.float32), data.target[order]


def one_hot(labels: NDArray[np.int64], classes: int = 10) -> NDArray[np.float32]:
    return np.eye(classes, dtype=np.float32)[labels]


def mlp(batch: int, seed: int = 0, width: int = 64) -> tuple[af.Tensor, af.Tensor, af.Tensor, list[af.Tensor]]:
    """A network for digits: its input, targets, logits and parameters."""
    rng = np.random.default_rng(seed)
    x, t = af.input((batch, 64)), af.input((batch, 10))
    params = [
        af.parameter(rng.normal(size=(64, width)) * 64**-0.5, "w1"),
        af.parameter(np.zeros((1, width)), "b1"),
        af.parameter(rng.normal(size=(width, 10)) * width**-0.5, "w2"),
        af.parameter(np.zeros((1, 10)), "b2"),
    ]
    h = (x @ params[0] + params[1]).gelu()
    return x, t, h @ params[2] + params[3], params


def trained(steps: int, batch: int = 100, **options: object) -> tuple[af.Trainer, float]:
    x, t, logits, params = mlp(batch)
    images, labels = digits()
    trainer = af.Trainer(af.softmax_cross_entropy(logits, t), params, **{"lr": 0.01, "loss_scale": 1024, **options})
    trainer.set_dataset(x, images[:1437], t, one_hot(labels[:1437]))
    for _ in range(steps):
        trainer.step()
    return trainer, trainer.accuracy(images[1437:], labels[1437:])


MODES = {
    "host": {},
    "device": {"device_optimizer": True},
    "resident": {"resident_state": True},
    "paired": {"resident_state": True, "weights": "paired", "dynamic_scale": 200},
    "masters": {"resident_state": True, "weights": "masters", "dynamic_scale": 200},
}


@pytest.mark.parametrize("mode", MODES)
def test_digits_are_learned_in_every_mode(mode: str) -> None:
    trainer, accuracy = trained(400, optimizer="adam", **MODES[mode])
    assert accuracy > 0.95
    assert 0 < trainer.loss() < 0.2


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adamw", "lion"])
def test_digits_are_learned_by_every_rule(optimizer: str) -> None:
    lr = {"sgd": 0.5, "momentum": 0.1, "nesterov": 0.1, "adamw": 0.01, "lion": 0.002}[optimizer]
    _, accuracy = trained(400, optimizer=optimizer, lr=lr, resident_state=True, clip=5.0, average=0.95)
    assert accuracy > 0.95


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_state_on_the_device_changes_no_bit(optimizer: str) -> None:
    lr = 0.3 if optimizer == "sgd" else 0.01
    results = [trained(100, optimizer=optimizer, lr=lr, **MODES[mode])[0] for mode in ("device", "resident")]
    for a, b in zip(*(trainer.params for trainer in results), strict=True):
        assert np.array_equal(a.attrs["value"], b.attrs["value"])
        assert np.abs(a.attrs["value"]).max() > 0


def reference(steps: int, lr: float) -> list[float]:
    """The losses of the same network and batches in JAX, in double precision."""
    x, _, _, params = mlp(100)
    images, labels = digits()
    batches = af.train.Shuffled(images[:1437], one_hot(labels[:1437]), 100)
    weights = [jnp.asarray(p.attrs["value"], jnp.float64) for p in params]
    mean = [jnp.zeros_like(w) for w in weights]
    moment = [jnp.zeros_like(w) for w in weights]

    def loss(weights: list[jax.Array], x: jax.Array, t: jax.Array) -> jax.Array:
        h = jax.nn.gelu(x @ weights[0] + weights[1], approximate=False)
        return -jnp.mean(jnp.sum(t * jax.nn.log_softmax(h @ weights[2] + weights[3]), axis=1))

    both = jax.jit(jax.value_and_grad(loss))
    losses = []
    for step in range(1, steps + 1):
        value, grads = both(weights, *(jnp.asarray(a, jnp.float64) for a in next(batches)))
        losses.append(float(value))
        mean = [0.9 * m + 0.1 * g for m, g in zip(mean, grads, strict=True)]
        moment = [0.999 * v + 0.001 * g * g for v, g in zip(moment, grads, strict=True)]
        rate = lr * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        weights = [w - rate * m / (jnp.sqrt(v) + 1e-8) for w, m, v in zip(weights, mean, moment, strict=True)]
    return losses


# How far losses may be from those in double precision: a step in half precision moves weights by what 11 bits hold, and over
# 100 steps that adds up; with the digits that pairs keep, it does not.
@pytest.mark.parametrize(("mode", "most"), [("resident", 0.02), ("paired", 0.01), ("masters", 0.01)])
def test_losses_follow_those_of_jax(mode: str, most: float) -> None:
    x, t, logits, params = mlp(100)
    images, labels = digits()
    trainer = af.Trainer(
        af.softmax_cross_entropy(logits, t), params, 0.003, 1024, optimizer="adam", **MODES[mode]
    )
    trainer.set_dataset(x, images[:1437], t, one_hot(labels[:1437]))
    losses = [trainer.step()["loss"] for _ in range(100)]
    exact = reference(100, 0.003)
    assert exact[-1] < 0.4
    assert np.abs(np.subtract(losses, exact)).max() < most


def test_a_training_is_gone_on_with_bit_for_bit(tmp_path: Path) -> None:
    options = dict(optimizer="adamw", resident_state=True, weights="paired", dynamic_scale=20, average=0.9, clip=1.0)
    whole, _ = trained(30, **options)
    first, _ = trained(17, **options)
    first.save(tmp_path / "checkpoint.safetensors")
    second, _ = trained(3, **options)
    second.load(tmp_path / "checkpoint.safetensors")
    for _ in range(13):
        second.step()
    assert second.last == whole.last
    second.sync(), whole.sync()
    for a, b in zip(second.params, whole.params, strict=True):
        assert np.array_equal(a.attrs["value"], b.attrs["value"])
    data = bytearray((tmp_path / "checkpoint.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "broken.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="broken.safetensors was changed after it was written"):
        second.load(tmp_path / "broken.safetensors")
    x, t, _, params = mlp(100)
    logits = (x @ params[0] + params[1]).tanh() @ params[2] + params[3]
    tanh = af.Trainer(af.softmax_cross_entropy(logits, t), params, 0.01, 1024, **options)
    with pytest.raises(ValueError, match="it is of another network"):
        tanh.load(tmp_path / "checkpoint.safetensors")
    other, _ = trained(0, optimizer="sgd", resident_state=True)
    with pytest.raises(ValueError, match="its optimizer is"):
        other.load(tmp_path / "checkpoint.safetensors")


def test_workers_that_share_a_batch_make_the_step_of_one() -> None:
    options = dict(optimizer="adam", resident_state=True, weights="paired")
    one, _ = trained(0, accumulate=4, **options)
    workers = [trained(0, split=True, **options)[0] for _ in range(2)]
    images, labels = digits()
    batches = af.train.Shuffled(images, one_hot(labels), 100, seed=3)
    x, t = one._leaves
    for _ in range(5):
        shares = []
        for at in range(4):
            batch = next(batches)
            one._dataset = None
            one.data[x], one.data[t] = batch
            one.step()
            worker = workers[at % 2]
            worker._dataset = None
            worker.data = dict(zip(worker._leaves, batch, strict=True))
            shares.append(worker.gradients()[1])
        mean = [(g * np.float16(0.25)).astype(np.float16) for g in shares[0]]
        for share in shares[1:]:
            mean = [m + g * np.float16(0.25) for m, g in zip(mean, share, strict=True)]
        for worker in workers:
            assert worker.apply(mean)["updated"]
    for trainer in (one, *workers):
        trainer.sync()
    for a, *others in zip(*(trainer.params for trainer in (one, *workers)), strict=True):
        for b in others:
            assert np.array_equal(a.attrs["value"], b.attrs["value"])


def test_an_overflow_makes_a_step_void_and_is_told() -> None:
    for options in ({}, {"resident_state": True}):
        x, t = af.input((2, 3)), af.input((2, 3))
        w = af.parameter(np.full((1, 3), 0.5), "w")
        trainer = af.Trainer(af.mse(x * w, t), [w], 0.1, 1024, {x: np.full((2, 3), 200.0), t: np.zeros((2, 3))}, "adam", **options)
        with pytest.warns(UserWarning, match="`w`|of w are not finite|non-finite"):
            report = trainer.step()
        assert not report["updated"]
        assert np.array_equal(w.attrs["value"], np.full((1, 3), 0.5, np.float32))
        trainer.data[x] = np.full((2, 3), 0.1)
        assert trainer.step()["updated"]
        trainer.sync()
        assert not np.array_equal(w.attrs["value"], np.full((1, 3), 0.5, np.float32))


def test_a_value_that_is_fed_by_itself_is_fed_in_every_mode() -> None:
    for options in MODES.values():
        x = af.input((4, 3))
        mask = af.Tensor((1, 3), "input", [], {"value": np.array([[1.0, 0.0, 1.0]], np.float32)})
        w = af.parameter(np.ones((1, 3)))
        trainer = af.Trainer(af.mse(x * w * mask, x * 0.0), [w], 0.05, data_inputs={x: np.ones((4, 3))}, **options)
        for _ in range(20):
            trainer.step()
        trainer.sync()
        found = w.attrs["value"].ravel()
        assert found[1] == 1 and (found[[0, 2]] < 0.9).all()


def test_the_rate_may_be_set_between_steps() -> None:
    for options in MODES.values():
        x, w = af.input((1, 2)), af.parameter(np.ones((1, 2)))
        trainer = af.Trainer((x * w).sum((0, 1)), [w], 0.0, data_inputs={x: np.ones((1, 2))}, **options)
        trainer.step(), trainer.sync()
        assert (w.attrs["value"] == 1).all()
        trainer.lr = 0.25
        trainer.step(), trainer.sync()
        assert (w.attrs["value"] == 0.75).all()


def test_gradients_of_gradients_and_rules_of_the_user() -> None:
    w = af.input((3,))
    slope = af.grad(lambda w: (w * w * w).sum((0,)))
    second = af.grad(lambda w: slope(w).sum((0,)))
    values = np.array([1.0, 2.0, -3.0])
    assert np.array_equal(af.compile(slope(w))(values), [3, 12, 27])
    assert np.array_equal(af.compile(second(w))(values), [6, 12, -18])
    # A constant gradient is a result all the same.
    assert np.array_equal(af.compile(af.grad(lambda w: (w * 3.0).sum((0,)))(w))(values), [3, 3, 3])
    value, (left, right) = af.value_and_grad(lambda a, b: (a * b).sum((0,)), (0, 1))(w, w * 2.0)
    assert np.array_equal(af.compile([left, right])(values)[1], values)
    assert value.size == 1

    loss = w.relu().sum((0,))
    kept = autograd.VJP["relu"]
    try:
        @autograd.vjp("relu")
        def straight(node: af.Tensor, g: af.Tensor) -> list[af.Tensor]:
            assert node.op == "relu"
            return [g]

        assert np.array_equal(af.compile(af.backward(loss, [w])[w])(values), [1, 1, 1])
        autograd.VJP["relu"] = lambda node, g: []
        with pytest.raises(ValueError, match="the rule for relu gave 0 gradients for 1 sources"):
            af.backward(loss, [w])
        autograd.VJP["relu"] = lambda node, g: [af.concat([g, g], 0)]
        with pytest.raises(ValueError, match=r"the rule for relu gave \[6\] for a source of \[3\]"):
            af.backward(loss, [w])
    finally:
        autograd.VJP["relu"] = kept
    assert np.array_equal(af.compile(af.backward(loss, [w])[w])(values), [1, 1, 0])


def test_backward_stops_and_warns_and_refuses() -> None:
    w, other = af.parameter(np.ones(3)), af.parameter(np.ones(2), "other")
    new = w - (w * w) * 0.5
    loss = (new * new).sum((0,))
    values = np.array([0.5, 1.0, 2.0])
    assert np.array_equal(af.compile(af.backward(loss, [w])[w])(values), [0.375, 0, 0])
    assert np.array_equal(af.compile(af.backward(loss, [new], stop=[new])[new])(values), [0.75, 1, 0])
    with pytest.warns(UserWarning, match="does not depend on `other`"):
        zeros = af.backward(loss, [w, other])[other]
    assert np.array_equal(af.compile(zeros)(np.ones(2)), [0, 0])
    with pytest.raises(ValueError, match="must have one element"):
        af.backward(new, [w])


@pytest.mark.parametrize(("batch", "pad"), [(1, 0), (3, 1)])
def test_trainable_convolution_has_the_gradients_of_jax(batch: int, pad: int) -> None:
    rng = np.random.default_rng(1)
    image, kernel = rng.normal(size=(batch, 3, 6, 5)), rng.normal(size=(4, 3, 3, 3)) * 0.3
    x, w = af.input(image.shape), af.conv_param(kernel)
    y = af.conv2d(x, w, pad=pad)
    weights = rng.normal(size=tuple(y.shape))
    loss = (y * weights.astype(np.float32)).sum(tuple(range(4)))
    found = af.backward(loss, [x, w])

    def exact(image: jax.Array, kernel: jax.Array) -> jax.Array:
        out = jax.lax.conv_general_dilated(image, kernel, (1, 1), [(pad, pad)] * 2)
        return jnp.sum(out * weights)

    dx, dw = jax.grad(exact, (0, 1))(image, kernel)
    flat = w.attrs["value"]
    assert np.allclose(flat, kernel.reshape(4, -1).T)
    got_x = af.compile(found[x])(flat)
    got_w = af.compile(found[w])(image)
    assert np.abs(got_x - dx).max() < 0.02 * np.abs(dx).max()
    assert np.abs(got_w - np.asarray(dw).reshape(4, -1).T).max() < 0.01 * np.abs(dw).max()
    for call, why in [
        (lambda: af.conv2d(x, af.parameter(np.ones((27, 4)))), "must come from conv_param"),
        (lambda: af.conv2d(x, w, pad=-1), "pad must be at least 0"),
        (lambda: af.conv2d(af.input((1, 2, 6, 5)), w), "must be .N, 3, H, W."),
    ]:
        with pytest.raises(ValueError, match=why):
            call()


def test_a_small_convolutional_network_learns() -> None:
    images, labels = digits()
    rng = np.random.default_rng(0)
    x, t = af.input((50, 1, 8, 8)), af.input((50, 10))
    kernel = af.conv_param(rng.normal(size=(8, 1, 3, 3)) * (2 / 9) ** 0.5)
    gamma, beta = af.parameter(np.ones((1, 8, 1, 1))), af.parameter(np.zeros((1, 8, 1, 1)))
    weight, bias = af.parameter(rng.normal(size=(128, 10)) * 128**-0.5), af.parameter(np.zeros((1, 10)))
    h = af.conv_block(x, kernel, gamma, beta, groups=4, pool=2)
    logits = h.reshape(50, 128) @ weight + bias
    trainer = af.Trainer(
        af.softmax_cross_entropy(logits, t), [kernel, gamma, beta, weight, bias], 0.01, 128,
        optimizer="adam", resident_state=True,
    )  # fmt: skip
    trainer.set_dataset(x, images[:1400].reshape(-1, 1, 8, 8), t, one_hot(labels[:1400]))
    for _ in range(120):
        trainer.step()
    assert trainer.accuracy(images[1400:].reshape(-1, 1, 8, 8), labels[1400:]) > 0.95


@pytest.mark.parametrize("resident", [False, True])
def test_unrolled_steps_are_those_of_single_programs(resident: bool) -> None:
    images, labels = digits()
    x0, _, _, params = mlp(40, width=32)
    xs = [x0, *(af.input((40, 64)) for _ in range(4))]
    ts = [af.input((40, 10)) for _ in range(5)]

    def forward(P: list[af.Tensor], x: af.Tensor) -> af.Tensor:
        return (x @ P[0] + P[1]).gelu() @ P[2] + P[3]

    trainer = af.UnrolledTrainer(
        params, forward, "ce", xs, ts, (images[:1400], one_hot(labels[:1400])), 0.01, 1024, resident=resident
    )
    for _ in range(40):
        trainer.step()
    logits = trainer.predict(images[1400:])
    assert (logits.argmax(1) == labels[1400:]).mean() > 0.95
    assert trainer.t == 200
    test_unrolled_steps_are_those_of_single_programs.found.append(logits)  # type: ignore[attr-defined]
    found = test_unrolled_steps_are_those_of_single_programs.found  # type: ignore[attr-defined]
    if len(found) == 2:
        assert np.array_equal(*found)


test_unrolled_steps_are_those_of_single_programs.found = []  # type: ignore[attr-defined]


def test_a_stack_of_layers_has_the_gradients_of_the_whole() -> None:
    rng = np.random.default_rng(2)
    layers = [[rng.normal(size=(8, 8)) * 0.3, rng.normal(size=(1, 8)) * 0.1] for _ in range(5)]

    def layer(P: list[af.Tensor], x: af.Tensor) -> af.Tensor:
        return x + (x @ P[0] + P[1]).tanh()

    stack = af.CheckpointedStack(layer, layers[0], (4, 8))
    x0, g = rng.normal(size=(4, 8)), rng.normal(size=(4, 8))
    out, kept = stack.forward(layers, x0)
    gradients, g_in = stack.backward(layers, kept, g)
    x = af.input((4, 8))
    leaves = [[af.parameter(a) for a in row] for row in layers]
    y = x
    for row in leaves:
        y = layer(row, y)
    g_leaf = af.input((4, 8))
    flat = [leaf for row in leaves for leaf in row]
    found = autograd.backward_from(g_leaf, y, [*flat, x])
    whole = af.compile([y, *(found[leaf] for leaf in flat), found[x]])
    by_leaf = {x: x0, g_leaf: g, **{leaf: leaf.attrs["value"] for leaf in flat}}
    from aneforge._multi import _inputs

    results = whole(*(by_leaf[leaf] for leaf in _inputs([y, *found.values()])))
    assert np.array_equal(out, results[0]) and np.array_equal(g_in, results[-1])
    for got, want in zip((a for row in gradients for a in row), results[1:-1], strict=True):
        assert np.array_equal(got, want)
    with pytest.raises(ValueError, match=r"a layer gives \(4, 4\)"):
        af.CheckpointedStack(lambda P, x: x @ P[0], [np.ones((8, 4))], (4, 8))


def test_adam_step_and_host_optimizers() -> None:
    rng = np.random.default_rng(3)
    p, m, v, g = (rng.normal(size=(4, 3)).astype(np.float32) for _ in range(4))
    v = np.abs(v)
    leaves = [af.input((4, 3)) for _ in range(4)]
    rate = af.input((1, 1))
    (w2,), (m2,), (v2,) = af.adam_step([leaves[0]], [leaves[1]], [leaves[2]], [leaves[3]], rate)
    got = af.compile([w2, m2, v2])(p, m, v, g, np.array([[0.01]]))
    mean, moment = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    for a, b in zip(got, (p - 0.01 * mean / np.sqrt(moment), mean, moment), strict=True):
        assert np.abs(a - b).max() < 4e-3
    # Zero gradients leave a weight as it is, though eps is 0 in half precision; large ones do not overflow.
    zero = np.zeros((4, 3))
    assert np.array_equal(af.compile(w2)(p, zero, zero, zero, np.array([[0.01]])), p.astype(np.float16))
    big = af.compile([w2, v2])(zero, zero, zero, np.full((4, 3), 5000.0), np.array([[0.01]]))
    assert np.isfinite(big[1]).all() and np.abs(big[0] + 0.0316).max() < 1e-3

    c = np.array([1.0, -2.0, 3.0])
    w = af.parameter(np.zeros(3))
    optimizer = autograd.Adam([w], lr=0.1, loss_scale=8.0)
    for _ in range(500):
        optimizer.step({w: 8.0 * 2 * (w.attrs["value"] - c)})
    assert np.abs(w.attrs["value"] - c).max() < 1e-2
    before, t = w.attrs["value"].copy(), optimizer.t
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(101):
            optimizer.step([np.array([np.nan, 0, 0])])
    assert len(caught) == 2 and "non-finite" in str(caught[0].message)
    assert np.array_equal(w.attrs["value"], before) and optimizer.t == t and optimizer._nonfinite_skips == 101
    optimizer.step([np.zeros(3)])
    assert optimizer._nonfinite_skips == 0


def test_names_that_scripts_touch() -> None:
    x = af.input((2, 3))
    y = (x * 2.0).relu()
    assert [node.op for node in autograd._topo(y)] == ["input", "muls", "relu"]
    assert np.array_equal(af.compile(x + autograd._ones_like(x))(np.zeros((2, 3))), np.ones((2, 3)))
    stacked = af.compile(autograd._stack3(x, x * 2.0, x * 3.0))(np.ones((2, 3)))
    parts = autograd._split3(stacked, (2, 3))
    assert [float(part[0, 0]) for part in parts] == [1, 2, 3]
    for name in ("parameter", "backward", "Trainer", "CheckpointedStack", "mse", "SGD", "Adam"):
        assert getattr(autograd, name) is getattr(af, name) or callable(getattr(autograd, name))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"optimizer": "rmsprop", "resident_state": True}, "optimizer must be sgd, momentum"),
        ({"optimizer": "lion"}, "needs resident_state"),
        ({"clip": 1.0}, "clip needs resident_state"),
        ({"weights": "double", "resident_state": True}, "weights must be half, paired or masters"),
        ({"lr": -1.0, "resident_state": True}, "lr must be from 0"),
        ({"average": 2.0, "resident_state": True}, "average must be"),
        ({"betas": (0.9, 1.5), "optimizer": "adam", "resident_state": True}, "beta2 must be"),
    ],
)
def test_mistakes_in_options_are_told(options: dict[str, object], why: str) -> None:
    x, t, logits, params = mlp(4)
    with pytest.raises(ValueError, match=why):
        af.Trainer(af.softmax_cross_entropy(logits, t), params, **{"lr": 0.1, **options})


def test_mistakes_in_batches_are_told() -> None:
    x, t, logits, params = mlp(4)
    trainer = af.Trainer(af.softmax_cross_entropy(logits, t), params, 0.1, resident_state=True)
    with pytest.raises(ValueError, match="an input of shape .4, 64. has no values"):
        trainer.step()
    trainer.data = {x: np.zeros((3, 64)), t: np.zeros((4, 10))}
    with pytest.raises(ValueError, match="fill the last batch"):
        trainer.step()
    trainer.data = {x: np.full((4, 64), np.nan), t: np.zeros((4, 10))}
    with pytest.raises(ValueError, match="is nan; clean the data"):
        trainer.step()
    with pytest.raises(ValueError, match="fill no batch of 4"):
        trainer.set_dataset(x, np.zeros((3, 64)), t, np.zeros((3, 10)))
    with pytest.raises(ValueError, match="3 examples and 4 targets"):
        trainer.set_dataset(x, np.zeros((3, 64)), t, np.zeros((4, 10)))
    with pytest.raises(ValueError, match="one is given twice"):
        af.Trainer(af.softmax_cross_entropy(logits, t), [*params, params[0]], 0.1, resident_state=True)


def test_dropout_is_in_training_only() -> None:
    noise = af.train.Noise(7)
    x, w = af.input((64, 64)), af.parameter(np.ones((1, 64)), "w")
    y = x * w
    loss = af.mse(noise.dropout(y, 0.25), x * 0.0)
    trainer = af.Trainer(loss, [w], 0.0, data_inputs={x: np.ones((64, 64))}, noise=noise, resident_state=True)
    losses = [trainer.step()["loss"] for _ in range(4)]
    # Three quarters of the elements are 4 / 3.
    assert len(set(losses)) == 4 and np.abs(np.array(losses) - 4 / 3).max() < 0.1
    for out in (y, noise.dropout(y, 0.25)):
        assert np.array_equal(trainer.evaluator(out)(np.ones((64, 64))), np.ones((64, 64)))
    off = af.train.Noise()
    assert off.dropout(y, 0.25) == y
    with pytest.raises(ValueError, match="rate must be"):
        noise.dropout(y, 1.0)


class Heard:
    """A writer of metrics that remembers."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.rows.append((tag, scalar_value, global_step))


@pytest.mark.parametrize("mode", ["host", "resident"])
def test_fit_takes_batches_and_tells_of_them(mode: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images, labels = digits()
    x, t, logits, params = mlp(100)
    trainer = af.Trainer(af.softmax_cross_entropy(logits, t), params, 0.01, 256, optimizer="adam", **MODES[mode])
    pairs = [(images[at : at + 100], one_hot(labels[at : at + 100])) for at in range(0, 1000, 100)]
    heard, files = Heard(), {"log": tmp_path / "metrics.csv"}
    if mode == "resident":
        files["checkpoint"] = tmp_path / "checkpoint.safetensors"
    rows = trainer.fit(iter(pairs), writer=heard, progress=True, every=4, **files)
    assert [row["step"] for row in rows] == list(range(1, 11)) and rows[-1]["loss"] < rows[0]["loss"]
    assert [step for tag, _, step in heard.rows if tag == "train/loss"] == list(range(1, 11))
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0].startswith("step,loss,lr,scale") and len(lines) == 11
    assert "step 10  loss" in capfd.readouterr().err
    # Dicts by input, and more than the history had.
    more = trainer.fit([{t: b, x: a} for a, b in pairs], steps=3, progress=False)
    assert [row["step"] for row in more] == [11, 12, 13] and len(trainer.history) == 13
    trainer.curve(tmp_path / "loss.svg")
    picture = (tmp_path / "loss.svg").read_text()
    assert picture.startswith("<svg") and picture.count("<polyline") == 2
    assert len(trainer.sparkline(8)) == 8 and trainer.sparkline(8)[0] == "█"
    assert capfd.readouterr().err == ""
    with pytest.raises(ValueError, match="a batch has 1 arrays for 2 inputs"):
        trainer.fit([(images[:100],)])
    if mode == "resident":
        again = af.Trainer(
            af.softmax_cross_entropy(logits, t), params, 0.01, 256, optimizer="adam", **MODES[mode]
        )
        again.load(files["checkpoint"])
        assert again.updates == 10


def test_fit_says_what_is_missing() -> None:
    x, t, logits, params = mlp(4)
    trainer = af.Trainer(af.softmax_cross_entropy(logits, t), params, 0.1, resident_state=True)
    with pytest.raises(ValueError, match="there are no batches"):
        trainer.fit()
    trainer.set_dataset(x, np.zeros((8, 64)), t, one_hot(np.zeros(8, int)))
    with pytest.raises(ValueError, match="say how many steps"):
        trainer.fit()
    with pytest.raises(ValueError, match="there are no losses yet"):
        trainer.curve("nowhere.svg")
    assert trainer.fit(steps=0) == [] and trainer.sparkline() == " "


def test_what_nobody_named_stays_as_it_is_and_is_read() -> None:
    images, labels = digits()
    losses = []
    for options in (MODES["host"], MODES["resident"]):
        x, t, logits, params = mlp(100)
        trainer = af.Trainer(af.softmax_cross_entropy(logits, t), params[2:], 0.01, 64, optimizer="adam", **options)
        trainer.set_dataset(x, images, t, one_hot(labels))
        before = params[0].attrs["value"].copy()
        for _ in range(60):
            trainer.step()
        losses.append(trainer.loss())
        assert np.array_equal(params[0].attrs["value"], before)
        assert trainer.accuracy(images, labels) > 0.8
    assert abs(losses[0] - losses[1]) < 0.05
    noise = af.train.Noise(1)
    x, w = af.input((4, 4)), af.parameter(np.ones((1, 4)))
    with pytest.raises(ValueError, match="the network has dropout; give its noise"):
        af.Trainer(af.mse(noise.dropout(x * w, 0.5), x * 0.0), [w], 0.1, resident_state=True)


def test_rules_of_the_user_count_in_every_mode() -> None:
    kept = autograd.VJP["relu"]
    try:
        autograd.VJP["relu"] = lambda node, g: [g * 0.0]
        for options in MODES.values():
            x, w = af.input((2, 2)), af.parameter(np.eye(2))
            data = {x: np.ones((2, 2))}
            trainer = af.Trainer(af.mse((x @ w).relu(), x * 0.0), [w], 0.5, data_inputs=data, **options)
            trainer.step(), trainer.sync()
            assert np.array_equal(w.attrs["value"], np.eye(2))
        autograd.VJP["relu"] = lambda node, g: 1 / 0
        with pytest.raises(ZeroDivisionError):
            af.Trainer(af.mse((x @ w).relu(), x * 0.0), [w], 0.5, data_inputs=data, resident_state=True)
    finally:
        autograd.VJP["relu"] = kept


@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_finite_is_refused_in_every_mode(mode: str) -> None:
    x, t, logits, params = mlp(4)
    trainer = af.Trainer(af.softmax_cross_entropy(logits, t), params, 0.1, **MODES[mode])
    for bad in (np.nan, np.inf):
        data = np.zeros((4, 64))
        data[1, 2] = bad
        trainer.data = {x: data, t: np.zeros((4, 10))}
        with pytest.raises(ValueError, match=f"value 66 of the input of shape .4, 64. is {bad}"):
            trainer.step()
        with pytest.raises(ValueError, match="lr must be from 0 to 10000"):
            trainer.lr = bad
    with pytest.raises(ValueError, match="init has values that are not finite"):
        af.parameter([np.nan])
    with pytest.raises(TypeError, match="must come from af.parameter"):
        af.Trainer(af.softmax_cross_entropy(logits, t), [x], 0.1, **MODES[mode])


def test_labels_and_examples_are_checked() -> None:
    images, labels = digits()
    trainer, _ = trained(50, optimizer="adam", resident_state=True)
    right = trainer.accuracy(images, labels)
    assert trainer.accuracy(images, labels[:, None]) == right == trainer.accuracy(images, one_hot(labels))
    for bad, why in [(labels + 1, "from 0 to 9"), (labels[1:], "labels are 1797"), (labels.astype(str), "labels are")]:
        with pytest.raises(ValueError, match=why):
            trainer.accuracy(images, bad)
    with pytest.raises(ValueError, match="examples must be of shape"):
        trainer.accuracy(images[:, :1], labels)


def test_fit_keeps_what_was_done(tmp_path: Path) -> None:
    trainer, _ = trained(0, optimizer="adam", resident_state=True)
    x, t = trainer._leaves
    images, labels = digits()
    batch = {x: images[:100], t: one_hot(labels[:100])}

    def batches() -> object:
        yield batch
        yield batch
        raise OSError("the disk went away")

    files = {"log": tmp_path / "log.csv", "checkpoint": tmp_path / "c.safetensors"}
    with pytest.raises(OSError, match="the disk went away"):
        trainer.fit(batches(), **files)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    again, _ = trained(0, optimizer="adam", resident_state=True)
    again.load(tmp_path / "c.safetensors")
    assert [row["step"] for row in again.fit(steps=2)] == [3, 4]
    with pytest.raises(ValueError, match="each of the 2 inputs needs one"):
        trainer.fit([{x: images[:100]}])
    with pytest.raises(ValueError, match="a schedule warms up in 9 steps of 9"):
        trained(0, schedule=af.train.cosine(9, 9), resident_state=True)
    with pytest.raises(ValueError, match="schedule must be of af.train, got foo"):
        trained(0, schedule=("foo", 1, 9, 0.5), resident_state=True)


def test_a_parameter_that_is_not_reached_is_told_of() -> None:
    for options in MODES.values():
        x, w, unused = af.input((2, 2)), af.parameter(np.eye(2), "w"), af.parameter(np.ones(2), "unused")
        with pytest.warns(UserWarning, match="does not depend on `unused`"):
            trainer = af.Trainer(af.mse(x @ w, x * 0.0), [w, unused], 0.1, data_inputs={x: np.eye(2)}, **options)
        trainer.step(), trainer.sync()
        assert (unused.attrs["value"] == 1).all() and not np.array_equal(w.attrs["value"], np.eye(2))
