"""Mapping, memory, resources and the report of small fixed graphs."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from bitfold.errors import UnsupportedError, UsageError
from bitfold.fpga_sim import ArrayConfig, Gemm, compute_cycles, map_graph, simulate
from bitfold.fpga_sim.memory import bram18, buffers, layer_bytes, layer_traffic
from bitfold.fpga_sim.resources import dsp_blocks
from bitfold.ir import Conv2d, Dequantize, Grid, IntGraph, Linear, Quantize, Reshape, Thresholds


def small_graph(*, groups: int = 1, inner: Grid | None = None) -> IntGraph:
    """8-bit 3x3 on 8x8x1 → 4 channels of 2 bits → inner 3x3 → flat → 8-bit Linear to 10."""
    codes = Grid.unsigned(2)
    table = np.tile(np.arange(3), (4, 1))
    ones, pad = np.ones(4, np.int64), (1, 1, 1, 1)
    eight, inner = Grid.narrow(8), inner or Grid.odd(2)
    first, middle = np.ones((4, 3, 3, 1), np.int64), np.ones((4, 3, 3, 4 // groups), np.int64)
    last = np.ones((10, 256), np.int64)
    zero = np.zeros(4, np.int64)
    return IntGraph.of(
        (
            Quantize("image", (8, 8, 1), Grid.pixels(128), 0.01),
            Conv2d("first", "image", first, eight, (1.0,), zero, padding=pad),
            Thresholds("p", "first", table, ones, codes, 1.0),
            Conv2d("inner", "p", middle, inner, (1.0,), zero, padding=pad, groups=groups),
            Thresholds("q", "inner", table, ones, codes, 1.0),
            Reshape("flat", "q", (256,)),
            Linear("last", "flat", last, eight, (1.0,), np.zeros(10, np.int64)),
            Dequantize("logits", "last"),
        )
    )


def test_eight_bit_layers_run_in_passes_on_a_low_bit_array():
    mapping = map_graph(small_graph(), ArrayConfig(rows=8, cols=4))
    assert (mapping.w_kind, mapping.a_kind) == ("2", "2")
    assert [layer.gemm for layer in mapping.layers] == [
        Gemm(64, 9, 4, passes=16),
        Gemm(64, 36, 4),
        Gemm(1, 256, 10, passes=4),
    ]


def test_wide_edges_build_wide_pes():
    mapping = map_graph(small_graph(), ArrayConfig(edge="wide"))
    assert (mapping.w_kind, mapping.a_kind) == ("8", "8")
    assert [layer.gemm.passes for layer in mapping.layers] == [1, 1, 1]


def test_passes_multiply_the_tiles():
    one, sixteen = Gemm(64, 9, 4), Gemm(64, 9, 4, passes=16)
    array = ArrayConfig(rows=8, cols=4)
    assert compute_cycles(one, array) == 8 * (9 + 16 + 4 - 1) + 1
    assert compute_cycles(sixteen, array) == 16 * 8 * (9 + 16 + 4 - 1) + 1


def test_a_depthwise_layer_keeps_one_column_busy():
    report = simulate(small_graph(groups=4), array=(8, 4), dram_bytes_per_cycle=1e6)
    inner = report.layers[1]
    assert inner.compute_cycles == 4 * 8 * (9 + 16 + 4 - 1) + 1
    assert inner.utilisation == 64 * 9 * 4 / (32 * inner.cycles)
    assert inner.utilisation < 1 / 4


def test_a_ternary_operand_needs_two_full_bits_where_digits_pass_through_it():
    graph = small_graph(inner=Grid.narrow(2))
    assert map_graph(graph, ArrayConfig()).w_kind == "2"
    assert map_graph(graph, ArrayConfig(a_bits=8, w_bits=8)).w_kind == "8"


def test_dram_bytes_are_packed_bits_rounded_up_per_tensor():
    sizes = layer_bytes(small_graph())
    # weights 8 bits, biases and tables by proven range; codes 64·4·2 bits = 64 bytes.
    bias, table = 4 * 12, 12 * 12 + 4  # sums of -1152 to 1143
    assert sizes["first"] == 64 + (36 * 8 + bias + 7) // 8 + (table + 7) // 8 + 64
    bias, table = 4 * 8, 12 * 8 + 4  # sums of 0 to 108
    assert sizes["inner"] == 64 + (144 * 2 + bias + 7) // 8 + (table + 7) // 8 + 64
    assert sizes["last"] == 64 + (2560 * 8 + 10 * 11 + 7) // 8 + (10 * 11 + 7) // 8


def test_blocks_load_compute_and_store_side_by_side():
    config = ArrayConfig(rows=8, cols=4, dram_latency=10, dram_burst=1, dram_bytes_per_cycle=0.25)
    report = simulate(small_graph(), config=config)
    sizes = layer_bytes(small_graph())
    last, moved = report.layers[-1], layer_traffic(small_graph())["last"]
    assert last.dram_bytes == sizes["last"] == moved.total
    assert (last.plan.rows, last.plan.columns, last.plan.blocks) == (1, 1, 3)
    # 10 filters in folds of 4: the buffer holds the weights of one fold at a time.
    share = [math.ceil(part / 3) for part in (moved.constants, moved.writes)]
    load, store = (10 + 4 * part for part in share)
    compute = last.compute_cycles // 3
    first = load + 4 * moved.inputs
    want = first + max(compute, load) + max(compute, load + store) + max(compute, store) + store
    assert last.cycles == want + 1
    assert last.bound == "bandwidth"


def test_with_an_instant_memory_a_layer_takes_its_compute_cycles_and_two_transfers():
    config = ArrayConfig(rows=8, cols=4, dram_latency=0, dram_bytes_per_cycle=1e9)
    report = simulate(small_graph(), config=config)
    for layer, mapped in zip(report.layers, report.mapping.layers, strict=True):
        assert layer.compute_cycles == compute_cycles(mapped.gemm, report.mapping.array)
        assert layer.stall_cycles == 2


@pytest.mark.parametrize(
    ("width", "depth", "blocks"),
    [(1, 16384, 1), (1, 16385, 2), (2, 8192, 1), (4, 4097, 2), (9, 2048, 1), (18, 1024, 1),
     (32, 512, 1), (32, 513, 2), (36, 512, 1), (37, 512, 2), (64, 1025, 8)],
)  # fmt: skip
def test_block_ram_follows_the_aspect_ratios(width, depth, blocks):
    assert bram18(width, depth) == blocks


def test_buffers_are_doubled_and_hold_all_digits():
    graph = small_graph()
    parts = buffers(graph, map_graph(graph, ArrayConfig(rows=8, cols=4)))
    assert [(part.width, part.depth) for part in parts] == [
        (8, 2 * 256 * 4),
        (16, 2 * 256),
        (16, 2 * 32),
    ]


def test_a_product_needs_one_block_up_to_25_by_18_bits_either_way_round():
    blocks = [dsp_blocks(*bits) for bits in ((25, 18), (18, 25), (26, 18), (1, 1), (42, 32))]
    assert blocks == [1, 1, 2, 1, 4]


def test_the_report_has_the_promised_fields():
    found = json.loads(json.dumps(simulate(small_graph(), array=(8, 4)).to_dict()))
    assert list(found)[:9] == [
        "schema", "device", "array", "clock_mhz", "cycles", "latency_ms", "images_per_s",
        "utilisation", "dram_bytes",
    ]  # fmt: skip
    assert found["schema"] == "bitfold/simulate/1"
    assert {"resources", "available", "fits", "layers", "model_error"} <= set(found)
    assert {"rows", "cols", "dataflow", "w_bits", "a_bits", "lanes", "drain"} <= set(found["array"])
    assert {"lut", "ff", "dsp", "bram36", "uram"} <= set(found["resources"])
    assert set(found["available"]) == {"lut", "ff", "dsp", "bram36", "uram"}
    assert {"cycles", "lut", "source"} == set(found["model_error"])
    assert {"name", "cycles", "compute_cycles", "stall_cycles", "utilisation", "dram_bytes"} <= set(
        found["layers"][0]
    )


def test_the_clock_is_a_parameter_with_the_devices_default():
    graph = small_graph()
    assert simulate(graph, device="pynq-z2").clock_mhz == 100
    assert simulate(graph, device="zu3eg").clock_mhz == 200
    report = simulate(graph, clock_mhz=50)
    assert report.latency_ms == report.cycles / 50_000


def test_an_array_too_large_does_not_fit_and_says_in_what():
    report = simulate(small_graph(), device="z7010", array=(64, 64))
    assert report.fits is False
    assert report.verdicts == {
        "lut": False, "ff": False, "dsp": True, "bram36": True, "uram": True
    }  # fmt: skip
    assert "DOES NOT FIT" in report.to_text()


def test_given_arguments_override_the_configuration():
    config = ArrayConfig(rows=4, cols=4, drain="shadow")
    array = simulate(small_graph(), array=(8, 2), config=config).mapping.array
    assert (array.rows, array.cols, array.drain) == (8, 2, "shadow")


def test_scalesim_mode_counts_as_scalesim_and_estimates_no_resources():
    report = simulate(small_graph(), array=(8, 4), mode="scalesim", dataflow="ws")
    assert [layer.cycles for layer in report.layers] == [
        2 * 1 * (64 + 16 + 4 - 2) - 1,
        5 * 1 * (64 + 16 + 4 - 2) - 1,
        32 * 3 * (1 + 16 + 4 - 2) - 1,
    ]
    found = report.to_dict()
    assert found["fits"] is None
    assert found["resources"] == dict.fromkeys(("lut", "ff", "dsp", "bram36", "uram"))
    assert "models no FPGA resources" in report.to_text()


def test_a_graph_without_products_is_not_supported():
    graph = IntGraph.of(
        (Quantize("image", (2, 2, 1), Grid.pixels(0), 1.0), Dequantize("y", "image"))
    )
    with pytest.raises(UnsupportedError, match="nothing runs on the array"):
        simulate(graph)


def test_an_unknown_device_is_a_usage_error():
    with pytest.raises(UsageError, match="unknown device 'virtex'"):
        simulate(small_graph(), device="virtex")


def test_simulating_loads_neither_torch_nor_onnx_nor_numba():
    code = (
        "import sys, bitfold.fpga_sim; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'onnx', 'numba')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
