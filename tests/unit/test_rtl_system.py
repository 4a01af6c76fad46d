"""Whole layers with a behavioural DRAM in Verilog: the cycles of the schedule, every result.

Small layers under Icarus Verilog; the long comparison is benchmarks/rtl_dram.py.
"""

import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from bitfold.errors import MismatchError, RangeError, UnsupportedError
from bitfold.fpga_sim import ArrayConfig, Gemm
from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.layers import Capacity, LayerShape, make_job, schedule_shape
from bitfold.fpga_sim.rtl import Design, Operand, stimulus
from bitfold.fpga_sim.rtl.system import SystemLayer, compile_system, port_width
from bitfold.fpga_sim.tiling import Port, Traffic, Window
from bitfold.ir import Grid

icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus Verilog (iverilog) is not installed"
)
ARRAYS = [("os", "shadow"), ("os", "shared"), ("ws", "shadow"), ("is", "shared"), ("is", "shadow")]
# (size, channels, filters, kernel, stride, groups), (bytes a cycle, latency, burst), column folds
# and share of the map on chip, whether a residual is read.
LAYERS = {
    "3x3, compute": ((8, 8, 16, 3, 1, 1), (8, 20, 16), (2, 0.5), False),
    "3x3, bandwidth": ((8, 8, 16, 3, 1, 1), (Fraction(1, 3), 20, 16), (4, 1), False),
    "stride 2, latency": ((8, 4, 16, 3, 2, 1), (2, 300, 64), (1, 0), False),
}
# Parts of rows that round to other bursts, folds of groups that are not full, drains behind a slow
# port: the closed form is near.
UNEVEN = {
    "residual": ((8, 8, 16, 3, 1, 1), (Fraction(3, 2), 64, 64), (4, 0.5), True),
    "depthwise": ((6, 8, 8, 3, 1, 8), (8, 64, 32), (2, 1), False),
    "1x1 stride 2": ((12, 16, 22, 1, 2, 1), (1, 30, 16), (4, 0.5), False),
    "fully connected": ((1, 64, 30, 1, 1, 1), (8, 64, 64), (2, 1), False),
    "ragged groups": ((7, 10, 14, 5, 1, 2), (Fraction(5, 3), 64, 4), (1, 0), True),
}


def described(dataflow, drain):
    return ArrayConfig(rows=4, cols=4, lanes=2, dataflow=dataflow, drain=drain, pe="parallel",
                       acc_words=48)  # fmt: skip


def layer_of(array, sizes, line, chip, residual):
    """A scheduled layer of 2-bit operands, 64 more bits a filter, a residual of 6 bits."""
    size, channels, filters, kernel, stride, groups = sizes
    pad = kernel // 2
    out = (size + 2 * pad - kernel) // stride + 1
    gemm = Gemm(out * out, kernel * kernel * channels // groups, filters // groups, groups)
    traffic = Traffic(
        ceil_div(filters * (gemm.depth * 2 + 64), 8),
        ceil_div(size * size * channels * 2, 8),
        ceil_div(out * out * filters * 6, 8) if residual else 0,
        ceil_div(out * out * filters * 2, 8),
    )
    words = ceil_div(gemm.depth, array.lanes)
    if array.dataflow == "is" and groups > 1:
        words *= ceil_div(gemm.filters, array.cols)
    window = Window(size, kernel, stride, out, out, kernel * kernel, pad)
    shape = LayerShape(gemm, window, traffic, words, vector=False)
    capacity = Capacity(2 * words * chip[0], 0, 0, 16, None)
    band = max(make_job(shape, array, capacity).band_bytes(1), int(traffic.inputs * chip[1]))
    capacity = replace(capacity, map=2 * ceil_div(band, 2))
    port = Port(Fraction(line[0]), line[1], line[2])
    return SystemLayer(gemm, schedule_shape(shape, array, capacity, port), port, port_width(port))


def operands(layer):
    gemm, rng = layer.gemm, np.random.default_rng(3)
    a = rng.integers(0, 4, (gemm.groups, gemm.pixels, gemm.depth))
    return a, rng.integers(-1, 2, (gemm.groups, gemm.depth, gemm.filters))


def compiled(array, folder, *, words=2**13):
    design = Design(array, Operand.of(Grid.narrow(2)), Operand.of(Grid.unsigned(2)), 12)
    return compile_system(design, folder, simulator="iverilog", words=words)


@icarus
@pytest.mark.parametrize("kind", ARRAYS, ids="-".join)
def test_a_layer_with_dram_takes_the_cycles_of_its_schedule(kind, tmp_path):
    array = described(*kind)
    bench = compiled(array, tmp_path)
    for name, parts in (LAYERS | UNEVEN).items():
        layer = layer_of(array, *parts)
        plan, found = layer.scheduled.plan, bench.run(layer, *operands(layer))
        assert (found.wrong, found.missing, found.words > 0) == (0, 0, True), name
        assert found.bytes_read + found.bytes_written >= plan.dram_bytes
        if name in LAYERS:
            assert found.cycles == plan.cycles, name
        else:
            assert found.cycles == pytest.approx(plan.cycles, rel=0.01), name


@icarus
def test_a_wrong_word_is_counted_and_a_run_that_breaks_off_refused(tmp_path, monkeypatch):
    array = described("os", "shared")
    layer = layer_of(array, *UNEVEN["depthwise"])
    a, w = operands(layer)
    with pytest.raises(RangeError, match="words in memories of 64"):
        compiled(array, tmp_path, words=64).run(layer, a, w)
    bench = compiled(array, tmp_path)
    with pytest.raises(MismatchError, match="broke off"):
        replace(bench, command=("true",)).run(layer, a, w)

    def damaged(*parts):
        product = stimulus(*parts)
        product.golden[0] ^= 1
        return product

    monkeypatch.setattr("bitfold.fpga_sim.rtl.system.stimulus", damaged)
    assert bench.run(layer, a, w).wrong == layer.scheduled.plan.blocks


def test_what_the_verilog_does_not_have_is_refused():
    layer = layer_of(described("os", "shared"), *UNEVEN["depthwise"])
    with pytest.raises(UnsupportedError, match="no vector unit"):
        replace(layer, scheduled=replace(layer.scheduled, vector=True))
