"""The integer graph, its verifier and its oracle (docs/ir.md, docs/arithmetic.md)."""

from bitfold.ir.float64 import trace_float64
from bitfold.ir.graph import IntGraph
from bitfold.ir.grid import Grid
from bitfold.ir.ops import (
    Add,
    Concat,
    Conv2d,
    Dequantize,
    Linear,
    MaxPool2d,
    Node,
    Quantize,
    Rescale,
    Reshape,
    Slice,
    SumPool2d,
    Thresholds,
    inputs_of,
)
from bitfold.ir.oracle import run_oracle, trace_oracle
from bitfold.ir.ranges import output_type, product_interval, rescale_interval, scales_of
from bitfold.ir.text import to_text
from bitfold.ir.types import (
    INT32_MAX,
    INT32_MIN,
    Accumulator,
    CodeTensor,
    FloatTensor,
    IntArray,
    Scales,
    Shape,
    TensorType,
    WideTensor,
    signed_bits,
)
from bitfold.ir.verify import check_ranges, verify

__all__ = [
    # graph
    "IntGraph",
    "verify",
    "check_ranges",
    "to_text",
    "run_oracle",
    "trace_float64",
    "trace_oracle",
    # operations
    "Node",
    "Quantize",
    "Conv2d",
    "Linear",
    "Add",
    "Thresholds",
    "Rescale",
    "MaxPool2d",
    "SumPool2d",
    "Slice",
    "Concat",
    "Reshape",
    "Dequantize",
    "inputs_of",
    # types
    "Grid",
    "CodeTensor",
    "Accumulator",
    "WideTensor",
    "FloatTensor",
    "TensorType",
    "IntArray",
    "Scales",
    "Shape",
    # ranges
    "INT32_MIN",
    "INT32_MAX",
    "output_type",
    "product_interval",
    "rescale_interval",
    "scales_of",
    "signed_bits",
]
