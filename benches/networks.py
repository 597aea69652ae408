"""Networks with drawn weights, built for aneforge and as an ONNX model at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import aneforge as af

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "oracle"))
import fixture_random  # noqa: E402


class Value(NamedTuple):
    """One value, as a tensor and by its name in the ONNX graph."""

    ours: af.Tensor
    theirs: str


class Net:
    """A network that is being written, with weights from one seed."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: dict[str, tuple[int, ...]] = {}
        self.seed = 0

    def draw(self, *shape: int, scale: float | None = None) -> np.ndarray:
        self.seed += 1
        return fixture_random.normal(self.seed, shape, scale or float(np.prod(shape[1:])) ** -0.5)

    def weight(self, value: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def input(self, *shape: int) -> Value:
        name = f"x{len(self.inputs)}"
        self.inputs[name] = shape
        return Value(af.input(shape), name)

    def conv(self, x: Value, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Value:
        channels = x.ours.shape[1]
        weight = self.draw(outputs, channels // groups, kernel, kernel)
        bias = self.draw(1, outputs, scale=0.05).reshape(outputs)
        theirs = self.op("Conv", x.theirs, self.weight(weight), self.weight(bias), kernel_shape=[kernel] * 2,
                         strides=[stride] * 2, pads=[kernel // 2] * 4, group=groups)
        ours = af.conv(x.ours, weight, stride=stride, pad=kernel // 2, bias=bias, groups=groups)
        return Value(ours, theirs)

    def relu(self, x: Value) -> Value:
        return Value(x.ours.relu(), self.op("Relu", x.theirs))

    def relu6(self, x: Value) -> Value:
        low, high = (self.weight(np.array(v, np.float32)) for v in (0, 6))
        return Value(x.ours.relu6(), self.op("Clip", x.theirs, low, high))

    def add(self, x: Value, y: Value) -> Value:
        return Value(x.ours + y.ours, self.op("Add", x.theirs, y.theirs))

    def max_pool(self, x: Value) -> Value:
        theirs = self.op("MaxPool", x.theirs, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        return Value(x.ours.max_pool(3, 2, 1), theirs)

    def pooled(self, x: Value) -> Value:
        ours = x.ours.mean((2, 3)).reshape(1, x.ours.shape[1])
        return Value(ours, self.op("Flatten", self.op("GlobalAveragePool", x.theirs)))

    def linear(self, x: Value, outputs: int) -> Value:
        weight, bias = self.draw(outputs, x.ours.shape[-1]), self.draw(1, outputs, scale=0.02).reshape(outputs)
        product = self.op("MatMul", x.theirs, self.weight(weight.T))
        return Value(x.ours.linear(weight, bias), self.op("Add", product, self.weight(bias)))

    def gelu(self, x: Value) -> Value:
        return Value(x.ours.gelu(), self.op("Gelu", x.theirs))

    def norm(self, x: Value, eps: float) -> Value:
        width = x.ours.shape[-1]
        gamma = 1 + self.draw(1, width, scale=0.1).reshape(width)
        beta = self.draw(1, width, scale=0.1).reshape(width)
        theirs = self.op("LayerNormalization", x.theirs, self.weight(gamma), self.weight(beta), axis=-1, epsilon=eps)
        return Value(x.ours.layer_norm(gamma, beta, eps), theirs)

    def attention(self, x: Value, heads: int) -> Value:
        """Projections to queries, keys and values, attention of each head, and a projection."""
        tokens, width = x.ours.shape
        per_head = width // heads
        parts = [(self.draw(width, width), self.draw(1, width, scale=0.02).reshape(width)) for _ in range(4)]
        ours = af.mha(x.ours, *(array for part in parts for array in part), n_heads=heads)
        shape = self.weight(np.array([tokens, heads, per_head], np.int64))
        flat = self.weight(np.array([tokens, width], np.int64))

        def projected(source: str, part: int) -> str:
            weight, bias = parts[part]
            return self.op("Add", self.op("MatMul", source, self.weight(weight.T)), self.weight(bias))

        def split(part: int, perm: list[int]) -> str:
            return self.op("Transpose", self.op("Reshape", projected(x.theirs, part), shape), perm=perm)

        q, k, v = split(0, [1, 0, 2]), split(1, [1, 2, 0]), split(2, [1, 0, 2])
        scale = self.weight(np.array(per_head**-0.5, np.float32))
        scores = self.op("Mul", self.op("MatMul", q, k), scale)
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        merged = self.op("Reshape", self.op("Transpose", mixed, perm=[1, 0, 2]), flat)
        return Value(ours, projected(merged, 3))

    def model(self, result: Value) -> onnx.ModelProto:
        ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in self.inputs.items()]
        output = helper.make_tensor_value_info(result.theirs, TensorProto.FLOAT, list(result.ours.shape))
        graph = helper.make_graph(self.nodes, "network", ports, [output], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 10
        return model


@dataclass(frozen=True)
class Network:
    """A network, ready for every engine."""

    name: str
    ours: af.Tensor
    theirs: onnx.ModelProto
    feeds: dict[str, np.ndarray]


def finished(name: str, net: Net, result: Value) -> Network:
    feeds = {key: fixture_random.normal(7000 + i, shape) for i, (key, shape) in enumerate(net.inputs.items())}
    return Network(name, result.ours, net.model(result), feeds)


def resnet(blocks: list[int], bottleneck: bool, name: str) -> Network:
    """ResNet with normalisation folded into its convolutions, 224 pixels."""
    net = Net()
    x = net.max_pool(net.relu(net.conv(net.input(1, 3, 224, 224), 64, 7, 2)))
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            if bottleneck:
                y = net.relu(net.conv(net.relu(net.conv(x, width, 1)), width, 3, stride))
                y = net.conv(y, 4 * width, 1)
            else:
                y = net.conv(net.relu(net.conv(x, width, 3, stride)), width, 3)
            if y.ours.shape != x.ours.shape:
                x = net.conv(x, y.ours.shape[1], 1, stride)
            x = net.relu(net.add(y, x))
    return finished(name, net, net.linear(net.pooled(x), 1000))


def mobilenet_v2() -> Network:
    """MobileNetV2 with normalisation folded, 224 pixels."""
    net = Net()
    x = net.relu6(net.conv(net.input(1, 3, 224, 224), 32, 3, 2))
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for factor, channels, count, first in stages:
        for block in range(count):
            stride, wide, y = (first if block == 0 else 1), factor * x.ours.shape[1], x
            if factor > 1:
                y = net.relu6(net.conv(y, wide, 1))
            y = net.conv(net.relu6(net.conv(y, wide, 3, stride, wide)), channels, 1)
            x = net.add(y, x) if y.ours.shape == x.ours.shape else y
    return finished("mobilenet-v2 1x3x224x224", net, net.linear(net.pooled(net.relu6(net.conv(x, 1280, 1))), 1000))


def encoder() -> Network:
    """A sentence encoder of MiniLM's shape: 6 layers of 384, 128 tokens; norms after their sums."""
    net = Net()
    x = net.input(128, 384)
    for _ in range(6):
        x = net.norm(net.add(x, net.attention(x, 12)), 1e-5)
        x = net.norm(net.add(x, net.linear(net.gelu(net.linear(x, 1536)), 384)), 1e-5)
    return finished("encoder 6x384, 128 tokens", net, x)


def vit_b16() -> Network:
    """The layers of ViT-B/16 over 197 given tokens; norms before."""
    net = Net()
    x = net.input(197, 768)
    for _ in range(12):
        x = net.add(x, net.attention(net.norm(x, 1e-5), 12))
        x = net.add(x, net.linear(net.gelu(net.linear(net.norm(x, 1e-5), 3072)), 768))
    return finished("vit-b16, 197 tokens", net, net.norm(x, 1e-5))


NETWORKS: dict[str, Callable[[], Network]] = {
    "resnet18": lambda: resnet([2, 2, 2, 2], False, "resnet18 1x3x224x224"),
    "resnet50": lambda: resnet([3, 4, 6, 3], True, "resnet50 1x3x224x224"),
    "encoder": encoder,
    "vit-b16": vit_b16,
    "mobilenet-v2": mobilenet_v2,
}
