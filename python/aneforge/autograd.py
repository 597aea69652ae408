"""Gradients, which are graph, and what networks are trained with.

    w = af.parameter(np.zeros((4, 1)))
    loss = af.mse(x @ w, target)
    gradients = af.backward(loss, [w])
    af.compile(gradients[w])

`af.Trainer` does all of it: forward, backward and update as programs of the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aneforge import _native
from aneforge._batches import _number
from aneforge._blame import blaming_methods, warn
from aneforge._late import np
from aneforge._native import Tensor
from aneforge._operand import Array, integer, value

Rule = Callable[[Tensor, Tensor], Sequence["Tensor | None"]]

_OVERFLOW = (
    "non-finite gradients of {names}: the step is skipped, and weights stay as they are; "
    "lower loss_scale, or the learning rate ({streak} in a row)"
)


class _Own:
    """The rule that an op has of itself."""

    def __call__(self, node: Tensor, g: Tensor) -> list[Tensor | None]:
        return _native.vjp(node, g)

    def __repr__(self) -> str:
        return "<the op's own rule>"


_OWN = _Own()

VJP: dict[str, Rule] = {name: _OWN for name in _native.ops() if name not in ("input", "constant", "const_array")}
"""The rule of each op by its name: a function of a node and its cotangent that returns one cotangent, or None, for each of
`node.srcs`. What stands here counts, so that a rule may be replaced."""


def vjp(*names: str) -> Callable[[Rule], Rule]:
    """Makes the function below the rule of these ops.

        @af.autograd.vjp("relu")
        def straight_through(node, g):
            return [g]
    """

    def register(rule: Rule) -> Rule:
        for name in names:
            VJP[name] = rule
        return rule

    return register


def _rules() -> dict[str, Rule]:
    """Rules that are not the ops' own."""
    return {name: rule for name, rule in VJP.items() if rule is not _OWN}


