"""Tiling: closed form against the stepped timeline, and the laws that hardware obeys."""

import itertools
from dataclasses import replace
from fractions import Fraction

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bitfold.fpga_sim import ArrayConfig, Gemm, compute_cycles
from bitfold.fpga_sim.cycles import ceil_div, refill_cycles, visits
from bitfold.fpga_sim.layers import Capacity, LayerShape, block_law, make_job, schedule_shape
from bitfold.fpga_sim.schedule import step_blocks, stepped_cycles
from bitfold.fpga_sim.tiling import Plan, Port, Traffic, Window, sizes
from bitfold.fpga_sim.tiling_search import choose, choose_all, plans

BITS = 2
small = st.integers(1, 8)


@st.composite
def convolutions(draw, *, bits=BITS):
    """(LayerShape without weight words, bits): geometry and packed bytes agree."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    kernel = draw(st.integers(1, min(3, height, width)))
    padding = draw(st.integers(0, kernel // 2))
    stride = draw(st.integers(1, 3))
    groups, depth, filters = (
        draw(st.sampled_from((1, 1, 2, 5))),
        draw(small),
        draw(st.integers(1, 20)),
    )
    out_h = (height + padding - kernel) // stride + 1
    out_w = (width - kernel) // stride + 1
    taps = kernel * kernel
    gemm = Gemm(out_h * out_w, taps * depth, filters, groups, draw(st.sampled_from((1, 1, 4))))
    window = Window(height, kernel, stride, out_h, out_w, taps, padding)
    traffic = Traffic(
        constants=ceil_div(gemm.depth * filters * groups * bits, 8),
        inputs=ceil_div(height * width * depth * groups * bits, 8),
        others=draw(st.sampled_from((0, 0, 100))),
        writes=ceil_div(gemm.pixels * filters * groups * bits, 8),
    )
    return gemm, window, traffic


def shape_of(layer, array):
    gemm, window, traffic = layer
    return LayerShape(gemm, window, traffic, ceil_div(gemm.depth, array.lanes), vector=False)


def capacity_for(layer, array, more):
    """Two tiles and what ``more`` = (weights, map) adds, in words; the map's are R·S codes wide."""
    shape = shape_of(layer, array)
    width = array.rows * array.lanes * BITS
    job = make_job(shape, array, Capacity(2 * shape.weight_words, 0, 0, width, None))
    maps = 2 * ceil_div(8 * job.band_bytes(1), width) + more[1]
    return Capacity(2 * shape.weight_words + more[0], 0, maps, width, None)


arrays = st.builds(
    ArrayConfig, rows=small, cols=small, lanes=st.integers(1, 4),
    drain=st.sampled_from(("shared", "shadow")), dataflow=st.sampled_from(("os", "os", "ws", "is")),
    acc_words=st.sampled_from((3, 16, 1024)), subarray=st.sampled_from(("full", "best")),
)  # fmt: skip
best_arrays = st.builds(replace, arrays, subarray=st.just("best"))
ports = st.builds(
    Port,
    st.fractions(Fraction(1, 50), 50, max_denominator=50),
    st.sampled_from((0, 5)),
    st.sampled_from((1, 64)),
)
extra = st.tuples(st.integers(0, 200), st.integers(0, 400))


@settings(max_examples=150)
@given(convolutions(), arrays, ports, extra)
def test_the_closed_form_is_the_stepped_timeline(layer, array, port, more):
    job = make_job(shape_of(layer, array), array, capacity_for(layer, array, more))
    plan = choose(job, port)
    assert plan.cycles == stepped_cycles(job, port, plan)
    timeline = step_blocks(job, port, plan)
    assert len(timeline) == plan.blocks
    assert sum(block.compute for block in timeline) == plan.compute_cycles
    whole = compute_cycles(layer[0], array)
    # Cutting what streams makes a stationary array load its operands once more; with a second
    # register a short chunk costs as much as a longer one, and other cuts may leave none.
    cut = array.dataflow != "os" and plan.blocks > 1
    assert plan.compute_cycles == whole or cut
    assert plan.compute_cycles >= whole or array.drain == "shadow"
    assert all(a.end == b.begin for a, b in itertools.pairwise(timeline))


