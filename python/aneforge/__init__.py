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

import builtins
import inspect

from aneforge import _blame, _call, _free, _numpy, _ops, _state, _tensor, autograd, graph, targets, train
from aneforge._attention import attention_tiles, cross_attention, geglu, mha, tune_attention
from aneforge._catalog import (
    OP_CATALOG,
    categories,
    device_status,
    is_native,
    min_native_family,
    op_info,
    ops_on,
    walled_everywhere,
)
from aneforge._clip import CLIP, load_clip
from aneforge._compile import Device, compile, devices, load_model
from aneforge._call import Placement, Submitted
from aneforge._diagnose import AllChips, Departures, Diagnosis
from aneforge._diffusion import Diffusion, load_diffusion
from aneforge._explain import Explanation
from aneforge._encoder import load
from aneforge._files import eval, load_graph, save_graph
from aneforge._free import *  # noqa: F403
from aneforge._functions import (
    batch_norm,
    concat,
    conv,
    conv_transpose,
    dynamic_conv,
    einsum_native,
    flatten,
    gather,
    image_input,
    input,
    instance_norm,
    local_response_norm,
    maximum,
    minimum,
    reduce_sum_to_matmul,
    sdpa,
    select,
    split,
    stack,
    where,
)
from aneforge._judge import (
    CrossChipFP16Warning,
    DispatchFloorWarning,
    PrecisionWarning,
    estimate,
    estimate_provenance,
    estimate_report,
    precision_risk,
    project_peak,
)
from aneforge._late import np
from aneforge._multi import MultiModel, compile_multi
from aneforge._native import Encoder, Model, SegmentedModel, State, Tensor, __version__
from aneforge._ops import *  # noqa: F403
from aneforge._pacing import CompileBackoffError, reset_compile_breaker
from aneforge._paired import Paired, paired, paired_subtract
from aneforge._profile import Profile
from aneforge._search import Changes, Hit, SearchIndex
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
from aneforge._state import state
from aneforge._tune import tune, tune_precision
from aneforge._vision import Vision, load_resnet, load_resnet18, load_vision, load_vit
from aneforge.autograd import (
    SGD,
    Adam,
    CheckpointedStack,
    Trainer,
    UnrolledTrainer,
    adam_step,
    backward,
    backward_from,
    cifar_cnn,
    conv2d,
    conv_block,
    conv_param,
    grad,
    group_norm_train,
    mse,
    parameter,
    softmax_cross_entropy,
    value_and_grad,
)
from aneforge.targets import Family, arch_family, cross_compile_check, detect_family, native_streams, preflight

_tensor.install()
_numpy.install()
_call.install()
_state.install()

__all__ = [
    *_ops.__all__,
    *(name for name in _free.__all__ if not hasattr(builtins, name)),
    "Adam",
    "AllChips",
    "CLIP",
    "CheckpointedStack",
    "CompileBackoffError",
    "CrossChipFP16Warning",
    "Departures",
    "Device",
    "Diagnosis",
    "Diffusion",
    "DispatchFloorWarning",
    "Encoder",
    "Explanation",
    "Family",
    "Model",
    "MultiModel",
    "OP_CATALOG",
    "Paired",
    "Placement",
    "PrecisionWarning",
    "Profile",
    "SGD",
    "SearchIndex",
    "SegmentedModel",
    "State",
    "Submitted",
    "Tensor",
    "Trainer",
    "UnrolledTrainer",
    "Vision",
    "__version__",
    "adam_step",
    "affine",
    "arch_family",
    "attention_tiles",
    "autograd",
    "backward",
    "backward_from",
    "batch_norm",
    "categories",
    "cifar_cnn",
    "compile",
    "compile_multi",
    "concat",
    "conv",
    "conv2d",
    "conv_block",
    "conv_param",
    "conv_transpose",
    "crop",
    "cross_attention",
    "cross_compile_check",
    "depth_to_space",
    "detect_family",
    "device_status",
    "devices",
    "dynamic_conv",
    "einsum_native",
    "estimate",
    "estimate_provenance",
    "estimate_report",
    "flatten",
    "gather",
    "geglu",
    "grad",
    "graph",
    "group_norm_train",
    "image_input",
    "input",
    "instance_norm",
    "is_native",
    "load",
    "load_clip",
    "load_diffusion",
    "load_graph",
    "load_model",
    "load_resnet",
    "load_resnet18",
    "load_vision",
    "load_vit",
    "local_response_norm",
    "maximum",
    "mha",
    "min_native_family",
    "minimum",
    "mse",
    "native_streams",
    "op_info",
    "ops_on",
    "paired",
    "paired_subtract",
    "parameter",
    "pixel_shuffle",
    "pixel_unshuffle",
    "precision_risk",
    "preflight",
    "project_peak",
    "reduce_sum_to_matmul",
    "reset_compile_breaker",
    "resize_bilinear",
    "resize_nearest_neighbor",
    "save_graph",
    "sdpa",
    "select",
    "softmax_cross_entropy",
    "space_to_depth",
    "split",
    "stack",
    "state",
    "targets",
    "train",
    "tune",
    "tune_attention",
    "tune_precision",
    "upsample_bilinear",
    "value_and_grad",
    "walled_everywhere",
    "where",
]

_named: dict[object, object] = {}
for _name in [*__all__, "eval", *_free.__all__]:
    _function = globals()[_name]
    if _name != "compile" and inspect.isfunction(_function):
        _named.setdefault(_function, _blame.blaming(_function, _function.__name__))
        globals()[_name] = _named[_function]
