"""Lowering: an integer graph becomes steps over an arena.

Fused into one step: Conv2d or Linear with the Thresholds or the Rescale behind it, and any Rescale
with the Add behind that, where nobody else reads what lies between; what the other side of such an
Add needs is lowered before. The digits of wide weights (ADR 0010) become one product. An Add reads
slices of channels where they lie. Reshape costs nothing: the same bytes under another shape.
Everything else is a step of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import assert_never

import numpy as np

from bitfold.errors import UnsupportedError
from bitfold.ir import (
    INT32_MAX,
    Accumulator,
    Add,
    CodeTensor,
    Concat,
    Conv2d,
    Dequantize,
    FloatTensor,
    Grid,
    IntGraph,
    Linear,
    MaxPool2d,
    Node,
    Quantize,
    Rescale,
    Reshape,
    Slice,
    SumPool2d,
    TensorType,
    Thresholds,
    inputs_of,
)
from bitfold.kernels.steps import (
    AddStep,
    Buffer,
    ConvStep,
    CopyStep,
    DequantizeStep,
    ElementKind,
    Epilogue,
    MaxPoolStep,
    RescaleStep,
    Step,
    SumPoolStep,
    ThresholdStep,
    ToAccumulators,
    ToIndices,
    ToWide,
)
from bitfold.runtime.arena import Lifetime, assign_offsets, reserved_bytes
from bitfold.runtime.outline import Outline, OutlinedStep, OutlinedTensor
from bitfold.runtime.product import Product, product_of, sole_reader, wide_product


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A graph tensor that lies in the arena from the end of step ``ready`` (−1: the image) on.

    ``grid`` is that of its codes, which are stored as indices; None for plain integers and results.
    """

    buffer: Buffer
    ready: int
    grid: Grid | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps, where the image goes, the arena's size, and which graph tensors materialize where."""

    steps: tuple[Step, ...]
    input: Buffer
    arena_bytes: int
    tensors: Mapping[str, PlannedTensor]

    @property
    def output(self) -> Buffer:
        """Where the results lie after the last step."""
        return self.steps[-1].out

    @property
    def tensor_buffers(self) -> Mapping[str, Buffer]:
        """Buffer of every materialized graph tensor, by node name."""
        return MappingProxyType({name: t.buffer for name, t in self.tensors.items()})


def element_kind(tensor: TensorType) -> ElementKind:
    """How a tensor's elements lie in the arena."""
    match tensor:
        case CodeTensor():
            return "u8"
        case FloatTensor():
            return "f32"
        case _:
            return "i32"


def as_image(buffer: Buffer) -> Buffer:
    """The same bytes as (H, W, C); a vector is a 1x1 image."""
    return replace(buffer, shape=(1,) * (3 - len(buffer.shape)) + buffer.shape)


def wide_rule(node: Rescale, *, add: Buffer | None = None) -> ToWide:
    """The epilogue of a Rescale."""
    return ToWide(
        node.multiplier, node.offset, node.shift, add, node.negative_multiplier, node.negative_shift
    )


def identity_rule(channels: int) -> ToWide:
    """The epilogue that changes nothing: codes out of indices."""
    return ToWide(np.ones(channels, np.int64), np.zeros(channels, np.int64), 0)


def index_rule(node: Thresholds, x: TensorType) -> ToIndices:
    """The epilogue of a Thresholds that reads ``x``; raises UnsupportedError past int32."""
    if isinstance(x, FloatTensor):
        raise UnsupportedError("thresholds on results", where=f"node {node.name}")
    lo = np.where(node.sign < 0, -x.hi, x.lo)[:, None]
    hi = np.where(node.sign < 0, -x.lo, x.hi)[:, None]
    table = np.clip(node.table, lo, hi + 1)
    if table.size and table.max() > INT32_MAX:
        raise UnsupportedError(
            f"a threshold of {table.max()} does not fit 32 bits", where=f"node {node.name}"
        )
    return ToIndices(np.ascontiguousarray(table, dtype=np.int32), node.sign.astype(np.int32))


def integer_interval(tensor: TensorType) -> tuple[int, int]:
    """Proven least and greatest integer of a tensor."""
    if isinstance(tensor, FloatTensor):
        raise UnsupportedError("results are no integers")
    return int(np.min(tensor.lo)), int(np.max(tensor.hi))


