"""Operands, words and thresholds of the emitted array, without a simulator."""

import numpy as np
import pytest

from bitfold.errors import RangeError, UnsupportedError, UsageError
from bitfold.fpga_sim import ArrayConfig
from bitfold.fpga_sim.rtl import Design, Operand, find_layer, natural_kind, results, stimulus
from bitfold.fpga_sim.rtl.design import ODD, SIGNED, UNSIGNED
from bitfold.fpga_sim.rtl.layer import sum_tables
from bitfold.fpga_sim.rtl.sources import design_sources
from bitfold.fpga_sim.rtl.stimulus import hex_text, pack, parse_hex, unpack
from bitfold.ir import Conv2d, Dequantize, Grid, IntGraph, Quantize, Thresholds
from bitfold.ir import oracle as definition

GRIDS = [Grid.unsigned(1), Grid.unsigned(4), Grid.narrow(2), Grid.narrow(8), Grid.odd(1),
         Grid.odd(3)]  # fmt: skip


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("serial", [False, True])
def test_every_code_is_sent_in_the_operands_bits_and_read_back(grid, serial):
    operand = Operand.of(grid, serial=serial)
    codes = np.arange(grid.lo, grid.hi + 1, grid.step)
    raw = operand.encode(codes)
    assert raw.min() >= 0
    assert raw.max() < 2**operand.bits
    assert [operand.decode(int(r)) for r in raw] == codes.tolist()


def test_operands_take_the_bits_of_their_index():
    assert Operand.of(Grid.narrow(2)) == Operand(2, SIGNED)
    assert Operand.of(Grid.odd(2)) == Operand(2, ODD)
    assert Operand.of(Grid.odd(2), serial=True) == Operand(3, SIGNED)
    assert Operand.of(Grid.unsigned(3)) == Operand(3, UNSIGNED)
    assert Operand.of(Grid.pixels(73)) == Operand(8, UNSIGNED)  # by index


def test_a_pe_kind_that_cannot_multiply_the_weights_is_refused():
    with pytest.raises(UnsupportedError, match="a binary PE does not multiply weights of 2 bits"):
        Design(ArrayConfig(pe="binary"), Operand(2, SIGNED), Operand(2, UNSIGNED), 16)
    assert natural_kind(Grid.odd(1)) == "binary"
    assert natural_kind(Grid.narrow(2)) == "ternary"
    assert natural_kind(Grid.odd(2)) == "parallel"


@pytest.mark.parametrize("bits", [1, 3, 8, 17, 40])
def test_words_are_packed_and_printed_and_read_back(bits):
    values = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, 3))
    words = pack(values & (2**bits - 1), bits)
    assert np.array_equal(unpack(words, bits, fields=3), values)
    assert np.array_equal(parse_hex(hex_text(words), bits=3 * bits), words)


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_golden_words_hold_the_product(dataflow):
    rng = np.random.default_rng(1)
    array = ArrayConfig(rows=3, cols=2, lanes=2, dataflow=dataflow, pe="parallel", acc_words=4)
    design = Design(array, Operand(2, SIGNED), Operand(2, UNSIGNED), 12)
    a, w = rng.integers(0, 4, (2, 7, 9)), rng.integers(-2, 2, (2, 9, 5))
    golden = stimulus(a, w, design).golden
    assert np.array_equal(results(golden, (2, 7, 5), design), a @ w)


def test_a_sum_beyond_the_accumulator_is_an_error():
    design = Design(ArrayConfig(pe="parallel"), Operand(2, SIGNED), Operand(2, UNSIGNED), 4)
    ones = np.ones((1, 1, 8), dtype=np.int64)
    with pytest.raises(RangeError, match="does not fit into accumulators of 4 bits"):
        stimulus(ones, ones.transpose(0, 2, 1), design)


def test_counts_beyond_the_controller_are_an_error():
    design = Design(ArrayConfig(pe="parallel"), Operand(1, UNSIGNED), Operand(1, UNSIGNED), 30)
    long = np.zeros((1, 1, 2**16), dtype=np.int64)
    with pytest.raises(RangeError, match="beyond the controller's 16 bits"):
        stimulus(long, long.transpose(0, 2, 1), design)


def test_parameters_are_written_into_top_and_bench():
    array = ArrayConfig(rows=3, cols=5, dataflow="is", drain="shadow", lanes=4, pe="serial")
    texts = design_sources(Design(array, Operand(3, SIGNED), Operand(2, UNSIGNED), 19), words=2**12)
    for name in ("bf_top.v", "bf_tb.v"):
        lines = ("ROWS       = 3,", "COLS       = 5,", "DATAFLOW   = 2,", "SHADOW     = 1,")
        lines += ("KIND       = 3,", "ACC        = 19,", "LB         = DATAFLOW == 2")
        assert not [line for line in lines if f"parameter {line}" not in texts[name]]
    assert "parameter WORDS      = 4096," in texts["bf_tb.v"]


def layer_with_thresholds(rng, *, grid, out):
    weight = rng.integers(-1, 2, (4, 1, 1, 3))
    table = np.sort(rng.integers(-400, 400, (4, out.levels - 1)), axis=1)
    return (
        Conv2d("conv", "x", weight, Grid.narrow(2), (1.0,), rng.integers(-50, 50, 4)),
        Thresholds("act", "conv", table, np.array([1, -1, -1, 1]), out, 1.0),
    )


@pytest.mark.parametrize("grid", [Grid.pixels(73), Grid.unsigned(2), Grid(-6, 6, 3)], ids=str)
@pytest.mark.parametrize("out", [Grid.unsigned(1), Grid.unsigned(2), Grid.unsigned(4)], ids=str)
def test_thresholds_on_sums_give_the_codes_of_thresholds_on_accumulators(grid, out):
    rng = np.random.default_rng(2)
    conv, act = layer_with_thresholds(rng, grid=grid, out=out)
    operand = Operand.of(grid)
    design = Design(ArrayConfig(pe="ternary"), Operand(2, SIGNED), operand, 14)
    tables = sum_tables(conv, act, grid, design)
    codes = grid.lo + grid.step * rng.integers(0, grid.levels, (50, 1, 1, 3))
    by_index = operand.form == UNSIGNED and (grid.lo, grid.step) != (0, 1)
    sums = (((codes - grid.lo) // grid.step if by_index else codes) @ conv.weight[:, 0, 0].T)[
        :, 0, 0
    ]
    count = (tables.entries[None] <= sums[:, :, None]).sum(2)
    index = np.where(tables.flips, act.table.shape[1] - count, count)
    want = definition.thresholds(act, definition.conv2d(conv, codes))[:, 0, 0]
    assert np.array_equal(out.lo + out.step * index, want)


def test_an_unknown_layer_is_answered_with_those_that_exist():
    conv, act = layer_with_thresholds(
        np.random.default_rng(3), grid=Grid.pixels(0), out=Grid.unsigned(2)
    )
    graph = IntGraph.of(
        [Quantize("x", (2, 2, 3), Grid.pixels(0), 1.0), conv, act, Dequantize("y", "act")]
    )
    assert find_layer(graph, None) == conv
    with pytest.raises(UsageError, match="no layer 'stem'") as caught:
        find_layer(graph, "stem")
    assert caught.value.todo == "choose from: conv"
