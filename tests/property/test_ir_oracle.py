"""The oracle against nested loops, torch, and the ranges that interval analysis proves."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfold.ir import (
    Conv2d,
    FloatTensor,
    Grid,
    IntGraph,
    MaxPool2d,
    Rescale,
    inputs_of,
    product_interval,
    rescale_interval,
    run_oracle,
    trace_oracle,
    verify,
)
from bitfold.ir.oracle import conv2d, max_pool2d, rescale
from tests.property.strategies import (
    ConvGeometry,
    codes_on,
    conv_geometries,
    graphs_with_images,
    grids,
    int_graphs,
    integers_between,
    weight_grids,
)


@st.composite
def convolutions(draw):
    geometry = draw(conv_geometries())
    grid = draw(weight_grids)
    weight = draw(codes_on(grid, geometry.weight_shape))
    bias = draw(integers_between(-99, 99, (geometry.num_out,)))
    node = Conv2d(
        "c", "x", weight, grid, (1.0,), bias, geometry.stride, geometry.padding, geometry.groups
    )
    return geometry, node, draw(integers_between(-128, 255, (1, *geometry.shape)))


def one_accumulator(geometry: ConvGeometry, node: Conv2d, x, at):
    """The definition, in Python integers."""
    row, column, o = at
    per_group = geometry.num_out // geometry.groups
    depth = geometry.shape[2] // geometry.groups
    acc = int(node.bias[o])
    for i, j, c in product(range(geometry.kernel[0]), range(geometry.kernel[1]), range(depth)):
        h = row * geometry.stride[0] + i - geometry.padding[0]
        w = column * geometry.stride[1] + j - geometry.padding[1]
        if 0 <= h < geometry.shape[0] and 0 <= w < geometry.shape[1]:
            code = x[0, h, w, o // per_group * depth + c]
            acc += int(code) * int(node.weight[o, i, j, c])
    return acc


@given(convolutions(), st.randoms(use_true_random=False))
def test_convolution_equals_nested_loops(case, random):
    geometry, node, x = case
    acc = conv2d(node, x)
    for _ in range(8):
        at = tuple(random.randrange(size) for size in acc.shape[1:])
        assert acc[(0, *at)] == one_accumulator(geometry, node, x, at)


@pytest.mark.torch
@given(convolutions())
def test_convolution_equals_torch_in_float64(case):
    # Sums stay below 2^53, so float64 is exact and `==` is fair.
    torch = pytest.importorskip("torch")
    geometry, node, x = case
    top, left, bottom, right = geometry.padding
    images = torch.nn.functional.pad(
        torch.from_numpy(x).double().permute(0, 3, 1, 2), (left, right, top, bottom)
    )
    weight = torch.tensor(node.weight).double().permute(0, 3, 1, 2)
    want = torch.nn.functional.conv2d(
        images,
        weight,
        torch.tensor(node.bias).double(),
        stride=geometry.stride,
        groups=geometry.groups,
    )
    assert np.array_equal(conv2d(node, x), want.permute(0, 2, 3, 1).numpy().astype(np.int64))


@given(grids, grids, st.integers(1, 6), st.data())
def test_interval_of_a_product_is_attained(code_grid: Grid, weight_grid: Grid, length, data):
    weight = data.draw(codes_on(weight_grid, (2, length)))
    bias = data.draw(integers_between(-9, 9, (2,)))
    ends = [weight * code_grid.lo, weight * code_grid.hi]
    least = int((np.minimum(*ends).sum(1) + bias).min())
    codes = data.draw(codes_on(code_grid, (length,)))
    lo, hi = product_interval(weight, bias, lo=code_grid.lo, hi=code_grid.hi)
    assert lo == least
    assert ((weight @ codes + bias >= lo) & (weight @ codes + bias <= hi)).all()
    worst = np.where(weight > 0, code_grid.hi, code_grid.lo)
    assert hi == int(((weight * worst).sum(1) + bias).max())


@st.composite
def rescales(draw):
    numbers = st.integers(-300, 300)
    channels = draw(st.integers(1, 3))
    values = st.lists(numbers, min_size=channels, max_size=channels).map(np.array)
    slope = draw(st.none() | values)
    return Rescale(
        "r", "x", draw(values), draw(values), draw(st.integers(0, 6)), 1.0, slope,
        draw(st.integers(0, 3)) if slope is not None else 0,
    )  # fmt: skip


@given(rescales(), st.integers(-40, 40), st.integers(0, 40))
def test_interval_of_a_rescale_holds_every_result(node: Rescale, lo, span):
    x = np.arange(lo, lo + span + 1)[:, None] * np.ones(len(node.multiplier), np.int64)
    y = rescale(node, x)
    least, most = rescale_interval(node, lo=lo, hi=lo + span)
    assert least <= y.min()
    assert y.max() <= most


@given(rescales())
def test_rescale_rounds_half_up(node: Rescale):
    x = np.arange(-50, 51)[:, None] * np.ones(len(node.multiplier), np.int64)
    plain = Rescale("r", "x", node.multiplier, node.offset, node.shift, 1.0)
    unit = 1 << node.shift
    exact = node.multiplier * x + node.offset
    # floor(exact/unit + 1/2), by doubling: no float takes part
    assert np.array_equal(
        rescale(plain, x), (2 * exact + unit) // (2 * unit) if node.shift else exact
    )


@given(st.data())
def test_padding_never_wins_a_maximum(data):
    geometry = data.draw(conv_geometries(pads=False))
    kh, kw = geometry.kernel
    pads = tuple(data.draw(st.integers(0, size - 1)) for size in (kh, kw, kh, kw))
    node = MaxPool2d("m", "x", geometry.kernel, geometry.stride, pads)
    x = data.draw(integers_between(-90, -1, (1, *geometry.shape)))
    assert max_pool2d(node, x).max() <= -1
    assert set(np.unique(max_pool2d(node, x))) <= set(np.unique(x))


@given(int_graphs())
def test_drawn_graphs_are_verified(graph: IntGraph):
    verify(graph)


@given(graphs_with_images())
def test_every_integer_lies_in_its_proven_range(case):
    graph, images = case
    for name, values in trace_oracle(graph, images).items():
        kind = graph.types[name]
        assert values.shape == (len(images), *kind.shape)
        if isinstance(kind, FloatTensor):
            assert values.dtype == np.float32
            continue
        assert values.dtype == np.int64
        assert kind.lo <= values.min()
        assert values.max() <= kind.hi


@given(graphs_with_images(), st.integers(1, 3))
def test_answers_do_not_depend_on_the_batch(case, chunk):
    graph, images = case
    whole = run_oracle(graph, images)
    assert np.array_equal(run_oracle(graph, images, chunk=chunk), whole)
    assert np.array_equal(trace_oracle(graph, images)[graph.output.name], whole)
    assert np.array_equal(run_oracle(graph, images[:1]), whole[:1])


def test_every_operation_is_drawn():
    seen: set[str] = set()

    @given(int_graphs())
    def collect(graph: IntGraph):
        seen.update(type(node).__name__ for node in graph.nodes)
        assert all(x in graph.types for node in graph.nodes for x in inputs_of(node))

    collect()
    assert seen == {
        "Quantize", "Conv2d", "Linear", "Add", "Thresholds", "Rescale", "MaxPool2d", "SumPool2d",
        "Slice", "Concat", "Reshape", "Dequantize",
    }  # fmt: skip
