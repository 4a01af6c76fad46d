"""Timeline, utilisation of PEs, foldings read from files, units beside the array."""

import json

import numpy as np
import pytest

from bitfold.errors import InputError, UnsupportedError, UsageError
from bitfold.fpga_sim import ArrayConfig, map_graph, simulate
from bitfold.fpga_sim.finn import read_folding, simulate_folding, units_of
from bitfold.fpga_sim.mapping import mac_nodes
from bitfold.fpga_sim.rtl import layer_design
from bitfold.fpga_sim.timeline import chrome_trace, pe_utilisation
from bitfold.ir import Grid
from tests.unit.test_fpga_report import small_graph


def test_the_trace_covers_every_cycle_of_every_layer_once():
    report = simulate(small_graph(), array=(8, 4), clock_mhz=100)
    events = [e for e in chrome_trace(report)["traceEvents"] if e["ph"] == "X"]
    layers = [e for e in events if e["tid"] == 0]
    assert [e["args"]["cycles"] for e in layers] == [x.cycles for x in report.layers]
    assert layers[0]["dur"] == report.layers[0].cycles / 100
    for layer in report.layers:
        mine = [e for e in events if e["args"]["layer"] == layer.name]
        computing = sum(e["args"]["cycles"] for e in mine if e["tid"] == 1)
        assert computing == layer.compute_cycles
        assert max(e["ts"] + e["dur"] for e in mine) <= mine[0]["ts"] + mine[0]["dur"] + 1e-6


def test_scalesim_mode_has_no_timeline():
    with pytest.raises(UnsupportedError, match="no timeline"):
        chrome_trace(simulate(small_graph(), mode="scalesim"))


def test_a_pe_is_busy_in_the_folds_that_reach_it():
    report = simulate(small_graph(), array=(8, 4), lanes=1)
    busy = pe_utilisation(report)
    # Of 10 filters in 4 columns the last two columns see two folds, of one pixel one row works.
    steps = 16 * 8 * 9 + 8 * 36
    assert np.isclose(busy[1, 0] * report.cycles, steps)
    assert np.isclose(busy[0, 0] * report.cycles, steps + 4 * 256 * 3)
    assert np.isclose(busy[0, 3] * report.cycles, steps + 4 * 256 * 2)
    assert np.isclose(busy.mean(), report.utilisation)


def test_the_vector_unit_takes_depthwise_layers_off_the_array():
    graph = small_graph(groups=4)
    slow = simulate(graph, array=(8, 4))
    fast = simulate(graph, config=ArrayConfig(rows=8, cols=4, depthwise="vector", vector_taps=3))
    inner = fast.layers[1]
    # 64 pixels, 4 channels at once, 9 taps in 3 steps; 3 registers and a tree of 2 levels.
    assert inner.compute_cycles == 64 * 3 + 3 + 2
    assert inner.compute_cycles * 4 * 3 >= inner.macs
    assert inner.cycles < slow.layers[1].cycles
    assert slow.layers[1].bound == "depthwise"
    assert inner.scheduled.vector
    assert fast.resources.lut > slow.resources.lut
    assert 0 < inner.utilisation <= 1


@pytest.mark.parametrize(
    ("changes", "todo"),
    [
        ({"weight_words": 100}, "Use weight_words 2048 or more"),
        ({"tile_words": 511}, "Use tile_words 512 or more"),
        ({"map_words": 10}, "Use map_words 64 or more"),
        ({"output_words": 15}, "Use output_words 16 or more"),
    ],
)
def test_a_buffer_smaller_than_a_tile_is_refused_with_what_would_fit(changes, todo):
    with pytest.raises(UsageError, match="smaller than two tiles of layer") as caught:
        simulate(small_graph(), config=ArrayConfig(rows=8, cols=4, **changes))
    assert caught.value.todo.startswith(todo)
    fits = {key: int(caught.value.todo.split()[2]) for key in changes}
    assert simulate(small_graph(), config=ArrayConfig(rows=8, cols=4, **fits)).cycles > 0


