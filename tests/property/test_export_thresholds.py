"""Thresholds reproduce exact rounding over the whole input range."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from bitfold.export.fixed_point import fixed_point
from bitfold.export.thresholds import code_of, oriented_thresholds
from bitfold.ir import Grid

GRIDS = st.one_of(st.integers(1, 4).map(Grid.unsigned), st.integers(2, 4).map(Grid.narrow))
# Small denominators make ties frequent.
GAINS = st.fractions(min_value=-3, max_value=3, max_denominator=8)
BIASES = st.fractions(min_value=-20, max_value=20, max_denominator=4)
SCALES = st.fractions(min_value=Fraction(1, 8), max_value=8, max_denominator=8).filter(bool)


@given(
    gain=GAINS,
    bias=BIASES,
    scale=SCALES,
    grid=GRIDS,
    lo=st.integers(-60, 0),
    width=st.integers(0, 90),
)
def test_table_equals_rounding_at_every_integer(gain, bias, scale, grid, lo, width):
    hi = lo + width
    table, sign = oriented_thresholds(gain, bias, scale=scale, grid=grid, lo=lo, hi=hi)
    assert table == sorted(table)
    for x in range(lo, hi + 1):
        index = sum(t <= sign * x for t in table)
        assert grid.lo + index == code_of(gain * x + bias, scale=scale, grid=grid)


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