class _Lowering:
    """Walks a graph once and collects steps over an arena in which nothing is reused yet."""

    def __init__(self, graph: IntGraph) -> None:
        self.graph = graph
        self.nodes = {node.name: node for node in graph.nodes}
        self.steps: list[Step] = []
        self.tensors: dict[str, PlannedTensor] = {}
        self.end = 0
        self.windows: dict[str, tuple[Buffer, int]] = {}  # slices that only Adds read, not copied
        self.done: set[str] = set()  # lowered, or fused into what is being lowered
        self.is_ahead = False  # lowering what another step needs: no further ahead, chains are long

    def run(self) -> Plan:
        for node in self.graph.nodes:
            if node.name not in self.done:
                self.lower(node)
        image = self.tensors[self.graph.input.name].buffer
        return Plan(tuple(self.steps), image, self.end, MappingProxyType(self.tensors))

    def reserve(self, shape: tuple[int, ...], kind: ElementKind) -> Buffer:
        buffer = Buffer(self.end, shape, kind)
        self.end += reserved_bytes(buffer.num_bytes)
        return buffer

    def define(self, node: Node) -> Buffer:
        """A place for the tensor of ``node``, filled by the step that is appended next."""
        tensor = self.graph.types[node.name]
        buffer = self.reserve(tensor.shape, element_kind(tensor))
        grid = tensor.grid if isinstance(tensor, CodeTensor) else None
        self.tensors[node.name] = PlannedTensor(buffer, len(self.steps), grid)
        return buffer

    def place(self, name: str) -> Buffer:
        if name not in self.tensors and name in self.windows:
            x, start = self.windows[name]
            self.copy(self.nodes[name], x, start)
        return self.tensors[name].buffer

    def window(self, name: str) -> tuple[Buffer, int]:
        """Where the channels of ``name`` lie, and the first of them."""
        return self.windows[name] if name in self.windows else (self.place(name), 0)

    def copy(self, node: Node, x: Buffer, start: int) -> None:
        count = self.graph.types[node.name].shape[-1]
        self.steps.append(CopyStep(node.name, x, self.define(node), start, 0, count))

    def codes(self, name: str) -> tuple[int, int]:
        """(lo, step) of a tensor's grid; (0, 1) for plain integers."""
        grid = self.tensors[name].grid
        return (grid.lo, grid.step) if grid else (0, 1)

    def integers(self, name: str, reader: str) -> Buffer:
        """The tensor as i32; codes are unpacked by a step of their own."""
        x = self.place(name)
        if x.kind == "i32":
            return x
        out = self.reserve(x.shape, "i32")
        lo, step = self.codes(name)
        rule = identity_rule(x.shape[-1])
        self.steps.append(RescaleStep(f"{reader}.codes", x, out, rule, lo, step))
        return out

    def lower(self, node: Node) -> None:
        self.done.add(node.name)
        match node:
            case Quantize():
                self.define(node)
                self.tensors[node.name] = replace(self.tensors[node.name], ready=-1)
            case Conv2d() | Linear():
                self.lower_products(wide_product(self.graph, self.nodes, node) or product_of(node))
            case Thresholds() | Rescale() | Add() | Dequantize():
                self.lower_elementwise(node)
            case MaxPool2d() | SumPool2d():
                self.lower_pool(node)
            case Slice() | Concat() | Reshape():
                self.lower_moved(node)
            case _:
                assert_never(node)

    def epilogue(self, node: Node) -> tuple[Epilogue, Node]:
        """What to fuse behind a sum of products, and the node whose tensor comes out."""
        if thresholds := sole_reader(self.graph, node, Thresholds):
            return index_rule(thresholds, self.graph.types[node.name]), thresholds
        rescale = sole_reader(self.graph, node, Rescale)
        if rescale is None:
            return ToAccumulators(), node
        self.done.add(rescale.name)
        return self.wide_epilogue(rescale)

    def wide_epilogue(self, rescale: Rescale) -> tuple[ToWide, Node]:
        """``rescale``, with the Add behind it where the other side is there or can be.

        Of two rescales that are added, the later one adds.
        """
        addition = sole_reader(self.graph, rescale, Add)
        if addition is None or addition.a == addition.b:
            return wide_rule(rescale), rescale
        other = addition.b if addition.a == rescale.name else addition.a
        missing = self.missing(other)
        if missing is None:
            return wide_rule(rescale), rescale
        if missing:
            if self.is_ahead or isinstance(self.nodes[other], Rescale):
                return wide_rule(rescale), rescale
            self.lower_ahead(missing)
        self.done.add(addition.name)
        return wide_rule(rescale, add=as_image(self.place(other))), addition

    def lower_ahead(self, nodes: list[Node]) -> None:
        self.is_ahead = True
        for node in nodes:
            if node.name not in self.done:
                self.lower(node)
        self.is_ahead = False

    def missing(self, name: str) -> list[Node] | None:
        """What has to be lowered for tensor ``name``, in order; None where that is under way."""
        wanted, seen = [name], {name}
        while wanted:
            current = wanted.pop()
            if current in self.tensors or current in self.windows:
                continue
            if current in self.done:
                return None
            fresh = [x for x in inputs_of(self.nodes[current]) if x not in seen]
            seen.update(fresh)
            wanted.extend(fresh)
        return [node for node in self.graph.nodes if node.name in seen - self.tensors.keys()]

    def lower_products(self, product: Product) -> None:
        x, node = self.tensors[product.layer.x], product.layer
        self.done.update(product.covered)
        epilogue, result = self.epilogue(product.result)
        self.done.add(result.name)
        if x.grid is None:
            raise UnsupportedError("products of plain integers", where=f"node {node.name}")
        self.steps.append(
            ConvStep(
                name=product.result.name,
                x=as_image(x.buffer),
                out=as_image(self.define(result)),
                x_grid=x.grid,
                weight=product.weight,
                weight_grid=product.grid,
                bias=product.bias,
                stride=node.stride if isinstance(node, Conv2d) else (1, 1),
                padding=node.padding if isinstance(node, Conv2d) else (0, 0, 0, 0),
                groups=node.groups if isinstance(node, Conv2d) else 1,
                epilogue=epilogue,
            )
        )

    def lower_elementwise(self, node: Thresholds | Rescale | Add | Dequantize) -> None:
        match node:
            case Add():
                (a, a_start), (b, b_start) = self.window(node.a), self.window(node.b)
                self.steps.append(AddStep(node.name, a, b, self.define(node), a_start, b_start))
            case Rescale():
                x, codes = self.place(node.x), self.codes(node.x)
                wide, result = self.wide_epilogue(node)
                out = self.define(result)
                interval = integer_interval(self.graph.types[node.x])
                self.steps.append(RescaleStep(node.name, x, out, wide, *codes, interval))
            case Thresholds():
                x = self.integers(node.x, node.name)
                rule = index_rule(node, self.graph.types[node.x])
                self.steps.append(ThresholdStep(node.name, x, self.define(node), rule))
            case Dequantize():
                x = self.integers(node.x, node.name)
                scale = result_scales(self.graph.types[node.x])
                self.steps.append(DequantizeStep(node.name, x, self.define(node), scale))
            case _:
                assert_never(node)

    def lower_pool(self, node: MaxPool2d | SumPool2d) -> None:
        x, codes = self.place(node.x), self.codes(node.x)
        out = self.define(node)
        if isinstance(node, MaxPool2d):
            step = MaxPoolStep(node.name, x, out, node.kernel, node.stride, node.padding)
            self.steps.append(step)
        else:
            self.steps.append(SumPoolStep(node.name, x, out, node.kernel, node.stride, *codes))

    def lower_moved(self, node: Slice | Concat | Reshape) -> None:
        if isinstance(node, Reshape):
            x = self.tensors[node.x]
            self.tensors[node.name] = replace(x, buffer=replace(x.buffer, shape=node.shape))
            return
        if isinstance(node, Slice):
            self.lower_slice(node)
            return
        parts, out = [self.place(x) for x in node.xs], self.define(node)
        if len(set(node.xs)) == 1:
            count = parts[0].shape[-1]
            self.steps.append(CopyStep(node.name, parts[0], out, 0, 0, count, len(parts)))
            return
        start = 0
        for i, part in enumerate(parts):
            count = part.shape[-1]
            self.steps.append(CopyStep(f"{node.name}.{i}", part, out, 0, start, count))
            start += count
        tensor = self.tensors[node.name]
        self.tensors[node.name] = replace(tensor, ready=len(self.steps) - 1)

    def lower_slice(self, node: Slice) -> None:
        x, readers = self.place(node.x), self.graph.consumers(node.name)
        if x.kind == "i32" and readers and all(isinstance(reader, Add) for reader in readers):
            self.windows[node.name] = (x, node.start)
        else:
            self.copy(node, x, node.start)


