"""SCALE-Sim 3.0.0's other two reports: average bandwidths, and accesses (docs/fpga_model.md, 7).

Accesses of its on-chip memories are closed forms, equal to its own on every run compared. When they
begin and end, and all of DRAM, depends on its cycle-by-cycle queues: those columns stay empty.
"""

from dataclasses import dataclass

from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import Gemm, ceil_div
from bitfold.fpga_sim.scalesim import TopologyReport

BANDWIDTH_HEADER = (
    "LayerID", "Avg IFMAP SRAM BW", "Avg FILTER SRAM BW", "Avg OFMAP SRAM BW", "Avg IFMAP DRAM BW",
    "Avg FILTER DRAM BW", "Avg OFMAP DRAM BW",
)  # fmt: skip
ACCESS_HEADER = (
    "LayerID",
    *(
        f"{memory} {tensor} {column}"
        for memory in ("SRAM", "DRAM")
        for tensor, last in (("IFMAP", "Reads"), ("Filter", "Reads"), ("OFMAP", "Writes"))
        for column in ("Start Cycle", "Stop Cycle", last)
    ),
)


@dataclass(frozen=True, slots=True)
class Accesses:
    """Words read from the input and filter memories and written to the output memory."""

    inputs: int
    filters: int
    outputs: int


def accesses(gemm: Gemm, array: ArrayConfig) -> Accesses:
    """What one group of ``gemm`` reads and writes on chip, as SCALE-Sim counts it.

    WS and IS write every partial sum. OS adds R + C words a fold to what it writes, its own slip.
    """
    p, k, m = gemm.pixels, gemm.depth, gemm.filters
    rows, cols = array.rows, array.cols
    if array.dataflow == "os":
        down, across = ceil_div(p, rows), ceil_div(m, cols)
        return Accesses(across * p * k, down * m * k, p * m + down * across * (rows + cols))
    sums = ceil_div(k, rows) * p * m
    if array.dataflow == "ws":
        return Accesses(ceil_div(m, cols) * p * k, k * m, sums)
    return Accesses(p * k, ceil_div(p, cols) * k * m, sums)


def bandwidth_csv(report: TopologyReport) -> str:
    """BANDWIDTH_REPORT.csv: words a cycle of the on-chip memories, DRAM columns empty."""
    rows = [
        [found.inputs / each, found.filters / each, found.outputs / each, "", "", ""]
        for found, each in _layers(report)
    ]
    return _csv(BANDWIDTH_HEADER, rows)


def access_csv(report: TopologyReport) -> str:
    """DETAILED_ACCESS_REPORT.csv: accesses of the on-chip memories, the other columns empty."""
    rows = [
        ["", "", found.inputs, "", "", found.filters, "", "", found.outputs, *[""] * 9]
        for found, _ in _layers(report)
    ]
    return _csv(ACCESS_HEADER, rows)


def _layers(report: TopologyReport) -> list[tuple[Accesses, int]]:
    """Accesses and cycles of every layer that SCALE-Sim would run: a group is one."""
    return [
        (accesses(layer.gemm, report.array), layer.cycles // layer.gemm.groups)
        for layer in report.layers
        for _ in range(layer.gemm.groups)
    ]


def _csv(header: tuple[str, ...], rows: list[list[object]]) -> str:
    lines = [header, *([i, *row] for i, row in enumerate(rows))]
    return "".join(", ".join(str(cell) for cell in line) + ",\n" for line in lines)
