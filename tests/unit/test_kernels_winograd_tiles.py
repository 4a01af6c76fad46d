"""Matrices, ranges and flushes of layout winograd."""

import numpy as np
import pytest

from bitfold.ir import Grid
from bitfold.kernels.layouts.winograd import (
    INT16_MAX,
    WinogradLayout,
    choose_scheme,
    flush_interval,
    recombination,
)
from bitfold.kernels.layouts.winograd_tiles import ALGORITHMS, TILES
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import Buffer, ConvStep, ToAccumulators

EACH_TILE = pytest.mark.parametrize("tile", TILES, ids=lambda t: f"F({t.rows}x{t.columns})")


def row(isa):
    return Row("conv2d", "winograd", isa, frozenset(), f"bf_conv2d_winograd__{isa}", "c")


def step(x_grid, w_grid, *, size=8, depth=64, kernel=3, stride=1, groups=1):
    weight = np.full((16, kernel, kernel, depth // groups), w_grid.hi, np.int8)
    edge = kernel // 2
    out = (size + 2 * edge - kernel) // stride + 1
    return ConvStep("conv", Buffer(0, (size, size, depth), "u8"),
                    Buffer(2**20, (out, out, 16), "i32"), x_grid, weight, w_grid,
                    np.zeros(16, np.int64), (stride, stride), (edge,) * 4, groups,
                    ToAccumulators())  # fmt: skip


@pytest.mark.parametrize("m", ALGORITHMS)
def test_an_algorithm_gives_its_divisor_times_the_correlation(m):
    one, rng = ALGORITHMS[m], np.random.default_rng(m)
    for _ in range(50):
        x, taps = rng.integers(-99, 99, m + 2), rng.integers(-99, 99, 3)
        y = one.a.T @ (one.scale * (one.g @ taps) * (one.b @ x))
        assert (y == one.divisor * np.correlate(x, taps)).all()


@EACH_TILE
def test_offsets_and_widths_are_the_attained_ends_of_transformed_inputs(tile):
    most = 3
    ends = np.stack((tile.inputs < 0, tile.inputs > 0)) * most
    least, greatest = (tile.inputs * ends).sum(-1)
    assert (least + tile.offsets(most) == 0).all()
    assert (greatest + tile.offsets(most) == tile.widths(most)).all()


@EACH_TILE
def test_the_weight_range_is_attained(tile):
    lo, hi = tile.weight_range(-4, 3)
    least = np.where(tile.taps > 0, -4, 3).reshape(-1, 3, 3, 1).astype(np.int8)
    greatest = np.where(tile.taps > 0, 3, -4).reshape(-1, 3, 3, 1).astype(np.int8)
    assert (np.diagonal(tile.transform(least)[..., 0]) == lo).all()
    assert (np.diagonal(tile.transform(greatest)[..., 0]) == hi).all()


# Widest tile by grids, and what the weights' middle is; on 8-bit rows and on those of 16-bit sums.
@pytest.mark.parametrize(("x_grid", "w_grid", "products", "middle"), [
    (Grid.unsigned(1), Grid.odd(1), 36, 0),
    (Grid.narrow(2), Grid.narrow(2), 36, 0),
    (Grid.unsigned(2), Grid.narrow(2), 30, 0),
    (Grid.unsigned(2), Grid(-2, 1), 30, 0),
    (Grid.unsigned(2), Grid.odd(2), 30, 1),
    (Grid.unsigned(3), Grid.narrow(3), 24, 0),
    (Grid.unsigned(3), Grid.odd(3), 24, 1),
    (Grid.unsigned(4), Grid.narrow(4), 16, 0),
    (Grid.unsigned(4), Grid.odd(4), 16, 1),
])  # fmt: skip
@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512vnni"])
def test_the_tile_of_the_fewest_products_is_taken(x_grid, w_grid, products, middle, isa):
    scheme = choose_scheme(step(x_grid, w_grid, size=12), row(isa))
    assert (scheme.tile.positions, scheme.middle) == (products, middle)


def test_a_small_image_takes_the_tile_that_wastes_least():
    grids = Grid.narrow(2), Grid.narrow(2)
    assert choose_scheme(step(*grids, size=3), row("avx2")).tile.positions == 25
    assert choose_scheme(step(*grids, size=2), row("avx2")).tile.positions == 16
    assert choose_scheme(step(*grids, size=7), row("avx2")).tile.positions == 36


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512vnni"])
def test_wide_codes_and_other_geometries_do_not_fit(isa):
    layout, narrow = WinogradLayout(), (Grid.narrow(2), Grid.narrow(2))
    assert layout.fits(step(*narrow), row(isa))
    assert not layout.fits(step(Grid.unsigned(8), Grid.narrow(8)), row(isa))
    assert not layout.fits(step(Grid.unsigned(8), Grid.narrow(2)), row(isa))
    assert not layout.fits(step(Grid.unsigned(2), Grid.narrow(8)), row(isa))
    assert not layout.fits(step(*narrow, stride=2), row(isa))
    assert not layout.fits(step(*narrow, kernel=1), row(isa))
    assert not layout.fits(step(*narrow, kernel=5), row(isa))
    assert not layout.fits(step(*narrow, groups=2), row(isa))
    assert not layout.fits_every_step(row(isa))


def test_packing_a_step_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        WinogradLayout().pack(step(Grid.unsigned(8), Grid.narrow(8)), row("avx2"))


@pytest.mark.parametrize("depth", [1, 4, 37, 64, 512])
def test_a_run_of_quads_fits_sixteen_bits_whatever_the_inputs(depth):
    rng = np.random.default_rng(depth)
    for width in (60, 200, 252):
        largest = INT16_MAX // (2 * width)
        weight = rng.integers(-largest, largest + 1, (8, depth)).astype(np.int16)
        weight[0] = largest
        interval = flush_interval(weight, width)
        padded = np.pad(weight.astype(np.int64), ((0, 0), (0, -depth % 4)))
        pairs = padded.reshape(8, -1, 2, 2)
        for first in range(0, pairs.shape[1], interval):
            run = pairs[:, first : first + interval]
            for side in (np.maximum(run, 0), np.minimum(run, 0)):
                assert np.abs(side.sum((1, 3))).max() * width <= INT16_MAX


@EACH_TILE
def test_the_multiplier_divides_multiples_of_the_divisor_exactly(tile):
    scheme = choose_scheme(step(Grid.unsigned(1), Grid.odd(1)), row("scalar"))
    rule = recombination(type(scheme)(tile), Grid.unsigned(1))
    reach = (2**31 - 1) // tile.divisor
    y = np.array([-reach, -1, 0, 1, 12345, reach])
    quotient = ((y * tile.divisor) >> rule["shift"]) * rule["multiplier"]
    assert (quotient.astype(np.uint64).astype(np.uint32).view(np.int32) == y).all()
