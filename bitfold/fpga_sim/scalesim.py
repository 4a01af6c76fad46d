"""SCALE-Sim 3.0.0's files and numbers: topology CSV in, compute report CSV out.

The equations are those of its source (docs/fpga_model.md, section 7), exact on every run compared.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bitfold.errors import InputError, UnsupportedError
from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import (
    Gemm,
    ceil_div,
    scalesim_cycles,
    scalesim_output_size,
    shadow_cycles,
    shared_cycles,
)
from bitfold.fpga_sim.mapping import mac_nodes
from bitfold.ir.graph import IntGraph
from bitfold.ir.ops import Conv2d

SCHEMA = "bitfold/simulate/1"
TOPOLOGY_HEADER = (
    "Layer name", "IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width", "Channels",
    "Num Filter", "Strides",
)  # fmt: skip
REPORT_HEADER = (
    "LayerID", "Total Cycles (incl. prefetch)", "Total Cycles", "Stall Cycles", "Overall Util %",
    "Mapping Efficiency %", "Compute Util %",
)  # fmt: skip
FIELDS = len(TOPOLOGY_HEADER)
DEPTHWISE = "DP"
WRONG = (
    "its count is the index of the last cycle: one too few a layer",
    "it starts to drain before the bottom rows have finished: RTL with a shared accumulator needs "
    "R + 1 cycles more a fold; RTL with a drain register hides the drain and needs R + C - 2 fewer",
    "it has no padding field, and rounds output sizes up where convolution rounds down",
    "edge folds cost as much as full ones, and depthwise layers run one channel after the other",
    "it knows neither bit widths nor values, resources or the overlap of folds",
)


@dataclass(frozen=True, slots=True)
class TopologyLayer:
    """One row of a topology: sizes include padding; ``copies`` equal layers of one channel (DP)."""

    name: str
    height: int
    width: int
    kernel_height: int
    kernel_width: int
    channels: int
    filters: int
    stride: int
    copies: int = 1

    @property
    def gemm(self) -> Gemm:
        """The product that SCALE-Sim sees, output sizes rounded up as it does."""
        rows = scalesim_output_size(self.height, kernel=self.kernel_height, stride=self.stride)
        cols = scalesim_output_size(self.width, kernel=self.kernel_width, stride=self.stride)
        depth = self.kernel_height * self.kernel_width * self.channels
        return Gemm(rows * cols, depth, self.filters, self.copies)


@dataclass(frozen=True, slots=True)
class LayerCount:
    """One layer as SCALE-Sim counts it, and what RTL of an output-stationary array takes."""

    name: str
    gemm: Gemm
    cycles: int
    overall_util: float
    mapping_efficiency: float
    compute_util: float
    shared_rtl: int
    shadow_rtl: int


@dataclass(frozen=True, slots=True)
class TopologyReport:
    """A topology on one array."""

    array: ArrayConfig
    layers: tuple[LayerCount, ...]

    @property
    def cycles(self) -> int:
        """SCALE-Sim's "Total Cycles", summed over its layers."""
        return sum(layer.cycles for layer in self.layers)

    def to_csv(self) -> str:
        """COMPUTE_REPORT.csv: a row per layer that SCALE-Sim would run, prefetch column empty.

        The prefetch column depends on its cycle-by-cycle DRAM queues and is not modelled.
        """
        lines = [", ".join(REPORT_HEADER) + ",", *self._rows()]
        return "\n".join(lines) + "\n"

    def _rows(self) -> list[str]:
        rows: list[str] = []
        for layer in self.layers:
            each = layer.cycles // layer.gemm.groups
            cells = (each, 0, layer.overall_util, layer.mapping_efficiency, layer.compute_util)
            text = ", ".join(str(cell) for cell in cells)
            rows += [f"{len(rows) + i}, , {text}," for i in range(layer.gemm.groups)]
        return rows

    def to_dict(self) -> dict[str, object]:
        """The JSON object; ``rtl`` holds the exact cycles of the two output-stationary arrays."""
        return {
            "schema": SCHEMA,
            "device": None,
            "array": {"rows": self.array.rows, "cols": self.array.cols,
                      "dataflow": self.array.dataflow, "mode": "scalesim"},
            "cycles": self.cycles,
            "rtl": {"shared": sum(layer.shared_rtl for layer in self.layers),
                    "shadow": sum(layer.shadow_rtl for layer in self.layers)},
            "layers": [
                {
                    "name": layer.name,
                    "cycles": layer.cycles,
                    "macs": layer.gemm.macs,
                    "utilisation": layer.overall_util / 100,
                    "mapping_efficiency": layer.mapping_efficiency / 100,
                    "compute_utilisation": layer.compute_util / 100,
                    "rtl": {"shared": layer.shared_rtl, "shadow": layer.shadow_rtl},
                }
                for layer in self.layers
            ],
            "notes": list(WRONG),
        }  # fmt: skip

    def to_text(self) -> str:
        """A table for people, and where the numbers are wrong."""
        array = self.array
        width = max(5, *(len(layer.name) for layer in self.layers))
        lines = [
            f"SCALE-Sim 3.0.0, {array.rows}x{array.cols} {array.dataflow}: {self.cycles} cycles",
            "",
            f"{'layer':<{width}} {'SCALE-Sim':>11} {'util':>7} {'OS RTL':>11} {'shadow':>11}",
        ]
        lines += [
            f"{x.name:<{width}} {x.cycles:>11} {x.overall_util:>6.2f}% {x.shared_rtl:>11} "
            f"{x.shadow_rtl:>11}"
            for x in self.layers
        ]
        return "\n".join([*lines, "", *(f"note: {text}" for text in WRONG)])


