"""Closed form against stepped machine: equal cycles, equal values, on every small shape."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitfold.errors import RangeError
from bitfold.fpga_sim import (
    ArrayConfig,
    Gemm,
    compute_cycles,
    count_cycles,
    simulate,
    step_gemm,
    step_graph,
    step_graph_cycles,
    step_layer_cycles,
)
from bitfold.fpga_sim.array import PE_BITS
from bitfold.fpga_sim.stepper import step_gemm_values
from bitfold.ir import Conv2d, Linear, trace_oracle
from tests.property.strategies import graphs_with_images, int_graphs

sizes = st.integers(1, 8)
drains = st.sampled_from(("shared", "shadow"))
arrays = st.builds(
    ArrayConfig,
    rows=sizes,
    cols=sizes,
    lanes=st.sampled_from((1, 1, 2, 3, 8)),
    drain=drains,
    dataflow=st.sampled_from(("os", "ws", "is")),
    acc_words=st.sampled_from((1, 5, 1024)),
)
gemms = st.builds(Gemm, st.integers(1, 40), st.integers(1, 60), st.integers(1, 20))


def has_products(graph):
    return any(isinstance(node, Conv2d | Linear) for node in graph.nodes)


@settings(max_examples=100)
@given(arrays, gemms, st.integers(0, 2**32 - 1))
def test_the_stepped_array_takes_the_cycles_of_the_closed_form_and_multiplies(array, gemm, seed):
    rng = np.random.default_rng(seed)
    a = rng.integers(-128, 256, (gemm.pixels, gemm.depth))
    w = rng.integers(-127, 128, (gemm.depth, gemm.filters))
    stepped = step_gemm(a, w, array)
    assert np.array_equal(stepped.acc, a @ w)
    assert stepped.cycles == compute_cycles(gemm, array)
    assert np.array_equal(step_gemm_values(a, w, array), a @ w)


@given(arrays, gemms, st.integers(1, 3), st.sampled_from((1, 2, 4)))
def test_the_stepped_controller_takes_the_cycles_of_the_closed_form(array, gemm, groups, passes):
    visited = Gemm(gemm.pixels, gemm.depth, gemm.filters, groups, passes)
    assert step_layer_cycles(visited, array) == compute_cycles(visited, array)


@given(sizes, sizes, st.integers(1, 30), st.integers(1, 12))
def test_a_shadow_drain_starts_short_tiles_2r_plus_c_apart(rows, cols, steps, tiles):
    array = ArrayConfig(rows=rows, cols=cols, drain="shadow")
    drain = 2 * rows + cols
    want = (tiles - 1) * max(steps, drain) + steps + drain
    assert count_cycles(array, steps=steps, tiles=tiles) == want


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_a_sum_that_overflows_the_accumulators_is_an_error(dataflow):
    array = ArrayConfig(rows=2, cols=2, dataflow=dataflow, acc_bits=4)
    ones = np.ones((3, 7), dtype=np.int64)
    assert np.array_equal(step_gemm(ones, ones.T, array).acc, np.full((3, 3), 7))
    ones = np.ones((3, 8), dtype=np.int64)
    for step in (step_gemm, step_gemm_values):
        with pytest.raises(RangeError, match="sums 8 … 8 overflow an accumulator of 4 bits"):
            step(ones, ones.T, array)


@given(
    graphs_with_images(max_blocks=2),
    arrays,
    st.sampled_from(((None, None), (2, 2), (1, 3))),
    st.sampled_from(("auto", "parallel", "binary", "ternary", "serial")),
)
def test_a_stepped_graph_equals_the_oracle(drawn, array, bits, pe):
    graph, images = drawn
    assume(has_products(graph))
    array = ArrayConfig(
        rows=array.rows, cols=array.cols, lanes=array.lanes, drain=array.drain,
        dataflow=array.dataflow, acc_words=array.acc_words,
        pe=pe, w_bits=None if pe in PE_BITS else bits[0], a_bits=None if pe in PE_BITS else bits[1],
    )  # fmt: skip
    want = trace_oracle(graph, images)
    got = step_graph(graph, images, array)
    assert set(got) == set(want) - {graph.output.name}
    for name, values in got.items():
        assert np.array_equal(values, want[name]), name


@given(int_graphs(), arrays)
def test_a_report_has_the_stepped_cycles_and_a_utilisation_in_reach(graph, array):
    assume(has_products(graph))
    report = simulate(graph, config=array)
    stepped = step_graph_cycles(graph, array)
    for layer in report.layers:
        assert layer.plan is not None
        # A stationary array that is given a layer in blocks loads operands for each of them.
        if array.dataflow == "os" or layer.plan.blocks == 1:
            assert layer.compute_cycles == stepped[layer.name]
    assert report.cycles == sum(layer.cycles for layer in report.layers)
    assert 0 < report.utilisation <= 1
    for layer in report.layers:
        assert 0 < layer.utilisation <= 1
        assert layer.cycles == layer.compute_cycles + layer.stall_cycles


@given(arrays, gemms, st.integers(1, 9))
def test_more_lanes_never_raise_compute_cycles(array, gemm, more):
    wider = replace(array, lanes=array.lanes + more)
    assert compute_cycles(gemm, wider) <= compute_cycles(gemm, array)


@settings(max_examples=200)
@given(
    drains, sizes, sizes, st.integers(1, 4), st.integers(1, 4), st.integers(1, 8),
    st.integers(1, 8), st.integers(1, 200),
)  # fmt: skip
def test_more_pes_that_divide_the_folds_never_raise_compute_cycles(
    drain, rows, cols, down, across, row_folds, column_folds, depth
):
    # Without the condition it is false: on one row fold more rows only lengthen fill and drain.
    larger = ArrayConfig(rows=rows * down, cols=cols * across, drain=drain)
    gemm = Gemm(row_folds * larger.rows, depth, column_folds * larger.cols)
    assume(drain == "shared" or depth >= larger.drain_cycles)
    smaller = ArrayConfig(rows=rows, cols=cols, drain=drain)
    assert compute_cycles(gemm, larger) <= compute_cycles(gemm, smaller)