@settings(max_examples=60)
@given(convolutions(), arrays, ports, extra)
def test_no_stall_is_negative_and_no_plan_does_more_than_the_multipliers_can(
    layer, array, port, more
):
    found = schedule_shape(shape_of(layer, array), array, capacity_for(layer, array, more), port)
    plan, moved = found.plan, layer[2]
    assert plan.stall_cycles >= 0
    assert plan.cycles * array.pes * array.lanes >= layer[0].macs
    assert plan.cycles * port.rate >= plan.dram_bytes >= moved.total


@settings(max_examples=80)
@given(convolutions(), best_arrays, ports, extra, st.integers(0, 5), st.integers(0, 5))
@example(  # One row fold: on a full array, more rows only lengthen fill and drain.
    (Gemm(1, 9, 1), Window(3, 3, 1, 1, 1, 9), Traffic(3, 3, 0, 1)),
    ArrayConfig(rows=1, cols=1, subarray="best"), Port(Fraction(1), 0, 1), (0, 0), 5, 5,
)  # fmt: skip
def test_more_pes_never_slow_a_layer_where_the_best_part_may_work(
    layer, array, port, more, rows, cols
):
    capacity = capacity_for(layer, array, more)
    larger = replace(array, rows=array.rows + rows, cols=array.cols + cols)
    wider = replace(capacity, map_width=larger.rows * array.lanes * BITS)
    before = schedule_shape(shape_of(layer, array), array, capacity, port)
    after = schedule_shape(shape_of(layer, larger), larger, wider, port)
    assert after.plan.cycles <= before.plan.cycles


def test_more_pes_can_slow_a_layer_that_must_use_all_of_them():
    # Why the law above needs the best part.
    one_pixel = Gemm(1, 9, 1)
    cycles = [compute_cycles(one_pixel, ArrayConfig(rows=r, cols=1)) for r in (1, 2)]
    assert cycles[0] < cycles[1]


@settings(max_examples=80)
@given(convolutions(), arrays, ports, extra, st.integers(0, 5))
def test_more_lanes_never_slow_a_layer(layer, array, port, more, lanes):
    capacity = capacity_for(layer, array, more)
    larger = replace(array, lanes=array.lanes + lanes)
    wider = replace(capacity, map_width=array.rows * larger.lanes * BITS)
    before = schedule_shape(shape_of(layer, array), array, capacity, port)
    after = schedule_shape(shape_of(layer, larger), larger, wider, port)
    assert after.plan.cycles <= before.plan.cycles


@settings(max_examples=80)
@given(convolutions(), arrays, ports, extra, extra, st.integers(1, 7))
def test_more_buffer_or_bandwidth_never_slows_a_layer(layer, array, port, more, added, faster):
    capacity = capacity_for(layer, array, more)
    shape = shape_of(layer, array)
    before = schedule_shape(shape, array, capacity, port).plan.cycles
    deeper = replace(capacity, weights=capacity.weights + added[0], map=capacity.map + added[1])
    assert schedule_shape(shape, array, deeper, port).plan.cycles <= before
    quick = replace(port, rate=port.rate * faster)
    assert schedule_shape(shape, array, capacity, quick).plan.cycles <= before


@settings(max_examples=80)
@given(st.integers(1, 10**6))
def test_sizes_of_blocks_are_nested(folds):
    assert sizes(folds)[-1] == folds
    assert sizes(folds)[:-1] == [2**i for i in range(32) if 2**i < folds]


@settings(max_examples=60)
@given(convolutions(bits=3), arrays, ports, extra)
def test_fewer_bits_never_move_more_or_take_longer(layer, array, port, more):
    gemm, window, traffic = layer
    capacity = capacity_for(layer, array, more)
    fewer = Traffic(
        ceil_div(gemm.depth * gemm.filters * gemm.groups * BITS, 8),
        ceil_div(traffic.inputs * BITS, 3), traffic.others,
        ceil_div(gemm.pixels * gemm.filters * gemm.groups * BITS, 8),
    )  # fmt: skip
    before = schedule_shape(shape_of(layer, array), array, capacity, port).plan
    after = schedule_shape(shape_of((gemm, window, fewer), array), array, capacity, port).plan
    assert fewer.total <= traffic.total
    assert after.cycles <= before.cycles


