"""Thresholds reproduce exact rounding over the whole input range."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from bitfold.export.fixed_point import fixed_point
from bitfold.export.thresholds import Staircase, oriented_thresholds
from bitfold.ir import Grid

GRIDS = st.one_of(
    st.integers(1, 4).map(Grid.unsigned),
    st.integers(2, 4).map(Grid.narrow),
    st.integers(1, 4).map(Grid.odd),
)
# Small denominators make ties frequent.
GAINS = st.fractions(min_value=-3, max_value=3, max_denominator=8)
BIASES = st.fractions(min_value=-20, max_value=20, max_denominator=4)
SCALES = st.fractions(min_value=Fraction(1, 8), max_value=8, max_denominator=8).filter(bool)


def rounded_index(value, stairs):
    """The definition, without thresholds: clip, divide, round, clamp."""
    floor, ceiling = stairs.floor, stairs.ceiling
    value = value if floor is None else max(value, floor)
    value = value if ceiling is None else min(value, ceiling)
    grid, code = stairs.grid, value / stairs.scale
    place = (code - grid.lo) / grid.step
    if stairs.ties == "up":
        nearest = (2 * place + 1) // 2
    elif grid.step == 1:
        nearest = round(code) - grid.lo
    else:
        nearest = round(place)
    return min(max(nearest, 0), grid.levels - 1)


@given(
    gain=GAINS,
    bias=BIASES,
    scale=SCALES,
    grid=GRIDS,
    ties=st.sampled_from(["even", "up"]),
    clips=st.sampled_from([(None, None), (Fraction(0), None), (Fraction(0), Fraction(6))]),
    lo=st.integers(-60, 0),
    width=st.integers(0, 90),
)
def test_table_equals_rounding_at_every_integer(gain, bias, scale, grid, ties, clips, lo, width):
    hi = lo + width
    stairs = Staircase(grid, scale, ties, *clips)
    table, sign = oriented_thresholds(gain, bias, stairs, lo=lo, hi=hi)
    assert table == sorted(table)
    for x in range(lo, hi + 1):
        index = sum(t <= sign * x for t in table)
        assert index == rounded_index(gain * x + bias, stairs)


@given(
    gain=st.fractions(min_value=-4, max_value=4, max_denominator=10**6),
    bias=st.fractions(min_value=-50, max_value=50, max_denominator=10**6),
    largest=st.integers(1, 2**20),
    fraction_bits=st.integers(4, 16),
    data=st.data(),
)
def test_fixed_point_stays_within_its_stated_error(gain, bias, largest, fraction_bits, data):
    form = fixed_point((gain,), (bias,), fraction_bits=fraction_bits, largest=largest)
    x = data.draw(st.integers(-largest, largest))
    half = 1 << (form.shift - 1) if form.shift else 0
    got = (int(form.multiplier[0]) * x + int(form.offset[0]) + half) >> form.shift
    assert abs(got - (gain * x + bias) * 2**fraction_bits) <= Fraction(form.error)
