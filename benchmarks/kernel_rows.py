"""Times every row of the kernel table on the layers of ResNet-20 (32x32), one thread.

    python benchmarks/kernel_rows.py [--out kernel_rows.json] [--rounds 100] [--mhz 3400]

Rows take turns in every round; printed are the median and the minimum in microseconds, and
multiply-accumulates per cycle where ``--mhz`` gives the clock.
"""

import argparse
import json
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitfold.ir import Grid
from bitfold.kernels.c_backend import c_rows, compile_c
from bitfold.kernels.c_program import CProgram
from bitfold.kernels.features import host_features
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import (
    AddStep,
    Buffer,
    ConvStep,
    RescaleStep,
    Step,
    ThresholdStep,
    ToIndices,
    ToWide,
)

COPIES = 16  # of the step in one program: the call into C is spread over them
STREAM_REACH = 2**20


@dataclass(frozen=True, slots=True)
class Case:
    """One step on one shape; ``num_macs`` is 0 where there are none."""

    name: str
    op: str
    step: Step
    arena_bytes: int
    num_macs: int


def affine_rule(rng: np.random.Generator, count: int, *, levels: int, reach: int) -> ToIndices:
    """Thresholds of round(gain · acc + bias), as batch normalization gives them."""
    gain = rng.uniform(levels / reach, 2 * levels / reach, (count, 1))
    bias = rng.uniform(0, levels / 2, (count, 1))
    table = np.ceil((np.arange(1, levels) - 0.5 - bias) / gain).astype(np.int32)
    return ToIndices(table, np.ones(count, np.int32))


def wide_rule(rng: np.random.Generator, count: int, add: Buffer | None = None) -> ToWide:
    """A stream update with 24-bit multipliers."""
    multiplier = rng.integers(2**22, 2**24, count)
    return ToWide(multiplier, rng.integers(-(2**30), 2**30, count), 18, add)


