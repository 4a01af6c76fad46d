"""What a reader of the graph sees at a node: the layer's kind, bits, scales and proven ranges."""

from typing import assert_never

from bitfold.ir.ops import Conv2d, Linear, Node
from bitfold.ir.types import Accumulator, CodeTensor, FloatTensor, Scales, TensorType, WideTensor

INLINE_SCALES = 4


def note_of(node: Node, kind: TensorType) -> str:
    """One line for ``node``, which gives ``kind``: the doc_string of its last ONNX node."""
    text = f"{type(node).__name__} {node.name}: {_type_text(kind)}"
    if isinstance(node, Conv2d | Linear):
        grid = node.weight_grid
        text += f"; weights {grid}, {grid.bits} bits, {_scale_text(node.weight_scales)}"
    return text


def _type_text(kind: TensorType) -> str:
    match kind:
        case CodeTensor(grid=grid, scale=scale):
            return f"codes {grid}, {grid.bits} bits, {_scale_text((scale,))}"
        case WideTensor(lo=lo, hi=hi, scale=scale):
            return f"stream in {lo} … {hi}, {_scale_text((scale,))}"
        case Accumulator(lo=lo, hi=hi, scales=scales):
            return f"accumulators in {lo} … {hi}, {_scale_text(scales)}"
        case FloatTensor():
            return "float32"
        case _:
            assert_never(kind)


def _scale_text(scales: Scales) -> str:
    if len(scales) > INLINE_SCALES:
        return f"{len(scales)} scales {min(scales):.6g} … {max(scales):.6g}"
    return "scale " + ", ".join(f"{scale:.6g}" for scale in scales)
