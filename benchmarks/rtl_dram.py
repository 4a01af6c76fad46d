"""Cycles of whole layers with DRAM: the schedule's against Verilog with a behavioural DRAM.

    python benchmarks/rtl_dram.py [--out benchmarks/results/rtl_dram.json] [--limit N]

The array, its controller, a loader and a writer that work out from the layer's geometry what each
block needs, and a DRAM with a port of some width, latency and burst run under Verilator; every sum
is compared. The layers are those of the embedded ResNet-20 with the buffers and traffic that
`simulate` gives them, and layers of larger networks with small, middling and large buffers behind
fast, slow, distant and uneven ports. Needs `verilator`. What is in the output file is not run
again.
"""

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from bitfold.export import from_checkpoint
from bitfold.files import write_atomically
from bitfold.fpga_sim import ArrayConfig, Gemm, simulate
from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.layers import Capacity, LayerShape, make_job, schedule_shape
from bitfold.fpga_sim.rtl import Design, Operand
from bitfold.fpga_sim.rtl.system import SystemBench, SystemLayer, compile_system, port_width
from bitfold.fpga_sim.tiling import Port, Traffic, Window
from bitfold.ir import Grid

EMBEDDED = Path(__file__).parents[1] / "bitfold" / "data" / "resnet20_w2a2.pt"
BITS = 2
ACC_BITS = 16
WEIGHTS, CODES = Grid.narrow(BITS), Grid.unsigned(BITS)
# Three thresholds and a bias of a filter, and a residual stream, in bits.
FILTER_BITS, STREAM_BITS = 4 * ACC_BITS, 6
# name: (size, channels, filters, kernel, stride, groups, whether a residual is added)
LAYERS = {
    "resnet20 l1": (32, 16, 16, 3, 1, 1, False),
    "resnet20 l2 s2": (32, 16, 32, 3, 2, 1, False),
    "resnet20 l2 1x1 s2": (32, 16, 32, 1, 2, 1, False),
    "resnet20 l3 residual": (8, 64, 64, 3, 1, 1, True),
    "resnet18 l3 1x1 s2": (28, 128, 256, 1, 2, 1, False),
    "resnet18 l4": (7, 256, 256, 3, 1, 1, False),
    "resnet18 fc": (1, 512, 1000, 1, 1, 1, False),
    "mobilenet dw": (14, 64, 64, 3, 1, 64, False),
    "mobilenet dw s2": (28, 48, 48, 3, 2, 48, False),
    "mobilenet 1x1": (28, 64, 128, 1, 1, 1, False),
    "alexnet groups": (13, 96, 128, 3, 1, 2, False),
    "ragged 5x5": (19, 11, 21, 5, 1, 1, True),
}
# name: (bytes a cycle, cycles before the first byte, bytes of a burst)
PORTS = {
    "fast": (Fraction(16), 64, 64),
    "slow": (Fraction(3, 4), 64, 64),
    "distant": (Fraction(8), 800, 64),
    "uneven": (Fraction(40, 3), 30, 32),
}
# name: (column folds in half the weight buffer, share of the map in half the map buffer)
BUFFERS = {"small": (1, Fraction(0)), "middling": (3, Fraction(1, 3)), "large": (99, Fraction(2))}
DESIGNS = {
    "os shadow 8x8": ArrayConfig(rows=8, cols=8, lanes=4, drain="shadow"),
    "os shared 8x8": ArrayConfig(rows=8, cols=8, lanes=4),
    "ws shadow 8x8": ArrayConfig(rows=8, cols=8, lanes=4, dataflow="ws", drain="shadow"),
    "is shadow 8x8": ArrayConfig(rows=8, cols=8, lanes=4, dataflow="is", drain="shadow"),
    "ws shared 6x10": ArrayConfig(rows=6, cols=10, lanes=2, dataflow="ws", acc_words=128),
    "os shadow 12x5": ArrayConfig(rows=12, cols=5, lanes=8, drain="shadow"),
}
NETWORK = "os shadow 8x8"  # the design on which all layers of the embedded network run
NETWORK_DEVICES = ("zu3eg", "a35t")


