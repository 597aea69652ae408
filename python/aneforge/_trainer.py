"""Networks in training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn

from aneforge import _env, _fit, _native, autograd
from aneforge._batches import Shuffled, _labels, _rate, _targets, _values
from aneforge._blame import blaming_methods, warn
from aneforge._compile import compile
from aneforge._late import np
from aneforge._multi import _inputs
from aneforge._native import Model, Tensor
from aneforge._operand import Array, within
from aneforge._operand import path as named
from aneforge._profile import Profile
from aneforge.autograd import CEHandle

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BEYOND = ("weights", "clip", "average", "accumulate", "schedule", "weight_decay", "momentum", "dynamic_scale", "noise")


class _Released:
    """What is left of a training whose programs were freed."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError("the trainer was released; make another one")

    def __repr__(self) -> str:
        return "Trainer(released)"


@blaming_methods(
    "__init__", "set_dataset", "fit", "curve", "sparkline", "apply", "profile", "evaluator", "accuracy", "save", "load"
)
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
        betas: how much of the moments is kept, for `"adam"`, `"adamw"` and `"lion"`.
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
        momentum: 0.9 for `"momentum"` and `"nesterov"`, for `"sgd"` 0; others take none.
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
        if not params:
            raise ValueError("Trainer: params is empty; give what af.parameter and af.conv_param returned")
        if len({*params}) < len(params):
            raise ValueError("Trainer: params has two of the same; one is given twice")
        dynamic_scale = within("Trainer: dynamic_scale", dynamic_scale, 0, 2048)
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
        self._dirty, self._loaded = False, False
        # Steps that moved weights, where the host does, and all steps: also void ones, and each of `accumulate` batches.
        self._moved, self._steps = 0, 0
        self._resumed: dict[str, str] = {}
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
            if betas is not None and optimizer == "sgd":
                raise ValueError("Trainer: sgd takes no betas; leave it out")
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
            warn(f"Trainer: the loss does not depend on {names}; the gradient is zeros")
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
        self._forward = compile(self._result, **options)
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

    @property
    def updates(self) -> int:
        """How often the weights were moved: steps without those that were void, and before the last of `accumulate` batches. After
        `load` it is that of the checkpoint, and more.
        """
        return int(self._training.updates) if self.device_optimizer else self._moved

    def set_dataset(
        self,
        x_input: Tensor,
        X_full: Array,
        target_input: Tensor,
        Y_onehot: Array,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Takes each step's batch from here, in a new order in each epoch.

        Args:
            x_input: the input that examples go to; its first axis is the batch.
            X_full: all examples.
            target_input: the input that targets go to.
            Y_onehot: all targets, as rows; of a cross entropy also labels, whole numbers.
            seed: of the order.
            shard: `(k, K)` for worker `k` of `K`, from 0 on, who take the batches of the order by turns.
        """
        for name, leaf in (("x_input", x_input), ("target_input", target_input)):
            if not isinstance(leaf, Tensor):
                raise TypeError(f"set_dataset: {name} must be a Tensor, got {type(leaf).__name__}")
        batches = Shuffled(X_full, Y_onehot, x_input.shape[0], seed, shard)
        if batches.X.shape[1:] != tuple(x_input.shape[1:]):
            want, got = list(x_input.shape[1:]), list(batches.X.shape[1:])
            raise ValueError(f"set_dataset: examples must be of shape {want}, as the input takes them, got {got}")
        if "batches" in self._resumed:
            was = {name: self._resumed.get(name, text) for name, text in batches.identity().items()}
            if was == batches.identity():
                batches.seek(int(self._resumed["batches"]))
            else:
                was_told, told = ", ".join(was.values()), ", ".join(batches.identity().values())
                warn(
                    f"set_dataset: the checkpoint is of another data set, seed or batch ({was_told}; these are {told}); this one "
                    f"begins anew"
                )
        self._resumed = {}
        self._dataset = (x_input, target_input, batches)

    def _feed(self, leaves: Sequence[Tensor]) -> list[Array]:
        return [self._value(leaf) for leaf in leaves]

    def _value(self, leaf: Tensor) -> Array:
        """What an input is fed with, of its shape."""
        array = _values(leaf, self.data)
        if isinstance(self.objective, CEHandle) and leaf == self.objective.target:
            array = _targets(array, leaf.shape)
        if isinstance(array, np.ndarray) and array.shape != tuple(leaf.shape):
            name = leaf.attrs.get("name")
            raise ValueError(
                f"the batch: {f'`{name}`' if name else 'an input'} of shape {list(leaf.shape)} got an array of shape {list(array.shape)}; programs have fixed "
                f"shapes, so fill the last batch, or leave it out (drop_last=True of a DataLoader)"
            )
        return array

    def _draw(self) -> tuple[int, int]:
        """Takes the next batch of the data set, if there is one; which worker takes it, and of how many."""
        if self._dataset is None:
            return 0, 1
        x, target, batches = self._dataset
        self.data[x], self.data[target] = next(batches)
        return batches.shard

    def step(self) -> dict[str, Any]:
        """Runs a batch and moves the weights. Returns what came of it: on the device `loss`, `updated`, `overflowed` and more."""
        self._draw()
        if not self.device_optimizer:
            gradients = self._bwd(*self._feed(self._bwd_leaves))
            self.opt.step(gradients if isinstance(gradients, tuple) else (gradients,))
            skipped = self.opt._nonfinite_skips
            self._moved, self._steps = self._moved + (skipped == 0), self._steps + 1
            self.last = {"updated": skipped == 0, "void": self.opt._void, "skipped": skipped}
            return self.last
        if not self.resident:
            for at, param in enumerate(self.params):
                self._training.set_weight(self._name(param, at), _values(param, {}))
        batch = list(zip(self._leaves, self._feed(self._leaves), strict=True))
        self._dirty = True
        self.last = self._training.step(batch)
        self._steps += 1
        self.scale = self.last["scale"]
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
        tensorboard: str | PathLike[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Makes a step of every batch, and returns what `history` has of them: `step`, `loss`, `lr`, `scale` and more.

        Args:
            batches: tuples of arrays, or dicts of them by input: a list, a generator, a `DataLoader` of PyTorch with
                `drop_last=True`. Whole numbers for the target of a cross entropy are labels. By default those of `set_dataset`.
            steps: how many at most.
            inputs: what the arrays of a tuple are for; by default the inputs in the order in which they were made.
            log: a CSV file for the metrics of every step. After `load` its rows up to the checkpoint stay in it.
            writer: what takes metrics by name, such as a `SummaryWriter` for TensorBoard.
            checkpoint: a file for `save`.
            every: steps after which both files are written; and at the end.
            progress: whether a line on standard error tells of loss and throughput; by default where that is a terminal.
            tensorboard: a folder in which TensorBoard finds the metrics of every step, in a new file.
        """
        return _fit.fit(self, batches, steps, inputs, log, writer, checkpoint, every, progress, tensorboard)

    def curve(self, path: str | PathLike[str]) -> None:
        """Writes the losses that `fit` has seen as an SVG picture."""
        _fit.write_curve(self, path)

    def sparkline(self, width: int = 60) -> str:
        """The losses that `fit` has seen as one line of blocks, for a terminal."""
        return _fit.spark([row["loss"] for row in self.history], within("sparkline: width", width))

    def _tell(self) -> None:
        """Warns of a step that was void: of the first, and of each hundredth in a row."""
        if self.last["void"] is not None and self.last["skipped"] % 100 == 1:
            scale, streak = self.last["scale"], self.last["skipped"]
            warn(f"step: {self.last['void']}, with the scale {scale:g}; the step is void ({streak} in a row)")

    def sync(self) -> None:
        """Brings weights that are on the device to `attrs["value"]` of their parameters."""
        if self.device_optimizer and self._dirty:
            weights = self._training.weights()
            for at, param in enumerate(self.params):
                param.attrs["value"] = weights[self._name(param, at)]
            self._dirty = False

    def gradients(self) -> tuple[float, list[NDArray[Any]]]:
        """The loss and the gradients of one batch, times the scale, of a `split` trainer: in float16, or in float32 with
        `weights="masters"`. No weight moves. With a `shard` of a data set, dropout is that of the worker's batch.
        """
        if not self.device_optimizer:
            raise ValueError("gradients needs split=True and resident_state=True")
        worker, workers = self._draw()
        self._training.pass_(worker)
        found = self._training.gradients(list(zip(self._leaves, self._feed(self._leaves), strict=True)))
        self._training.pass_(workers - 1 - worker)
        return found

    def apply(self, gradients: Sequence[Array]) -> dict[str, Any]:
        """Moves the weights along gradients that `gradients()` gave, of all workers, averaged by `af.train.average`."""
        if not self.device_optimizer:
            raise ValueError("apply needs split=True and resident_state=True")
        self._dirty = True
        self.last = self._training.apply(list(gradients))
        self._steps += 1
        self.scale = self._training.scale
        self._tell()
        if not self.resident:
            self.sync()
        return self.last

    def profile(self, calls: int = 10) -> Profile:
        """Where the time of a step goes, on the batch that was fed last; weights stay as they are.

        Args:
            calls: how many are measured.
        """
        if not self.device_optimizer:
            raise ValueError("profile needs resident_state=True; else profile a compiled model")
        if not self.last:
            raise ValueError("profile: no batch was fed; call step before")
        return Profile(*self._training.profile(within("profile: calls", calls, 1)))

    def evaluator(self, out: Tensor | Sequence[Tensor] | Mapping[str, Tensor], averaged: bool = False) -> Model:
        """A model of `out` that reads the weights on the device, as they are and as they become."""
        if not self.device_optimizer:
            raise ValueError("evaluator needs resident_state=True; else compile the tensor and feed the parameters")
        return self._training.evaluator(out, averaged)

    def _outputs(self, averaged: bool = False) -> NDArray[Any]:
        """What the network makes of the data."""
        if not self.device_optimizer:
            return np.asarray(self._forward(*self._feed(self._fwd_leaves)))
        self._evaluating(averaged)
        fed = set(self._training.inputs())
        leaves = [leaf for leaf in _inputs([self._result]) if leaf.attrs["idx"] in fed]
        return np.asarray(self._models[averaged](*self._feed(leaves)))

    def _evaluating(self, averaged: bool) -> Model:
        if averaged not in self._models:
            self._models[averaged] = self.evaluator(self._result, averaged)
        return self._models[averaged]

    @property
    def _fwd(self) -> Model:
        """The forward direction; in the modes of the device its weights are those of the device."""
        return self._evaluating(False) if self.device_optimizer else self._forward

    def loss(self) -> float:
        """The loss on the data as it is."""
        self.sync()
        out = self._outputs()
        if not isinstance(self.objective, CEHandle):
            return float(out.reshape(()))
        z = out - out.max(axis=1, keepdims=True)
        logs = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return float(-(self._value(self.objective.target) * logs).sum(axis=1).mean())

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
        X = _native.array(X, "accuracy: X")
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
        notes = {"lr": repr(self._lr), "steps": str(self._steps)}
        if self._dataset is not None:
            notes.update(self._dataset[2].identity(), batches=str(self._dataset[2].done))
        self._training.save(named("save: path", path), notes)

    def load(self, path: str | PathLike[str], anew: bool = False) -> None:
        """Goes on where `save` was called, bit for bit. A data set that was set is to be the one of then, with its seed and batch;
        so are the schedule and what else steps go by.

        Args:
            path: the file.
            anew: whether another data set, which then begins anew, or another schedule, clip, patience or `accumulate` is meant; the
                learning rate is then the trainer's own.
        """
        if not self.device_optimizer:
            raise ValueError("load needs resident_state=True")
        identity = {} if self._dataset is None else self._dataset[2].identity()
        names = ["lr", "steps", "batches", "data set", "seed", "batch"]
        try:
            notes = self._training.load(named("load: path", path), names, identity, bool(anew))
        except ValueError as error:
            if "say that it is meant" not in str(error):
                raise
            raise ValueError(f"{error}: load(..., anew=True)") from None
        self._steps, self._loaded = int(notes.pop("steps", self._training.updates)), True
        if not anew:
            self.lr = float(notes.pop("lr", self._lr))
        self._resumed = {} if anew or self._dataset is not None else notes
        if self._dataset is not None:
            same = all(notes.get(name, text) == text for name, text in identity.items())
            self._dataset[2].seek(int(notes.get("batches", self._dataset[2].done)) if same else 0)
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
        """Frees the programs. Weights are in `attrs["value"]` of their parameters afterwards, and nothing else can be done."""
        if self.device_optimizer and not isinstance(self._training, _Released):
            self.sync()
        for model in [*self._models.values(), *(getattr(self, name, None) for name in ("_forward", "_bwd"))]:
            if model is not None:
                model.release()
        self._models = {}
        if self.device_optimizer:
            self._training = _Released()  # type: ignore[assignment]

    def __repr__(self) -> str:
        if "_training" not in vars(self) and "opt" not in vars(self):
            return "Trainer()"
        if not self.device_optimizer:
            return f"Trainer({len(self.params)} parameters, {type(self.opt).__name__} on the host)"
        return repr(self._training)
