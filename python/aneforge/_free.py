"""Methods of `Tensor` as functions, for those who write `af.relu(x)`; arrays become constants."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec
from typing import cast as typed

from aneforge._native import Tensor
from aneforge._operand import Array, value
from aneforge._ops import OpMethods
from aneforge._tensor import TensorMethods

P = ParamSpec("P")


def free(method: Callable[Concatenate[Any, P], Tensor]) -> Callable[Concatenate[Tensor | Array, P], Tensor]:
    """A method as a function of `x`."""

    @functools.wraps(method)
    def function(x: Tensor | Array, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        return method(value(x), *args, **kwargs)

    signature = inspect.signature(method)
    _, *others = signature.parameters.values()
    first = inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="Tensor | Array")
    shown = typed(Any, function)
    shown.__signature__ = signature.replace(parameters=[first, *others])
    shown.__qualname__ = method.__name__
    return function


def matmul(a: Tensor | Array, b: Tensor | Array) -> Tensor:
    """`a @ b`: with a tensor the product of two values, with a matrix `[K, N]` a product with a weight."""
    return value(a) @ b


abs = free(OpMethods.abs)
adds = free(OpMethods.adds)
amax = free(OpMethods.amax)
amin = free(OpMethods.amin)
argmax = free(OpMethods.argmax)
astype = free(TensorMethods.astype)
atan = free(OpMethods.atan)
avg_pool = free(TensorMethods.avg_pool)
bmm_weight = free(TensorMethods.bmm_weight)
cast = free(OpMethods.cast)
ceil = free(OpMethods.ceil)
channel_layer_norm = free(TensorMethods.channel_layer_norm)
clamp = free(TensorMethods.clamp)
clamped_relu = free(OpMethods.clamped_relu)
clip = free(OpMethods.clip)
cos = free(OpMethods.cos)
cumsum = free(TensorMethods.cumsum)
elu = free(OpMethods.elu)
equal = free(TensorMethods.equal)
erf = free(OpMethods.erf)
exp = free(OpMethods.exp)
exp2 = free(OpMethods.exp2)
expand_dims = free(OpMethods.expand_dims)
flatten2d = free(OpMethods.flatten2d)
floor = free(OpMethods.floor)
gelu = free(OpMethods.gelu)
greater = free(TensorMethods.greater)
greater_equal = free(TensorMethods.greater_equal)
group_norm = free(TensorMethods.group_norm)
inverse = free(OpMethods.inverse)
l1_norm = free(OpMethods.l1_norm)
l2_norm = free(OpMethods.l2_norm)
layer_norm = free(TensorMethods.layer_norm)
leaky_relu = free(OpMethods.leaky_relu)
less = free(TensorMethods.less)
less_equal = free(TensorMethods.less_equal)
linear = free(TensorMethods.linear)
linear_activation = free(OpMethods.linear_activation)
log = free(OpMethods.log)
log_sum = free(OpMethods.log_sum)
logical_not = free(OpMethods.logical_not)
max = free(TensorMethods.max)
max_pool = free(TensorMethods.max_pool)
mean = free(OpMethods.mean)
min = free(TensorMethods.min)
muls = free(OpMethods.muls)
not_equal = free(TensorMethods.not_equal)
pow = free(TensorMethods.pow)
prelu = free(TensorMethods.prelu)
reduce_l2_norm = free(OpMethods.reduce_l2_norm)
reduce_log_sum_exp = free(OpMethods.reduce_log_sum_exp)
relu = free(OpMethods.relu)
relu6 = free(OpMethods.relu6)
reshape = free(TensorMethods.reshape)
reverse = free(OpMethods.reverse)
rms_norm = free(TensorMethods.rms_norm)
round = free(OpMethods.round)
rsqrt = free(OpMethods.rsqrt)
scaled_tanh = free(OpMethods.scaled_tanh)
sigmoid = free(OpMethods.sigmoid)
sigmoid_hard = free(OpMethods.sigmoid_hard)
sign = free(OpMethods.sign)
silu = free(OpMethods.silu)
sin = free(OpMethods.sin)
slice_by_size = free(OpMethods.slice_by_size)
softmax = free(OpMethods.softmax)
softplus = free(OpMethods.softplus)
softsign = free(OpMethods.softsign)
sqrt = free(OpMethods.sqrt)
square = free(OpMethods.square)
squeeze = free(OpMethods.squeeze)
sum = free(OpMethods.sum)
sum_square = free(OpMethods.sum_square)
tanh = free(OpMethods.tanh)
threshold = free(OpMethods.threshold)
thresholded_relu = free(OpMethods.thresholded_relu)
tile = free(OpMethods.tile)
transpose = free(TensorMethods.transpose)
unsqueeze = free(TensorMethods.unsqueeze)
upsample = free(OpMethods.upsample)

__all__ = ["matmul", *(name for name, function in list(vars().items()) if hasattr(function, "__signature__"))]
