"""Canonical text of a graph: equal graphs give equal text, different graphs different text.

Floats are hexadecimal. Arrays and tuples of more than 16 numbers are a shape and a SHA-256 digest
of their little-endian 64-bit contents, so nothing is rounded away.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import assert_never

import numpy as np

from bitfold.ir.graph import IntGraph
from bitfold.ir.ops import Node, inputs_of
from bitfold.ir.types import (
    Accumulator,
    CodeTensor,
    FloatTensor,
    Shape,
    TensorType,
    WideTensor,
)

INLINE_ELEMENTS = 16
INPUT_FIELDS = frozenset({"name", "x", "a", "b", "xs"})
FLOAT_FIELDS = frozenset({"scale", "weight_scales"})


def _digest(array: np.ndarray[tuple[int, ...], np.dtype[np.int64 | np.float64]]) -> str:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return "sha256:" + hashlib.sha256(little.tobytes(order="C")).hexdigest()


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _floats(values: Sequence[float]) -> str:
    if len(values) > INLINE_ELEMENTS:
        return f"f64[{len(values)}] " + _digest(np.array(values, dtype=np.float64))
    return ", ".join(float(value).hex() for value in values)


def _array(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> str:
    kind = f"i64[{_shape(values.shape)}] "
    return kind + (_digest(values) if values.size > INLINE_ELEMENTS else str(values.tolist()))


def _attribute(node: Node, name: str) -> str:
    value: object = getattr(node, name)
    if isinstance(value, np.ndarray):
        return _array(value)
    if name in FLOAT_FIELDS:
        return _floats(value if isinstance(value, tuple) else (value,))
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def _type(kind: TensorType) -> str:
    match kind:
        case CodeTensor(shape=shape, grid=grid, scale=scale):
            return f"codes {_shape(shape)} on {grid} scale {scale.hex()}"
        case WideTensor(shape=shape, lo=lo, hi=hi, scale=scale):
            return f"wide {_shape(shape)} in {lo}:{hi} scale {scale.hex()}"
        case Accumulator(shape=shape, lo=lo, hi=hi, scales=scales):
            return f"accumulators {_shape(shape)} in {lo}:{hi} scale {_floats(scales)}"
        case FloatTensor(shape=shape):
            return f"float32 {_shape(shape)}"
        case _:
            assert_never(kind)


def _node_lines(node: Node, kind: TensorType) -> list[str]:
    inputs = ", ".join(json.dumps(x) for x in inputs_of(node))
    header = f"{json.dumps(node.name)} = {type(node).__name__}({inputs}) : {_type(kind)}"
    attributes = [
        f"    {field.name} = {_attribute(node, field.name)}"
        for field in fields(node)
        if field.name not in INPUT_FIELDS
    ]
    return [header, *attributes]


def to_text(graph: IntGraph) -> str:
    """``graph`` as text: meta, then each node's inputs, type with proven range, and constants."""
    lines = [f"meta {json.dumps(key)} = {json.dumps(value)}" for key, value in graph.meta]
    for node in graph.nodes:
        lines += _node_lines(node, graph.types[node.name])
    return "\n".join(lines) + "\n"