def slow_choice(job, port):
    """Every case walked block by block: the fastest, then the one of fewest bytes, then the first.

    A column block of a grouped layer reads its own channels, so that its band must be the map.
    """
    found = []
    for outside in (False, True):
        for rows in sizes(job.row_folds):
            for columns in sizes(job.column_folds):
                whole = rows == job.row_folds
                if (job.fits_rows(rows) and columns <= job.most_columns
                        and (outside or whole or not job.grouped)):  # fmt: skip
                    found.append(walked(job, port, (rows, columns, outside)))
    return min(found, key=lambda plan: (plan.cycles, plan.dram_bytes))


def walked(job, port, case):
    """The plan of one case from its timeline; bytes before they are rounded to bursts."""
    rows, columns, outside = case
    plan = Plan(rows, columns, outside, 0, 0, 0, 0)
    timeline = step_blocks(job, port, plan)
    bands, blocks = ceil_div(job.row_folds, rows), ceil_div(job.column_folds, columns)
    maps = blocks if not outside and bands > 1 else 1
    weights = bands if outside and blocks > 1 else 1
    moved = job.traffic
    return replace(
        plan, cycles=stepped_cycles(job, port, plan), blocks=len(timeline),
        compute_cycles=sum(block.compute for block in timeline),
        dram_bytes=moved.inputs * maps + moved.constants * weights + moved.others + moved.writes,
    )  # fmt: skip


@settings(max_examples=60)
@given(st.lists(st.tuples(convolutions(), arrays, extra), min_size=1, max_size=3), ports)
def test_the_choice_of_many_layers_at_once_is_that_of_every_plan_walked(layers, port):
    jobs = [make_job(shape_of(layer, array), array, capacity_for(layer, array, more))
            for layer, array, more in layers]  # fmt: skip
    assume(sum(job.row_folds * job.column_folds for job in jobs) < 150)
    assert choose_all(jobs, port) == [slow_choice(job, port) for job in jobs]


@given(st.integers(1, 40), st.integers(1, 40), arrays, st.sampled_from((1, 4)), st.booleans())
def test_the_law_of_a_block_is_what_one_more_run_takes(pixels, filters, array, passes, grouped):
    gemm = Gemm(pixels, 9, filters, 3 if grouped else 1, passes)
    law = block_law(gemm, array)
    fold = {"os": (1, 1), "ws": (pixels, 1), "is": (1, filters)}[array.dataflow]
    once, again = (compute_cycles(Gemm(fold[0], 9, fold[1], 1, n * passes), array) for n in (1, 2))
    length = max(fold) if law.stream else 1
    assert law.steady(length) == again - once
    assert law.extra(length) + law.tail(length) == 2 * once - again
    refill = 0
    if array.dataflow != "os" and array.drain == "shadow":
        of = visits(Gemm(fold[0], 9, fold[1]), array)
        refill = refill_cycles(of, rows=array.rows, cols=array.cols)
    assert law.extra(length) == refill


def test_equal_plans_are_found_again_and_those_kept_are_the_same():
    array = ArrayConfig(rows=4, cols=4, lanes=2)
    gemm, window = Gemm(64, 18, 8), Window(8, 3, 1, 8, 8, 9, 1)
    shape = shape_of((gemm, window, Traffic(36, 32, 0, 128)), array)
    port = Port(Fraction(3, 7), 11, 64)
    jobs = [
        make_job(shape, array, Capacity(1000, 0, words, 16, None)) for words in (24, 4000, 9999)
    ]
    assert jobs[1] == jobs[2] != jobs[0]
    assert plans(jobs, port) == plans(jobs[::-1], port)[::-1] == [choose(job, port) for job in jobs]
