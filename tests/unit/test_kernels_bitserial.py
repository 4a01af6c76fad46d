"""Layout ``bitserial``: every operation on planes, odd depths, tiles of pixels and of blocks."""

import numpy as np
import pytest

from bitfold.ir import Grid
from bitfold.kernels.c_backend import c_rows, compile_c
from bitfold.kernels.features import host_features
from bitfold.kernels.layouts.bitserial import PlaneOp, plane_op
from bitfold.kernels.steps import ConvStep, ToAccumulators
from tests.property.step_reference import Places, aligned_arena, expected_output, view

pytestmark = [
    pytest.mark.cc,
    pytest.mark.skipif(not c_rows(), reason="the C kernel library is not built"),
]

ROWS = [r for r in c_rows() if r.layout == "bitserial" and r.runs_on(host_features())]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.symbol)
WEIGHT_GRIDS = [Grid.odd(1), Grid(-3, 3, 6), Grid.narrow(2), Grid(-5, 5, 5), Grid.odd(2),
                Grid(0, 1), Grid.narrow(4)]  # fmt: skip
every_grid = pytest.mark.parametrize("w_grid", WEIGHT_GRIDS, ids=str)
X_GRIDS = [Grid.unsigned(1), Grid.narrow(2), Grid(-9, 9, 3)]


def make(grids, *, shape, num_out, kernel=(1, 1), stride=(1, 1), pad=0, groups=1, pick=None):
    """A convolution to accumulators; ``pick`` chooses one weight for all."""
    rng, places = np.random.default_rng(13), Places()
    x_grid, w_grid = grids
    codes = np.arange(w_grid.lo, w_grid.hi + 1, w_grid.step)
    weight = rng.choice(codes if pick is None else codes[[pick]],
                        (num_out, *kernel, shape[2] // groups)).astype(np.int8)  # fmt: skip
    out = tuple(
        (size + pad - k) // s + 1 for size, k, s in zip(shape, kernel, stride, strict=False)
    )
    x, y = places.buffer(shape, "u8"), places.buffer((*out, num_out), "i32")
    step = ConvStep("conv", x, y, x_grid, weight, w_grid, rng.integers(-999, 999, num_out),
                    stride, (0, pad, pad, 0), groups, ToAccumulators())  # fmt: skip
    return step, places.arena_bytes


def check(step, arena_bytes, row, *, index=None):
    """``row`` gives the reference's integers, alone and in shares."""
    program = compile_c([step], input=step.x, arena_bytes=arena_bytes, force=row.symbol, threads=4)
    assert program.rows[0].symbol == row.symbol
    arena, rng = aligned_arena(program.arena_bytes), np.random.default_rng(2)
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
@pytest.mark.parametrize("depth", [1, 3, 8, 17, 32, 40])
def test_depths_that_end_within_bytes_and_words(row, w_grid, depth):
    for x_grid in X_GRIDS:
        pad = 1 if x_grid.has_zero else 0
        grids, shape = (x_grid, w_grid), (5, 6, depth)
        check(*make(grids, shape=shape, num_out=18, kernel=(3, 3), stride=(1, 2), pad=pad), row)


@every_row
@every_grid
@pytest.mark.parametrize("num_out", [1, 48, 64, 70, 130])
def test_whole_tiles_and_what_is_left_of_them(row, w_grid, num_out):
    check(*make((Grid.unsigned(2), w_grid), shape=(3, 3, 9), num_out=num_out), row)


@every_row
@every_grid
def test_groups(row, w_grid):
    grids = (Grid.unsigned(2), w_grid)
    check(*make(grids, shape=(9, 4, 10), num_out=2 * 65, kernel=(2, 3), pad=1, groups=2), row)


@every_row
@every_grid
@pytest.mark.parametrize("pick", [0, -1])
def test_extreme_operands(row, w_grid, pick):
    step, arena_bytes = make((Grid.unsigned(8), w_grid), shape=(2, 3, 3000), num_out=64, pick=pick)
    check(step, arena_bytes, row, index=255)


def test_symmetric_grids_take_one_operation_a_plane():
    assert plane_op(Grid.odd(1)) is PlaneOp.XOR
    assert plane_op(Grid.narrow(2)) is PlaneOp.SELECT
    assert plane_op(Grid(0, 1)) is PlaneOp.AND
    assert plane_op(Grid.odd(2)) is PlaneOp.AND
