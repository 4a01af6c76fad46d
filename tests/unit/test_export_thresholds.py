"""Thresholds at ties, at the ends of the range, and for negative and zero gains."""

from fractions import Fraction

import numpy as np

from bitfold.export.thresholds import (
    Staircase,
    channel_thresholds,
    oriented_thresholds,
    threshold_table,
)
from bitfold.ir import Grid

ONE, ZERO = Fraction(1), Fraction(0)


def test_threshold_takes_the_even_neighbour_on_a_tie():
    # value = X/2 on a unit grid: X = 1, 3, 5 are the ties 0.5 → 0, 1.5 → 2, 2.5 → 2.
    table = channel_thresholds(Fraction(1, 2), ZERO, Staircase(Grid.unsigned(2), ONE))
    assert table == [2, 3, 6]


def test_bias_moves_every_threshold_alike():
    table = channel_thresholds(ONE, Fraction(-10), Staircase(Grid.unsigned(2), Fraction(4)))
    assert table == [13, 16, 21]


def test_negative_gain_counts_on_the_negated_input():
    table, sign = oriented_thresholds(
        Fraction(-1), ZERO, Staircase(Grid.unsigned(2), Fraction(3)), lo=-10, hi=10
    )
    assert sign == -1
    assert table == [2, 5, 8]
    # X = −5 has value 5 and code rne(5/3) = 2
    assert sum(t <= 5 for t in table) == 2


def test_zero_gain_is_the_constant_code_of_the_bias():
    table, sign = oriented_thresholds(
        ZERO, Fraction(5), Staircase(Grid.unsigned(2), Fraction(2)), lo=-7, hi=7
    )
    assert (table, sign) == ([-7, -7, 8], 1)


def test_unreachable_levels_lie_one_past_the_range():
    table, _ = oriented_thresholds(
        ONE, ZERO, Staircase(Grid.unsigned(2), Fraction(100)), lo=-20, hi=20
    )
    assert table == [21, 21, 21]


def test_always_taken_levels_lie_at_the_lower_end():
    table, _ = oriented_thresholds(
        ONE, Fraction(10**6), Staircase(Grid.unsigned(2), ONE), lo=-20, hi=20
    )
    assert table == [-20, -20, -20]


def test_table_has_a_row_and_a_sign_per_channel():
    table, sign = threshold_table(
        (ONE, -ONE, ZERO), (ZERO, ZERO, ZERO), (Staircase(Grid.unsigned(3), ONE),) * 3, lo=-9, hi=9
    )
    assert table.shape == (3, 7)
    assert sign.tolist() == [1, -1, 1]
    assert table.dtype == np.int64
