"""The invariants of an integer graph, one function each (docs/ir.md lists them).

Every function raises one class of ``bitfold.errors`` with the numbers, the node and a hint.
"""

import math
from collections.abc import Mapping

import numpy as np

from bitfold.errors import (
    OffGridError,
    OrderError,
    PaddingError,
    RangeError,
    ScaleError,
    ThresholdError,
)
from bitfold.ir.graph import IntGraph, check_order
from bitfold.ir.grid import Grid
from bitfold.ir.ops import (
    Conv2d,
    Linear,
    MaxPool2d,
    Node,
    Quantize,
    Rescale,
    Thresholds,
    inputs_of,
)
from bitfold.ir.ranges import infer_types, rounding_half, scales_of
from bitfold.ir.types import (
    INT32_MAX,
    INT32_MIN,
    Accumulator,
    CodeTensor,
    FloatTensor,
    IntArray,
    TensorType,
    WideTensor,
)

MAX_LEVELS = 256
INT64_MAX = 2**63 - 1

Types = Mapping[str, TensorType]


def verify(graph: IntGraph) -> None:
    """Check every invariant; returns None or raises the GraphError subclass of the first broken.

    Types are inferred anew, so a graph built without ``IntGraph.of`` is refused too.
    """
    check_order(graph.nodes)
    check_names(graph)
    check_used(graph)
    types = infer_types(graph.nodes)
    for node in graph.nodes:
        check_constants(node)
        check_scales(node, types)
        check_padding(node, types)
        check_ranges(node, types)
        check_rescale(node, types)
        check_thresholds(node, types)
    check_types(graph, types)


def check_names(graph: IntGraph) -> None:
    """Invariant 1: names are printable and without spaces. Raises OrderError."""
    for node in graph.nodes:
        if not node.name or not node.name.isprintable() or " " in node.name:
            raise OrderError(
                f"the name {node.name!r} is empty or holds spaces or control characters",
                where="graph",
                todo="Name nodes like layer1.0.conv1.",
            )


def check_used(graph: IntGraph) -> None:
    """Invariant 1: every tensor but the output is read. Raises OrderError."""
    read = {x for node in graph.nodes for x in inputs_of(node)}
    for node in graph.nodes[:-1]:
        if node.name not in read:
            raise OrderError(
                "nothing reads it", where=f"node {node.name}", todo="Remove the dead node."
            )


def check_types(graph: IntGraph, types: Types) -> None:
    """Invariant 1: the graph carries the types of its nodes. Raises OrderError."""
    if dict(graph.types) != dict(types):
        raise OrderError(
            "its types are not those of its nodes",
            where="graph",
            todo="Build graphs with IntGraph.of, which infers them.",
        )


def check_constants(node: Node) -> None:
    """Invariant 2: grids have at most 256 codes, weights and pixels lie on theirs. OffGridError."""
    match node:
        case Quantize(grid=grid):
            _check_levels(node, grid)
            if (grid.levels, grid.step) != (MAX_LEVELS, 1):
                raise OffGridError(
                    f"grid {grid} does not hold one code for each of 256 pixel values",
                    where=f"node {node.name}",
                    todo="Use Grid.pixels(mean).",
                )
        case Conv2d(weight=weight, weight_grid=grid) | Linear(weight=weight, weight_grid=grid):
            _check_levels(node, grid)
            _check_weight(node, weight, grid)
        case Thresholds(grid=grid):
            _check_levels(node, grid)
        case _:
            pass


def _check_levels(node: Node, grid: Grid) -> None:
    if grid.levels > MAX_LEVELS:
        raise OffGridError(
            f"grid {grid} has {grid.levels} codes, an index of one byte at most {MAX_LEVELS}",
            where=f"node {node.name}",
            todo="Quantize to at most 8 bits, or keep the tensor wide with Rescale.",
        )


def _check_weight(node: Node, weight: IntArray, grid: Grid) -> None:
    if _lies_on(weight, grid):
        return
    off = (weight < grid.lo) | (weight > grid.hi) | ((weight - grid.lo) % grid.step != 0)
    if off.any():
        at = tuple(int(i) for i in np.argwhere(off)[0])
        raise OffGridError(
            f"weight {int(weight[at])} at {at} is not on grid {grid}"
            f" ({int(off.sum())} of {weight.size} are not)",
            where=f"node {node.name}",
            todo="Take codes from the layer's weight quantizer, or widen weight_grid.",
        )


def _lies_on(weight: IntArray, grid: Grid) -> bool:
    """Whether all of ``weight`` is on ``grid``: quick for the many that are."""
    if weight.size and (weight.min() < grid.lo or weight.max() > grid.hi):
        return False
    if grid.step == 1:
        return True
    return grid.step == 2 and not np.any((weight ^ grid.lo) & 1)


def check_scales(node: Node, types: Types) -> None:
    """Invariant 3: scales are finite and positive, weight scales one or one a channel. ScaleError.

    This covers derived scales, and the float32 scales by which ``Dequantize`` multiplies. That
    operands of ``Add`` and ``Concat`` agree is part of type inference.
    """
    where = f"node {node.name}"
    if isinstance(node, Conv2d | Linear) and len(node.weight_scales) not in (1, len(node.weight)):
        raise ScaleError(
            f"{len(node.weight_scales)} weight scales for {len(node.weight)} output channels",
            where=where,
            todo="Give one scale, or one an output channel.",
        )
    x = types[node.name]
    scales = scales_of(types[inputs_of(node)[0]] if isinstance(x, FloatTensor) else x)
    if isinstance(x, FloatTensor):
        scales = tuple(_float32(scale) for scale in scales)
    bad = [scale for scale in scales if not (math.isfinite(scale) and scale > 0)]
    if bad:
        raise ScaleError(
            f"scale {bad[0]} is not finite and positive",
            where=where,
            todo="Read the quantizer's step from the checkpoint again; a step of 0 is untrained.",
        )


