"""Program Apple's Neural Engine directly, or run the same programs anywhere.

    import aneforge as af
    import numpy as np

    x = af.input((1, 4))
    y = x.linear(np.eye(4, dtype=np.float32)).softmax()
    model = af.compile(y)
    model(np.array([[1.0, 2.0, 3.0, 4.0]]))

Graphs are lazy: operators and methods of `Tensor` build nodes, and check shapes and types as they do.
`compile` turns a graph into one fused program for a chip, and loads it into a device: the engine on Apple
silicon, this machine's processor elsewhere. Every model says which.
"""

from aneforge import _tensor
from aneforge._compile import Device, compile, devices
from aneforge._encoder import load
from aneforge._functions import (
    batch_norm,
    concat,
    conv,
    conv_transpose,
    cross_attention,
    dynamic_conv,
    gather,
    geglu,
    image_input,
    input,
    maximum,
    mha,
    minimum,
    select,
    split,
    stack,
    where,
)
from aneforge._native import Encoder, Model, Tensor, __version__

_tensor.install()

__all__ = [
    "Device",
    "Encoder",
    "Model",
    "Tensor",
    "__version__",
    "batch_norm",
    "compile",
    "concat",
    "conv",
    "conv_transpose",
    "cross_attention",
    "devices",
    "dynamic_conv",
    "gather",
    "geglu",
    "image_input",
    "input",
    "load",
    "maximum",
    "mha",
    "minimum",
    "select",
    "split",
    "stack",
    "where",
]
