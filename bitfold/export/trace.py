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
    BatchNorm,
    Conv,
    Flatten,
    FullyConnected,
    MaxPool,
    MeanPool,
    Pixels,
    QGraph,
    QNode,
    Rationals,
    Relu,
    Sum,
)
from bitfold.ir import IntArray
from bitfold.models import NetSpec, Preprocessing
from bitfold.models.layers import PixelNorm, QuantConv2d, QuantLinear
from bitfold.models.protocol import ActivationQuantizer


class _QuantizerTracer(fx.Tracer):
    """Stops at quantizers, quantized layers and everything torch itself provides."""

    LEAVES = (PixelNorm, QuantConv2d, QuantLinear, ActivationQuantizer)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether ``m`` becomes one node."""
        return isinstance(m, self.LEAVES) or super().is_leaf_module(m, module_qualified_name)


def _doubles(tensor: torch.Tensor) -> tuple[float, ...]:
    return tuple(tensor.detach().double().tolist())


def weight_codes(layer: QuantConv2d | QuantLinear) -> tuple[IntArray, Rationals]:
    """Codes of a layer's weights and their rational scales: one, or one an output channel."""
    weight = layer.weight.detach()
    quantizer = layer.weight_quantizer
    return quantizer.codes(weight).numpy(), quantizer.exact_scales(weight)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _padding(value: int | tuple[int, ...]) -> tuple[int, int, int, int]:
    rows, cols = _pair(value)
    return (rows, cols, rows, cols)


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
    )


def _linear(name: str, x: str, module: QuantLinear) -> FullyConnected:
    codes, scales = weight_codes(module)
    bias = _doubles(module.bias)
    grid = module.weight_quantizer.grid
    return FullyConnected(name, x, codes, grid, scales, tuple(Fraction(b) for b in bias))


def _batchnorm(name: str, x: str, module: nn.BatchNorm2d) -> BatchNorm:
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
    return Activation(name, x, module.grid, module.exact_scales()[0])


def _max_pool(name: str, x: str, module: nn.MaxPool2d) -> MaxPool:
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


_MODULES: dict[type[nn.Module], Callable[..., QNode]] = {
    QuantConv2d: _conv,
    QuantLinear: _linear,
    nn.BatchNorm2d: _batchnorm,
    nn.ReLU: lambda name, x, _module: Relu(name, x),
    nn.MaxPool2d: _max_pool,
    nn.AdaptiveAvgPool2d: _mean_pool,
}


def _scope(node: fx.Node) -> str:
    """Dotted path of the module whose ``forward`` made the node, with a trailing dot if any."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack), "") if stack else ""
    return f"{path}." if path else ""


def _module_node(node: fx.Node, x: str, module: nn.Module, spec: NetSpec) -> QNode:
    name = str(node.target)
    if isinstance(module, PixelNorm):
        norm = spec.preprocessing
        assert isinstance(norm, Preprocessing)
        return Pixels(name, spec.input_shape, norm.mean, norm.std)
    if isinstance(module, ActivationQuantizer):
        return _activation(name, x, module)
    convert = _MODULES.get(type(module))
    if convert is None:
        raise UnsupportedError(
            f"module {type(module).__name__}",
            where=f"layer {name}",
            todo=f"Supported: {', '.join(sorted(t.__name__ for t in _MODULES))}.",
        )
    return convert(name, x, module)


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


def trace(model: nn.Module) -> QGraph:
    """The ``QGraph`` of a network of ours (``model.spec`` describes it), in eval mode.

    Raises UnsupportedError naming the layer that has no integer form.
    """
    spec = model.spec
    assert isinstance(spec, NetSpec)
    traced = _QuantizerTracer().trace(model.eval())
    names: dict[fx.Node, str] = {}
    nodes: list[QNode] = []
    for node in traced.nodes:
        if node.op == "placeholder":
            names[node] = "pixels"
        elif node.op in ("call_module", "call_function"):
            source = names[node.args[0]] if isinstance(node.args[0], fx.Node) else ""
            if node.op == "call_module":
                made = _module_node(node, source, model.get_submodule(str(node.target)), spec)
            else:
                made = _function_node(node, names)
            made = _unique(made, {n.name for n in nodes})
            nodes.append(made)
            names[node] = made.name
        elif node.op != "output":
            raise UnsupportedError(f"traced {node.op} {node.target}", where=f"node {node.name}")
    return QGraph(tuple(nodes), tuple(sorted(network_meta(spec).items())))
