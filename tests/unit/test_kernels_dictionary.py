"""Layout ``dictionary``: tables, flushes, every grid it takes, extremes, uneven blocks."""

import numpy as np
import pytest

from bitfold.ir import Grid
from bitfold.kernels.c_backend import c_rows, compile_c
from bitfold.kernels.c_steps import row_fits
from bitfold.kernels.features import host_features
from bitfold.kernels.layouts.dictionary import find_dictionary
from bitfold.kernels.steps import ConvStep, ToAccumulators
from tests.property.replayed_rows import check_packed
from tests.property.step_reference import Places, aligned_arena, expected_output, view

pytestmark = [
    pytest.mark.cc,
    pytest.mark.skipif(not c_rows(), reason="the C kernel library is not built"),
]

ROWS = [r for r in c_rows() if r.layout == "dictionary" and r.runs_on(host_features())]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.symbol)
GRIDS = [
    (Grid.unsigned(1), Grid.odd(1)), (Grid.unsigned(2), Grid.odd(1)),
    (Grid.narrow(2), Grid.narrow(2)), (Grid.unsigned(2), Grid.narrow(2)),
    (Grid.unsigned(4), Grid.narrow(2)), (Grid.unsigned(2), Grid.odd(2)),
    (Grid.odd(2), Grid.odd(2)), (Grid(-9, 9, 3), Grid(-6, 3, 3)), (Grid.unsigned(3), Grid(0, 3)),
]  # fmt: skip
every_grid = pytest.mark.parametrize("grids", GRIDS, ids=lambda g: f"{g[0]} x {g[1]}")


def make(grids, *, shape, num_out, kernel=(1, 1), stride=(1, 1), pad=0, groups=1, pick=None):
    """A convolution to accumulators; ``pick`` chooses one weight for all."""
    rng, places = np.random.default_rng(7), Places()
    x_grid, w_grid = grids
    padding = (pad, 0, 0, pad) if x_grid.has_zero else (0, 0, 0, 0)
    codes = np.arange(w_grid.lo, w_grid.hi + 1, w_grid.step)
    size = (num_out, *kernel, shape[2] // groups)
    chosen = codes if pick is None else codes[[pick]]
    weight = rng.choice(chosen, size).astype(np.int8)
    out = (
        (shape[0] + padding[0] + padding[2] - kernel[0]) // stride[0] + 1,
        (shape[1] + padding[1] + padding[3] - kernel[1]) // stride[1] + 1,
        num_out,
    )
    x, y = places.buffer(shape, "u8"), places.buffer(out, "i32")
    bias = rng.integers(-9999, 9999, num_out)
    step = ConvStep("conv", x, y, x_grid, weight, w_grid, bias, stride, padding, groups,
                    ToAccumulators())  # fmt: skip
    return step, places.arena_bytes


def check(step, arena_bytes, row, *, index=None):
    """``row`` fits, and gives the reference's integers alone and in shares."""
    assert row_fits(row, step)
    program = compile_c([step], input=step.x, arena_bytes=arena_bytes, force=row.symbol, threads=4)
    assert program.rows[0].symbol == row.symbol
    check_packed([step], program.rows, arena_bytes)
    arena, rng = aligned_arena(program.arena_bytes), np.random.default_rng(1)
    levels = step.x_grid.levels
    view(arena, step.x)[:] = rng.integers(0, levels, step.x.shape) if index is None else index
    want = expected_output(step, arena)
    for count in (1, 3, 4):
        view(arena, step.out)[:] = -1
        for k in range(count):
            program.run_share(0, arena, share=(k, count))
        assert (view(arena, step.out) == want).all()


@every_row
@every_grid
@pytest.mark.parametrize("num_out", [17, 33, 48, 64, 81, 130, 250, 330])
def test_any_number_of_output_channels(row, grids, num_out):
    check(*make(grids, shape=(3, 5, 12), num_out=num_out), row)


@every_row
@every_grid
@pytest.mark.parametrize("depth", [1, 2, 5, 16, 23])
def test_windows_with_any_depth(row, grids, depth):
    step = make(grids, shape=(9, 4, depth), num_out=20, kernel=(3, 3), stride=(1, 2), pad=1)
    check(*step, row)


@every_row
@every_grid
def test_groups(row, grids):
    check(*make(grids, shape=(4, 9, 15), num_out=105, kernel=(2, 3), pad=1, groups=3), row)


@every_row
@every_grid
@pytest.mark.parametrize("pick", [0, -1])
def test_extreme_operands_around_a_flush(row, grids, pick):
    width = 64 if row.isa == "avx512vbmi" else 16
    found = find_dictionary(*grids, width)
    for count in (found.flush - 1, found.flush, found.flush + 1, 3 * found.flush + 2):
        depth = max(1, count * found.group)
        step, arena_bytes = make(grids, shape=(1, 7, depth), num_out=34, pick=pick)
        for index in (0, grids[0].levels - 1):
            check(step, arena_bytes, row, index=index)


@every_row
def test_sums_past_sixteen_bits_are_refused(row):
    grids = (Grid.unsigned(2), Grid.odd(2))
    width = 64 if row.isa == "avx512vbmi" else 16
    found = find_dictionary(*grids, width)
    most = (2**16 - 1) // int(found.entries.max()) // 2 * 2
    step, arena_bytes = make(grids, shape=(1, 1, most * found.group), num_out=17, pick=-1)
    check(step, arena_bytes, row, index=3)
    check(step, arena_bytes, row, index=0)
    beyond, _ = make(grids, shape=(1, 1, (most + 2) * found.group), num_out=17, pick=-1)
    assert not row_fits(row, beyond)


@every_row
def test_wide_grids_and_single_blocks_are_refused(row):
    wide = (Grid.unsigned(8), Grid.narrow(8))
    assert not row_fits(row, make(wide, shape=(2, 2, 8), num_out=64)[0])
    few = (Grid.unsigned(2), Grid.narrow(2))
    assert not row_fits(row, make(few, shape=(2, 2, 8), num_out=16)[0])


@pytest.mark.parametrize(
    ("grids", "group", "most"),
    [(GRIDS[0], 4, 4), (GRIDS[2], 2, 4), (GRIDS[3], 2, 8), (GRIDS[5], 2, 18)],
    ids=["1,1", "T,T", "T,2", "odd2,2"],
)
def test_entries_are_as_small_as_the_grids_allow(grids, group, most):
    found = find_dictionary(*grids, 16)
    assert (found.group, found.entries.max()) == (group, most)
