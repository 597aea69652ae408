"""Networks in training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aneforge import _env, _fit, _native, autograd
from aneforge._compile import compile
from aneforge._functions import input
from aneforge._multi import MultiModel, _inputs, compile_multi
from aneforge._native import Model, Tensor
from aneforge._operand import Array
from aneforge.autograd import CEHandle

_BEYOND = ("weights", "clip", "average", "accumulate", "schedule", "weight_decay", "momentum", "dynamic_scale", "noise")


def cosine(warmup: int, total: int, least: float = 0.0) -> tuple[str, int, int, float]:
    """A schedule: from 0 to the learning rate in `warmup` steps, then along half a cosine to `least` of it in step `total`."""
    return ("cosine", int(warmup), int(total), float(least))


def linear(warmup: int, total: int, least: float = 0.0) -> tuple[str, int, int, float]:
    """A schedule: from 0 to the learning rate in `warmup` steps, then straight to `least` of it in step `total`."""
    return ("linear", int(warmup), int(total), float(least))


def steps(every: int, factor: float) -> tuple[str, int, int, float]:
    """A schedule: times `factor` after every `every` steps."""
    return ("steps", int(every), 0, float(factor))


class Shuffled:
    """Batches of a data set, in a new order in each epoch. What is left of an epoch and fills no batch is left out."""

    def __init__(self, X: Array, Y: Array, batch: int, seed: int = 0) -> None:
        self.X, self.Y = np.asarray(X), np.asarray(Y)
        if len(self.X) != len(self.Y):
            raise ValueError(f"set_dataset: {len(self.X)} examples and {len(self.Y)} targets")
        if len(self.X) < batch:
            raise ValueError(f"set_dataset: {len(self.X)} examples fill no batch of {batch}")
        self.batch, self.seed, self.done = batch, seed, 0
        self._rng = np.random.default_rng(seed)
        self._order = self._rng.permutation(len(self.X))
        self._at = 0

    def __next__(self) -> tuple[NDArray[Any], NDArray[Any]]:
        if self._at + self.batch > len(self._order):
            self._order, self._at = self._rng.permutation(len(self.X)), 0
        rows = self._order[self._at : self._at + self.batch]
        self._at += self.batch
        self.done += 1
        return self.X[rows], self.Y[rows]

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        return self

    def seek(self, done: int) -> None:
        """Goes on as if so many batches had been taken."""
        self.__init__(self.X, self.Y, self.batch, self.seed)  # type: ignore[misc]
        per_epoch = len(self.X) // self.batch
        for _ in range(done // per_epoch - (done % per_epoch == 0 and done > 0)):
            self._order = self._rng.permutation(len(self.X))
        self._at = (done % per_epoch or per_epoch) * self.batch if done else 0
        self.done = done


def _values(leaf: Tensor, data: Mapping[Tensor, Array]) -> Array:
    """What an input is fed with; values that are not finite are refused."""
    given = data[leaf] if leaf in data else leaf.attrs.get("value")
    if given is None:
        raise ValueError(
            f"an input of shape {tuple(leaf.shape)} has no values; give them in data_inputs, or in its attrs['value']"
        )
    array = np.asarray(given)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = int(np.flatnonzero(~np.isfinite(array).ravel())[0])
        name = leaf.attrs.get("name")
        what = f"`{name}`" if name else f"the input of shape {tuple(leaf.shape)}"
        raise ValueError(f"the batch: value {at} of {what} is {array.ravel()[at]}; clean the data")
    return given


def _labels(y: Array, rows: int, classes: int) -> NDArray[np.int64]:
    """Labels as whole numbers: of numbers, or of rows of ones and zeros."""
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == classes and classes > 1:
        labels = labels.argmax(axis=1)
    elif labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iuf" or len(labels) != rows:
        raise ValueError(f"accuracy: labels are {rows} numbers, or rows of {classes}, got shape {np.shape(y)}")
    if rows and (labels.min() < 0 or labels.max() >= classes or (labels != labels.round()).any()):
        raise ValueError(f"accuracy: labels are whole numbers from 0 to {classes - 1}")
    return labels.astype(np.int64)


def _rate(value: float) -> float:
    """A learning rate."""
    rate = float(value)
    if not 0 <= rate <= 1e4:
        raise ValueError(f"training: lr must be from 0 to 10000, got {rate}")
    return rate


class Trainer:
    """A network in training.

        trainer = af.Trainer(af.softmax_cross_entropy(logits, y), params, lr=1e-3, loss_scale=1024,
                             optimizer="adam", resident_state=True)
        trainer.set_dataset(x, images, y, one_hot)
        for _ in range(1000):
            trainer.step()
        trainer.accuracy(test_images, test_labels)

    By default gradients come from the device and `trainer.opt` moves float32 weights on the host. With `device_optimizer=True`
    the device moves them, and with `resident_state=True` they stay there: one program is a step, and the host feeds a batch.
    Both give the same bits.

    Args:
        objective: a tensor of one element, or what `softmax_cross_entropy` returned.
        params: what `af.parameter` and `af.conv_param` returned.
        lr: the learning rate. `trainer.lr` may be set between steps.
        loss_scale: what gradients are multiplied with on their way; with `dynamic_scale`, what that begins with.
        data_inputs: arrays by the inputs that they are for; `trainer.data` may be changed between steps.
        optimizer: `"sgd"`, `"adam"`, and on the device also `"momentum"`, `"nesterov"`, `"adamw"` and `"lion"`.
        betas: how much of the moments is kept.
        eps: what Adam's root is moved away from 0 by.
        device_optimizer: whether the device moves weights.
        resident_state: whether everything stays on the device.
        weights: on the device `"half"`, or `"paired"`, which keeps what rounding takes from a weight; `"masters"` keeps float32
            on the host, in one program for all gradients.
        clip: how long all gradients together may be.
        average: how much of an average of weights is kept in each step, as 0.999; `evaluator(..., averaged=True)` uses it.
        accumulate: batches whose gradients make one step.
        schedule: of the learning rate: `af.train.cosine(...)`, `linear(...)` or `steps(...)`.
        weight_decay: how fast weights shrink; 0.01 for `"adamw"` and `"lion"`, else 0.
        momentum: 0.9 for `"momentum"` and `"nesterov"`, else 0.
        dynamic_scale: steps after which the scale doubles; after an overflow it is halved. 0 keeps it.
        noise: an `af.train.Noise`, where the network has dropout; evaluations of the same tensors are without.
        frozen: parameters that the network reads and that stay as they are.
        split: gradients and update as programs of their own, for several workers: `gradients()` and `apply(...)`.
        device: where it runs; by default as models do.
        target: the chip it is compiled for; by default as models are.
    """

    def __init__(
        self,
        objective: Tensor | CEHandle,
        params: Sequence[Tensor],
        lr: float,
        loss_scale: float = 1.0,
        data_inputs: Mapping[Tensor, Array] | None = None,
        optimizer: str = "sgd",
        betas: tuple[float, float] | None = None,
        eps: float = 1e-8,
        device_optimizer: bool = False,
        resident_state: bool = False,
        *,
        weights: str | None = None,
        clip: float | None = None,
        average: float | None = None,
        accumulate: int = 1,
        schedule: tuple[str, int, int, float] | None = None,
        weight_decay: float | None = None,
        momentum: float | None = None,
        dynamic_scale: int = 0,
        noise: _native.Noise | None = None,
        frozen: Sequence[Tensor] = (),
        split: bool = False,
        device: str | None = None,
        target: str | None = None,
    ) -> None:
        if not isinstance(objective, (Tensor, CEHandle)):
            raise TypeError(f"Trainer: objective must be a Tensor or a cross entropy, got {type(objective).__name__}")
        for what, given in (("params", params), ("frozen", frozen)):
            for at, p in enumerate(given):
                if not isinstance(p, Tensor) or p.op != "input" or not p.attrs.get("trainable"):
                    raise TypeError(f"Trainer: {what}[{at}] must come from af.parameter or af.conv_param, got {p!r}")
        self.objective, self.params, self.frozen = objective, list(params), list(frozen)
        self.data: dict[Tensor, Array] = dict(data_inputs or {})
        self.scale, self.resident = float(loss_scale), bool(resident_state)
        self.device_optimizer = bool(device_optimizer or resident_state)
        self._where = {"device": device, "target": target}
        self._dataset: tuple[Tensor, Tensor, Shuffled] | None = None
        self._lr, self.last = _rate(lr), {}
        self.history: list[dict[str, Any]] = []
        self._result = objective.logits if isinstance(objective, CEHandle) else objective
        self._models: dict[bool, Model] = {}
        self._dirty = False
        given = (weights, clip, average, None if accumulate == 1 else accumulate, schedule, weight_decay, momentum,
                 dynamic_scale or None, noise)
        if not self.device_optimizer:
            for name, value in zip(_BEYOND, given, strict=True):
                if value is not None:
                    raise ValueError(f"Trainer: {name} needs resident_state=True, or device_optimizer=True")
            if optimizer not in ("sgd", "adam") or frozen or split:
                what = "frozen" if frozen else "split" if split else f"optimizer={optimizer!r}"
                raise ValueError(f"Trainer: {what} needs resident_state=True, or device_optimizer=True")
            if not 0 < self.scale < math.inf:
                raise ValueError(f"Trainer: loss_scale must be more than 0, got {self.scale}")
            self._host(optimizer, betas or (0.9, 0.999), eps)
            return
        if optimizer is None:
            raise TypeError("Trainer: optimizer must be a string, got None")
        words = {
            "lr": lr, "loss_scale": loss_scale, "optimizer": optimizer, "betas": betas, "eps": eps,
            "weights": weights or "half", "clip": clip, "average": average, "accumulate": accumulate,
            "schedule": schedule, "weight_decay": weight_decay, "momentum": momentum, "split": split,
            "patience": dynamic_scale or None,
        }  # fmt: skip
        self._training = self._load(words, noise)

    def _load(self, words: dict[str, Any], noise: _native.Noise | None) -> _native.Training:
        if isinstance(self.objective, CEHandle):
            loss = _native.Loss(self.objective.logits, self.objective.target)
        else:
            loss = _native.Loss(self.objective)
        # What the loss reads beside parameters: data, and values that inputs have of themselves. Parameters that nobody
        # named stay as they are.
        roots = [self._result] + ([self.objective.target] if isinstance(self.objective, CEHandle) else [])
        leaves, named_here = _inputs(roots), {*self.params, *self.frozen}
        self.frozen += [p for p in leaves if p.attrs.get("trainable") and p not in named_here]
        trained = [(p, self._name(p, at), _values(p, {}), True) for at, p in enumerate(self.params)]
        frozen = [(p, self._name(p, at), _values(p, {}), False) for at, p in enumerate(self.frozen, len(trained))]
        named = [name for _, name, _, _ in trained + frozen]
        for name in named:
            if named.count(name) > 1:
                raise ValueError(f"Trainer: two parameters are called {name!r}, or one is given twice")
        chosen = self._where["device"] if self._where["device"] is not None else _env.device()
        target = self._where["target"] if self._where["target"] is not None else _env.target()
        place = {"target": target, "device": chosen, "host": _env.host()}
        training = _native.Training(loss, trained + frozen, autograd._rules(), noise, **place, **words)
        if training.unreached:
            names = ", ".join(f"`{name}`" for name in training.unreached)
            warnings.warn(f"Trainer: the loss does not depend on {names}; the gradient is zeros", stacklevel=4)
        read = set(training.inputs())
        self._leaves = [leaf for leaf in leaves if leaf.attrs["idx"] in read]
        return training

    def _name(self, param: Tensor, at: int) -> str:
        return param.attrs.get("name") or f"p{at}"

    def _host(self, optimizer: str, betas: tuple[float, float], eps: float) -> None:
        """Programs of the default mode: forward, and all gradients."""
        if optimizer == "adam":
            self.opt: Any = autograd.Adam(self.params, self._lr, betas, eps, self.scale)
        else:
            self.opt = autograd.SGD(self.params, self._lr, self.scale)
        found = autograd.backward(self.objective, self.params, self.scale)
        self._grads = [found[p] for p in self.params]
        options = {key: value for key, value in self._where.items() if value is not None}
        self._fwd = compile(self._result, **options)
        self._bwd = compile(self._grads, **options)
        self._fwd_leaves, self._bwd_leaves = _inputs([self._result]), _inputs(self._grads)

    @property
    def lr(self) -> float:
        """The learning rate; it may be set between steps."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = _rate(value)
        if self.device_optimizer:
            self._training.set_lr(self._lr)
        else:
            self.opt.lr = self._lr

    def set_dataset(
        self, x_input: Tensor, X_full: Array, target_input: Tensor, Y_onehot: Array, seed: int = 0
    ) -> None:
        """Takes each step's batch from here, in a new order in each epoch.

        Args:
            x_input: the input that examples go to; its first axis is the batch.
            X_full: all examples.
            target_input: the input that targets go to.
            Y_onehot: all targets, as rows.
            seed: of the order.
        """
        self._dataset = (x_input, target_input, Shuffled(X_full, Y_onehot, x_input.shape[0], seed))

    def _feed(self, leaves: Sequence[Tensor]) -> list[Array]:
        return [_values(leaf, self.data) for leaf in leaves]

    def step(self) -> dict[str, Any]:
        """Runs a batch and moves the weights. Returns what came of it: on the device `loss`, `updated`, `overflowed` and more."""
        if self._dataset is not None:
            x, target, batches = self._dataset
            self.data[x], self.data[target] = next(batches)
        if not self.device_optimizer:
            gradients = self._bwd(*self._feed(self._bwd_leaves))
            before = self.opt._nonfinite_skips
            self.opt.step(gradients if isinstance(gradients, tuple) else (gradients,))
            self.last = {"updated": self.opt._nonfinite_skips <= before or self.opt._nonfinite_skips == 0}
            return self.last
        if not self.resident:
            for at, param in enumerate(self.params):
                self._training.set_weight(self._name(param, at), param.attrs["value"])
        self.last = self._training.step([(leaf, _values(leaf, self.data)) for leaf in self._leaves])
        self._dirty, self.scale = True, self.last["scale"]
        if self.last["overflowed"]:
            self._tell()
        if not self.resident:
            self.sync()
        return self.last

    def _ports(self) -> list[Tensor]:
        """The inputs that a batch is for, in the order in which they were made."""
        if self.device_optimizer:
            leaves = self._leaves
        else:
            leaves = sorted({*self._fwd_leaves, *self._bwd_leaves} - set(self.params), key=lambda leaf: leaf.attrs["idx"])
        return [leaf for leaf in leaves if leaf.attrs.get("value") is None]

    def _steps_before(self) -> int:
        """Steps that were made before there was a history: of a checkpoint."""
        return int(self._training.updates) if self.device_optimizer else 0

    def fit(
        self,
        batches: Iterable[Any] | None = None,
        steps: int | None = None,
        *,
        inputs: Sequence[Tensor] | None = None,
        log: str | PathLike[str] | None = None,
        writer: _fit.Writer | None = None,
        checkpoint: str | PathLike[str] | None = None,
        every: int = 500,
        progress: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Makes a step of every batch, and returns what `history` has of them: `step`, `loss`, `lr`, `scale` and more.

        Args:
            batches: tuples of arrays, or dicts of them by input: a list, a generator, a `DataLoader` of PyTorch. By default those
                of `set_dataset`.
            steps: how many at most.
            inputs: what the arrays of a tuple are for; by default the inputs in the order in which they were made.
            log: a CSV file for the metrics of every step.
            writer: what takes metrics by name, such as a `SummaryWriter` for TensorBoard.
            checkpoint: a file for `save`.
            every: steps after which both files are written; and at the end.
            progress: whether a line on standard error tells of loss and throughput; by default where that is a terminal.
        """
        return _fit.fit(self, batches, steps, inputs, log, writer, checkpoint, every, progress)

    def curve(self, path: str | PathLike[str]) -> None:
        """Writes the losses that `fit` has seen as an SVG picture."""
        _fit.write_curve(self, path)

    def sparkline(self, width: int = 60) -> str:
        """The losses that `fit` has seen as one line of blocks, for a terminal."""
        return _fit.spark([row["loss"] for row in self.history], width)

    def _tell(self) -> None:
        """Warns of a step that was void."""
        names = ", ".join(self.last["overflowed"])
        scale = self.last["scale"]
        warnings.warn(
            f"step: gradients of {names} are not finite with the scale {scale:g}; the step is void", stacklevel=3
        )

    def sync(self) -> None:
        """Brings weights that are on the device to `attrs["value"]` of their parameters."""
        if self.device_optimizer and self._dirty:
            weights = self._training.weights()
            for at, param in enumerate(self.params):
                param.attrs["value"] = weights[self._name(param, at)]
            self._dirty = False

    def gradients(self) -> tuple[float, list[NDArray[np.float16]]]:
        """The loss and the gradients of one batch, times the scale, of a `split` trainer; nothing moves."""
        if not self.device_optimizer:
            raise ValueError("gradients needs split=True and resident_state=True")
        if self._dataset is not None:
            x, target, batches = self._dataset
            self.data[x], self.data[target] = next(batches)
        return self._training.gradients([(leaf, _values(leaf, self.data)) for leaf in self._leaves])

    def apply(self, gradients: Sequence[Array]) -> dict[str, Any]:
        """Moves the weights along gradients that `gradients()` gave, averaged over workers."""
        if not self.device_optimizer:
            raise ValueError("apply needs split=True and resident_state=True")
        self.last = self._training.apply(list(gradients))
        self._dirty = True
        if not self.resident:
            self.sync()
        return self.last

    def evaluator(self, out: Tensor | Sequence[Tensor] | Mapping[str, Tensor], averaged: bool = False) -> Model:
        """A model of `out` that reads the weights on the device, as they are and as they become."""
        if not self.device_optimizer:
            raise ValueError("evaluator needs resident_state=True; else compile the tensor and feed the parameters")
        return self._training.evaluator(out, averaged)

    def _outputs(self, averaged: bool = False) -> NDArray[Any]:
        """What the network makes of the data."""
        if not self.device_optimizer:
            return np.asarray(self._fwd(*self._feed(self._fwd_leaves)))
        if averaged not in self._models:
            self._models[averaged] = self.evaluator(self._result, averaged)
        fed = set(self._training.inputs())
        leaves = [leaf for leaf in _inputs([self._result]) if leaf.attrs["idx"] in fed]
        return np.asarray(self._models[averaged](*self._feed(leaves)))

    def loss(self) -> float:
        """The loss on the data as it is."""
        self.sync()
        out = self._outputs()
        if not isinstance(self.objective, CEHandle):
            return float(out.reshape(()))
        z = out - out.max(axis=1, keepdims=True)
        logs = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return float(-(np.asarray(self.data[self.objective.target]) * logs).sum(axis=1).mean())

    def accuracy(self, X: Array, y: Array, averaged: bool = False) -> float:
        """The share of examples whose greatest logit is that of their label.

        Args:
            X: examples.
            y: labels, or rows of ones and zeros.
            averaged: whether by the average of weights over steps.
        """
        if not isinstance(self.objective, CEHandle):
            raise ValueError("accuracy needs a softmax_cross_entropy objective")
        self.sync()
        if averaged and not self.device_optimizer:
            raise ValueError("accuracy: averages are kept with resident_state=True")
        X = np.asarray(X)
        labels = _labels(y, len(X), int(self._result.shape[1]))
        port = self._features(X)
        if tuple(X.shape[1:]) != tuple(port.shape[1:]):
            raise ValueError(f"accuracy: examples must be of shape {tuple(port.shape[1:])}, got {tuple(X.shape[1:])}")
        batch, before = port.shape[0], dict(self.data)
        right = 0
        try:
            for at in range(0, len(X), batch):
                rows = X[at : at + batch]
                full = np.zeros(tuple(port.shape), X.dtype)
                full[: len(rows)] = rows
                self.data[port] = full
                found = self._outputs(averaged)[: len(rows)].argmax(axis=1)
                right += int((found == labels[at : at + batch]).sum())
        finally:
            self.data = before
        return right / max(len(X), 1)

    def _features(self, X: NDArray[Any]) -> Tensor:
        """The input that examples go to."""
        if self._dataset is not None:
            return self._dataset[0]
        target = self.objective.target if isinstance(self.objective, CEHandle) else None
        fits = [
            leaf
            for leaf in _inputs([self._result])
            if tuple(leaf.shape[1:]) == tuple(X.shape[1:])
            and leaf != target
            and not leaf.attrs.get("trainable")
            and leaf.attrs.get("value") is None
        ]
        if len(fits) != 1:
            how = "no input takes" if not fits else "several inputs take"
            raise ValueError(f"accuracy: {how} examples of shape {tuple(X.shape[1:])}; call set_dataset, which names it")
        return fits[0]

    def save(self, path: str | PathLike[str]) -> None:
        """Writes everything that a step depends on, atomically: weights, moments, scale, noise, and where the data set is."""
        if not self.device_optimizer:
            raise ValueError("save needs resident_state=True")
        notes = {"lr": repr(self._lr)}
        if self._dataset is not None:
            notes["batches"] = str(self._dataset[2].done)
        self._training.save(fspath(path), notes)

    def load(self, path: str | PathLike[str]) -> None:
        """Goes on where `save` was called, bit for bit. The data set is to be set before."""
        if not self.device_optimizer:
            raise ValueError("load needs resident_state=True")
        notes = self._training.load(fspath(path), ["lr", "batches"])
        self.lr = float(notes.get("lr", self._lr))
        if self._dataset is not None and "batches" in notes:
            self._dataset[2].seek(int(notes["batches"]))
        self._dirty = True
        self.sync()

    @property
    def _res_state(self) -> list[dict[str, Any]]:
        return [{"p": p, "name": self._name(p, at)} for at, p in enumerate(self.params)] if self.resident else []

    @property
    def _res_data_inputs(self) -> list[Tensor]:
        return list(self._leaves) if self.resident else []

    @property
    def _res_lr(self) -> float:
        return self._lr

    def release(self) -> None:
        """Frees the programs of the forward direction; those of a step go with the trainer."""
        for model in [*self._models.values(), *(getattr(self, name, None) for name in ("_fwd", "_bwd"))]:
            if model is not None:
                model.release()
        self._models = {}

    def __repr__(self) -> str:
        if "_training" not in vars(self) and "opt" not in vars(self):
            return "Trainer()"
        if not self.device_optimizer:
            return f"Trainer({len(self.params)} parameters, {type(self.opt).__name__} on the host)"
        return repr(self._training)


class UnrolledTrainer:
    """Several steps of Adam in one program.

    Args:
        params: what `af.parameter` and `af.conv_param` returned.
        forward: of parameters, as a list, and an input: logits or predictions.
        kind: `"ce"` or `"mse"`.
        x_inputs: the inputs for examples, one per step.
        t_inputs: the inputs for targets, one per step.
        dataset: examples and targets.
        lr: the learning rate; `trainer.lr` may be set between calls.
        loss_scale: what gradients are multiplied with.
        betas: how much of the moments is kept.
        eps: what Adam's root is moved away from 0 by.
        seed: of the order of batches.
        resident: whether weights and moments stay on the device from call to call.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        forward: Callable[[list[Tensor], Tensor], Tensor],
        kind: str,
        x_inputs: Sequence[Tensor],
        t_inputs: Sequence[Tensor],
        dataset: tuple[Array, Array],
        lr: float,
        loss_scale: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        seed: int = 0,
        resident: bool = True,
    ) -> None:
        if kind not in ("ce", "mse"):
            raise ValueError(f'UnrolledTrainer: kind must be "ce" or "mse", got {kind!r}')
        if len(x_inputs) != len(t_inputs) or not x_inputs:
            raise ValueError(f"UnrolledTrainer: {len(x_inputs)} inputs for examples and {len(t_inputs)} for targets")
        self.params, self.kind, self.lr, self.betas = list(params), kind, _rate(lr), betas
        self.resident, self.t, self._forward = bool(resident), 0, forward
        self._batches = Shuffled(dataset[0], dataset[1], x_inputs[0].shape[0], seed)
        self._m_in = [input(tuple(p.shape)) for p in self.params]
        self._v_in = [input(tuple(p.shape)) for p in self.params]
        self._lrs = [input((1, 1)) for _ in x_inputs]
        self._data = list(zip(x_inputs, t_inputs, strict=True))
        weights, means, moments = list(self.params), list(self._m_in), list(self._v_in)
        for (x, target), rate in zip(self._data, self._lrs, strict=True):
            out = forward(weights, x)
            objective = autograd.softmax_cross_entropy(out, target) if kind == "ce" else autograd.mse(out, target)
            found = autograd.backward(objective, weights, loss_scale, stop=weights)
            gradients = [found[w] for w in weights]
            weights, means, moments = autograd.adam_step(weights, means, moments, gradients, rate, betas, eps)
        self._outs = [*weights, *means, *moments]
        self._ins = [*self.params, *self._m_in, *self._v_in]
        self._net = compile_multi(self._outs)
        self._state = {leaf: self._first(leaf) for leaf in self._ins}
        if self.resident:
            self._share()
        self._eval: tuple[MultiModel, Tensor] | None = None
        self._x_shape = tuple(x_inputs[0].shape)

    def _first(self, leaf: Tensor) -> NDArray[np.float32]:
        return np.asarray(leaf.attrs.get("value", np.zeros(tuple(leaf.shape))), np.float32)

    @property
    def _ports(self) -> dict[Tensor, str]:
        return {leaf: name for leaf, name in self._net.input_ports}

    def _share(self) -> None:
        """Makes each state's input read what its output wrote, and gives it its first value."""
        ports, outputs = self._ports, self._net.output_ports
        for (_, out), leaf in zip(outputs, self._ins, strict=True):
            self._net.prog.share_buffer(0, out, 0, ports[leaf])
        for leaf in self._ins:
            self._net.prog.set_input(ports[leaf], self._state[leaf])

    @property
    def _res_lr_names(self) -> list[str]:
        return [self._ports[rate] for rate in self._lrs]

    @property
    def _res_data(self) -> list[tuple[str, int, str]]:
        rows = enumerate(self._data)
        return [(self._ports[leaf], k, what) for k, pair in rows for leaf, what in zip(pair, "xt", strict=True)]

    def step(self) -> None:
        """Makes as many steps as there are inputs for examples."""
        (b1, b2), rate_now = self.betas, _rate(self.lr)
        feeds: dict[Tensor, Array] = {}
        for k, ((x, target), rate) in enumerate(zip(self._data, self._lrs, strict=True)):
            feeds[x], feeds[target] = next(self._batches)
            t = self.t + k + 1
            feeds[rate] = np.full((1, 1), rate_now * math.sqrt(1 - b2**t) / (1 - b1**t), np.float32)
        state = set(self._ins)
        for leaf, port in self._net.input_ports:
            if leaf in state:
                if not self.resident:
                    self._net.prog.set_input(port, self._state[leaf])
                continue
            self._net.prog.set_input(port, _values(leaf, feeds))
        self._net.prog.execute()
        if not self.resident:
            for (_, port), leaf in zip(self._net.output_ports, self._ins, strict=True):
                self._state[leaf] = self._net.prog.read_output(port)
        self.t += len(self._data)

    def _weights(self) -> list[NDArray[np.float32]]:
        if not self.resident:
            return [self._state[p] for p in self.params]
        ports = self._net.output_ports
        if self.t == 0:
            return [self._state[p] for p in self.params]
        return [self._net.prog.read_output(ports[at][1]) for at in range(len(self.params))]

    def predict(self, X: Array) -> NDArray[np.float32]:
        """What the network makes of examples: logits or predictions."""
        if self._eval is None:
            leaves = [autograd.parameter(self._first(p)) for p in self.params]
            for leaf, p in zip(leaves, self.params, strict=True):
                if "conv_shape" in p.attrs:
                    leaf.attrs["conv_shape"] = p.attrs["conv_shape"]
            x = input(self._x_shape)
            out = self._forward(leaves, x)
            self._eval, self._eval_leaves = (compile_multi([out]), x), leaves
        model, x = self._eval
        weights = dict(zip(self._eval_leaves, self._weights(), strict=True))
        X, batch, rows = np.asarray(X), self._x_shape[0], []
        if tuple(X.shape[1:]) != self._x_shape[1:]:
            raise ValueError(f"predict: examples must be of shape {self._x_shape[1:]}, got {tuple(X.shape[1:])}")
        for at in range(0, len(X), batch):
            part = X[at : at + batch]
            full = np.zeros(self._x_shape, np.float32)
            full[: len(part)] = part
            feeds = {**weights, x: full}
            arrays = [_values(leaf, feeds) for leaf, _ in model.input_ports]
            (found,) = model(*arrays).values()
            rows.append(found[: len(part)])
        return np.concatenate(rows) if rows else np.zeros((0,), np.float32)

    def sync(self) -> None:
        """Brings the weights to `attrs["value"]` of their parameters."""
        for param, weights in zip(self.params, self._weights(), strict=True):
            param.attrs["value"] = np.array(weights)

    def release(self) -> None:
        """Frees the programs."""
        self._net.release()
        if self._eval is not None:
            self._eval[0].release()