def read_topology(path: str | Path) -> tuple[TopologyLayer, ...]:
    """Read a convolution topology as SCALE-Sim does: what follows the last comma is dropped.

    A layer whose name contains ``DP`` is one layer for each of its channels. Raises InputError,
    naming the line, where a row is not eight fields or a filter is larger than its input.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"not a readable topology: {error}", where=f"file {path}") from error
    rows = [(i, line) for i, line in enumerate(lines, 1) if i > 1 and line.strip()]
    if not rows:
        raise InputError(
            "no layer after the header line", where=f"file {path}", todo="Add a row per layer."
        )
    return tuple(_read_row(line, where=f"file {path}, line {i}") for i, line in rows)


def _read_row(line: str, *, where: str) -> TopologyLayer:
    cells = [cell.strip() for cell in line.split(",")[:-1]]
    try:
        sizes = [int(cell) for cell in cells[1:FIELDS]]
        if len(sizes) != FIELDS - 1 or min(sizes) < 1:
            raise ValueError
    except ValueError as error:
        raise InputError(
            f"{cells} is not a layer",
            where=where,
            todo=f"Give {', '.join(TOPOLOGY_HEADER)} as positive integers, a comma after each.",
        ) from error
    if len(cells) > FIELDS and cells[FIELDS] not in ("", "1:1"):
        raise UnsupportedError(
            f"sparsity {cells[FIELDS]} is not modelled", where=where, todo="Use 1:1."
        )
    height, width, kernel_height, kernel_width, channels, filters, stride = sizes
    if kernel_height > height or kernel_width > width:
        raise InputError(
            f"a filter of {kernel_height}x{kernel_width} on {height}x{width}",
            where=where,
            todo="Include the padding in the input's size.",
        )
    copies, channels = (channels, 1) if DEPTHWISE in cells[0] else (1, channels)
    return TopologyLayer(
        cells[0], height, width, kernel_height, kernel_width, channels, filters, stride, copies
    )


def topology_of(graph: IntGraph) -> tuple[TopologyLayer, ...]:
    """The layers of ``graph`` as SCALE-Sim can count them.

    Padding is part of the input's size, and rows and columns that no window reaches are trimmed, so
    that rounding up gives the true output. Raises UnsupportedError for grouped layers other than
    depthwise, and for unequal strides.
    """
    found: list[TopologyLayer] = []
    for node in mac_nodes(graph):
        if not isinstance(node, Conv2d):
            filters, depth = node.weight.shape
            found.append(TopologyLayer(node.name, 1, 1, 1, 1, depth, filters, 1))
            continue
        filters, kernel_height, kernel_width, depth = node.weight.shape
        height, width = graph.types[node.name].shape[:2]
        down, across = node.stride
        if down != across or (node.groups > 1 and depth > 1):
            raise UnsupportedError(
                f"stride {node.stride}, {node.groups} groups of {depth} channels",
                where=f"node {node.name}",
                todo="SCALE-Sim has one stride and only depthwise groups.",
            )
        found.append(
            TopologyLayer(
                name=f"{node.name}_{DEPTHWISE}" if node.groups > 1 else node.name,
                height=(height - 1) * down + kernel_height,
                width=(width - 1) * across + kernel_width,
                kernel_height=kernel_height,
                kernel_width=kernel_width,
                channels=depth,
                filters=filters // node.groups,
                stride=down,
                copies=node.groups,
            )
        )
    return tuple(found)


def write_topology(layers: Sequence[TopologyLayer]) -> str:
    """The CSV that SCALE-Sim and ``read_topology`` read; names lose their commas."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator=",\n")
    rows.writerow(TOPOLOGY_HEADER)
    for layer in layers:
        rows.writerow(
            (layer.name.replace(",", "_"), layer.height, layer.width, layer.kernel_height,
             layer.kernel_width, layer.channels * layer.copies, layer.filters, layer.stride)
        )  # fmt: skip
    return stream.getvalue()


def simulate_topology(layers: Sequence[TopologyLayer], array: ArrayConfig) -> TopologyReport:
    """SCALE-Sim's counts of ``layers`` on ``array`` (mode scalesim)."""
    return TopologyReport(array, tuple(_count(layer, array) for layer in layers))


def _count(layer: TopologyLayer, array: ArrayConfig) -> LayerCount:
    """Utilisations as its source averages them: over folds, edge folds included.

    Its per-fold length for "compute util" is that of the demand matrix plus the columns again:
    OS K + R + C − 2, WS and IS streamed + 2R + 2C − 3, another number than the cycles of a fold.
    """
    gemm, rows, cols = layer.gemm, array.rows, array.cols
    p, k, m = gemm.pixels, gemm.depth, gemm.filters
    down, across, streamed = {"os": (p, m, k), "ws": (k, m, p), "is": (k, p, m)}[array.dataflow]
    folds = ceil_div(down, rows) * ceil_div(across, cols)
    mapped = down * across / (folds * array.pes)
    length = streamed + (rows + cols - 2 if array.dataflow == "os" else 2 * rows + 2 * cols - 3)
    cycles = scalesim_cycles(gemm, array)
    tiles = gemm.groups * ceil_div(p, rows) * ceil_div(m, cols)
    return LayerCount(
        name=layer.name,
        gemm=gemm,
        cycles=cycles,
        overall_util=100 * gemm.macs / (cycles * array.pes),
        mapping_efficiency=100 * mapped,
        compute_util=100 * mapped * streamed / length,
        shared_rtl=shared_cycles(k, tiles, rows=rows, cols=cols),
        shadow_rtl=shadow_cycles(max(k, array.drain_cycles), tiles, rows=rows, cols=cols),
    )
