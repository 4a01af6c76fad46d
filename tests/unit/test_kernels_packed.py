"""Layout ``packed``: weights of one to four bits, their bytes, extremes, odd blocks, refusals."""

import numpy as np
import pytest

from bitfold.ir import Grid
from bitfold.kernels.c_backend import c_rows, compile_c
from bitfold.kernels.c_steps import pack_step, row_fits
from bitfold.kernels.features import host_features
from bitfold.kernels.packing import pack_fields
from bitfold.kernels.steps import ConvStep, ToAccumulators
from tests.property.step_reference import Places, aligned_arena, expected_output, view

pytestmark = [
    pytest.mark.cc,
    pytest.mark.skipif(not c_rows(), reason="the C kernel library is not built"),
]

TILED = ("packed", "direct")  # rows whose tiles take one block of channels, two or four
ROWS = [r for r in c_rows() if r.layout in TILED and r.runs_on(host_features())]
PACKED = [row for row in ROWS if row.layout == "packed"]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.symbol)
packed_rows = pytest.mark.parametrize("row", PACKED, ids=lambda row: row.symbol)
WEIGHT_GRIDS = [Grid.odd(1), Grid.narrow(2), Grid.odd(2), Grid.narrow(3), Grid(-8, 7)]


def make(grids, *, shape, num_out, kernel=(1, 1), stride=(1, 1), pad=0, groups=1, pick=None):
    """A convolution to accumulators; ``pick`` chooses one weight for all."""
    rng, places = np.random.default_rng(11), Places()
    x_grid, w_grid = grids
    codes = np.arange(w_grid.lo, w_grid.hi + 1, w_grid.step)
    weight = rng.choice(codes if pick is None else codes[[pick]],
                        (num_out, *kernel, shape[2] // groups)).astype(np.int8)  # fmt: skip
    out = tuple(
        (size + pad - k) // s + 1 for size, k, s in zip(shape, kernel, stride, strict=False)
    )
    x, y = places.buffer(shape, "u8"), places.buffer((*out, num_out), "i32")
    step = ConvStep("conv", x, y, x_grid, weight, w_grid, rng.integers(-999, 999, num_out),
                    stride, (pad, 0, 0, pad), groups, ToAccumulators())  # fmt: skip
    return step, places.arena_bytes


def check(step, arena_bytes, row, *, index=None):
    """``row`` gives the reference's integers, alone and in shares."""
    assert row_fits(row, step)
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
@pytest.mark.parametrize("w_grid", WEIGHT_GRIDS, ids=str)
@pytest.mark.parametrize("num_out", [1, 16, 17, 32, 35, 48, 64, 80, 130])
def test_odd_and_even_numbers_of_blocks(row, w_grid, num_out):
    grids = (Grid.unsigned(3), w_grid)
    check(*make(grids, shape=(4, 5, 8), num_out=num_out, kernel=(3, 2), pad=1), row)


@every_row
@pytest.mark.parametrize("depth", [1, 3, 17])
def test_quads_that_are_filled_up(row, depth):
    grids = (Grid.unsigned(4), Grid.narrow(3))
    check(*make(grids, shape=(7, 6, depth), num_out=34, kernel=(3, 3), stride=(2, 1), pad=1), row)


@every_row
def test_groups_are_tiled_one_by_one(row):
    grids = (Grid.unsigned(2), Grid.odd(2))
    check(*make(grids, shape=(9, 3, 12), num_out=3 * 40, kernel=(1, 3), groups=3), row)


@every_row
@pytest.mark.parametrize("w_grid", WEIGHT_GRIDS, ids=str)
@pytest.mark.parametrize("pick", [0, -1])
def test_extreme_operands_with_flushes(row, w_grid, pick):
    step, arena_bytes = make((Grid.unsigned(7), w_grid), shape=(1, 2, 2000), num_out=33, pick=pick)
    check(step, arena_bytes, row, index=127)


@packed_rows
def test_a_fill_that_the_grid_lacks_is_refused(row):
    grids = (Grid.unsigned(2), Grid.odd(2))
    assert not row_fits(row, make(grids, shape=(2, 2, 3), num_out=20)[0])
    assert row_fits(row, make(grids, shape=(2, 2, 4), num_out=20)[0])
    wide = (Grid.unsigned(2), Grid.narrow(5))
    assert not row_fits(row, make(wide, shape=(2, 2, 4), num_out=20)[0])


@packed_rows
@pytest.mark.parametrize("w_grid", WEIGHT_GRIDS, ids=str)
def test_weights_take_their_bits_and_no_more(row, w_grid):
    step, _ = make((Grid.unsigned(2), w_grid), shape=(3, 3, 64), num_out=64, kernel=(3, 3))
    packed = pack_step(step, row).fields["weight"]
    assert packed.nbytes * 8 == w_grid.bits * step.weight.size


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_fields_hold_every_index(bits):
    indices = np.random.default_rng(bits).integers(0, 2**bits, (2, 512)).astype(np.uint8)
    packed = pack_fields(indices, bits=bits).reshape(2, 2, bits, 32)
    for j, i in np.ndindex(8, 32):
        width = 2 if bits == 3 else bits
        byte, place = packed[:, :, j * width // 8, i], j * width % 8
        index = byte >> place & (2**width - 1)
        if bits == 3:
            index = index | (packed[:, :, 2, i] >> j & 1) << 2
        assert (index == indices.reshape(2, 2, 8, 32)[:, :, j, i]).all()
