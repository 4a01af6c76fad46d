"""torch.fx trace of an evaluated network into a ``QGraph``; the only place that knows both."""

import json
import operator
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from torch import fx, nn

from bitfold.errors import UnsupportedError
from bitfold.export.qgraph import (
    Activation,
    AppendOne,
    BatchNorm,
    Conv,
    Flatten,
    Flex,
    FullyConnected,
    MaxPool,
    MeanPool,
    PadChannels,
    Pixels,
    Prelu,
    QGraph,
    QNode,
    Rationals,
    Relu,
    Sum,
)
from bitfold.ir import IntArray
from bitfold.models import ActivationQuantizer, NetSpec, Preprocessing
from bitfold.models.layers import PixelConv2d, PixelNorm, QuantConv2d, QuantLinear
from bitfold.models.nets.basq_units import FlexSkip
from bitfold.models.nets.sttn_resnet import ZeroPadShortcut

WHITE = 255
PIXELS = "pixels"


class _QuantizerTracer(fx.Tracer):
    """Stops at quantizers, quantized layers and everything torch itself provides."""

    LEAVES = (
        PixelNorm, QuantConv2d, QuantLinear, ActivationQuantizer, FlexSkip, ZeroPadShortcut,
    )  # fmt: skip

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether ``m`` becomes one node."""
        return isinstance(m, self.LEAVES) or super().is_leaf_module(m, module_qualified_name)


def _doubles(tensor: torch.Tensor) -> tuple[float, ...]:
    return tuple(tensor.detach().double().tolist())


def _rationals(tensor: torch.Tensor) -> Rationals:
    return tuple(map(Fraction, _doubles(tensor)))


def weight_codes(layer: QuantConv2d | QuantLinear) -> tuple[IntArray, Rationals]:
    """Codes of a layer's weights and their rational scales: one, or one an output channel."""
    latent = layer.pixel_weight() if isinstance(layer, PixelConv2d) else layer.weight
    quantizer = layer.weight_quantizer
    return quantizer.codes(latent.detach()).numpy(), quantizer.exact_scales(latent.detach())


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _padding(value: int | tuple[int, ...]) -> tuple[int, int, int, int]:
    rows, cols = _pair(value)
    return (rows, cols, rows, cols)


def _bias(module: QuantConv2d) -> Rationals | None:
    if isinstance(module, PixelConv2d):
        return _rationals(-module.mean_error())
    return None if module.bias is None else _rationals(module.bias)


def _conv(name: str, x: str, module: QuantConv2d) -> Conv:
    codes, scales = weight_codes(module)
    if isinstance(module.padding, str) or _pair(module.dilation) != (1, 1):
        raise UnsupportedError(
            f"padding {module.padding!r}, dilation {module.dilation}",
            where=f"layer {name}",
            todo="Use integer padding and dilation 1.",
        )
    return Conv(
        name,
        x,
        np.ascontiguousarray(codes.transpose(0, 2, 3, 1)),
        module.weight_quantizer.grid,
        scales,
        _pair(module.stride),
        _padding(module.padding),
        module.groups,
        _bias(module),
    )


def _linear(name: str, x: str, module: QuantLinear) -> FullyConnected:
    codes, scales = weight_codes(module)
    grid = module.weight_quantizer.grid
    return FullyConnected(name, x, codes, grid, scales, _rationals(module.bias))


def _batchnorm(name: str, x: str, module: nn.BatchNorm2d | nn.BatchNorm1d) -> BatchNorm:
    if module.running_mean is None or module.running_var is None:
        raise UnsupportedError(
            "batch norm without running statistics",
            where=f"layer {name}",
            todo="Train with track_running_stats=True.",
        )
    count = module.num_features
    ones, zeros = torch.ones(count), torch.zeros(count)
    return BatchNorm(
        name,
        x,
        _doubles(module.weight if module.affine else ones),
        _doubles(module.bias if module.affine else zeros),
        _doubles(module.running_mean),
        _doubles(module.running_var),
        module.eps,
    )


def _activation(name: str, x: str, module: ActivationQuantizer) -> Activation:
    return Activation(name, x, module.grid, module.exact_scales(), module.ties)


def _max_pool(name: str, x: str, module: nn.MaxPool2d) -> MaxPool:
    if _pair(module.dilation) != (1, 1) or module.ceil_mode:
        raise UnsupportedError(
            f"max pooling with dilation {module.dilation}, ceil_mode {module.ceil_mode}",
            where=f"layer {name}",
            todo="Use dilation 1 and output sizes that round down.",
        )
    kernel, stride = _pair(module.kernel_size), _pair(module.stride)
    return MaxPool(name, x, kernel, stride, _padding(module.padding))


def _mean_pool(name: str, x: str, module: nn.AdaptiveAvgPool2d) -> MeanPool:
    if module.output_size not in (1, (1, 1)):
        raise UnsupportedError(
            f"adaptive average pooling to {module.output_size}",
            where=f"layer {name}",
            todo="Pool to 1x1.",
        )
    return MeanPool(name, x, None, None)


def _average_pool(name: str, x: str, module: nn.AvgPool2d) -> MeanPool:
    options = _pair(module.padding), module.ceil_mode, module.divisor_override
    if options != ((0, 0), False, None):
        raise UnsupportedError(
            f"average pooling with padding, ceil_mode, divisor_override = {options}",
            where=f"layer {name}",
            todo="Pool without padding, and divide by the window.",
        )
    return MeanPool(name, x, _pair(module.kernel_size), _pair(module.stride))


def _flatten(name: str, x: str, module: nn.Flatten) -> Flatten:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise UnsupportedError(
            f"flattening dimensions {module.start_dim} to {module.end_dim}",
            where=f"layer {name}",
            todo="Flatten everything but the batch.",
        )
    return Flatten(name, x)


