"""Every row of the C kernel table gives what the slow steps give, bit for bit.

BITFOLD_KERNEL_LIBRARY points these tests at a sanitized or an emulated library,
BITFOLD_KERNEL_REPLAY at a machine of another kind (replayed_rows.py).
"""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold.errors import UsageError
from bitfold.ir import Grid
from bitfold.kernels.c_steps import pack_step, row_fits
from bitfold.kernels.layouts import TAKE_WIDE, conv_intervals, flush_quads
from bitfold.kernels.layouts.common import SHORT_TABLE_ISAS, byte_digits
from bitfold.kernels.layouts.direct_wide import word_digits
from bitfold.kernels.steps import (
    INT32_INTERVAL,
    AddStep,
    ConvStep,
    CopyStep,
    DequantizeStep,
    MaxPoolStep,
    RescaleStep,
    SumPoolStep,
    ThresholdStep,
    ToAccumulators,
    ToIndices,
    ToWide,
)
from tests.property.replayed_rows import c_rows, check_packed, compile_c, host_features
from tests.property.step_reference import Places, aligned_arena, expected_output, view
from tests.property.strategies import ConvGeometry, conv_geometries

pytestmark = [
    pytest.mark.cc,
    pytest.mark.skipif(not c_rows(), reason="the C kernel library is not built"),
]

ROWS = [row for row in c_rows() if row.runs_on(host_features())]
WEIGHT_GRIDS = [Grid.odd(1), Grid.odd(2), Grid.narrow(2), Grid.narrow(4), Grid.narrow(8)]
X_GRIDS = [Grid.unsigned(b) for b in (1, 2, 4, 8)] + [Grid.narrow(2), Grid.pixels(120)]
ODD_X_GRIDS = [Grid.odd(2), Grid(-9, 9, 3)]
LEVELS = st.sampled_from((1, 2, 4, 16, 256))
SHARES = (1, 2, 3, 5)
SEEDS = st.integers(0, 2**32 - 1)


def rows_of(op):
    return pytest.mark.parametrize(
        "row", [row for row in ROWS if row.op == op], ids=lambda row: row.symbol
    )


def check(steps, inputs, *, force, arena_bytes):
    """Runs ``steps`` one by one on random input buffers; compares each with the slow step.

    Alone, then in one, two, three and five shares, each of which must leave the rest alone.
    """
    program = compile_c(
        steps, input=inputs[0], arena_bytes=arena_bytes, force=force, threads=max(SHARES)
    )
    check_packed(steps, program.rows, arena_bytes)
    arena = aligned_arena(program.arena_bytes)
    rng = np.random.default_rng(len(steps))
    for place, least, most in [x if isinstance(x, tuple) else (x, 0, 255) for x in inputs[1]]:
        view(arena, place)[:] = rng.integers(least, most + 1, place.shape)
    for i, step in enumerate(steps):
        want, before = expected_output(step, arena), view(arena, step.out).copy()
        for count in SHARES:
            view(arena, step.out)[...] = before
            for k in range(count):
                program.run_share(i, arena, share=(k, count))
            assert (view(arena, step.out) == want).all(), f"in {count} shares"
    return program


def ascending(rng, lo, hi, shape):
    return np.sort(rng.integers(lo, hi + 2, shape), axis=-1).astype(np.int32)


