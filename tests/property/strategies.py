"""Hypothesis strategies that all packages share: grids, codes, geometries, graphs, images.

Every graph drawn here passes ``verify`` and uses only what every backend must run: thresholds read
accumulators and wide tensors, the output reads accumulators and wide tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from bitfold.ir import (
    Add,
    Concat,
    Conv2d,
    Dequantize,
    Grid,
    IntArray,
    IntGraph,
    Linear,
    MaxPool2d,
    Node,
    Quantize,
    Rescale,
    Reshape,
    Shape,
    Slice,
    SumPool2d,
    TensorType,
    Thresholds,
    inputs_of,
    output_type,
)

WEIGHT_GRIDS = (
    *(Grid.odd(bits) for bits in (1, 2, 3)),
    *(Grid.narrow(bits) for bits in (2, 3, 4, 8)),
)
ACTIVATION_GRIDS = (*(Grid.unsigned(bits) for bits in (1, 2, 3, 4, 8)), Grid.narrow(2))
STREAM_SCALE = 2.0**-10
MAX_CHANNELS = 24
REACH = 2**24  # of a drawn stream: a handful of additions and a pool stay inside int32

weight_grids = st.sampled_from(WEIGHT_GRIDS)
activation_grids = st.sampled_from(ACTIVATION_GRIDS)
grids = st.builds(
    lambda lo, levels, step: Grid(lo, lo + (levels - 1) * step, step),
    st.integers(-300, 300),
    st.integers(1, 256),
    st.integers(1, 3),
)


@st.composite
def integers_between(draw: st.DrawFn, lo: int, hi: int, shape: Shape) -> IntArray:
    """int64 array of ``shape`` in lo … hi: random, or all at one end, or random ends."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    match draw(st.sampled_from(("random", "random", "ends", "least", "most"))):
        case "least":
            return np.full(shape, lo, dtype=np.int64)
        case "most":
            return np.full(shape, hi, dtype=np.int64)
        case "ends":
            return rng.choice(np.array([lo, hi]), size=shape)
        case _:
            return rng.integers(lo, hi, size=shape, endpoint=True)


def codes_on(grid: Grid, shape: Shape) -> st.SearchStrategy[IntArray]:
    """Codes of ``grid``, int64."""
    return integers_between(0, grid.levels - 1, shape).map(lambda i: grid.lo + grid.step * i)


def indices_on(grid: Grid, shape: Shape) -> st.SearchStrategy[IntArray]:
    """Indices of ``grid`` as kernels store them, uint8."""
    return integers_between(0, grid.levels - 1, shape).map(lambda i: i.astype(np.uint8))


@dataclass(frozen=True)
class ConvGeometry:
    """One convolution: input (H, W, C) and everything of ``Conv2d`` but its numbers."""

    shape: Shape
    num_out: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int

    @property
    def weight_shape(self) -> Shape:
        """(O, KH, KW, C/groups)."""
        return (self.num_out, *self.kernel, self.shape[2] // self.groups)


pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))
kernels = st.sampled_from(((1, 1), (3, 3), (3, 3), (2, 2), (1, 3), (5, 5)))


