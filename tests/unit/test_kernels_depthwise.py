"""Depthwise and one-pixel convolutions at their limits, against the slow steps."""

import numpy as np
import pytest

from bitfold.ir import Grid
from bitfold.kernels.c_backend import c_rows, compile_c
from bitfold.kernels.features import host_features
from bitfold.kernels.layouts.depthwise import BOUNDS, SHORT, WIDE, DepthwiseLayout
from bitfold.kernels.layouts.vector import VectorLayout
from bitfold.kernels.steps import ConvStep, ToAccumulators, ToIndices
from tests.property.replayed_rows import check_packed
from tests.property.step_reference import Places, aligned_arena, expected_output, view

pytestmark = [
    pytest.mark.cc,
    pytest.mark.skipif(not c_rows(), reason="the C kernel library is not built"),
]

COVERED = [row for row in c_rows() if row.runs_on(host_features())]


def rows_of(layout):
    rows = [row for row in COVERED if row.layout == layout]
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.symbol)


def conv(shape, weight, *, grids, stride=1, padding=0, groups=1, rule=None):
    """A convolution with one output channel for every filter; (step, arena_bytes)."""
    places, (h, w, _) = Places(), shape
    num_out, kernel_h, kernel_w, _ = weight.shape
    oh = (h + 2 * padding - kernel_h) // stride + 1
    ow = (w + 2 * padding - kernel_w) // stride + 1
    kind = "u8" if isinstance(rule, ToIndices) else "i32"
    x, out = places.buffer(shape, "u8"), places.buffer((oh, ow, num_out), kind)
    step = ConvStep(
        "conv", x, out, grids[0], weight.astype(np.int8), grids[1], np.arange(num_out) * 7 - 30,
        (stride, stride), (padding,) * 4, groups, rule or ToAccumulators(),
    )  # fmt: skip
    return step, places.arena_bytes


def check(step, arena_bytes, row, values):
    """Runs ``row`` on ``values`` alone and in three shares; the row must fit."""
    program = compile_c([step], input=step.x, arena_bytes=arena_bytes, force=row.symbol, threads=3)
    assert program.rows == (row,)
    check_packed([step], program.rows, arena_bytes)
    arena = aligned_arena(program.arena_bytes)
    view(arena, step.x)[...] = values
    want = expected_output(step, arena)
    for count in (1, 3):
        view(arena, step.out)[...] = 77
        for k in range(count):
            program.run_share(0, arena, share=(k, count))
        assert (view(arena, step.out) == want).all()


def thresholds_around(rng, step, levels, sign):
    """Tables whose thresholds are sums that do occur, and their neighbours."""
    codes = step.x_grid.lo + step.x_grid.step * rng.integers(0, step.x_grid.levels, (levels, 9))
    taps = step.weight.reshape(len(step.weight), -1)[:, :9].astype(np.int64)
    table = sign[:, None] * (taps @ codes[:, : taps.shape[1]].T + step.bias[:, None])
    return np.sort(table[:, : levels - 1] + rng.integers(0, 2, (len(taps), levels - 1)), axis=1)


@rows_of("depthwise")
@pytest.mark.parametrize("channels", [1, 17, 32, 65, 80])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (5, 1, 2), (2, 1, 0)]
)
@pytest.mark.parametrize("levels", [1, 2, 8, 16])
def test_depthwise_thresholds_in_every_form(row, channels, kernel, stride, padding, levels):
    rng = np.random.default_rng(channels * 31 + levels)
    grids = (Grid.unsigned(4) if levels > 2 else Grid(-9, 9, 3), Grid.narrow(4))
    padding = padding if grids[0].has_zero else 0
    weight = rng.integers(-7, 8, (channels, kernel, kernel, 1))
    shape = (4, 7, channels)
    sign = rng.choice((-1, 1), channels).astype(np.int32)
    draft, _ = conv(shape, weight, grids=grids, groups=channels)
    rule = ToIndices(thresholds_around(rng, draft, levels, sign).astype(np.int32), sign)
    step, arena_bytes = conv(
        shape, weight, grids=grids, stride=stride, padding=padding, groups=channels, rule=rule
    )
    check(step, arena_bytes, row, rng.integers(0, grids[0].levels, shape))


@rows_of("depthwise")
@pytest.mark.parametrize(("bits", "kernel", "form"), [
    (8, 1, SHORT), (8, 3, WIDE), (7, 1, SHORT), (4, 7, SHORT), (4, 17, SHORT), (4, 18, WIDE),
])  # fmt: skip
@pytest.mark.parametrize("end", [-1, 1])
def test_depthwise_sums_at_the_extreme_operands(row, bits, kernel, form, end):
    grids, channels = (Grid.unsigned(bits), Grid.narrow(bits)), 33
    weight = np.full((channels, kernel, kernel, 1), end * grids[1].hi)
    step, arena_bytes = conv((kernel, kernel + 1, channels), weight, grids=grids, groups=channels)
    if row.isa != "scalar":
        assert DepthwiseLayout().pack(step, row).extra[1]["form"] == form
    check(step, arena_bytes, row, grids[0].levels - 1)


