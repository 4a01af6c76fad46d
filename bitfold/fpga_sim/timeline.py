"""Views of a report: a Chrome/Perfetto timeline, and how busy each PE is."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import UnsupportedError
from bitfold.fpga_sim.cycles import Gemm, ceil_div
from bitfold.fpga_sim.layers import Scheduled
from bitfold.fpga_sim.report import LayerReport, Report
from bitfold.fpga_sim.schedule import step_blocks

# A layer of more blocks than this is one event: viewers choke on millions.
MOST_BLOCKS = 2000
TRACKS = ("layers", "compute", "load", "store")


def chrome_trace(report: Report) -> dict[str, object]:
    """Trace Event Format: one track each for layers, computing, loads and stores.

    Times are microseconds at the report's clock. Raises UnsupportedError in scalesim mode, which
    has no timeline.
    """
    events: list[dict[str, object]] = [
        {"ph": "M", "pid": 0, "tid": tid, "name": "thread_name", "args": {"name": name}}
        for tid, name in enumerate(TRACKS)
    ]
    begin = 0
    for layer in report.layers:
        if layer.scheduled is None:
            raise UnsupportedError(
                "SCALE-Sim's count has no timeline", where="mode", todo="Use mode native."
            )
        events += [
            {
                "ph": "X", "pid": 0, "tid": TRACKS.index(track), "name": name,
                "ts": start / report.clock_mhz, "dur": length / report.clock_mhz,
                "args": {"cycles": length, "layer": layer.name, "bound": layer.bound},
            }
            for track, name, start, length in _spans(layer, layer.scheduled, report, begin)
            if length
        ]  # fmt: skip
        begin += layer.cycles
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _spans(
    layer: LayerReport, found: Scheduled, report: Report, begin: int
) -> Iterator[tuple[str, str, int, int]]:
    """(track, name, first cycle, cycles) of a layer that starts at ``begin``."""
    yield "layers", layer.name, begin, layer.cycles
    if found.plan.blocks > MOST_BLOCKS:
        yield "compute", f"{found.plan.blocks} blocks", begin, layer.compute_cycles
        return
    blocks = step_blocks(found.job, report.port, found.plan)
    yield "load", "first block", begin, blocks[0].begin
    for i, block in enumerate(blocks):
        yield "compute", f"block {i}", begin + block.begin, block.compute
        yield "load", f"for block {i + 1}", begin + block.begin, block.load
        yield "store", f"of block {i - 1}", begin + block.begin + block.load, block.store
    end = begin + blocks[-1].end
    yield "store", "last block", end, begin + layer.cycles - end


def pe_utilisation(report: Report) -> NDArray[np.float64]:
    """(R, C) share of all cycles in which a PE multiplies operands of the layer.

    A PE beyond the ragged edge of a fold idles; lanes beyond K and layers of the vector unit do not
    count.
    """
    array = report.mapping.array
    busy = np.zeros((array.rows, array.cols))
    for layer, mapped in zip(report.layers, report.mapping.layers, strict=True):
        found = layer.scheduled
        if found is not None and found.vector:
            continue
        rows, cols = (array.rows, array.cols) if found is None else (found.rows, found.cols)
        down, across, steps = _folded(mapped.gemm, array.dataflow, array.lanes)
        visits = mapped.gemm.groups * mapped.gemm.passes * mapped.gemm.serial * steps
        part = np.outer(_active(down, rows), _active(across, cols))
        busy[:rows, :cols] += visits * part
    return busy / report.cycles


def _folded(gemm: Gemm, dataflow: str, lanes: int) -> tuple[int, int, int]:
    """What lies on the rows, on the columns, and how many steps stream by."""
    depth = ceil_div(gemm.depth, lanes)
    return {
        "os": (gemm.pixels, gemm.filters, depth),
        "ws": (depth, gemm.filters, gemm.pixels),
        "is": (depth, gemm.pixels, gemm.filters),
    }[dataflow]


def _active(size: int, units: int) -> NDArray[np.int64]:
    """In how many folds each of ``units`` rows or columns has an operand."""
    whole, rest = divmod(size, units)
    return whole + (np.arange(units) < rest)