class CheckpointedStack:
    """Layers of one kind, one after the other, with two programs for any number of them.

    The forward direction keeps what goes into each layer; the backward direction computes a layer again from that.

    Args:
        layer_fn: of a layer's parameters, as a list, and its input: its result, of the same shape.
        example_params: a layer's parameters, whose shapes all layers have.
        io_shape: the shape of what goes through.
    """

    def __init__(
        self,
        layer_fn: Callable[[list[Tensor], Tensor], Tensor],
        example_params: Sequence[Tensor | Array],
        io_shape: Sequence[int],
    ) -> None:
        shapes = [tuple(p.shape) for p in example_params]
        params = [autograd.parameter(np.zeros(shape)) for shape in shapes]
        for mine, given in zip(params, example_params, strict=True):
            if isinstance(given, Tensor) and "conv_shape" in given.attrs:
                mine.attrs["conv_shape"] = given.attrs["conv_shape"]
        x, g_out = input(tuple(io_shape)), input(tuple(io_shape))
        y = layer_fn(params, x)
        if tuple(y.shape) != tuple(io_shape):
            raise ValueError(f"CheckpointedStack: a layer gives {tuple(y.shape)}, and must give {tuple(io_shape)}")
        found = autograd.backward_from(g_out, y, [*params, x])
        self._shapes, self._x, self._g, self._params = shapes, x, g_out, params
        self._fwd = compile_multi([y])
        self._bwd = compile_multi([found[p] for p in params] + [found[x]])

    def _arrays(self, params: Sequence[Tensor | Array]) -> dict[Tensor, Array]:
        if len(params) != len(self._params):
            raise ValueError(f"CheckpointedStack: a layer has {len(self._params)} parameters, got {len(params)}")
        given = [p.attrs["value"] if isinstance(p, Tensor) else p for p in params]
        return dict(zip(self._params, given, strict=True))

    def _run(self, model: MultiModel, feeds: Mapping[Tensor, Array]) -> list[NDArray[np.float32]]:
        arrays = [_values(leaf, feeds) for leaf, _ in model.input_ports]
        return list(model(*arrays).values())

    def forward(
        self, layers_params: Sequence[Sequence[Tensor | Array]], x0: Array
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """The stack's result, and what went into each layer."""
        x, checkpoints = np.asarray(x0, np.float32), []
        for params in layers_params:
            checkpoints.append(x)
            (x,) = self._run(self._fwd, {**self._arrays(params), self._x: x})
        return x, checkpoints

    def backward(
        self, layers_params: Sequence[Sequence[Tensor | Array]], checkpoints: Sequence[Array], g_out: Array
    ) -> tuple[list[list[NDArray[np.float32]]], NDArray[np.float32]]:
        """The gradients of each layer's parameters, and that of the stack's input, given that of its result."""
        g = np.asarray(g_out, np.float32)
        gradients: list[list[NDArray[np.float32]]] = []
        for params, x in zip(reversed(list(layers_params)), reversed(list(checkpoints)), strict=True):
            *found, g = self._run(self._bwd, {**self._arrays(params), self._x: x, self._g: g})
            gradients.insert(0, found)
        return gradients, g

    def release(self) -> None:
        """Frees the programs."""
        self._fwd.release()
        self._bwd.release()
