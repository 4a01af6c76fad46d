"""SCALE-Sim's files: topologies read and written, reports, and its totals of whole networks."""

import csv
from pathlib import Path

import pytest

from bitfold.errors import InputError, UnsupportedError
from bitfold.fpga_sim import ArrayConfig
from bitfold.fpga_sim.scalesim import (
    REPORT_HEADER,
    TopologyLayer,
    read_topology,
    simulate_topology,
    topology_of,
    write_topology,
)
from bitfold.fpga_sim.scalesim_access import (
    ACCESS_HEADER,
    BANDWIDTH_HEADER,
    access_csv,
    bandwidth_csv,
)
from tests.unit.test_fpga_report import small_graph

GOLDEN = Path(__file__).parents[1] / "golden" / "scalesim"
HEADER = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"  # fmt: skip  # noqa: E501
# (channels, size, filters, stride) of MobileNet-V1's depthwise-separable blocks at 224 x 224.
MOBILENET = (
    (32, 112, 64, 1), (64, 112, 128, 2), (128, 56, 128, 1), (128, 56, 256, 2), (256, 28, 256, 1),
    (256, 28, 512, 2), *((512, 14, 512, 1),) * 5, (512, 14, 1024, 2), (1024, 7, 1024, 1),
)  # fmt: skip


def golden_rows(path):
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def array_of(path):
    flow, size = path.stem.split("_")[-2:]
    side = int(size.split("x")[0])
    return ArrayConfig(rows=side, cols=side, dataflow=flow, mode="scalesim")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.csv")), ids=lambda p: p.stem)
def test_every_column_of_the_compute_report_but_prefetch_is_equal(path):
    for row in golden_rows(path):
        pixels, depth, filters = (int(row[key]) for key in "PKM")
        layer = TopologyLayer(row["layer"], pixels, 1, 1, 1, depth, filters, 1)
        (found,) = simulate_topology([layer], array_of(path)).layers
        assert found.cycles == int(row["scalesim_total_cycles"])
        assert int(row["stall"]) == 0
        shown = (found.overall_util, found.mapping_efficiency, found.compute_util)
        golden = ("overall_util_pct", "mapping_eff_pct", "compute_util_pct")
        assert [f"{x:.2f}" for x in shown] == [f"{float(row[key]):.2f}" for key in golden]