def test_an_accumulator_that_overflows_is_refused_with_what_would_fit():
    with pytest.raises(UsageError, match="overflow an accumulator of 8") as caught:
        simulate(small_graph(), config=ArrayConfig(acc_bits=8))
    bits = int(caught.value.todo.split()[2].rstrip(","))
    with pytest.raises(UsageError):
        simulate(small_graph(), config=ArrayConfig(acc_bits=bits - 1))


def test_a_serial_array_takes_a_cycle_for_every_pair_of_bits():
    report = simulate(small_graph(), config=ArrayConfig(rows=8, cols=4, pe="serial"))
    first, inner, _ = report.layers
    assert first.compute_cycles == 8 * (9 * 64 + 16 + 4 - 1) + 1
    # An odd code of two bits is three planes of two's complement.
    assert inner.compute_cycles == 8 * (36 * 3 * 2 + 16 + 4 - 1) + 1
    assert (report.mapping.w_kind, report.mapping.a_kind) == ("1", "1")


@pytest.mark.parametrize("weight", [Grid.odd(1), Grid.odd(2), Grid.narrow(2), Grid.odd(4)])
def test_a_serial_array_counts_the_planes_that_its_verilog_takes(weight):
    graph, array = small_graph(inner=weight), ArrayConfig(rows=2, cols=3, pe="serial")
    for node, layer in zip(mac_nodes(graph), map_graph(graph, array).layers, strict=True):
        assert layer.gemm.serial == layer_design(graph, node, array).serial


def test_dsp_pes_pack_two_products_a_block():
    config = ArrayConfig(rows=8, cols=4, pe="dsp", lanes=4)
    assert simulate(small_graph(), config=config).resources.dsp == 8 * 4 * 2
    with pytest.raises(UsageError, match="3 lanes do not divide into DSP blocks of 2 products"):
        simulate(small_graph(), config=ArrayConfig(pe="dsp", lanes=3))


def test_buffers_in_ultraram_count_there():
    report = simulate(small_graph(), config=ArrayConfig(rows=8, cols=4, map_ram="uram"))
    assert report.resources.uram == 1


def folding_file(tmp_path, **changes):
    rows = {"Defaults": {}, "MVAU_hls_0": {"PE": 2, "SIMD": 3}, "MVAU_rtl_1": {"PE": 5, "SIMD": 8},
            "VVAU_hls_0": {"PE": 4, "SIMD": 9, "ram_style": "distributed"}}  # fmt: skip
    path = tmp_path / "folding.json"
    path.write_text(json.dumps(rows | changes), "utf-8")
    return path


def test_a_folding_of_a_graph_is_estimated_as_finn_does(tmp_path):
    units = units_of(small_graph(groups=4))
    report = simulate_folding(
        units, read_folding(folding_file(tmp_path)), clock_mhz=100, where="file"
    )
    assert [count.cycles for count in report.units] == [
        4 * 9 // 6 * 64, 4 * 9 // 36 * 64, 10 * 256 // 40,
    ]  # fmt: skip
    assert [count.bram18 > 0 for count in report.units] == [True, False, True]
    assert "every 384 cycles" in report.to_text()


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        ({"MVAU_hls_0": {"PE": 3, "SIMD": 3}}, UsageError, "PE 3 does not divide 4"),
        ({"MVAU_rtl_1": {"PE": 5, "SIMD": 7}}, UsageError, "SIMD 7 does not divide 256"),
        ({"VVAU_hls_0": 3}, InputError, "not a folding"),
        ({"MVAU_hls_0": {"SIMD": 3}}, InputError, "not a folding"),
        ({"MVAU_hls_0": {"PE": 0}}, InputError, "not a folding"),
    ],
)
def test_a_folding_that_does_not_divide_is_refused(tmp_path, changes, error, what):
    units = units_of(small_graph(groups=4))
    with pytest.raises(error, match=what):
        simulate_folding(
            units, read_folding(folding_file(tmp_path, **changes)), clock_mhz=100, where="file"
        )


def test_a_unit_without_a_folding_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no folding for MVAU_1 \(inner\)"):
        simulate_folding(
            units_of(small_graph()), ({0: read_folding(folding_file(tmp_path))[0][0]}, {}),
            clock_mhz=100, where="file",
        )  # fmt: skip