def _float32(scale: float) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(scale))


def check_padding(node: Node, types: Types) -> None:
    """Invariant 4: only code 0 pads, and a pool pads by less than its window. PaddingError."""
    where = f"node {node.name}"
    if isinstance(node, Conv2d) and any(node.padding):
        x = types[node.x]
        if isinstance(x, CodeTensor) and not x.grid.has_zero:
            raise PaddingError(
                f"padding {node.padding} of codes on {x.grid}, which has no code 0",
                where=where,
                todo="Quantize its input to a grid with a zero, or remove the padding.",
            )
    if isinstance(node, MaxPool2d):
        top, left, bottom, right = node.padding
        if max(top, bottom) >= node.kernel[0] or max(left, right) >= node.kernel[1]:
            raise PaddingError(
                f"padding {node.padding} of a {node.kernel} window: some windows see only padding",
                where=where,
                todo="Pad by less than the window.",
            )


def check_ranges(node: Node, types: Types) -> None:
    """Invariant 2: bias, accumulators and wide tensors fit int32. Raises RangeError."""
    if isinstance(node, Conv2d | Linear):
        _check_int32(
            node, "bias", int(node.bias.min()), int(node.bias.max()),
            todo="Use a larger accumulator scale: the bias is counted in its units.",
        )  # fmt: skip
    x = types[node.name]
    if isinstance(x, Accumulator | WideTensor):
        _check_int32(
            node, "proven range", x.lo, x.hi,
            todo="Use fewer fraction bits, narrower codes or a smaller window.",
        )  # fmt: skip


def _check_int32(node: Node, what: str, lo: int, hi: int, *, todo: str) -> None:
    if lo < INT32_MIN or hi > INT32_MAX:
        raise RangeError(
            f"its {what} {lo} … {hi} leaves int32", where=f"node {node.name}", todo=todo
        )


def check_rescale(node: Node, types: Types) -> None:
    """Invariant 2: multipliers fit int32, every product and sum int64. Raises RangeError."""
    if not isinstance(node, Rescale):
        return
    x = types[node.x]
    assert not isinstance(x, FloatTensor)
    for values in (node.multiplier, node.negative_multiplier):
        if values is not None:
            _check_int32(
                node, "multiplier", int(values.min()), int(values.max()),
                todo="Use a smaller shift.",
            )  # fmt: skip
    reach = max(abs(x.lo), abs(x.hi))
    largest = rounding_half(node.shift) + max(
        abs(multiplier) * reach + abs(offset)
        for multiplier, offset in zip(node.multiplier.tolist(), node.offset.tolist(), strict=True)
    )
    if node.negative_multiplier is not None:
        steepest = max(map(abs, node.negative_multiplier.tolist()))
        y = (largest >> node.shift) + 1
        largest = max(largest, steepest * y + rounding_half(node.negative_shift))
    if largest > INT64_MAX:
        raise RangeError(
            f"its products reach {largest}, past int64",
            where=f"node {node.name}",
            todo="Use a smaller shift, so that multiplier and offset shrink.",
        )


def check_thresholds(node: Node, types: Types) -> None:
    """Invariant 5: table (C, levels − 1) ascends within the proven range. Raises ThresholdError.

    Entries lie in least … most + 1 of sign · x: the lower end is always taken, the upper never.
    """
    if not isinstance(node, Thresholds):
        return
    x = types[node.x]
    assert not isinstance(x, FloatTensor)
    channels, count = x.shape[-1], node.grid.levels - 1
    where = f"node {node.name}"
    if node.table.shape != (channels, count) or node.sign.shape != (channels,):
        raise ThresholdError(
            f"table {node.table.shape} and sign {node.sign.shape} for {channels} channels"
            f" and {node.grid.levels} levels",
            where=where,
            todo=f"Give a table ({channels}, {count}) and a sign ({channels},).",
        )
    if not np.isin(node.sign, (-1, 1)).all():
        raise ThresholdError(
            f"sign holds {sorted(set(node.sign.tolist()) - {-1, 1})}",
            where=where,
            todo="A sign is 1, or −1 where the gain is negative; a gain of 0 makes a constant.",
        )
    _check_ascending(node)
    for channel in range(channels):
        _check_entries(node, channel, x)


def _check_ascending(node: Thresholds) -> None:
    falls = np.argwhere(np.diff(node.table, axis=1) < 0)
    if len(falls):
        channel, j = (int(i) for i in falls[0])
        raise ThresholdError(
            f"thresholds of channel {channel} fall from {int(node.table[channel, j])}"
            f" to {int(node.table[channel, j + 1])} at {j + 1}",
            where=f"node {node.name}",
            todo="Turn channels of negative gain with sign −1 before making the table.",
        )


def _check_entries(
    node: Thresholds, channel: int, x: CodeTensor | Accumulator | WideTensor
) -> None:
    least, most = (x.lo, x.hi) if node.sign[channel] == 1 else (-x.hi, -x.lo)
    row = node.table[channel]
    if row.size and (row[0] < least or row[-1] > most + 1):
        raise ThresholdError(
            f"thresholds {int(row[0])} … {int(row[-1])} of channel {channel} leave"
            f" {least} … {most + 1}",
            where=f"node {node.name}",
            todo="Clamp them to the proven range of sign · x and one more.",
        )
    if most + 1 > INT32_MAX:
        raise RangeError(
            f"channel {channel} compares integers up to {most} with thresholds up to {most + 1},"
            " past int32",
            where=f"node {node.name}",
            todo="Use fewer fraction bits or narrower codes in front of it.",
        )
