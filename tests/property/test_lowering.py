"""Lowering against exact rational arithmetic, on every small network that hypothesis can find."""

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from bitfold.export.lowering.products import digits_of
from bitfold.export.qgraph import (
    Activation,
    Affine,
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
    Relu,
    Sum,
)
from bitfold.ir import Grid
from tests.property.qgraph_reference import assert_within_bounds, lowered

PLAIN_GRIDS = (
    Grid.unsigned(1), Grid.unsigned(2), Grid.unsigned(4), Grid.unsigned(8), Grid.narrow(2),
    Grid.narrow(3),
)  # fmt: skip
ODD_GRIDS = (Grid.odd(2), Grid.odd(4), Grid.odd(8))
WEIGHT_GRIDS = (
    Grid.narrow(2), Grid.odd(1), Grid.odd(2), Grid.narrow(8), Grid.odd(8), Grid(-32512, 32512),
)  # fmt: skip
GAINS = st.fractions(min_value=-2, max_value=2, max_denominator=9)
BIASES = st.fractions(min_value=-3, max_value=3, max_denominator=7)
SCALES = st.sampled_from([Fraction(1, 5), Fraction(1, 3), Fraction(3, 7), Fraction(1)])
SLOPES = st.sampled_from([Fraction(s) for s in (-2, "-1/3", 0, "1/4", 1, "5/3", 200)])