def parameter(init: Array, name: str | None = None) -> Tensor:
    """A weight that is trained: an input whose value is `attrs["value"]`, a float32 copy of `init`.

    Args:
        init: what it begins with; floating point or integers.
        name: a name, by which reports and checkpoints know it.
    """
    values = np.array(_native.array(init, "parameter: init"), dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError("parameter: init has values that are not finite")
    leaf = _native.parameter(list(values.shape), name)
    leaf.attrs["trainable"] = True
    leaf.attrs["value"] = values
    return leaf


def conv_param(weight_init: Array, name: str | None = None) -> Tensor:
    """A kernel `[Cout, Cin, kH, kW]` that is trained: a parameter `[Cin * kH * kW, Cout]`, for `conv2d`."""
    kernel = np.array(_native.array(weight_init, "conv_param: weight_init"), dtype=np.float32)
    if kernel.ndim != 4:
        raise ValueError(f"conv_param: weight_init must be [Cout, Cin, kH, kW], got shape {kernel.shape}")
    leaf = parameter(kernel.reshape(kernel.shape[0], -1).T, name)
    leaf.attrs["conv_shape"] = kernel.shape
    return leaf


def conv2d(x: Tensor, weight: Tensor, stride: int = 1, pad: int = 0) -> Tensor:
    """Correlation of `x` `[N, Cin, H, W]` with a kernel of `conv_param`, differentiable in both.

    Args:
        x: the images.
        weight: from `conv_param`.
        stride: steps between windows.
        pad: zeros around the image.
    """
    for name, given in (("x", x), ("weight", weight)):
        if not isinstance(given, Tensor):
            raise TypeError(f"conv2d: {name} must be a Tensor, got {type(given).__name__}")
    shape = weight.attrs.get("conv_shape") if weight.op == "input" else None
    shape = shape if shape is not None else _conv_shapes.get(weight)
    if shape is None:
        raise ValueError("conv2d: weight must come from conv_param, or from adam_step of one that does")
    if integer("conv2d: pad", pad) < 0:
        raise ValueError(f"conv2d: pad must be at least 0, got {pad}")
    if x.ndim != 4 or x.shape[1] != shape[1]:
        raise ValueError(f"conv2d: x must be [N, {shape[1]}, H, W] for a kernel {tuple(shape)}, got shape {x.shape}")
    kernel = weight.transpose((1, 0)).reshape(*shape)
    attrs = {"strides": [stride, stride], "pad": [pad] * 4, "dilations": [1, 1], "groups": 1}
    return _native.apply("conv", [x, kernel], attrs)


_conv_shapes: dict[Tensor, tuple[int, ...]] = {}
"""Kernels that `adam_step` made, the last ones: they are computed, and so have no notes of their own."""
_MOST_KERNELS = 4096


def mse(y: Tensor, target: Tensor | Array) -> Tensor:
    """The mean of `(y - target)^2`; all of its axes have size one."""
    difference = y - value(target)
    if tuple(difference.shape) != tuple(y.shape):
        raise ValueError(f"mse: target of shape {np.shape(target)} does not fit y of shape {tuple(y.shape)}")
    return difference.square().mean(tuple(range(y.ndim)))


class CEHandle:
    """The cross entropy of targets and the softmax of logits, whose gradient is `(softmax * sum(target) - target) / N`."""

    def __init__(self, logits: Tensor, target: Tensor) -> None:
        target = value(target)
        if logits.ndim != 2 or tuple(logits.shape) != tuple(target.shape):
            raise ValueError(
                f"softmax_cross_entropy: logits and target must be [N, K], got {tuple(logits.shape)} and "
                f"{tuple(target.shape)}"
            )
        self.logits, self.target, self.n = logits, target, int(logits.shape[0])

    def seed(self, loss_scale: float = 1.0) -> Tensor:
        """The cotangent of the logits."""
        return (self.logits.softmax(-1) * self.target.sum((1,)) - self.target) * (loss_scale / self.n)

    @property
    def value(self) -> Tensor:
        """The loss as a tensor `[1, 1]`."""
        return _native.Loss(self.logits, self.target).value


def softmax_cross_entropy(logits: Tensor, target: Tensor) -> CEHandle:
    """What a classifier is trained with: logits and targets, both `[N, K]`. Rows of targets that sum to another number than 1 are
    rows with that weight.
    """
    return CEHandle(logits, target)


def backward(
    loss: Tensor | CEHandle,
    params: Sequence[Tensor],
    loss_scale: float = 1.0,
    stop: Iterable[Tensor] | None = None,
) -> dict[Tensor, Tensor]:
    """The gradient of a loss in each of `params`, as graph, multiplied with `loss_scale`.

    A parameter that the loss does not depend on has a gradient of zeros, and a warning says so.

    Args:
        loss: a tensor of one element, or a cross entropy.
        params: the tensors.
        loss_scale: keeps small gradients from becoming 0 in half precision; whoever uses them divides by it.
        stop: tensors at which the walk back ends; by default `params`.
    """
    if not 0 < loss_scale <= 65504 and not isinstance(loss, CEHandle) or not 0 < loss_scale < math.inf:
        raise ValueError(f"backward: loss_scale must be more than 0 and fit half precision, which ends at 65504, got {loss_scale}")
    if isinstance(loss, CEHandle):
        return backward_from(loss.seed(loss_scale), loss.logits, params, stop)
    if not isinstance(loss, Tensor):
        raise TypeError(f"backward: loss must be a Tensor or a cross entropy, got {type(loss).__name__}")
    if loss.size != 1:
        raise ValueError(f"backward: the loss must have one element, got shape {tuple(loss.shape)}; take its mean")
    return backward_from(_const_like(loss, loss_scale), loss, params, stop)


def backward_from(
    grad_root: Tensor,
    root: Tensor,
    params: Sequence[Tensor],
    stop: Iterable[Tensor] | None = None,
) -> dict[Tensor, Tensor]:
    """The gradient in each of `params`, where that of `root` is `grad_root`."""
    wanted = list(params)
    ends = wanted if stop is None else list(stop)
    found, unreached = _native.gradients(root, grad_root, wanted, ends, _rules())
    if unreached:
        names = ", ".join(_named(wanted[at], at) for at in unreached)
        warn(f"backward: the result does not depend on {names}; the gradient is zeros")
    return dict(zip(wanted, found, strict=True))


def grad(function: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function of tensors that gives the gradient of `function`, whose result has one element.

        slope = af.grad(lambda w: (w * w).sum())
        slope(w)              # a tensor: 2 w
        af.grad(lambda w: slope(w).sum())(w)

    Args:
        function: of tensors.
        argnums: the argument, or arguments, in which to differentiate; several give a tuple.
    """
    if not callable(function):
        raise TypeError(f"grad: function must be a function, got {type(function).__name__}")
    both = value_and_grad(function, argnums)
    return lambda *args, **named: both(*args, **named)[1]


def value_and_grad(function: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The same with the function's result: a pair of it and the gradient."""
    if not callable(function):
        raise TypeError(f"value_and_grad: function must be a function, got {type(function).__name__}")
    several = not isinstance(argnums, int)
    places = list(argnums) if several else [argnums]  # type: ignore[arg-type, list-item]

    def differentiated(*args: Any, **named: Any) -> tuple[Tensor, Any]:
        wanted = [args[at] for at in places]
        result = function(*args, **named)
        found = backward(result, wanted)
        gradients = tuple(found[tensor] for tensor in wanted)
        return result, gradients if several else gradients[0]

    return differentiated


def adam_step(
    params: Sequence[Tensor],
    m: Sequence[Tensor],
    v: Sequence[Tensor],
    grads: Sequence[Tensor],
    lr_t: Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Adam's step as graph: new parameters, first and second moments.

    Gradients up to 8,000 are taken, and zero ones leave a parameter as it is, though `eps` may be 0 in half precision.

    Args:
        params: weights.
        m: first moments.
        v: second moments.
        grads: gradients; with a loss scale they keep it, and the step is the same.
        lr_t: `lr * sqrt(1 - b2**t) / (1 - b1**t)`, of one element.
        betas: how much of the moments is kept.
        eps: what the root is moved away from 0 by.
    """
    made = [_adam_update(*row, lr_t, betas, eps) for row in zip(params, m, v, grads, strict=True)]
    for old, (new, _, _) in zip(params, made, strict=True):
        shape = old.attrs.get("conv_shape") if old.op == "input" else _conv_shapes.get(old)
        if shape is not None:
            _conv_shapes[new] = tuple(shape)
            while len(_conv_shapes) > _MOST_KERNELS:
                del _conv_shapes[next(iter(_conv_shapes))]
    weights, means, moments = ([row[at] for row in made] for at in range(3))
    return weights, means, moments


class _HostOptimizer:
    """Weights in float32 on the host."""

    def __init__(self, params: Sequence[Tensor], lr: float, loss_scale: float) -> None:
        self.params, self.lr, self.loss_scale = list(params), _number("training: lr", lr), float(loss_scale)
        if not self.lr >= 0:
            raise ValueError(f"training: lr must be at least 0, got {self.lr}")
        if not 0 < self.loss_scale < math.inf:
            raise ValueError(f"training: loss_scale must be more than 0, got {self.loss_scale}")
        for at, param in enumerate(self.params):
            if not isinstance(param, Tensor) or "value" not in param.attrs:
                raise TypeError(f"training: params[{at}] must come from af.parameter or af.conv_param, got {param!r}")
        self._nonfinite_skips = 0
        self._void: str | None = None

    def _given(self, grads: Mapping[Tensor, Array] | Sequence[Array]) -> list[NDArray[np.float32]] | None:
        """Gradients without their scale; None where one is not finite."""
        if missing := [p for p in self.params if p not in grads] if isinstance(grads, Mapping) else []:
            raise ValueError(f"step: there is no gradient of {_named(missing[0], self.params.index(missing[0]))}")
        rows = [grads[p] for p in self.params] if isinstance(grads, Mapping) else list(grads)
        if len(rows) != len(self.params):
            raise ValueError(f"step: {len(self.params)} gradients are needed, one for each parameter, got {len(rows)}")
        arrays = [_native.array(g, "step: a gradient", "float32") / np.float32(self.loss_scale) for g in rows]
        for at, (param, array) in enumerate(zip(self.params, arrays, strict=True)):
            if array.shape != tuple(param.shape):
                raise ValueError(f"step: the gradient of {_named(param, at)} has shape {array.shape}, not {tuple(param.shape)}")
        before = self._nonfinite_skips
        self._void = None if _check_finite_grads(self, arrays) else "gradients are not finite"
        self._streak = before + 1
        return arrays if self._void is None else None

    def _fit(self, weights: Sequence[NDArray[Any]], kept: Sequence[NDArray[Any]] = ()) -> bool:
        """Whether all weights fit half precision, and what is kept of them is finite. Where not, the step is void."""
        with np.errstate(over="ignore"):
            bad = [at for at, w in enumerate(weights) if not np.isfinite(w.astype(np.float16)).all()]
        bad += [at % len(weights) for at, array in enumerate(kept) if not np.isfinite(array).all()]
        if not bad:
            return True
        self._nonfinite_skips = self._streak
        names = ", ".join(_named(self.params[at], at) for at in sorted({*bad}))
        self._void = f"{names} would leave half precision, which ends at 65504"
        if self._streak % 100 == 1:
            warn(f"step: {self._void}; the step is void ({self._streak} in a row)")
        return False


@blaming_methods("__init__", "step")
class SGD(_HostOptimizer):
    """Gradient descent on float32 weights: `w - lr * g`."""

    def __init__(self, params: Sequence[Tensor], lr: float, loss_scale: float = 1.0) -> None:
        super().__init__(params, lr, loss_scale)

    def step(self, grads: Mapping[Tensor, Array] | Sequence[Array]) -> None:
        """Moves every weight; none where a gradient is not finite, or a weight would leave half precision."""
        arrays = self._given(grads)
        if arrays is None:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            weights = [p.attrs["value"] - np.float32(self.lr) * g for p, g in zip(self.params, arrays, strict=True)]
        if self._fit(weights):
            for param, weight in zip(self.params, weights, strict=True):
                param.attrs["value"] = weight


@blaming_methods("__init__", "step")
class Adam(_HostOptimizer):
    """Adam on float32 weights."""

    def __init__(
        self,
        params: Sequence[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        loss_scale: float = 1.0,
    ) -> None:
        super().__init__(params, lr, loss_scale)
        b1, b2 = betas
        self.betas, self.eps, self.t = (b1, b2), eps, 0
        self.m = [np.zeros(tuple(p.shape), np.float32) for p in self.params]
        self.v = [np.zeros(tuple(p.shape), np.float32) for p in self.params]

    def step(self, grads: Mapping[Tensor, Array] | Sequence[Array]) -> None:
        """Moves every weight; none where a gradient is not finite, or a weight would leave half precision."""
        arrays = self._given(grads)
        if arrays is None:
            return
        (b1, b2), t = self.betas, self.t + 1
        means, moments, weights = [], [], []
        with np.errstate(over="ignore", invalid="ignore"):
            for param, m, v, g in zip(self.params, self.m, self.v, arrays, strict=True):
                means.append(b1 * m + (1 - b1) * g)
                moments.append(b2 * v + (1 - b2) * g * g)
                mean, moment = means[-1] / (1 - b1**t), moments[-1] / (1 - b2**t)
                step = self.lr * mean / (np.sqrt(moment) + self.eps)
                weights.append((param.attrs["value"] - step).astype(np.float32))
        if not self._fit(weights, [*means, *moments]):
            return
        self.t, self.m, self.v = t, means, moments
        for param, weight in zip(self.params, weights, strict=True):
            param.attrs["value"] = weight


def _check_finite_grads(optimizer: Any, grads: Sequence[NDArray[Any]]) -> bool:
    """Whether all gradients are finite. Where one is not, counts it, and warns at the first and at every hundredth in a row."""
    bad = [at for at, g in enumerate(grads) if not np.isfinite(g).all()]
    if not bad:
        optimizer._nonfinite_skips = 0
        return True
    optimizer._nonfinite_skips += 1
    if optimizer._nonfinite_skips % 100 == 1:
        names = ", ".join(_named(optimizer.params[at], at) for at in bad)
        warn(_OVERFLOW.format(names=names, streak=optimizer._nonfinite_skips))
    return False


def _named(tensor: Tensor, at: int) -> str:
    """How messages call a parameter."""
    name = tensor.attrs.get("name") if tensor.op == "input" else None
    return f"`{name}`" if name else f"parameter {at}, {tuple(tensor.shape)}"


def _topo(root: Tensor, stop: Iterable[Tensor] = ()) -> list[Tensor]:
    """What `root` is made from, each after its sources; those of `stop` are not looked behind."""
    ends, done, order = set(stop), set(), []
    pending: list[tuple[Tensor, bool]] = [(root, False)]
    while pending:
        node, ready = pending.pop()
        if ready:
            order.append(node)
        elif node not in done:
            done.add(node)
            pending.append((node, True))
            if node not in ends:
                pending.extend((source, False) for source in reversed(node.srcs))
    return order


def _const_like(t: Tensor, c: float) -> Tensor:
    """A tensor of the shape of `t` with every element `c`."""
    return _native.constant(np.full(tuple(t.shape), c, np.float16))


def _ones_like(t: Tensor) -> Tensor:
    return _const_like(t, 1.0)


def _adam_update(
    p: Tensor,
    m: Tensor,
    v: Tensor,
    g: Tensor,
    lr_t: Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[Tensor, Tensor, Tensor]:
    rate = lr_t.reshape(*([1] * p.ndim)) if lr_t.size == 1 and lr_t.ndim > p.ndim else lr_t
    weight, mean, moment = _native.adam_step([p, m, v, g], rate, list(betas), eps)
    return weight, mean, moment


def _sgd_update(p: Tensor, g: Tensor, lr_t: Tensor) -> Tensor:
    rate = lr_t.reshape(*([1] * p.ndim)) if lr_t.size == 1 and lr_t.ndim > p.ndim else lr_t
    return p - rate * g


def _stack3(w: Tensor, m: Tensor, v: Tensor) -> Tensor:
    """Three tensors of one shape as one, rows below rows; vectors become rows."""
    rows = [t.reshape(1, t.shape[0]) if t.ndim == 1 else t for t in (w, m, v)]
    return _native.apply("concat", rows, {"axis": 0})


def _split3(stacked: NDArray[Any], shape: Sequence[int]) -> tuple[NDArray[Any], ...]:
    """The three arrays that `_stack3` put together."""
    rows = 1 if len(shape) == 1 else shape[0]
    return tuple(stacked[at * rows : (at + 1) * rows].reshape(tuple(shape)) for at in range(3))

from aneforge._blocks import cifar_cnn, conv_block, group_norm_train  # noqa: E402
from aneforge._trainer import Trainer  # noqa: E402
from aneforge._unrolled import CheckpointedStack, UnrolledTrainer  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Adam",
    "CEHandle",
    "CheckpointedStack",
    "SGD",
    "Trainer",
    "UnrolledTrainer",
    "VJP",
    "adam_step",
    "backward",
    "backward_from",
    "cifar_cnn",
    "conv2d",
    "conv_block",
    "conv_param",
    "grad",
    "group_norm_train",
    "mse",
    "parameter",
    "softmax_cross_entropy",
    "value_and_grad",
    "vjp",
]
