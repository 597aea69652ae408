"""Trainings in other forms: several steps in one program, and layers that share two."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aneforge import _native, autograd
from aneforge._batches import Shuffled, _rate, _targets, _values
from aneforge._blame import blaming_methods, warn
from aneforge._functions import concat, input, select
from aneforge._late import np
from aneforge._multi import MultiModel, compile_multi
from aneforge._native import Tensor
from aneforge._operand import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _finite(*tensors: Tensor) -> Tensor:
    """1 where all of them are finite, else 0, of shape `[1]`."""
    inside = [select(t.abs() <= 65504.0, 1.0, 0.0) for t in tensors]
    whole = inside[0]
    for part in inside[1:]:
        whole = whole * part
    return whole.amin(tuple(range(whole.ndim))).reshape(1)


def _kept(good: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """The new value of a good step, else the old one; kernels stay kernels."""
    chosen = select(good, new, old)
    if tuple(chosen.shape) != tuple(old.shape):
        chosen = chosen.reshape(*old.shape)
    shape = autograd._conv_shapes.get(new)
    if shape is not None:
        autograd._conv_shapes[chosen] = shape
    return chosen


@blaming_methods("__init__", "predict")
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
        if not params:
            raise ValueError("UnrolledTrainer: params is empty; give what af.parameter and af.conv_param returned")
        if not isinstance(dataset, (tuple, list)) or len(dataset) != 2:
            raise TypeError("UnrolledTrainer: dataset must be a pair of arrays, examples and targets")
        if not callable(forward):
            raise TypeError(f"UnrolledTrainer: forward must be a function, got {type(forward).__name__}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"UnrolledTrainer: betas must be at least 0 and less than 1, got {betas}")
        self.params, self.kind, self.lr, self.betas = list(params), kind, _rate(lr), betas
        self.last: dict[str, Any] = {}
        self._ran = False
        self._nonfinite_skips = 0
        self.resident, self.t, self._forward = bool(resident), 0, forward
        self._batches = Shuffled(dataset[0], dataset[1], x_inputs[0].shape[0], seed)
        self._m_in = [input(tuple(p.shape)) for p in self.params]
        self._v_in = [input(tuple(p.shape)) for p in self.params]
        self._lrs = [input((1, 1)) for _ in x_inputs]
        self._data = list(zip(x_inputs, t_inputs, strict=True))
        weights, means, moments = list(self.params), list(self._m_in), list(self._v_in)
        flags: list[Tensor] = []
        for (x, target), rate in zip(self._data, self._lrs, strict=True):
            out = forward(weights, x)
            if not isinstance(out, Tensor):
                raise TypeError(f"UnrolledTrainer: forward must return a Tensor, got {type(out).__name__}")
            objective = autograd.softmax_cross_entropy(out, target) if kind == "ce" else autograd.mse(out, target)
            found = autograd.backward(objective, weights, loss_scale, stop=weights)
            gradients = [found[w] for w in weights]
            old = [weights, means, moments]
            new = autograd.adam_step(weights, means, moments, gradients, rate, betas, eps)
            # All of a step or nothing: an infinity in one gradient leaves every weight and moment as it was.
            rows = zip(*new, strict=True)
            flags.append(concat([_finite(g, *row) for g, row in zip(gradients, rows, strict=True)], 0))
            good = flags[-1].amin((0,)) > 0.5
            weights, means, moments = (
                [_kept(good, *pair) for pair in zip(*both, strict=True)] for both in zip(new, old, strict=True)
            )
        self._outs = [*weights, *means, *moments, concat(flags, 0)]
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
        for (_, out), leaf in zip(outputs[:-1], self._ins, strict=True):
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

    def step(self) -> dict[str, Any]:
        """Makes as many steps as there are inputs for examples. One whose gradients, or what follows of them, are not finite is void:
        `updated` says of each whether it was made, `overflowed` names parameters.
        """
        (b1, b2), rate_now = self.betas, _rate(self.lr)
        feeds: dict[Tensor, Array] = {}
        for k, ((x, target), rate) in enumerate(zip(self._data, self._lrs, strict=True)):
            feeds[x], feeds[target] = next(self._batches)
            if self.kind == "ce":
                feeds[target] = _targets(feeds[target], target.shape)
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
            for (_, port), leaf in zip(self._net.output_ports[:-1], self._ins, strict=True):
                self._state[leaf] = self._net.prog.read_output(port)
        self._ran = True
        flags = self._net.prog.read_output(self._net.output_ports[-1][1]).reshape(len(self._data), -1) > 0.5
        self.last = {"updated": flags.all(1).tolist(), "overflowed": self._names(~flags.all(0))}
        for row in flags:
            self._nonfinite_skips = 0 if row.all() else self._nonfinite_skips + 1
            if self._nonfinite_skips % 100 == 1:
                names = ", ".join(self._names(~row))
                warn(
                    f"step: non-finite gradients or weights of {names}: the step is void; lower loss_scale, or the learning rate "
                    f"({self._nonfinite_skips} in a row)"
                )
        self.t += int(flags.all(1).sum())
        return self.last

    def _names(self, which: NDArray[np.bool_]) -> list[str]:
        return [autograd._named(self.params[at], int(at)) for at in np.flatnonzero(which)]

    def _weights(self) -> list[NDArray[np.float32]]:
        if not self.resident:
            return [self._state[p] for p in self.params]
        ports = self._net.output_ports
        if not self._ran:
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
        X, batch, rows = _native.array(X, "predict: X"), self._x_shape[0], []
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


@blaming_methods("__init__", "forward", "backward")
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
        example_params = [p if isinstance(p, Tensor) else _native.array(p, "CheckpointedStack: a parameter") for p in example_params]
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
        given = [_values(p, {}) if isinstance(p, Tensor) else p for p in params]
        return dict(zip(self._params, given, strict=True))

    def _run(self, model: MultiModel, feeds: Mapping[Tensor, Array]) -> list[NDArray[np.float32]]:
        arrays = [_values(leaf, feeds) for leaf, _ in model.input_ports]
        return list(model(*arrays).values())

    def forward(
        self, layers_params: Sequence[Sequence[Tensor | Array]], x0: Array
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """The stack's result, and what went into each layer."""
        x, checkpoints = _native.array(x0, "forward: x0", "float32"), []
        for params in layers_params:
            checkpoints.append(x)
            (x,) = self._run(self._fwd, {**self._arrays(params), self._x: x})
        return x, checkpoints

    def backward(
        self, layers_params: Sequence[Sequence[Tensor | Array]], checkpoints: Sequence[Array], g_out: Array
    ) -> tuple[list[list[NDArray[np.float32]]], NDArray[np.float32]]:
        """The gradients of each layer's parameters, and that of the stack's input, given that of its result."""
        if len(layers_params) != len(checkpoints):
            layers, kept = len(layers_params), len(checkpoints)
            raise ValueError(f"backward: {layers} layers need as many checkpoints, of forward with the same layers, got {kept}")
        g = _native.array(g_out, "backward: g_out", "float32")
        gradients: list[list[NDArray[np.float32]]] = []
        for params, x in zip(reversed(list(layers_params)), reversed(list(checkpoints)), strict=True):
            *found, g = self._run(self._bwd, {**self._arrays(params), self._x: x, self._g: g})
            gradients.insert(0, found)
        return gradients, g

    def release(self) -> None:
        """Frees the programs."""
        self._fwd.release()
        self._bwd.release()