def result_scales(tensor: TensorType) -> "np.typing.NDArray[np.float32]":
    """float32 scale of each channel (the last dimension) of integers that become results."""
    channels = tensor.shape[-1]
    match tensor:
        case Accumulator():
            scales = tensor.scales
        case CodeTensor():
            scales = (tensor.scale,)
        case FloatTensor():
            raise UnsupportedError("results have no scale")
        case _:
            scales = (tensor.scale,)
    return np.broadcast_to(np.array(scales, np.float32), (channels,)).copy()


def buffers_of(step: Step) -> tuple[Buffer, ...]:
    """Every buffer that a step reads or writes."""
    places = [getattr(step, field.name) for field in fields(step)]
    epilogue = getattr(step, "epilogue", None)
    add = epilogue.add if isinstance(epilogue, ToWide) else None
    return tuple(b for b in (*places, add) if isinstance(b, Buffer))


def _moved_step(step: Step, offsets: Mapping[int, int]) -> Step:
    """``step`` with every buffer at its new offset."""
    changes: dict[str, object] = {}
    for field in fields(step):
        value = getattr(step, field.name)
        if isinstance(value, Buffer):
            changes[field.name] = replace(value, offset=offsets[value.offset])
        elif isinstance(value, ToWide) and value.add is not None:
            add = replace(value.add, offset=offsets[value.add.offset])
            changes[field.name] = replace(value, add=add)
    return replace(step, **changes)  # type: ignore[arg-type]  # names come from fields(step)


