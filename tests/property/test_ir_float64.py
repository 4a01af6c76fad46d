"""Products in float64 give the oracle's integers, and are not used where that is not proven."""

import numpy as np
import pytest
from hypothesis import given

from bitfold.ir import Conv2d, Grid, Linear, trace_float64, trace_oracle
from bitfold.ir.float64 import apply_float64
from bitfold.ir.oracle import apply
from tests.property.strategies import every_op_graph, graphs_with_images
from tests.property.test_ir_oracle import convolutions


@given(graphs_with_images())
def test_every_tensor_of_a_graph_is_the_oracles(case):
    graph, images = case
    want, got = trace_oracle(graph, images), trace_float64(graph, images)
    assert list(got) == list(want)
    for name, values in want.items():
        assert got[name].dtype == values.dtype
        assert (got[name] == values).all(), name


def test_every_operation_is_the_oracles():
    graph = every_op_graph()
    images = np.random.default_rng(0).integers(0, 256, (2, *graph.input.shape), np.uint8)
    want, got = trace_oracle(graph, images), trace_float64(graph, images)
    assert all((got[name] == values).all() for name, values in want.items())


@given(convolutions())
def test_a_convolution_in_groups_is_the_oracles(case):
    _, node, x = case
    assert (apply_float64(node, [x]) == apply(node, [x])).all()


@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_a_depthwise_convolution_is_the_oracles(multiplier):
    rng = np.random.default_rng(multiplier)
    weight = rng.integers(-7, 8, (5 * multiplier, 3, 3, 1))
    bias = rng.integers(-9, 9, 5 * multiplier)
    node = Conv2d("d", "x", weight, Grid.narrow(4), (1.0,), bias, (2, 1), (1, 1, 0, 1), 5)
    x = rng.integers(0, 16, (2, 7, 6, 5))
    assert (apply_float64(node, [x]) == apply(node, [x])).all()


@pytest.mark.parametrize("largest", [2**47, 2**55])
def test_sums_past_float64_are_taken_in_int64(largest):
    weight = np.full((2, 99), 127)
    weight[1, ::2] = -126
    node = Linear("l", "x", weight, Grid.narrow(8), (1.0,), np.array([1, 0]))
    x = np.full((1, 99), largest) + np.arange(99)
    assert (apply_float64(node, [x]) == apply(node, [x])).all()
