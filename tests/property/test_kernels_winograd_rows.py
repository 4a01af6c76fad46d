"""Rows of layout winograd give what the slow steps give, at the extremes of every tile."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold.ir import Grid
from bitfold.kernels.c_backend import c_rows, compile_c
from bitfold.kernels.c_steps import row_fits
from bitfold.kernels.features import host_features
from bitfold.kernels.layouts import conv_intervals, winograd
from bitfold.kernels.layouts.winograd import candidates, is_proven
from bitfold.kernels.layouts.winograd_tiles import TILES
from bitfold.kernels.steps import ConvStep, ToAccumulators, ToIndices
from tests.property.replayed_rows import check_packed
from tests.property.step_reference import Places, aligned_arena, expected_output, view

ROWS = [row for row in c_rows() if row.layout == "winograd" and row.runs_on(host_features())]
pytestmark = [
    pytest.mark.cc,
    pytest.mark.skipif(not ROWS, reason="the C kernel library is not built"),
]
EACH_ROW = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.symbol)
SHARES = (1, 2, 3, 4, 5)
GRIDS = {
    "1,1": (Grid.unsigned(1), Grid.odd(1)),
    "T,T": (Grid.narrow(2), Grid.narrow(2)),
    "T,2": (Grid.unsigned(2), Grid.narrow(2)),
    "2,2": (Grid.unsigned(2), Grid(-2, 1)),
    "odd2,2": (Grid.unsigned(2), Grid.odd(2)),
    "odd2,odd2": (Grid.odd(2), Grid.odd(2)),
    "3,3": (Grid.unsigned(3), Grid.narrow(3)),
    "odd3,3": (Grid.unsigned(3), Grid.odd(3)),
    "4,4": (Grid.unsigned(4), Grid.narrow(4)),
    "odd4,4": (Grid.unsigned(4), Grid.odd(4)),
}


def conv(shape, num_out, grids, weight, *, padding=(1, 1, 1, 1), bias=None):
    """A 3x3 step of stride 1 that stores accumulators, and the bytes of its arena."""
    places = Places()
    h, w = (n + a + b - 2 for n, a, b in zip(shape, padding, padding[2:], strict=False))
    x = places.buffer(shape, "u8")
    bias = np.zeros(num_out, np.int64) if bias is None else bias
    step = ConvStep("conv", x, places.buffer((h, w, num_out), "i32"), grids[0],
                    weight.astype(np.int8), grids[1], bias, (1, 1), padding, 1,
                    ToAccumulators())  # fmt: skip
    return step, places.arena_bytes


def check(row, step, arena_bytes, inputs):
    """Runs ``row`` on each array of indices, in one to five shares."""
    assert row_fits(row, step)
    program = compile_c(
        [step], input=step.x, arena_bytes=arena_bytes, force=row.symbol, threads=max(SHARES)
    )
    assert program.rows == (row,)
    check_packed([step], program.rows, arena_bytes)
    arena = aligned_arena(program.arena_bytes)
    for i, indices in enumerate(inputs):
        view(arena, step.x)[...] = indices
        want = expected_output(step, arena)
        for count in SHARES if i == 0 else (1,):
            view(arena, step.out)[...] = 0
            for k in range(count):
                program.run_share(0, arena, share=(k, count))
            assert (view(arena, step.out) == want).all(), f"inputs {i} in {count} shares"


@EACH_ROW
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
@settings(max_examples=15)
@given(
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14), st.sampled_from((1, 3, 4, 17, 33, 64))),
    num_out=st.sampled_from((1, 5, 16, 17, 40)),
    padding=st.tuples(*[st.integers(0, 3)] * 4),
    indices=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_row_equals_the_slow_step(row, grids, shape, num_out, padding, indices, seed):
    rng = np.random.default_rng(seed)
    x_grid, w_grid = grids
    padding = padding if x_grid.has_zero else (0, 0, 0, 0)
    shape = tuple(max(n, 3 - a - b) for n, a, b in zip(shape, padding, padding[2:], strict=False)
                  ) + shape[2:]  # fmt: skip
    weight = rng.integers(0, w_grid.levels, (num_out, 3, 3, shape[2])) * w_grid.step + w_grid.lo
    bias = rng.integers(-999, 999, num_out)
    step, arena_bytes = conv(shape, num_out, grids, weight, padding=padding, bias=bias)
    if indices:
        span = conv_intervals(step)
        table = np.sort(rng.integers(span.lo.min(), span.hi.max() + 1, (num_out, 3)), axis=1)
        rule = ToIndices(table.astype(np.int32), rng.choice((-1, 1), num_out).astype(np.int32))
        step = replace(step, out=replace(step.out, kind="u8"), epilogue=rule)
    check(row, step, arena_bytes, [rng.integers(0, x_grid.levels, shape)])


def extreme_weights(tile, grid, depth):
    """Weights that drive every position to its ends: one output channel for each, (O, 3, 3, C)."""
    ends = np.where(np.concatenate((tile.taps, -tile.taps)) > 0, grid.hi, grid.lo)
    codes = ends.reshape(-1, 3, 3, 1)
    flipped = grid.hi + grid.lo - codes
    alternating = np.where(np.arange(depth) % 2, flipped, codes)
    return np.concatenate((np.broadcast_to(codes, alternating.shape), alternating))


def extreme_inputs(tile, shape, levels):
    """Single tiles that drive every position to its ends, and one that is full."""
    for coefficients in tile.inputs:
        image = np.broadcast_to(coefficients.reshape(*shape[:2], 1), shape)
        yield np.where(image > 0, levels - 1, 0)
        yield np.where(image < 0, levels - 1, 0)
    yield np.full(shape, levels - 1)


@EACH_ROW
@pytest.mark.parametrize("tile", TILES, ids=lambda tile: f"F({tile.rows}x{tile.columns})")
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_every_tile_is_exact_at_its_extremes(row, tile, grids, monkeypatch):
    depth = 37
    weight = extreme_weights(tile, grids[1], depth)
    shape = (tile.rows + 2, tile.columns + 2, depth)
    step, arena_bytes = conv(shape, len(weight), grids, weight, padding=(0, 0, 0, 0))
    schemes = [s for s in candidates(grids[1]) if s.tile == tile and is_proven(s, step, row)]
    inputs = list(extreme_inputs(tile, shape, grids[0].levels))
    for scheme in schemes:
        monkeypatch.setattr(winograd, "choose_scheme", lambda *_, one=scheme: one)
        check(row, step, arena_bytes, inputs)