@dataclass(frozen=True)
class Case:
    """A layer on a design, behind a port."""

    design: str
    layer: str
    port: str
    buffers: str
    system: SystemLayer

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from the others."""
        return self.design, self.layer, self.port, self.buffers


def conv(array: ArrayConfig, layer: str, port: str, buffers: str) -> SystemLayer:
    """A layer of ``LAYERS``, scheduled with buffers and a port of the tables."""
    size, channels, filters, kernel, stride, groups, residual = LAYERS[layer]
    pad = kernel // 2
    out = (size + 2 * pad - kernel) // stride + 1
    gemm = Gemm(out * out, kernel * kernel * channels // groups, filters // groups, groups)
    traffic = Traffic(
        constants=ceil_div(filters * (gemm.depth * BITS + FILTER_BITS), 8),
        inputs=ceil_div(size * size * channels * BITS, 8),
        others=ceil_div(out * out * filters * STREAM_BITS, 8) if residual else 0,
        writes=ceil_div(out * out * filters * BITS, 8),
    )
    # A group is not cut where its filters stream.
    streamed = array.dataflow == "is" and groups > 1
    words = ceil_div(gemm.depth, array.lanes)
    words *= ceil_div(gemm.filters, array.cols) if streamed else 1
    window = Window(size, kernel, stride, out, out, kernel * kernel, pad)
    shape = LayerShape(gemm, window, traffic, words, vector=False)
    columns, part = BUFFERS[buffers]
    width = array.rows * array.lanes * BITS
    capacity = Capacity(2 * words * columns, 0, 0, width, None)
    band = max(make_job(shape, array, capacity).band_bytes(1), int(traffic.inputs * part))
    capacity = replace(capacity, map=2 * ceil_div(8 * band, width))
    rate, latency, burst = PORTS[port]
    line = Port(rate, latency, burst)
    return SystemLayer(gemm, schedule_shape(shape, array, capacity, line), line, port_width(line))


def network(device: str, array: ArrayConfig) -> list[tuple[str, SystemLayer]]:
    """Every layer of the embedded network as ``simulate`` schedules it."""
    wide = replace(array, edge="wide")
    report = simulate(from_checkpoint(EMBEDDED), device=device, config=wide)
    width = port_width(report.port)
    found = []
    for mapped, layer in zip(report.mapping.layers, report.layers, strict=True):
        assert layer.scheduled is not None  # only in scalesim mode
        found.append((layer.name, SystemLayer(mapped.gemm, layer.scheduled, report.port, width)))
    return found


def cases(design: str) -> Iterator[Case]:
    """All layers of ``LAYERS``, ports and buffers in turn; the network on one design."""
    array = DESIGNS[design]
    if design == NETWORK:
        for device in NETWORK_DEVICES:
            for name, system in network(device, array):
                yield Case(design, f"network {name}", device, "own", system)
    pairs = [(port, buffers) for buffers in BUFFERS for port in PORTS]
    for i, layer in enumerate(LAYERS):
        # Two of the twelve pairs a layer, so that each design sees all of them.
        turn = i + 5 * list(DESIGNS).index(design)
        for port, buffers in {pairs[turn % 12], pairs[(turn + 7) % 12]}:
            yield Case(design, layer, port, buffers, conv(array, layer, port, buffers))


def measure(case: Case, bench: SystemBench) -> dict[str, object]:
    """Both counts of one case."""
    gemm, plan = case.system.gemm, case.system.scheduled.plan
    rng = np.random.default_rng(zlib.crc32(repr(case.key).encode()))
    a = rng.integers(0, 1 << BITS, (gemm.groups, gemm.pixels, gemm.depth))
    w = rng.integers(WEIGHTS.lo, WEIGHTS.hi + 1, (gemm.groups, gemm.depth, gemm.filters))
    found = bench.run(case.system, a, w)
    return {
        "design": case.design,
        "layer": case.layer,
        "port": case.port,
        "buffers": case.buffers,
        "blocks": plan.blocks,
        "model": plan.cycles,
        "rtl": found.cycles,
        "error": plan.cycles / found.cycles - 1,
        "stall": plan.stall_cycles / plan.cycles,
        "port_busy": found.busy / found.cycles,
        "bytes_read": found.bytes_read,
        "bytes_written": found.bytes_written,
        "words": found.words,
        "wrong_words": found.wrong,
        "missing_rows": found.missing,
    }


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    """Median and worst of the absolute errors, and what was compared."""
    errors = sorted(abs(float(str(row["error"]))) for row in rows)
    return {
        "cases": len(rows),
        "equal": sum(row["model"] == row["rtl"] for row in rows),
        "median": statistics.median(errors),
        "worst": errors[-1],
        "rtl_cycles": sum(int(str(row["rtl"])) for row in rows),
        "words": sum(int(str(row["words"])) for row in rows),
        "wrong_words": sum(int(str(row["wrong_words"])) for row in rows),
        "missing_rows": sum(int(str(row["missing_rows"])) for row in rows),
    }


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Everything so far, the worst first."""
    version = subprocess.run(["verilator", "--version"], capture_output=True, text=True, check=True)
    head = {
        "command": "python benchmarks/rtl_dram.py",
        "verilator": version.stdout.strip(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "summary": summary(rows),
    }
    ordered = sorted(rows, key=lambda row: -abs(float(str(row["error"]))))
    text = json.dumps(head, indent=1).removesuffix("\n}")
    lines = ",\n  ".join(json.dumps(row) for row in ordered)
    write_atomically(path, f'{text},\n "rows": [\n  {lines}\n ]\n}}\n'.encode())


def design_of(array: ArrayConfig) -> Design:
    """The array for operands of two bits."""
    settled = replace(array, pe="parallel")
    return Design(settled, Operand.of(WEIGHTS), Operand.of(CODES), ACC_BITS)


def main() -> None:
    """Run what is missing in the output file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rtl_dram.json"))
    parser.add_argument("--limit", type=int, default=None, help="designs to run at most")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    done = {(row["design"], row["layer"], row["port"], row["buffers"]) for row in rows}
    wanted = {name: [case for case in cases(name) if case.key not in done] for name in DESIGNS}
    missing = [name for name in DESIGNS if wanted[name]]
    with tempfile.TemporaryDirectory() as library:
        for name in missing[: options.limit]:
            with tempfile.TemporaryDirectory() as folder:
                bench = compile_system(
                    design_of(DESIGNS[name]), Path(folder), simulator="verilator", words=2**19,
                    library=Path(library),
                )  # fmt: skip
                for case in wanted[name]:
                    rows.append(measure(case, bench))
                    print(" ".join(str(value) for value in rows[-1].values()), flush=True)
                    write(options.out, rows)


if __name__ == "__main__":
    main()