@rows_of("depthwise")
@pytest.mark.parametrize("sign", [-1, 1])
def test_depthwise_weights_of_the_full_range_are_not_turned(row, sign):
    grids, channels = (Grid.unsigned(1), Grid(-128, 127)), 18
    weight = np.full((channels, 3, 3, 1), -128)
    rule = ToIndices(np.full((channels, 1), -600, np.int32), np.full(channels, sign, np.int32))
    step, arena_bytes = conv((4, 4, channels), weight, grids=grids, groups=channels, rule=rule)
    if row.isa != "scalar":
        form = DepthwiseLayout().pack(step, row).extra[1]["form"]
        assert form == (BOUNDS if sign == 1 else SHORT)
    check(step, arena_bytes, row, np.random.default_rng(1).integers(0, 2, (4, 4, channels)))


@rows_of("depthwise")
def test_a_window_wider_than_the_image_lies_in_the_padding(row):
    rng, grids = np.random.default_rng(2), (Grid.unsigned(4), Grid.narrow(4))
    weight = rng.integers(-7, 8, (20, 5, 5, 1))
    step, arena_bytes = conv((1, 2, 20), weight, grids=grids, padding=4, groups=20)
    check(step, arena_bytes, row, rng.integers(0, 16, (1, 2, 20)))


def test_depthwise_rows_refuse_other_convolutions():
    grids = (Grid.unsigned(4), Grid.narrow(4))
    rng, layout = np.random.default_rng(3), DepthwiseLayout()
    row = next(row for row in c_rows() if row.layout == "depthwise")
    dense, _ = conv((3, 3, 4), rng.integers(-7, 8, (4, 3, 3, 4)), grids=grids)
    doubled, _ = conv((3, 3, 4), rng.integers(-7, 8, (8, 3, 3, 1)), grids=grids, groups=4)
    assert not layout.fits(dense, row)
    assert not layout.fits(doubled, row)


VECTOR_GRIDS = [
    (Grid.unsigned(1), Grid.odd(1)), (Grid.unsigned(2), Grid.odd(2)),
    (Grid.unsigned(8), Grid.narrow(2)), (Grid.unsigned(4), Grid.odd(4)),
    (Grid.unsigned(8), Grid.narrow(4)), (Grid.unsigned(7), Grid.narrow(8)),
    (Grid.unsigned(8), Grid.narrow(8)), (Grid.pixels(128), Grid(-128, 127)),
    (Grid(-9, 9, 3), Grid.odd(3)),
]  # fmt: skip


@rows_of("vector")
@pytest.mark.parametrize("grids", VECTOR_GRIDS, ids=str)
@pytest.mark.parametrize("num_out", [1, 33])
@pytest.mark.parametrize("depth", [1, 16, 65, 700])
def test_one_pixel_from_the_whole_input(row, grids, num_out, depth):
    rng = np.random.default_rng(depth)
    codes = np.arange(grids[1].lo, grids[1].hi + 1, grids[1].step)
    weight = rng.choice(codes, (num_out, 1, 1, depth))
    step, arena_bytes = conv((1, 1, depth), weight, grids=grids)
    check(step, arena_bytes, row, rng.integers(0, grids[0].levels, (1, 1, depth)))


@rows_of("vector")
@pytest.mark.parametrize("grids", VECTOR_GRIDS, ids=str)
@pytest.mark.parametrize("end", [0, -1])
def test_one_pixel_at_the_extreme_operands(row, grids, end):
    codes = np.arange(grids[1].lo, grids[1].hi + 1, grids[1].step)
    weight = np.full((3, 5, 7, 101), codes[end])
    step, arena_bytes = conv((5, 7, 101), weight, grids=grids)
    check(step, arena_bytes, row, grids[0].levels - 1)


def test_vector_rows_refuse_windows_that_leave_something_out():
    grids, rng = (Grid.unsigned(4), Grid.narrow(4)), np.random.default_rng(4)
    row = next(row for row in c_rows() if row.layout == "vector")
    part, _ = conv((3, 3, 4), rng.integers(-7, 8, (2, 2, 2, 4)), grids=grids, stride=2)
    padded, _ = conv((1, 1, 4), rng.integers(-7, 8, (2, 3, 3, 4)), grids=grids, padding=1)
    assert not VectorLayout().fits(part, row)
    assert not VectorLayout().fits(padded, row)


@rows_of("vector")
def test_low_bit_weights_stay_packed(row):
    sizes = {}
    for bits in (2, 4, 8):
        grids = (Grid.unsigned(4), Grid.narrow(bits))
        step, _ = conv((1, 1, 512), np.ones((64, 1, 1, 512)), grids=grids)
        sizes[bits] = VectorLayout().pack(step, row).fields["weight"].nbytes
    assert sizes == {2: 64 * 512 // 4, 4: 64 * 512 // 2, 8: 64 * 512}