def lifetimes_of(plan: Plan) -> dict[int, Lifetime]:
    """By offset: size and lifetime of each tensor of a plan without reuse."""
    spans = {plan.input.offset: Lifetime(plan.input.num_bytes, -1, -1)}
    for i, step in enumerate(plan.steps):
        for buffer in buffers_of(step):
            span = spans.get(buffer.offset, Lifetime(buffer.num_bytes, i, i))
            spans[buffer.offset] = replace(span, last=i)
    return spans


def reuse_arena(plan: Plan) -> Plan:
    """The same plan with tensors laid over those that have no reader left."""
    spans = lifetimes_of(plan)
    places, arena_bytes = assign_offsets(tuple(spans.values()))
    offsets = dict(zip(spans, places, strict=True))
    tensors = {
        name: replace(t, buffer=replace(t.buffer, offset=offsets[t.buffer.offset]))
        for name, t in plan.tensors.items()
    }
    return Plan(
        tuple(_moved_step(step, offsets) for step in plan.steps),
        replace(plan.input, offset=offsets[plan.input.offset]),
        arena_bytes,
        MappingProxyType(tensors),
    )


def plan_graph(graph: IntGraph) -> Plan:
    """Steps and arena of a verified graph; raises UnsupportedError where numbers do not fit."""
    return reuse_arena(_Lowering(graph).run())


def count_macs(step: Step) -> int:
    """Multiply-accumulates of a step, padding included; 0 for all but convolutions."""
    if not isinstance(step, ConvStep):
        return 0
    return step.out.shape[0] * step.out.shape[1] * step.weight.size


def outline_of(plan: Plan, *, image: str) -> Outline:
    """Names and places of ``plan``, without constants; ``image`` names the tensor of the image."""
    tensors = {
        name: OutlinedTensor(t.buffer, t.ready, (t.grid.lo, t.grid.step) if t.grid else None)
        for name, t in plan.tensors.items()
    }
    steps = tuple(
        OutlinedStep(step.name, type(step).__name__.removesuffix("Step").lower(), count_macs(step))
        for step in plan.steps
    )
    return Outline(steps, tensors, image)
