"""Bytes in memory: packing keeps every index, and panels hold every weight once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfold.kernels.packing import (
    LANES,
    bitserial_panels,
    direct_panels,
    direct_wide_panels,
    pack_planes,
    to_lanes,
    unpack_planes,
)


@given(bits=st.integers(1, 8), count=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_unpacking_undoes_packing(bits, count, seed):
    indices = np.random.default_rng(seed).integers(0, 2**bits, (2, count), dtype=np.uint8)
    planes = pack_planes(indices, bits)
    assert planes.shape == (2, bits, -(-count // 64))
    assert (unpack_planes(planes, count) == indices).all()


def test_element_i_of_a_plane_is_bit_i_of_its_words():
    indices = np.zeros(70, np.uint8)
    indices[[0, 65]] = 2
    assert pack_planes(indices, 2).tolist() == [[0, 0], [1, 2]]


def test_each_group_is_rounded_up_to_whole_blocks():
    lanes = to_lanes(np.arange(1, 7), groups=2)
    assert lanes.tolist() == [1, 2, 3] + [0] * 13 + [4, 5, 6] + [0] * 13


@pytest.fixture
def weight():
    """Codes (18, 2, 3, 3): two blocks, rows of nine bytes."""
    return np.random.default_rng(1).integers(-7, 8, (18, 2, 3, 3)).astype(np.int8)


def test_a_direct_panel_holds_four_consecutive_bytes_of_a_row_for_each_lane(weight):
    panels = direct_panels(weight, groups=1)
    assert panels.shape == (2, 2, 3, LANES, 4)
    rows = weight.reshape(18, 2, 9)
    assert panels[1, 1, 1, 1].tolist() == rows[17, 1, 4:8].tolist()
    assert panels[1, 1, 2, 1].tolist() == [rows[17, 1, 8], 0, 0, 0]
    assert not panels[1, :, :, 2:].any()


def test_a_wide_panel_holds_two_consecutive_words_of_a_row_for_each_lane(weight):
    panels = direct_wide_panels(300 * weight.astype(np.int16), groups=1)
    assert panels.shape == (2, 2, 5, LANES, 2)
    rows = 300 * weight.reshape(18, 2, 9).astype(int)
    assert panels[0, 1, 1, 5].tolist() == rows[5, 1, 2:4].tolist()
    assert panels[1, 0, 4, 1].tolist() == [rows[17, 0, 8], 0]
    assert not panels[1, :, :, 2:].any()


def test_a_bitserial_panel_holds_rows_of_pixels_of_whole_bytes(weight):
    planes = np.stack([weight > 0, weight < 0]).astype(np.uint8)
    panels = bitserial_panels(planes, groups=1)
    num_out, rows, columns, depth = weight.shape
    assert panels.shape == (2, 2, rows, LANES)  # 3 pixels of 8 bits fill less than one word
    bits = np.unpackbits(
        panels.view(np.uint8).reshape(*panels.shape, 4), axis=-1, bitorder="little"
    )
    for o, plane, row, column in np.ndindex(num_out, 2, rows, columns):
        word = bits[o // LANES, plane, row, o % LANES]
        assert (word[8 * column : 8 * column + depth] == planes[plane, o, row, column]).all()
        assert not word[8 * column + depth : 8 * column + 8].any()
