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
from aneforge._attention import attention_tiles, cross_attention, geglu, mha, tune_attention
from aneforge._compile import Device, compile, devices
from aneforge._encoder import load
from aneforge._functions import (
    batch_norm,
    concat,
    conv,
    conv_transpose,
    dynamic_conv,
    einsum_native,
    gather,
    image_input,
    input,
    instance_norm,
    local_response_norm,
    maximum,
    minimum,
    reduce_sum_to_matmul,
    select,
    split,
    stack,
    where,
)
from aneforge._native import Encoder, Model, Tensor, __version__
from aneforge._paired import Paired, paired, paired_subtract
from aneforge._spatial import (
    affine,
    crop,
    depth_to_space,
    pixel_shuffle,
    pixel_unshuffle,
    resize_bilinear,
    resize_nearest_neighbor,
    space_to_depth,
    upsample_bilinear,
)

_tensor.install()

__all__ = [
    "Device",
    "Encoder",
    "Model",
    "Paired",
    "Tensor",
    "__version__",
    "affine",
    "attention_tiles",
    "batch_norm",
    "compile",
    "concat",
    "conv",
    "conv_transpose",
    "crop",
    "cross_attention",
    "depth_to_space",
    "devices",
    "dynamic_conv",
    "einsum_native",
    "gather",
    "geglu",
    "image_input",
    "input",
    "instance_norm",
    "load",
    "local_response_norm",
    "maximum",
    "mha",
    "minimum",
    "paired",
    "paired_subtract",
    "pixel_shuffle",
    "pixel_unshuffle",
    "reduce_sum_to_matmul",
    "resize_bilinear",
    "resize_nearest_neighbor",
    "select",
    "space_to_depth",
    "split",
    "stack",
    "tune_attention",
    "upsample_bilinear",
    "where",
]