@pytest.mark.parametrize(
    ("flow", "total"), [("os", 2_133_315), ("ws", 2_855_031), ("is", 3_400_155)]
)
def test_resnet18_from_its_topology_file_has_scalesims_total(tmp_path, flow, total):
    body = [(229, 7, 3, 64, 2), *[(58, 3, 64, 64, 1)] * 4]
    for size, channels in ((56, 64), (28, 128), (14, 256)):
        body += [
            (size + 1, 3, channels, 2 * channels, 2),
            *[(size // 2 + 2, 3, 2 * channels, 2 * channels, 1)] * 3,
            (size - 1, 1, channels, 2 * channels, 2),
        ]
    body.append((1, 1, 512, 1000, 1))
    lines = [f"layer{i}, {s}, {s}, {k}, {k}, {c}, {m}, {t},\n"
             for i, (s, k, c, m, t) in enumerate(body)]  # fmt: skip
    path = tmp_path / "resnet18.csv"
    path.write_text(HEADER + "".join(lines), "utf-8")
    array = ArrayConfig(rows=32, cols=32, dataflow=flow, mode="scalesim")
    report = simulate_topology(read_topology(path), array)
    assert len(report.layers) == 21
    assert report.cycles == total
    assert sum(layer.gemm.macs for layer in report.layers) == 1_814_073_344


def test_mobilenet_v1_depthwise_layers_run_a_channel_at_a_time(tmp_path):
    layers = [TopologyLayer("conv1", 225, 225, 3, 3, 3, 32, 2)]
    for i, (channels, size, filters, stride) in enumerate(MOBILENET):
        out = size // stride
        side = (out - 1) * stride + 3
        layers.append(TopologyLayer(f"c{i}_DP", side, side, 3, 3, 1, 1, stride, channels))
        layers.append(TopologyLayer(f"c{i}", out, out, 1, 1, channels, filters, 1))
    layers.append(TopologyLayer("fc", 1, 1, 1, 1, 1024, 1000, 1))
    path = tmp_path / "mobilenet.csv"
    path.write_text(write_topology(layers), "utf-8")
    assert read_topology(path) == tuple(layers)
    array = ArrayConfig(rows=32, cols=32, mode="scalesim")
    report = simulate_topology(read_topology(path), array)
    assert sum(layer.gemm.macs for layer in report.layers) == 568_740_352
    depthwise = report.layers[1]
    assert depthwise.cycles == 32 * (392 * (9 + 32 + 32 - 2) - 1)
    # One row a layer that SCALE-Sim runs: each channel is one.
    rows = report.to_csv().splitlines()[1:]
    assert len(rows) == 15 + sum(block[0] for block in MOBILENET)


def test_the_report_file_has_scalesims_header_and_a_row_a_layer():
    layer = TopologyLayer("g1", 324, 1, 1, 1, 144, 32, 1)
    array = ArrayConfig(rows=4, cols=4, mode="scalesim")
    lines = simulate_topology([layer], array).to_csv().splitlines()
    assert lines[0] == ", ".join(REPORT_HEADER) + ","
    cells = [cell.strip() for cell in lines[1].split(",")]
    assert (cells[0], cells[1], cells[2], cells[3]) == ("0", "", "97199", "0")
    assert float(cells[4]) == 100 * 324 * 144 * 32 / (97199 * 16)


def test_the_other_reports_have_its_columns_and_leave_dram_empty():
    layer = TopologyLayer("g1", 324, 1, 1, 1, 144, 32, 1)
    report = simulate_topology([layer], ArrayConfig(rows=4, cols=4, mode="scalesim"))
    header, row = (
        [cell.strip() for cell in line.split(",")[:-1]]
        for line in bandwidth_csv(report).splitlines()
    )
    assert header == list(BANDWIDTH_HEADER)
    assert row == ["0", *[str(n / 97199) for n in (373248, 373248, 15552)], "", "", ""]
    header, row = (
        [cell.strip() for cell in line.split(",")[:-1]] for line in access_csv(report).splitlines()
    )
    assert header == list(ACCESS_HEADER)
    found = dict(zip(header, row, strict=True))
    assert found["SRAM OFMAP Writes"] == "15552"
    assert {value for key, value in found.items() if "DRAM" in key or "Cycle" in key} == {""}


def test_a_graph_becomes_a_topology_of_padded_and_trimmed_sizes():
    first, inner, last = topology_of(small_graph(groups=4))
    assert (first.height, first.kernel_height, first.channels, first.gemm.pixels) == (10, 3, 1, 64)
    assert (inner.name, inner.copies, inner.filters) == ("inner_DP", 4, 1)
    assert (last.gemm.depth, last.gemm.filters) == (256, 10)


@pytest.mark.parametrize(
    ("row", "error", "what"),
    [
        ("a, 8, 8, 3, 3, 1, 4, 1", InputError, "is not a layer"),
        ("a, 8, 8, 3, x, 1, 4, 1,", InputError, "is not a layer"),
        ("a, 8, 8, 3, 3, 0, 4, 1,", InputError, "is not a layer"),
        ("a, 2, 8, 3, 3, 1, 4, 1,", InputError, "a filter of 3x3 on 2x8"),
        ("a, 8, 8, 3, 3, 1, 4, 1, 2:4,", UnsupportedError, "sparsity 2:4"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, error, what):
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "b, 8, 8, 3, 3, 1, 4, 1,\n" + row + "\n", "utf-8")
    with pytest.raises(error, match=what) as caught:
        read_topology(path)
    assert caught.value.where.endswith("line 3")


def test_an_empty_or_missing_topology_is_an_input_error(tmp_path):
    (tmp_path / "t.csv").write_text(HEADER, "utf-8")
    for name in ("t.csv", "none.csv"):
        with pytest.raises(InputError):
            read_topology(tmp_path / name)