def affine_table(rng, lo, hi, levels, count):
    """Thresholds of round(gain · acc + bias): what exported networks hold."""
    gain = np.maximum(1, (hi - lo) // max(1, levels // rng.integers(1, 4)))
    first = rng.integers(lo - gain, hi + 1)
    steps = np.arange(levels - 1) * rng.integers(max(1, gain // 2), gain + 1)
    table = first + steps + np.zeros((count, 1), np.int64) + rng.integers(0, 2, (count, 1))
    return np.clip(table, lo, hi + 1).astype(np.int32)


def draw_indices_rule(rng, lo, hi, count, levels):
    make = affine_table if rng.integers(2) else lambda r, a, b, n, c: ascending(r, a, b, (c, n - 1))
    sign = rng.choice((-1, 1), count).astype(np.int32)
    lo, hi = min(lo, -hi), max(hi, -lo)
    return ToIndices(make(rng, lo, hi, levels, count), sign)


def draw_wide_rule(rng, lo, hi, count, *, add=None):
    """A rule whose results fit 2^29, small or wide products, maybe with a negative side."""
    largest = int(rng.choice((3, 2**15, 2**30, 2**34)))
    reach = max(1, -lo, hi)
    shift = max(0, (largest * reach).bit_length() - int(rng.integers(2, 30)))
    limit = min(largest, 2 ** (shift + 29) // reach + 1)
    multiplier = rng.integers(-limit, limit + 1, count)
    offset = rng.integers(-(2 ** min(shift + 20, 60)), 2 ** min(shift + 20, 60), count)
    negative = {0: None, 1: np.zeros(count, np.int64), 2: rng.integers(-3, 4, count)}
    slope = negative[int(rng.integers(3))]
    return ToWide(multiplier, offset, shift, add, slope, int(rng.integers(2, 5)))


def conv_step(geometry, grids, rng, *, epilogue="accumulators", extreme=False, levels=16):
    places = Places()
    x_grid, w_grid = grids
    padding = geometry.padding if x_grid.has_zero else (0, 0, 0, 0)
    kernel = tuple(
        min(k, n + a + b)
        for k, n, a, b in zip(geometry.kernel, geometry.shape, padding, padding[2:], strict=False)
    )
    weight_shape = (geometry.num_out, *kernel, geometry.shape[2] // geometry.groups)
    least = w_grid.levels - 1 if extreme else 0
    weight = w_grid.lo + w_grid.step * rng.integers(least, w_grid.levels, weight_shape)
    weight = weight.astype(np.int8 if w_grid.lo >= -128 and w_grid.hi <= 127 else np.int32)
    out_shape = (
        (geometry.shape[0] + padding[0] + padding[2] - kernel[0]) // geometry.stride[0] + 1,
        (geometry.shape[1] + padding[1] + padding[3] - kernel[1]) // geometry.stride[1] + 1,
        geometry.num_out,
    )
    x = places.buffer(geometry.shape, "u8")
    kind = "u8" if epilogue == "indices" else "i32"
    step = ConvStep(
        "conv", x, places.buffer(out_shape, kind), x_grid, weight, w_grid,
        rng.integers(-1000, 1000, geometry.num_out), geometry.stride, padding, geometry.groups,
        ToAccumulators(),
    )  # fmt: skip
    span = conv_intervals(step)
    lo, hi = int(span.lo.min()), int(span.hi.max())
    inputs = [(x, x_grid.levels - 1 if extreme else 0, x_grid.levels - 1)]
    rule = step.epilogue
    if epilogue == "indices":
        rule = draw_indices_rule(rng, lo, hi, geometry.num_out, levels)
    if epilogue in ("wide", "add"):
        other = places.buffer(out_shape, "i32") if epilogue == "add" else None
        inputs += [(other, -(2**29), 2**29)] if other else []
        rule = draw_wide_rule(rng, lo, hi, geometry.num_out, add=other)
    fields = {name: getattr(step, name) for name in ConvStep.__slots__} | {"epilogue": rule}
    return ConvStep(**fields), inputs, places.arena_bytes


@rows_of("conv2d")
@given(
    geometry=conv_geometries(),
    x_grid=st.sampled_from(X_GRIDS + ODD_X_GRIDS),
    w_grid=st.sampled_from(WEIGHT_GRIDS),
    epilogue=st.sampled_from(("accumulators", "indices", "wide", "add")),
    levels=LEVELS,
    seed=SEEDS,
)
def test_a_convolution_row_equals_the_slow_step(
    row, geometry, x_grid, w_grid, epilogue, levels, seed
):
    rng = np.random.default_rng(seed)
    step, inputs, arena_bytes = conv_step(
        geometry, (x_grid, w_grid), rng, epilogue=epilogue, levels=levels
    )
    check([step], (inputs[0][0], inputs), force=row.symbol, arena_bytes=arena_bytes)


@rows_of("conv2d")
@settings(max_examples=12)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.sampled_from((3, 8))),
    num_out=st.sampled_from((16, 24, 33, 64, 70)),
    size=st.sampled_from((1, 3)),
    grids=st.sampled_from(((Grid.unsigned(2), Grid.narrow(2)), (Grid.unsigned(1), Grid.odd(1)))),
    epilogue=st.sampled_from(("indices", "wide", "add")),
    levels=st.sampled_from((2, 3, 4, 7, 16, 256)),
    seed=SEEDS,
)
def test_whole_blocks_of_channels_equal_the_slow_step(
    row, shape, num_out, size, grids, epilogue, levels, seed
):
    geometry = ConvGeometry(shape, num_out, (size, size), (1, 1), (size // 2,) * 4, 1)
    step, inputs, arena_bytes = conv_step(
        geometry, grids, np.random.default_rng(seed), epilogue=epilogue, levels=levels
    )
    check([step], (inputs[0][0], inputs), force=row.symbol, arena_bytes=arena_bytes)


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.layout in TAKE_WIDE], ids=lambda row: row.symbol
)
@given(
    geometry=conv_geometries(),
    x_grid=st.sampled_from((*X_GRIDS, *ODD_X_GRIDS)),
    bits=st.integers(9, 25),
    epilogue=st.sampled_from(("accumulators", "indices", "wide", "add")),
    extreme=st.booleans(),
    seed=SEEDS,
)
def test_wide_weights_equal_the_slow_step(row, geometry, x_grid, bits, epilogue, extreme, seed):
    window = geometry.kernel[0] * geometry.kernel[1] * geometry.shape[2] // geometry.groups
    largest = 2**30 // (window * max(-x_grid.lo, x_grid.hi))
    most = max(128, min(2 ** (bits - 1) - 1, largest))
    step, inputs, arena_bytes = conv_step(
        geometry, (x_grid, Grid(-most, most)), np.random.default_rng(seed), epilogue=epilogue,
        extreme=extreme,
    )  # fmt: skip
    assert step.is_wide
    check([step], (inputs[0][0], inputs), force=row.symbol, arena_bytes=arena_bytes)


@pytest.mark.parametrize(
    ("split", "dtype", "base"), [(byte_digits, np.int8, 2**8), (word_digits, np.int16, 2**16)]
)
@pytest.mark.parametrize(
    "value", [128, -129, 32639, 32640, 32767, 32768, -32769, 2**23 - 1, 2**31 - 1, -(2**31)]
)
def test_digits_make_the_weight(split, dtype, base, value):
    digits = split(np.array([0, value, 7], np.int32))
    assert all(digit.dtype == dtype for digit in digits)
    places = (digit.astype(object) * base**k for k, digit in enumerate(reversed(digits)))
    assert sum(places).tolist() == [0, value, 7]
    assert digits[0].any()


class Dense:
    """A 1 x 1 x depth input and a 1 x 1 kernel."""

    kernel, stride, padding, groups = (1, 1), (1, 1), (0, 0, 0, 0), 1

    def __init__(self, depth, num_out):
        self.shape, self.num_out = (1, 1, depth), num_out


@rows_of("conv2d")
@pytest.mark.parametrize("grids", [
    (Grid.unsigned(2), Grid.odd(2)), (Grid.unsigned(4), Grid.odd(4)),
    (Grid.unsigned(4), Grid.narrow(4)), (Grid.unsigned(7), Grid.narrow(8)),
    (Grid.unsigned(8), Grid.narrow(8)), (Grid.pixels(128), Grid(-128, 127)),
], ids=str)  # fmt: skip
def test_sums_at_the_extreme_operands_do_not_overflow(row, grids):
    rng = np.random.default_rng(0)
    flush = flush_quads(conv_step(Dense(4, 3), grids, rng, extreme=True)[0])
    for quads in {max(1, flush - 1), flush, flush + 1, 2 * flush + 1}:
        depth = min(4 * max(1, quads), 30_000)
        step, inputs, arena_bytes = conv_step(Dense(depth, 3), grids, rng, extreme=True)
        check([step], (inputs[0][0], inputs), force=row.symbol, arena_bytes=arena_bytes)


# 3 · 127 · 86 = 32766: the greatest sums that are compared in 16 bits
@rows_of("conv2d")
@pytest.mark.parametrize("depth", [86, 87])
@pytest.mark.parametrize("index", [0, 3])
@pytest.mark.parametrize("num_thresholds", [1, 2, 3])
def test_thresholds_at_and_beyond_the_ends_of_sums_of_16_bits(row, depth, index, num_thresholds):
    places, end = Places(), 3 * 127 * depth
    crossings = (-(2**31), -end - 1, -end, -end + 1, -1, 0, 1, end - 1, end, end + 1, 2**31 - 1)
    tables = [*combinations(crossings, num_thresholds)]
    count = 4 * len(tables)
    sign, weight = np.tile([1, -1], count // 2), np.repeat([127, -127], count // 2)
    bias = np.where(np.arange(count) % 4 < 2, 0, 1000)
    table = np.repeat(np.array(tables * 2, np.int64), 2, axis=0) + (sign * bias)[:, None]
    table = np.clip(table, -(2**31), 2**31 - 1).astype(np.int32)
    x, out = places.buffer((2, 1, depth), "u8"), places.buffer((2, 1, count), "u8")
    weights = np.broadcast_to(weight[:, None, None, None], (count, 1, 1, depth)).astype(np.int8)
    step = ConvStep("conv", x, out, Grid.unsigned(2), weights, Grid.narrow(8), bias, (1, 1),
                    (0, 0, 0, 0), 1, ToIndices(table, sign.astype(np.int32)))  # fmt: skip
    if row.isa in SHORT_TABLE_ISAS and row.layout in ("direct", "packed") and row_fits(row, step):
        assert ("short_table" in pack_step(step, row).epilogue.fields) == (depth == 86)
    check([step], (x, [(x, index, index)]), force=row.symbol, arena_bytes=places.arena_bytes)


@rows_of("conv2d")
def test_a_linear_layer_takes_a_vector(row):
    places, rng = Places(), np.random.default_rng(5)
    x, out = places.buffer((70,), "u8"), places.buffer((10,), "i32")
    weight = rng.integers(-127, 128, (10, 1, 1, 70)).astype(np.int8)
    step = ConvStep("fc", x, out, Grid.unsigned(8), weight, Grid.narrow(8),
                    rng.integers(-9, 9, 10), (1, 1), (0, 0, 0, 0), 1, ToAccumulators())  # fmt: skip
    check([step], (x, [(x, 0, 255)]), force=row.symbol, arena_bytes=places.arena_bytes)


@rows_of("thresholds")
@given(
    channels=st.integers(1, 40), levels=LEVELS, reach=st.sampled_from((9, 3000, 2**24)), seed=SEEDS
)
def test_a_threshold_row_equals_the_slow_step(row, channels, levels, reach, seed):
    places, rng = Places(), np.random.default_rng(seed)
    x, out = places.buffer((3, 2, channels), "i32"), places.buffer((3, 2, channels), "u8")
    rule = draw_indices_rule(rng, -reach, reach, channels, levels)
    step = ThresholdStep("t", x, out, rule)
    check([step], (x, [(x, -reach, reach)]), force=row.symbol, arena_bytes=places.arena_bytes)


@rows_of("thresholds")
@pytest.mark.parametrize("gap", [1, 7, 1000, 2**20, 2**26])
@pytest.mark.parametrize("num_thresholds", [1, 3, 15, 31])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_threshold_is_taken_at_its_value_and_not_one_below(row, gap, num_thresholds, sign):
    table = (np.arange(num_thresholds) - num_thresholds // 2) * gap + 5
    ties = np.stack([table - 1, table, table + 1], -1).reshape(-1)
    places = Places()
    x, out = places.buffer((len(ties), 1, 17), "i32"), places.buffer((len(ties), 1, 17), "u8")
    tables = np.broadcast_to(table.astype(np.int32), (17, num_thresholds))
    step = ThresholdStep("t", x, out, ToIndices(tables, np.full(17, sign, np.int32)))
    program = compile_c([step], input=x, arena_bytes=places.arena_bytes, force=row.symbol)
    arena = aligned_arena(program.arena_bytes)
    view(arena, x)[:] = sign * ties[:, None, None]
    program.run_step(0, arena)
    assert (view(arena, out) == (table <= ties[:, None]).sum(1)[:, None, None]).all()


@rows_of("rescale")
@given(channels=st.integers(1, 40), reach=st.sampled_from((255, 2**20, 2**28)), seed=SEEDS)
def test_a_rescale_row_equals_the_slow_step(row, channels, reach, seed):
    places, rng = Places(), np.random.default_rng(seed)
    kind = "u8" if reach == 255 else "i32"
    x, out = places.buffer((2, 3, channels), kind), places.buffer((2, 3, channels), "i32")
    other = places.buffer((2, 3, channels), "i32") if rng.integers(2) else None
    rule = draw_wide_rule(rng, -reach * 3, reach * 3, channels, add=other)
    interval = (-reach, reach) if rng.integers(4) else INT32_INTERVAL
    step = RescaleStep("r", x, out, rule, *((-3, 2) if kind == "u8" else (0, 1)), interval)
    least = 0 if kind == "u8" else -reach
    inputs = [(x, least, reach)] + ([(other, -(2**29), 2**29)] if other else [])
    check([step], (x, inputs), force=row.symbol, arena_bytes=places.arena_bytes)


@rows_of("rescale")
@pytest.mark.parametrize("slope", [0, 1, 3])
@pytest.mark.parametrize("shift", [0, 20])
def test_what_is_cut_off_or_bent_need_not_fit_32_bits_before(row, slope, shift):
    places, channels = Places(), 19
    x, out = (places.buffer((2, 3, channels), "i32") for _ in range(2))
    rule = ToWide(np.full(channels, 3 << shift), np.full(channels, -5), shift,
                  negative_multiplier=np.full(channels, slope), negative_shift=4)  # fmt: skip
    interval = (-(2**31), 2**29)
    step = RescaleStep("r", x, out, rule, interval=interval)
    check([step], (x, [(x, *interval)]), force=row.symbol, arena_bytes=places.arena_bytes)


@rows_of("add")
@given(count=st.integers(1, 70))
def test_an_add_row_equals_the_slow_step(row, count):
    places = Places()
    a, b, out = (places.buffer((1, 1, count), "i32") for _ in range(3))
    inputs = [(a, -(2**30), 2**30), (b, -(2**30), 2**30 - 1)]
    check([AddStep("add", a, b, out)], (a, inputs), force=row.symbol,
          arena_bytes=places.arena_bytes)  # fmt: skip


@rows_of("add")
@given(count=st.integers(1, 40), pixels=st.integers(1, 9),
       starts=st.tuples(*[st.integers(0, 20)] * 2),
       behind=st.tuples(*[st.integers(0, 3)] * 2))  # fmt: skip
def test_an_add_row_takes_windows_of_channels(row, count, pixels, starts, behind):
    places = Places()
    a, b = (places.buffer((pixels, 1, start + count + more), "i32")
            for start, more in zip(starts, behind, strict=True))  # fmt: skip
    out = places.buffer((pixels, 1, count), "i32")
    inputs = [(a, -(2**30), 2**30), (b, -(2**30), 2**30 - 1)]
    check([AddStep("add", a, b, out, *starts)], (a, inputs), force=row.symbol,
          arena_bytes=places.arena_bytes)  # fmt: skip


@rows_of("maxpool")
@given(geometry=conv_geometries(), kind=st.sampled_from(("u8", "i32")))
def test_a_max_pool_row_equals_the_slow_step(row, geometry, kind):
    places, (h, w, c) = Places(), geometry.shape
    (top, left, bottom, right), (kh, kw) = geometry.padding, geometry.kernel
    top, bottom = (min(edge, kh - 1) for edge in (top, bottom))
    left, right = (min(edge, kw - 1) for edge in (left, right))
    kh, kw = min(kh, h + top + bottom), min(kw, w + left + right)
    oh = (h + top + bottom - kh) // geometry.stride[0] + 1
    ow = (w + left + right - kw) // geometry.stride[1] + 1
    x, out = places.buffer((h, w, c), kind), places.buffer((oh, ow, c), kind)
    step = MaxPoolStep("max", x, out, (kh, kw), geometry.stride, (top, left, bottom, right))
    if not all(len(set(range(i * s, i * s + k)) & set(range(edge, edge + n)))
               for k, s, n, edge, count in ((kh, geometry.stride[0], h, top, oh),
                                            (kw, geometry.stride[1], w, left, ow))
               for i in range(count)):  # fmt: skip
        return  # a window of padding only has no maximum
    inputs = [(x, 0, 255) if kind == "u8" else (x, -(2**31), 2**31 - 1)]
    check([step], (x, inputs), force=row.symbol, arena_bytes=places.arena_bytes)


@rows_of("sumpool")
@given(geometry=conv_geometries(pads=False), kind=st.sampled_from(("u8", "i32")))
def test_a_sum_pool_row_equals_the_slow_step(row, geometry, kind):
    places, (h, w, c), (kh, kw) = Places(), geometry.shape, geometry.kernel
    out_shape = ((h - kh) // geometry.stride[0] + 1, (w - kw) // geometry.stride[1] + 1, c)
    x, out = places.buffer((h, w, c), kind), places.buffer(out_shape, "i32")
    codes = (-3, 2) if kind == "u8" else (0, 1)
    step = SumPoolStep("sum", x, out, (kh, kw), geometry.stride, *codes)
    inputs = [(x, 0, 255) if kind == "u8" else (x, -(2**25), 2**25)]
    check([step], (x, inputs), force=row.symbol, arena_bytes=places.arena_bytes)


@rows_of("copy")
@pytest.mark.parametrize("kind", ["u8", "i32"])
def test_a_copy_row_moves_its_channels_and_no_others(row, kind):
    places = Places()
    x, out = places.buffer((3, 2, 7), kind), places.buffer((3, 2, 9), kind)
    for step in (CopyStep("copy", x, out, 2, 4, 3), CopyStep("copy", x, out, 5, 1, 2, repeats=4)):
        inputs = [(x, 0, 255), (out, 0, 255)]
        check([step], (x, inputs), force=row.symbol, arena_bytes=places.arena_bytes)


@rows_of("dequantize")
@given(channels=st.integers(1, 20), seed=SEEDS)
def test_a_dequantize_row_takes_one_float32_product(row, channels, seed):
    places = Places()
    x, out = places.buffer((channels,), "i32"), places.buffer((channels,), "f32")
    scale = np.random.default_rng(seed).normal(size=channels).astype(np.float32)
    step = DequantizeStep("d", x, out, scale)
    inputs = [(x, -(2**31), 2**31 - 1)]
    check([step], (x, inputs), force=row.symbol, arena_bytes=places.arena_bytes)


def test_every_row_of_the_table_is_tested_above():
    tested = {"conv2d", "thresholds", "rescale", "add", "maxpool", "sumpool", "copy", "dequantize"}
    assert {row.op for row in c_rows()} == tested


def test_a_forced_isa_that_the_cpu_lacks_is_refused():
    lacking = {row.isa for row in c_rows()} - {row.isa for row in ROWS}
    place = Places().buffer((1, 1, 1), "i32")
    for isa in lacking:
        with pytest.raises(UsageError, match=f"this CPU cannot run {isa}"):
            compile_c([AddStep("a", place, place, place)], input=place, arena_bytes=128, force=isa)
