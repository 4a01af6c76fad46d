"""Tensors that no quantizer reads directly become fixed-point ones (ADR 0006).

    Sum(Conv, …)                 →  Sum(Widen(Conv), …)
    MeanPool(Relu(Affine(r)))    →  MeanPool(Widen(r; gain, bias, relu, headroom))

Requires: ``fold_batchnorm``. Ensures: a ``Conv`` is read only by ``Widen``, by an ``Activation``,
or by an ``Affine`` that only activations read; a ``Relu``, and an ``Affine`` that something else
than an activation reads, have become a ``Widen``.
"""

from bitfold.errors import UnsupportedError
from bitfold.export.qgraph import (
    Activation,
    Affine,
    Conv,
    Flatten,
    FullyConnected,
    MeanPool,
    QGraph,
    QNode,
    Relu,
    Widen,
)

WHOLE_IMAGE = 0


def _only_quantized(graph: QGraph, name: str) -> bool:
    """Whether every reader of ``name`` is an activation quantizer, possibly behind an affine."""
    readers = graph.consumers(name)
    return all(
        isinstance(r, Activation) or (isinstance(r, Affine) and _only_quantized(graph, r.name))
        for r in readers
    )


def _headroom(graph: QGraph, name: str) -> int:
    """Values a pool behind ``name`` adds up; ``WHOLE_IMAGE`` for a global pool."""
    for reader in graph.consumers(name):
        if isinstance(reader, MeanPool):
            kernel = reader.kernel
            return WHOLE_IMAGE if kernel is None else kernel[0] * kernel[1]
    return 1


def _widened_relu(graph: QGraph, node: Relu) -> Widen:
    source = graph[node.x]
    headroom = _headroom(graph, node.name)
    if isinstance(source, Affine):
        return Widen(node.name, source.x, source.gain, source.bias, relu=True, headroom=headroom)
    return Widen(node.name, node.x, relu=True, headroom=headroom)


def _widened_conv(graph: QGraph, node: Conv) -> tuple[QNode, ...]:
    readers = graph.consumers(node.name)
    if all(isinstance(r, Affine | Activation | Relu) for r in readers):
        return (node,)
    if any(isinstance(r, FullyConnected | Flatten) for r in readers):
        raise UnsupportedError(
            "a convolution feeds a fully connected layer without a quantizer between them",
            where=f"layer {node.name}",
            todo="Quantize the activations in front of the fully connected layer.",
        )
    return (node, Widen(f"{node.name}.wide", node.name))


def widen_residuals(graph: QGraph) -> QGraph:
    """Insert ``Widen`` wherever a real-valued tensor has to be carried."""
    dead = {
        node.name
        for node in graph.nodes
        if isinstance(node, Affine)
        and all(isinstance(reader, Relu) for reader in graph.consumers(node.name))
    }

    def rule(node: QNode) -> tuple[QNode, ...]:
        if node.name in dead:
            return ()
        match node:
            case Conv():
                return _widened_conv(graph, node)
            case Relu():
                return (_widened_relu(graph, node),)
            case Affine() if not _only_quantized(graph, node.name):
                headroom = _headroom(graph, node.name)
                return (Widen(node.name, node.x, node.gain, node.bias, headroom=headroom),)
            case _:
                return (node,)

    widened = graph.rewrite(rule)
    renamed = {
        n.x: n.name for n in widened.nodes if isinstance(n, Widen) and n.name == f"{n.x}.wide"
    }
    moved = widened.redirect(renamed)
    back = {name: conv for conv, name in renamed.items()}
    return moved.rewrite(
        lambda node: (Widen(node.name, back[node.name]),) if node.name in back else (node,)
    )
