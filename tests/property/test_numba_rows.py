"""Every numba row equals the oracle, on whatever graphs and grids hypothesis finds."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold.ir import Conv2d, Dequantize, Grid, IntGraph, Quantize, Thresholds, trace_oracle
from bitfold.kernels import (
    Buffer,
    ConvStep,
    MaxPoolStep,
    RescaleStep,
    ToAccumulators,
    ToWide,
    compile_program,
)
from bitfold.kernels.numba_backend import program as numba_program
from bitfold.kernels.numba_backend.epilogue import count_taken, shift_half_up
from bitfold.kernels.numba_backend.jit import popcount
from bitfold.kernels.numba_backend.program import compile_numba
from bitfold.kernels.numba_backend.workers import NumbaWorkers
from bitfold.runtime import Session
from bitfold.runtime.plan import plan_graph
from tests.property.step_reference import Places, aligned_arena, expected_output, view
from tests.property.strategies import (
    activation_grids,
    codes_on,
    conv_geometries,
    every_op_graph,
    graphs_with_images,
    integers_between,
    weight_grids,
)


@given(graphs_with_images())
@pytest.mark.parametrize("layout", ["direct", "bitserial"])
def test_both_layouts_equal_the_oracle_on_every_tensor(layout, drawn):
    graph, images = drawn
    want = trace_oracle(graph, images)
    with Session(graph, "numba", force=layout) as session:
        got = session.trace(images)
        logits = session.run(images)
    assert set(got) <= set(want)
    for name, values in got.items():
        assert values.dtype == want[name].dtype
        assert np.array_equal(values, want[name]), name
    assert np.array_equal(logits, want[graph.output.name])


@st.composite
def conv_graphs(draw):
    """Quantize → 1x1 conv → Thresholds → any convolution → Dequantize."""
    geometry = draw(conv_geometries())
    grid, weight_grid = draw(activation_grids), draw(weight_grids)
    if not grid.has_zero:
        return None
    height, width, depth = geometry.shape
    spread = np.arange(depth)[:, None, None, None] % 255 - 127
    nodes = [
        Quantize("image", (height, width, 1), Grid.pixels(128), 1 / 64),
        Conv2d("fan", "image", spread, Grid.narrow(8), (1 / 64,), np.zeros(depth, np.int64)),
    ]
    x = IntGraph.of([*nodes, Dequantize("end", "fan")]).types["fan"]
    sign = draw(integers_between(0, 1, (depth,))) * 2 - 1
    lo, hi = min(x.lo, -x.hi), max(x.hi, -x.lo)
    low = np.where(sign < 0, -x.hi, x.lo)[:, None]
    high = np.where(sign < 0, -x.lo, x.hi)[:, None] + 1
    table = np.clip(draw(integers_between(lo, hi, (depth, grid.levels - 1))), low, high)
    weight = draw(codes_on(weight_grid, geometry.weight_shape))
    bias = draw(integers_between(-(2**20), 2**20, (geometry.num_out,)))
    nodes += [
        Thresholds("codes", "fan", np.sort(table, axis=1), sign, grid, 1 / 8),
        Conv2d(
            "conv", "codes", weight, weight_grid, (1 / 8,), bias,
            geometry.stride, geometry.padding, geometry.groups,
        ),
        Dequantize("out", "conv"),
    ]  # fmt: skip
    return IntGraph.of(nodes)


@given(conv_graphs().filter(lambda graph: graph is not None), st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("layout", ["direct", "bitserial"])
def test_any_convolution_equals_the_oracle(layout, graph, seed):
    images = np.random.default_rng(seed).integers(0, 256, (2, *graph.input.shape), np.uint8)
    want = trace_oracle(graph, images)
    got = Session(graph, "numba", force=layout).trace(images)
    assert np.array_equal(got["codes"], want["codes"])
    assert np.array_equal(got["conv"], want["conv"])


@st.composite
def depthwise_steps(draw):
    """A depthwise convolution to accumulators."""
    geometry, places = draw(conv_geometries()), Places()
    grid, weight_grid = draw(activation_grids), draw(weight_grids)
    height, width, depth = geometry.shape
    top, left, bottom, right = geometry.padding if grid.has_zero else (0, 0, 0, 0)
    kh, kw = min(geometry.kernel[0], height), min(geometry.kernel[1], width)
    oh = (height + top + bottom - kh) // geometry.stride[0] + 1
    ow = (width + left + right - kw) // geometry.stride[1] + 1
    x = places.buffer(geometry.shape, "u8")
    out = places.buffer((oh, ow, depth), "i32")
    weight = draw(codes_on(weight_grid, (depth, kh, kw, 1))).astype(np.int8)
    bias = draw(integers_between(-(2**20), 2**20, (depth,)))
    step = ConvStep("conv", x, out, grid, weight, weight_grid, bias, geometry.stride,
                    (top, left, bottom, right), depth, ToAccumulators())  # fmt: skip
    return step, places.arena_bytes


@given(depthwise_steps(), st.integers(0, 2**32 - 1))
def test_a_depthwise_row_equals_the_slow_step(drawn, seed):
    step, arena_bytes = drawn
    program = compile_program([step], input=step.x, arena_bytes=arena_bytes, backend="numba")
    assert program.rows[0].layout == "depthwise"
    arena = aligned_arena(arena_bytes)
    indices = np.random.default_rng(seed).integers(0, step.x_grid.levels, step.x.shape)
    view(arena, step.x)[:] = indices
    want = expected_output(step, arena)
    program.run_step(0, arena)
    assert np.array_equal(view(arena, step.out), want)


@given(graphs_with_images())
@pytest.mark.parametrize("layout", ["direct", "bitserial", None])
def test_shares_of_a_step_make_the_step(layout, drawn):
    graph, images = drawn
    plan = plan_graph(graph)
    program = compile_numba(
        plan.steps, input=plan.input, arena_bytes=plan.arena_bytes, force=layout, threads=3
    )
    alone, parted = (aligned_arena(plan.arena_bytes) for _ in range(2))
    for arena in (alone, parted):
        view(arena, plan.input)[:] = images[0]
    for i in range(len(plan.steps)):
        program.run_step(i, alone)
        for k in range(3):
            program.run_share(i, parted, share=(k, 3))
        assert np.array_equal(alone, parted), plan.steps[i]


def test_several_sessions_share_their_steps_in_several_threads(monkeypatch):
    monkeypatch.setattr(numba_program, "SHARED_WORK", 0)
    graph = every_op_graph()
    images = np.random.default_rng(0).integers(0, 256, (1, *graph.input.shape), np.uint8)
    want = Session(graph, "oracle").run(images)
    with Session(graph, "numba", threads=3) as one, Session(graph, "numba", threads=2) as other:
        assert one._engine is not None
        assert all(one._engine.program.shared)
        with ThreadPoolExecutor(4) as pool:
            runs = pool.map(lambda i: (one, other)[i % 2].run(images), range(64))
        assert all(np.array_equal(run, want) for run in runs)


def test_a_failure_in_a_share_is_not_lost():
    workers, ran = NumbaWorkers(3), []

    def fail_in_the_last(share):
        ran.append(share)
        if share == (2, 3):
            raise ValueError("no such share")

    with pytest.raises(ValueError, match="no such share"):
        workers.share_out(fail_in_the_last)
    workers.close()
    assert sorted(ran) == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize("layout", ["direct", "bitserial"])
@pytest.mark.parametrize("channels", [1, 63, 64, 65, 130])
def test_words_may_end_anywhere(layout, channels):
    rng = np.random.default_rng(channels)
    weight = rng.integers(-127, 128, (3, 2, 2, channels))
    x = rng.integers(0, 256, (3, 4, channels)).astype(np.uint8)
    step = ConvStep(
        name="conv",
        x=Buffer(0, (3, 4, channels), "u8"),
        out=Buffer(4096, (4, 4, 3), "i32"),
        x_grid=Grid.pixels(100),
        weight=weight.astype(np.int8),
        weight_grid=Grid.narrow(8),
        bias=np.array([5, -5, 2**20]),
        stride=(1, 1),
        padding=(1, 0, 1, 1),
        groups=1,
        epilogue=ToAccumulators(),
    )
    program = compile_program([step], input=step.x, arena_bytes=8192, backend="numba", force=layout)
    arena = np.zeros(8192, np.uint8)
    arena[: x.size] = x.reshape(-1)
    program.run_step(0, arena)
    padded = np.pad(x.astype(np.int64) - 100, ((1, 1), (0, 1), (0, 0)))
    want = step.bias + sum(
        padded[i : i + 4, j : j + 4] @ weight[:, i, j].T for i in (0, 1) for j in (0, 1)
    )
    assert np.array_equal(arena[4096 : 4096 + 192].view(np.int32).reshape(4, 4, 3), want)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=255), st.integers(-(2**31), 2**31))
def test_counting_thresholds_is_counting(row, value):
    table = np.array(sorted(row), np.int32)
    assert count_taken(table, value) == sum(t <= value for t in row)


@given(st.integers(-(2**50), 2**50), st.integers(0, 40))
def test_shifts_round_half_up(value, shift):
    assert shift_half_up(value, shift) == (value + (1 << shift >> 1)) >> shift


@given(st.integers(0, 2**64 - 1))
def test_popcount_counts_ones(word):
    assert popcount(np.uint64(word)) == word.bit_count()


@settings(max_examples=20)
@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_a_rescale_step_adds_after_the_negative_slope(channels, seed):
    rng = np.random.default_rng(seed)
    x, other, out = (Buffer(4096 * i, (2, 3, channels), "i32") for i in range(3))
    a, b = rng.integers(-(2**20), 2**20, (2, 2, 3, channels))
    multiplier, offset = rng.integers(-(2**30), 2**30, (2, channels))
    slope = rng.integers(-300, 300, channels)
    rule = ToWide(multiplier, offset, 25, other, slope, 8)
    program = compile_program(
        [RescaleStep("r", x, out, rule)], input=x, arena_bytes=12288, backend="numba"
    )
    arena = np.zeros(12288, np.uint8)
    for buffer, values in ((x, a), (other, b)):
        arena[buffer.offset :][: buffer.num_bytes] = values.astype(np.int32).reshape(-1).view("u1")
    program.run_step(0, arena)
    y = (multiplier * a + offset + 2**24) >> 25
    want = np.where(y < 0, (slope * y + 128) >> 8, y) + b
    assert np.array_equal(arena[8192:][: out.num_bytes].view(np.int32).reshape(out.shape), want)


def test_a_maximum_of_negative_integers_ignores_the_padding():
    x, out = Buffer(0, (2, 2, 1), "i32"), Buffer(128, (3, 3, 1), "i32")
    step = MaxPoolStep("peak", x, out, (2, 2), (1, 1), (1, 1, 1, 1))
    arena = np.zeros(256, np.uint8)
    arena[:16].view(np.int32)[:] = [-7, -5, -9, -3]
    compile_program([step], input=x, arena_bytes=256, backend="numba").run_step(0, arena)
    assert arena[128:164].view(np.int32).tolist() == [-7, -5, -5, -7, -3, -3, -9, -3, -3]