@st.composite
def conv_geometries(
    draw: st.DrawFn, *, shape: Shape | None = None, pads: bool = True
) -> ConvGeometry:
    """Odd sizes, 1x1 images, uneven padding, strides, groups and depthwise included."""
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    if shape is None:
        depth = draw(st.sampled_from((1, 2, 3, 5, 8, 17)))
        shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)), depth * groups)
    if shape[2] % groups or draw(st.integers(0, 7)) == 0:
        groups = shape[2]  # depthwise
    kernel = draw(kernels)
    edge = st.integers(0, 2) if pads else st.just(0)
    top, left, bottom, right = (draw(edge) for _ in range(4))
    kernel = (min(kernel[0], shape[0] + top + bottom), min(kernel[1], shape[1] + left + right))
    return ConvGeometry(
        shape,
        groups * draw(st.integers(1, max(1, min(5, MAX_CHANNELS // groups)))),
        kernel,
        draw(pairs),
        (top, left, bottom, right),
        groups,
    )


@dataclass
class GraphDraft:
    """Nodes drawn so far, with their types."""

    draw: st.DrawFn
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)

    def add(self, make: Callable[[str], Node]) -> str:
        """Append ``make(fresh name)`` and return that name."""
        node = make(f"n{len(self.nodes)}")
        self.nodes.append(node)
        self.types[node.name] = output_type(node, tuple(self.types[x] for x in inputs_of(node)))
        return node.name

    def conv(self, x: str, *, kernel_is_one: bool = False, num_out: int = 0) -> str:
        """A convolution of codes ``x``."""
        codes = self.types[x]
        grid = self.draw(weight_grids)
        geometry = self.draw(conv_geometries(shape=codes.shape, pads=codes.grid.has_zero))
        if kernel_is_one:
            geometry = ConvGeometry(
                codes.shape, num_out or geometry.num_out, (1, 1), (1, 1), (0, 0, 0, 0), 1
            )
        weight = self.draw(codes_on(grid, geometry.weight_shape))
        bias = self.draw(integers_between(-999, 999, (geometry.num_out,)))
        scales = self.draw(st.sampled_from(((0.25,), (0.5,) * geometry.num_out)))
        return self.add(
            lambda name: Conv2d(
                name, x, weight, grid, scales, bias,
                geometry.stride, geometry.padding, geometry.groups,
            )
        )  # fmt: skip

    def thresholds(self, x: str, grid: Grid | None = None) -> str:
        """Thresholds inside the proven range, with turned and constant channels."""
        source, channels = self.types[x], self.types[x].shape[-1]
        grid = grid or self.draw(activation_grids)
        sign = self.draw(integers_between(0, 1, (channels,))) * 2 - 1
        rows = []
        for s in sign:
            least, most = (source.lo, source.hi) if s == 1 else (-source.hi, -source.lo)
            row = self.draw(integers_between(least, most + 1, (grid.levels - 1,)))
            rows.append(np.sort(row))
        table = np.array(rows, dtype=np.int64).reshape(channels, grid.levels - 1)
        return self.add(lambda name: Thresholds(name, x, table, sign, grid, 0.125))

    def rescale(self, x: str) -> str:
        """A stream of at most REACH, half of the time with a negative slope (ReLU, PReLU)."""
        source, channels = self.types[x], self.types[x].shape[-1]
        reach = max(abs(source.lo), abs(source.hi), 1)
        shift = self.draw(st.integers((2 * reach // REACH).bit_length(), 20))
        top = min(2**31 - 1, ((REACH // 2) << shift) // reach)
        multiplier = self.draw(integers_between(-top, top, (channels,)))
        span = (REACH // 4) << shift
        offset = self.draw(integers_between(-span, span, (channels,)))
        slope, slope_shift = None, 0
        if self.draw(st.booleans()):
            slope_shift = self.draw(st.integers(0, 8))
            steep = self.draw(st.sampled_from((0, 1 << slope_shift)))
            slope = self.draw(integers_between(-steep, steep, (channels,)))
        return self.add(
            lambda name: Rescale(
                name, x, multiplier, offset, shift, STREAM_SCALE, slope, slope_shift
            )
        )

    def conv_block(self, x: str) -> str:
        """codes → Conv2d → Thresholds → codes."""
        return self.thresholds(self.conv(x))

    def residual_block(self, x: str) -> str:
        """codes → two rescaled convolutions → Add → (pool) → Thresholds → codes."""
        a = self.rescale(self.conv(x, kernel_is_one=True))
        channels = self.types[a].shape[-1]
        b = self.rescale(self.conv(x, kernel_is_one=True, num_out=channels))
        total = self.add(lambda name: Add(name, a, b))
        return self.thresholds(self.max_pool(total) if self.draw(st.booleans()) else total)

    def max_pool(self, x: str) -> str:
        """A maximum over codes or a stream, padded by less than its window."""
        shape = self.types[x].shape
        kernel = (min(self.draw(st.integers(1, 3)), shape[0]),
                  min(self.draw(st.integers(1, 3)), shape[1]))  # fmt: skip
        rows, columns = (st.integers(0, size - 1) for size in kernel)
        padding = (self.draw(rows), self.draw(columns), self.draw(rows), self.draw(columns))
        stride = self.draw(pairs)
        return self.add(lambda name: MaxPool2d(name, x, kernel, stride, padding))

    def sum_pool(self, x: str) -> str:
        """A sum over small windows of codes or a stream."""
        shape = self.types[x].shape
        kernel = (self.draw(st.integers(1, min(3, shape[0]))),
                  self.draw(st.integers(1, min(3, shape[1]))))  # fmt: skip
        stride = self.draw(pairs)
        return self.add(lambda name: SumPool2d(name, x, kernel, stride))

    def pool_block(self, x: str) -> str:
        """codes → MaxPool2d → codes, or codes → SumPool2d → Thresholds → codes."""
        if self.draw(st.booleans()):
            return self.max_pool(x)
        return self.thresholds(self.sum_pool(x))

    def shuffle_block(self, x: str) -> str:
        """codes → two slices (they may overlap) → Concat → codes."""
        channels = self.types[x].shape[-1]
        parts = []
        for _ in range(2):
            start = self.draw(st.integers(0, channels - 1))
            stop = self.draw(st.integers(start + 1, channels))
            parts.append(self.add(lambda name, a=start, b=stop: Slice(name, x, a, b)))
        return self.add(lambda name: Concat(name, tuple(parts)))

    def tail(self, x: str) -> str:
        """codes → stream → mean → codes → Linear, or codes → Linear, or codes → stream."""
        ending = self.draw(st.sampled_from(("mean", "flat", "stream")))
        if ending == "mean":
            wide = self.rescale(self.conv(x))
            height, width, _ = self.types[wide].shape
            mean = self.add(lambda name: SumPool2d(name, wide, (height, width), (1, 1)))
            x = self.thresholds(mean, Grid.unsigned(8))
        size = int(np.prod(self.types[x].shape))
        flat = self.add(lambda name: Reshape(name, x, (size,)))
        if ending == "stream":
            return self.rescale(flat)
        grid, classes = self.draw(weight_grids), self.draw(st.integers(1, 11))
        weight = self.draw(codes_on(grid, (classes, size)))
        bias = self.draw(integers_between(-(2**20), 2**20, (classes,)))
        return self.add(lambda name: Linear(name, flat, weight, grid, (0.01,), bias))


@st.composite
def int_graphs(draw: st.DrawFn, *, max_blocks: int = 3) -> IntGraph:
    """Small verified graphs; over many draws every operation occurs."""
    draft = GraphDraft(draw)
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 3)))
    grid = Grid.pixels(draw(st.integers(0, 255)))
    x = draft.add(lambda name: Quantize(name, shape, grid, 0.015625))
    blocks = (draft.conv_block, draft.residual_block, draft.pool_block, draft.shuffle_block)
    for _ in range(draw(st.integers(0, max_blocks))):
        x = draw(st.sampled_from(blocks))(x)
    last = draft.tail(x)
    draft.add(lambda name: Dequantize(name, last))
    return IntGraph.of(draft.nodes, meta={"net": "drawn"})


@st.composite
def images_for(draw: st.DrawFn, graph: IntGraph, *, max_images: int = 3) -> np.ndarray:
    """uint8 (N, H, W, C) images that fit ``graph``, C-contiguous: random, black, white, both."""
    count = draw(st.integers(1, max_images))
    pixels = draw(integers_between(0, 255, (count, *graph.input.shape)))
    return np.ascontiguousarray(pixels.astype(np.uint8))


@st.composite
def graphs_with_images(draw: st.DrawFn, *, max_blocks: int = 3) -> tuple[IntGraph, np.ndarray]:
    """A graph and images for it."""
    graph = draw(int_graphs(max_blocks=max_blocks))
    return graph, draw(images_for(graph))


def every_op_graph() -> IntGraph:
    """A fixed small graph that uses every operation; for goldens and unit tests."""
    codes, wide = Grid.unsigned(2), STREAM_SCALE

    def spread(lo: int, hi: int, *shape: int) -> IntArray:
        # Not a random generator: the golden text must not depend on numpy's version.
        steps = (np.arange(np.prod(shape)) * 7919 + 13) % 1009 % (hi - lo + 1)
        return (lo + steps).reshape(shape)

    def ternary(*shape: int) -> IntArray:
        return spread(-1, 1, *shape)

    def table(lo: int, hi: int, channels: int) -> IntArray:
        return np.sort(spread(lo, hi, channels, 3), axis=1)

    one, zero = np.ones(4, np.int64), np.zeros(4, np.int64)
    slopes, turned = np.array([0, 1, 2, -1]), np.array([1, -1, 1, -1])
    grid2, narrow2, one_scale = Grid.odd(2), Grid.narrow(2), (0.5,)
    odd = spread(0, 3, 4, 3, 3, 2) * 2 - 3
    image = Quantize("image", (6, 6, 1), Grid.pixels(100), 0.0125)
    stem = Conv2d(
        "stem", "image", ternary(4, 3, 3, 1), narrow2, (0.1, 0.2, 0.3, 0.4), zero, (1, 1), (1,) * 4
    )
    nodes: list[Node] = [
        image,
        stem,
        Rescale("stream", "stem", 3 * one, 5 * one, 2, wide, slopes, 1),
        Thresholds("p", "stream", table(-300, 300, 4), turned, codes, 0.25),
        MaxPool2d("peak", "p", (3, 3), (1, 1), (1, 1, 1, 1)),
        Slice("upper", "peak", 2, 4),
        Slice("lower", "peak", 0, 2),
        Concat("swapped", ("upper", "lower")),
        Conv2d("conv", "swapped", odd, grid2, one_scale, one, (1, 1), (1,) * 4, 2),
        Rescale("branch", "conv", 40 * one, zero, 3, wide),
        Add("sum", "stream", "branch"),
        SumPool2d("mean", "sum", (6, 6), (6, 6)),
        Thresholds("q", "mean", table(-999, 999, 4), one, codes, 0.5),
        Reshape("flat", "q", (4,)),
        Linear("fc", "flat", ternary(3, 4), narrow2, one_scale, np.array([5, -5, 0])),
        Dequantize("logits", "fc"),
    ]
    return IntGraph.of(nodes, meta={"net": "every-op", "bits": "2,2"})