_MODULES: dict[type[nn.Module], Callable[..., QNode]] = {
    QuantConv2d: _conv,
    PixelConv2d: _conv,
    QuantLinear: _linear,
    nn.BatchNorm2d: _batchnorm,
    nn.BatchNorm1d: _batchnorm,
    nn.ReLU: lambda name, x, _module: Relu(name, x),
    nn.ReLU6: lambda name, x, _module: Relu(name, x, Fraction(6)),
    nn.PReLU: lambda name, x, module: Prelu(name, x, _rationals(module.weight)),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _mean_pool,
    nn.Flatten: _flatten,
    FlexSkip: lambda name, x, module: Flex(name, x, module.out_channels),
    ZeroPadShortcut: lambda name, x, module: PadChannels(name, x, module.out_channels),
}
_PASSED = (nn.Identity, nn.Dropout)


def _image(name: str, spec: NetSpec) -> Pixels:
    """The normalized image that ``PixelNorm`` gives."""
    norm, channels = spec.preprocessing, spec.input_shape[2]
    if isinstance(norm, Preprocessing):
        means, stds = (Fraction(norm.mean),) * channels, (Fraction(norm.std),) * channels
    else:
        means = tuple(Fraction(m) * WHITE for m in norm.means)
        stds = tuple(Fraction(s) * WHITE for s in norm.stds)
    return Pixels(name, spec.input_shape, means, stds)


def _raw_image(name: str, spec: NetSpec) -> tuple[QNode, ...]:
    """Raw pixels and the channel of 255 that ``PixelConv2d`` reads."""
    channels = spec.input_shape[2]
    raw = Pixels(PIXELS, spec.input_shape, (Fraction(0),) * channels, (Fraction(1),) * channels)
    return raw, AppendOne(f"{name}.with_one", PIXELS, WHITE)


def _scope(node: fx.Node) -> str:
    """Dotted path of the module whose ``forward`` made the node, with a trailing dot if any."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack), "") if stack else ""
    return f"{path}." if path else ""


def _module_nodes(name: str, x: str, module: nn.Module, spec: NetSpec) -> tuple[QNode, ...]:
    """What one module becomes; the last node holds its result."""
    if isinstance(module, PixelNorm):
        return (_image(name, spec),)
    if isinstance(module, PixelConv2d):
        image = _raw_image(name, spec)
        return (*image, _conv(name, image[-1].name, module))
    if isinstance(module, ActivationQuantizer):
        return (_activation(name, x, module),)
    convert = _MODULES.get(type(module))
    if convert is None:
        raise UnsupportedError(
            f"module {type(module).__name__}",
            where=f"layer {name}",
            todo=f"Supported: {', '.join(sorted(t.__name__ for t in _MODULES))}.",
        )
    return (convert(name, x, module),)


def _function_node(node: fx.Node, names: dict[fx.Node, str]) -> QNode:
    xs = [names[arg] for arg in node.args if isinstance(arg, fx.Node)]
    if node.target in (operator.add, torch.add) and len(xs) == 2:
        return Sum(f"{_scope(node)}add", xs[0], xs[1])
    if node.target is torch.flatten and node.args[1:] == (1,):
        return Flatten(f"{_scope(node)}flatten", xs[0])
    raise UnsupportedError(
        f"operation {node.target}",
        where=f"traced node {node.name}",
        todo="Supported between modules: addition of two tensors and torch.flatten(x, 1).",
    )


def _unique(node: QNode, taken: set[str]) -> QNode:
    """``node``, renamed with a number where its name is taken."""
    name, number = node.name, 1
    while name in taken:
        name, number = f"{node.name}_{number}", number + 1
    return node if name == node.name else replace(node, name=name)


def network_meta(spec: NetSpec) -> dict[str, str]:
    """What travels with the integer graph: method, net, bits, class names."""
    return {
        "method": spec.method,
        "net": spec.net,
        "bits": f"{spec.bits[0]},{spec.bits[1]}",
        "classes": json.dumps(list(spec.class_names)),
    }


class _Walk:
    """The nodes of a traced network so far."""

    def __init__(self, model: nn.Module, spec: NetSpec) -> None:
        self.model = model
        self.spec = spec
        self.names: dict[fx.Node, str] = {}
        self.nodes: list[QNode] = []

    def visit(self, node: fx.Node) -> None:
        """Append what ``node`` becomes."""
        if node.op == "placeholder":
            self.names[node] = PIXELS
            return
        if node.op not in ("call_module", "call_function"):
            raise UnsupportedError(f"traced {node.op} {node.target}", where=f"node {node.name}")
        source = self.names[node.args[0]] if isinstance(node.args[0], fx.Node) else ""
        if node.op == "call_function":
            self._append(node, (_function_node(node, self.names),))
            return
        module = self.model.get_submodule(str(node.target))
        if isinstance(module, _PASSED):
            self.names[node] = source
            return
        self._append(node, _module_nodes(str(node.target), source, module, self.spec))

    def _append(self, node: fx.Node, made: tuple[QNode, ...]) -> None:
        taken = {n.name for n in self.nodes}
        self.nodes += [_unique(new, taken) for new in made]
        self.names[node] = self.nodes[-1].name


def trace(model: nn.Module) -> QGraph:
    """The ``QGraph`` of a network of ours (``model.spec`` describes it), in eval mode.

    Raises UnsupportedError naming the layer that has no integer form.
    """
    spec = model.spec
    assert isinstance(spec, NetSpec)
    walk = _Walk(model, spec)
    for node in _QuantizerTracer().trace(model.eval()).nodes:
        if node.op != "output":
            walk.visit(node)
    return QGraph(tuple(walk.nodes), tuple(sorted(network_meta(spec).items())))