@dataclass
class Draft:
    """A network drawn so far: nodes and the shape of each."""

    draw: st.DrawFn
    nodes: list = field(default_factory=list)
    shapes: dict = field(default_factory=dict)

    def add(self, make, shape):
        """Append ``make(name)``, whose tensor has ``shape``, and return the name."""
        name = f"n{len(self.nodes)}"
        self.nodes.append(make(name))
        self.shapes[name] = shape
        return name

    def per_channel(self, values, count):
        """One drawn number a channel."""
        return tuple(self.draw(values) for _ in range(count))

    def weight(self, grid, shape):
        """Random codes of ``grid``."""
        rng = np.random.default_rng(self.draw(st.integers(0, 2**16)))
        return grid.lo + grid.step * rng.integers(0, grid.levels, shape)

    def pixels(self):
        """The image; whole mean, or any mean and deviation a channel."""
        shape = (*(self.draw(st.integers(1, 4)) for _ in range(2)), self.draw(st.integers(1, 3)))
        if self.draw(st.booleans()):
            means, stds = (Fraction(73),) * shape[2], (Fraction(90),) * shape[2]
        else:
            means = self.per_channel(st.fractions(80, 140, max_denominator=3), shape[2])
            stds = self.per_channel(st.fractions(50, 90, max_denominator=3), shape[2])
        return self.add(lambda name: Pixels(name, shape, means, stds), shape)

    def quantize(self, x, grids=PLAIN_GRIDS):
        """A quantizer; on grids with a zero sometimes one scale a channel."""
        shape, grid = self.shapes[x], self.draw(st.sampled_from(grids))
        several = grid.step == 1 and self.draw(st.booleans())
        scales = self.per_channel(SCALES, shape[-1] if several else 1)
        ties = self.draw(st.sampled_from(("even", "up")))
        return self.add(lambda name: Activation(name, x, grid, scales, ties), shape)

    def conv(self, x, *, dense=False):
        """A convolution; dense where its input has an offset."""
        height, width, channels = self.shapes[x]
        kernel, stride, pad = (self.draw(st.sampled_from(c)) for c in ((1, 2, 3), (1, 2), (0, 1)))
        kernel = min(kernel, height + 2 * pad, width + 2 * pad)
        groups = 1 if dense else self.draw(st.sampled_from((1, channels)))
        outs = groups * self.draw(st.integers(1, 2))
        grid = self.draw(st.sampled_from(WEIGHT_GRIDS))
        scales = self.per_channel(SCALES, self.draw(st.sampled_from((1, outs))))
        scales = tuple(s / grid.hi for s in scales)
        bias = self.per_channel(BIASES, outs) if self.draw(st.booleans()) else None
        weight = self.weight(grid, (outs, kernel, kernel, channels // groups))
        rows, columns = ((size + 2 * pad - kernel) // stride + 1 for size in (height, width))
        return self.add(
            lambda name: Conv(
                name, x, weight, grid, scales, (stride, stride), (pad,) * 4, groups, bias
            ),
            (rows, columns, outs),
        )

    def affine(self, x):
        """What a batch norm becomes, zero and negative gains included."""
        channels = self.shapes[x][-1]
        gains, biases = self.per_channel(GAINS, channels), self.per_channel(BIASES, channels)
        return self.add(lambda name: Affine(name, x, gains, biases), self.shapes[x])

    def bend(self, x):
        """A ReLU, a ReLU6 or a PReLU with slopes of any size."""
        shape = self.shapes[x]
        kind = self.draw(st.sampled_from(("relu", "relu6", "prelu")))
        if kind == "prelu":
            slopes = self.per_channel(SLOPES, shape[-1])
            return self.add(lambda name: Prelu(name, x, slopes), shape)
        ceiling = Fraction(6) if kind == "relu6" else None
        return self.add(lambda name: Relu(name, x, ceiling), shape)

    def pool(self, x):
        """A maximum or a mean over 2x2, where there is room."""
        height, width, channels = self.shapes[x]
        if min(height, width) < 2:
            return x
        shape = (height // 2, width // 2, channels)
        if self.draw(st.booleans()):
            return self.add(lambda name: MaxPool(name, x, (2, 2), (2, 2), (0,) * 4), shape)
        return self.add(lambda name: MeanPool(name, x, (2, 2), (2, 2)), shape)

    def reshaped(self, x):
        """Other channels: repeated, summed in groups, or zeros behind them."""
        height, width, channels = self.shapes[x]
        kind = self.draw(st.sampled_from(("repeat", "sum", "pad")))
        out = {"repeat": 2 * channels, "sum": max(1, channels * 2 // 3), "pad": channels + 2}[kind]
        node = PadChannels if kind == "pad" else Flex
        return self.add(lambda name: node(name, x, out), (height, width, out))

    def skipped(self, x):
        """x plus an earlier tensor of its shape, itself at worst."""
        alike = [name for name, shape in self.shapes.items() if shape == self.shapes[x]]
        other = self.draw(st.sampled_from(alike))
        return self.add(lambda name: Sum(name, x, other), self.shapes[x])

    def head(self, x):
        """Flattened, and a fully connected layer with a bias."""
        height, width, channels = self.shapes[x]
        size = height * width * channels
        flat = self.add(lambda name: Flatten(name, x), (size,))
        grid = self.draw(st.sampled_from(WEIGHT_GRIDS))
        scales = tuple(s / grid.hi for s in self.per_channel(SCALES, 2))
        weight, bias = self.weight(grid, (2, size)), self.per_channel(BIASES, 2)
        return self.add(lambda name: FullyConnected(name, flat, weight, grid, scales, bias), (2,))

    def step(self, x):
        """One more layer on x."""
        match self.draw(st.sampled_from(("conv", "conv", "pool", "skip", "channels", "raw"))):
            case "conv":
                y = self.affine(self.conv(self.quantize(x)))
                return self.bend(y) if self.draw(st.booleans()) else y
            case "pool":
                return self.pool(x)
            case "skip":
                return self.skipped(x)
            case "channels":
                return self.reshaped(x)
            case _:
                return self.bend(self.conv(x))


@st.composite
def networks(draw):
    """A quantized first layer, up to three more, and a head; the image is always quantized."""
    draft = Draft(draw)
    grids = draw(st.sampled_from((PLAIN_GRIDS, ODD_GRIDS)))
    x = draft.quantize(draft.pixels(), grids)
    x = draft.affine(draft.conv(x, dense=True))
    for _ in range(draw(st.integers(0, 3))):
        x = draft.step(x)
    if draw(st.booleans()):
        x = draft.quantize(x)
    draft.head(x)
    return QGraph(tuple(draft.nodes))


@given(graph=networks(), seed=st.integers(0, 2**16))
def test_every_tensor_is_exact_to_within_the_bound_it_states(graph, seed):
    low = lowered(graph)
    assume(low is not None)
    shape = graph.nodes[0].shape
    images = np.random.default_rng(seed).integers(0, 256, (2, *shape), dtype=np.uint8)
    assert_within_bounds(graph, low, images)


@given(
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=6).map(np.array),
)
def test_balanced_digits_recombine_to_the_number(values):
    digits = digits_of(values)
    assert np.array_equal(sum(255**k * digit for k, digit in enumerate(digits)), values)
    assert all(abs(digit).max() <= 127 for digit in digits)
    assert len(digits) == 1 or digits[-1].any()