def conv_case(
    name: str,
    rng: np.random.Generator,
    *,
    shape: tuple[int, int, int],
    num_out: int,
    stride: int = 1,
    kernel: int = 3,
    grids: tuple[Grid, Grid],
    wide: bool = False,
) -> Case:
    """A padded convolution with thresholds, or with a stream update and an addition."""
    h, w, depth = shape
    pad = kernel // 2
    out_shape = ((h - 1) // stride + 1, (w - 1) // stride + 1, num_out)
    x_grid, w_grid = grids
    codes = np.arange(w_grid.lo, w_grid.hi + 1, w_grid.step)
    weight = rng.choice(codes, (num_out, kernel, kernel, depth)).astype(np.int8)
    x = Buffer(0, shape, "u8")
    out = Buffer(2**18, out_shape, "i32" if wide else "u8")
    reach = int(kernel**2 * depth * x_grid.levels * w_grid.hi // 4)
    levels = x_grid.levels if x_grid.levels < 256 else 4
    epilogue = (
        wide_rule(rng, num_out, Buffer(2**19, out_shape, "i32"))
        if wide
        else affine_rule(rng, num_out, levels=levels, reach=reach)
    )
    step = ConvStep(
        name, x, out, x_grid, weight, w_grid, rng.integers(-99, 99, num_out),
        (stride, stride), (pad,) * 4, 1, epilogue,
    )  # fmt: skip
    return Case(name, "conv2d", step, 2**20, int(np.prod(out_shape)) * kernel**2 * depth)


def cases() -> list[Case]:
    """Layers of ResNet-20 at 2 and 4 bits, its edges, and the steps between them."""
    rng = np.random.default_rng(0)
    made = [
        conv_case("first 3->16 32x32 w8a8", rng, shape=(32, 32, 3), num_out=16,
                  grids=(Grid.pixels(120), Grid.narrow(8)), wide=True)
    ]  # fmt: skip
    for bits in (2, 4):
        grids = (Grid.unsigned(bits), Grid.narrow(bits))
        for size, depth in ((32, 16), (16, 32), (8, 64)):
            shape, tag = (size, size, depth), f"w{bits}a{bits}"
            same = f"{depth}->{depth} {size}x{size} {tag}"
            made.append(conv_case(same, rng, shape=shape, num_out=depth, grids=grids))
            made.append(
                conv_case(f"{same} +add", rng, shape=shape, num_out=depth, grids=grids, wide=True)
            )
        down = f"16->32 /2 32x32 w{bits}a{bits}"
        made.append(conv_case(down, rng, shape=(32, 32, 16), num_out=32, stride=2, grids=grids))
        stream, out = Buffer(0, (32, 32, 16), "i32"), Buffer(2**18, (32, 32, 16), "u8")
        rule = affine_rule(rng, 16, levels=2**bits, reach=STREAM_REACH)
        made.append(
            Case(f"32x32x16 a{bits}", "thresholds", ThresholdStep("t", stream, out, rule), 2**20, 0)
        )
    wide = Buffer(2**19, (32, 32, 16), "i32")
    made.append(
        Case("32x32x16", "rescale", RescaleStep("r", stream, wide, wide_rule(rng, 16)), 2**20, 0)
    )
    made.append(Case("32x32x16", "add", AddStep("a", stream, stream, wide), 2**20, 0))
    return made


@dataclass(frozen=True, slots=True)
class Trial:
    """One row bound to one case, with what a run of it needs."""

    program: CProgram
    arena: np.ndarray
    logits: np.ndarray

    @classmethod
    def of(cls, case: Case, row: Row) -> "Trial | None":
        """The trial of ``row``; None where it is not exact on the case."""
        steps = [case.step] * COPIES
        pixel = Buffer(case.arena_bytes - 64, (1,), "u8")
        program = compile_c(steps, input=pixel, arena_bytes=case.arena_bytes, force=row.symbol)
        if program.rows[0] != row:
            return None
        block = np.zeros(program.arena_bytes + 64, np.uint8)
        first = -block.ctypes.data % 64
        logits = np.zeros((1, case.step.out.num_bytes // 4), np.float32)
        return cls(program, block[first : first + program.arena_bytes], logits)

    def seconds(self) -> float:
        """Time of one run of the step."""
        image = np.zeros((1, 1), np.uint8)
        start = time.perf_counter()
        self.program.run(image, self.logits, self.arena)
        return (time.perf_counter() - start) / COPIES


def measure(case: Case, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every round for every row that is exact on the case."""
    rows = (
        row
        for row in c_rows()
        if row.op == case.op and row.runs_on(host_features()) and options.row in row.symbol
    )
    trials = {row.symbol: Trial.of(case, row) for row in rows}
    times: dict[str, list[float]] = {symbol: [] for symbol, trial in trials.items() if trial}
    for _ in range(options.rounds):
        for symbol, trial in trials.items():
            if trial:
                times[symbol].append(trial.seconds())
    return times


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--row", default="", help="only rows whose symbol holds this text")
    parser.add_argument("--mhz", type=float, help="clock while it runs, for MAC/cycle")
    options = parser.parse_args()
    results = []
    for case in cases():
        for symbol, times in measure(case, options).items():
            median, least = statistics.median(times), min(times)
            rate = case.num_macs / (least * options.mhz * 1e6) if options.mhz else None
            results.append(
                {"case": case.name, "row": symbol, "median_us": median * 1e6,
                 "min_us": least * 1e6, "macs": case.num_macs, "macs_per_cycle": rate}
            )  # fmt: skip
            rate_text = f"{rate:8.1f} MAC/cycle" if rate else ""
            print(
                f"{case.name:26} {symbol:36} {median * 1e6:9.2f} {least * 1e6:9.2f} us{rate_text}"
            )
    if options.out:
        machine = {"processor": platform.processor(), "system": platform.platform()}
        record = {"machine": machine, "rounds": options.rounds, "results": results}
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
