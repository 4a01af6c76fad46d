"""A whole layer with its memory system in Verilog: array, loader, writer and behavioural DRAM.

The plan of the tiling search says which folds each block has; what a block has to load and store is
worked out by the Verilog loader from the layer's geometry, not by the formulas of ``tiling``
(docs/fpga_model.md, section 6).
"""

import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitfold.errors import MismatchError, RangeError, UnsupportedError
from bitfold.fpga_sim.cycles import Gemm, ceil_div
from bitfold.fpga_sim.layers import Scheduled
from bitfold.fpga_sim.rtl.design import Design
from bitfold.fpga_sim.rtl.simulators import compile_sources
from bitfold.fpga_sim.rtl.sources import SYSTEM_BENCH, write_sources
from bitfold.fpga_sim.rtl.stimulus import Stimulus, Words, hex_text, stimulus
from bitfold.fpga_sim.schedule import block_folds
from bitfold.fpga_sim.tiling import Port
from bitfold.ir.types import IntArray

RUN_COUNTS = ("inner", "inner_last", "lefts", "folds", "tops", "groups")


@dataclass(frozen=True, slots=True)
class SystemLayer:
    """A layer, its schedule on the whole array, and the port.

    ``width`` is that of the port in bytes; a word moves when the port's rate has earned it.
    """

    gemm: Gemm
    scheduled: Scheduled
    port: Port
    width: int

    def __post_init__(self) -> None:
        if self.scheduled.vector or self.gemm.passes > 1:
            raise UnsupportedError(
                "the Verilog has no vector unit and does not combine digits",
                where="layer",
                todo="Schedule it with depthwise array and edge wide.",
            )

    @property
    def group_folds(self) -> int:
        """Column folds of one group."""
        return self.scheduled.job.column_folds // self.gemm.groups

    def fold_filters(self, cols: int) -> int:
        """Filters of one column fold on ``cols`` columns."""
        return ceil_div(ceil_div(self.gemm.filters, self.group_folds), cols) * cols


@dataclass(frozen=True, slots=True)
class SystemRun:
    """Cycles from the first load to the end of the last store; what the DRAM moved, in bytes.

    ``missing`` counts loads after which the map lacked a row of the block they were for.
    """

    cycles: int
    busy: int
    bytes_read: int
    bytes_written: int
    words: int
    wrong: int
    missing: int


@dataclass(frozen=True, slots=True)
class _Run:
    """One start of the array: its block, pixels, groups and filters of each of them."""

    block: int
    pixels: slice
    groups: slice
    filters: slice


def _runs(layer: SystemLayer, cols: int) -> Iterator[_Run]:
    """The runs of every block: whole groups together, parts of a group by themselves."""
    job, plan = layer.scheduled.job, layer.scheduled.plan
    a_group, wide = layer.group_folds, layer.fold_filters(cols)
    for block, (i, j, rows, columns) in enumerate(block_folds(job, plan)):
        first = i * plan.rows * job.pixels
        pixels = slice(first, first + rows * job.pixels)
        fold, end = j * plan.columns, j * plan.columns + columns
        while fold < end:
            group, within = divmod(fold, a_group)
            whole = 0 if within else (end - fold) // a_group
            if whole:
                yield _Run(block, pixels, slice(group, group + whole), slice(None))
                fold += whole * a_group
                continue
            stop = min(a_group, within + end - fold)
            filters = slice(within * wide, stop * wide)
            yield _Run(block, pixels, slice(group, group + 1), filters)
            fold += stop - within


@dataclass(frozen=True, slots=True)
class SystemBench:
    """A compiled array with its memory system; ``command`` starts it, in ``folder``."""

    design: Design
    folder: Path
    command: tuple[str, ...]
    words: int

    def run(self, layer: SystemLayer, a: IntArray, w: IntArray) -> SystemRun:
        """``layer`` on codes a (G, P, K) × w (G, K, M).

        Raises RangeError where the memories of the test bench do not hold it, MismatchError where
        the simulation breaks off.
        """
        files, counts = self._files(layer, a, w)
        longest = max(len(words) for words in files.values())
        if longest > self.words:
            raise RangeError(
                f"{longest} words in memories of {self.words}",
                where=str(self.folder),
                todo="Compile the test bench with more words.",
            )
        for name, words in files.items():
            (self.folder / f"{name}.hex").write_text(hex_text(words), "ascii")
        arguments = [f"+{name}={name}.hex" for name in files]
        arguments += [f"+{name}={count}" for name, count in counts.items()]
        done = subprocess.run(
            [*self.command, *arguments], cwd=self.folder, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        found = re.findall(
            r"^cycles (\d+)\nport (\d+) busy, (\d+) bytes read, (\d+) written\n"
            r"results (\d+) words, (\d+) wrong\nrows (\d+) missing$",
            done.stdout,
            re.M,
        )
        if not found or int(found[0][4]) != len(files["golden"]):
            raise MismatchError(
                f"the simulation broke off: {(done.stdout + done.stderr).strip()[-400:]}",
                where=str(self.folder),
            )
        return SystemRun(*(int(number) for number in found[0]))

    def _files(
        self, layer: SystemLayer, a: IntArray, w: IntArray
    ) -> tuple[dict[str, Words], dict[str, int]]:
        """Memory contents and counts of the test bench by name."""
        cols = self.design.array.cols
        runs = list(_runs(layer, cols))
        products = [
            stimulus(a[run.groups, run.pixels], w[run.groups, :, run.filters], self.design)
            for run in runs
        ]
        files = {
            "left": np.concatenate([product.left for product in products]),
            "top": np.concatenate([product.top for product in products]),
            "golden": np.concatenate([product.golden for product in products]),
            "block_list": _block_list(layer, runs, products),
            "run_list": _run_list(runs, products),
            "layer": _layer_words(layer, cols),
        }
        counts = {
            "blocks": layer.scheduled.plan.blocks, "runs": len(runs), "depth": layer.gemm.depth,
        }  # fmt: skip
        return files, counts


def _words(rows: list[list[int]]) -> Words:
    """Rows of 32-bit numbers, the first one in the high bits."""
    fields = np.array(rows, dtype="<u4")[:, ::-1]
    return np.ascontiguousarray(fields).view(np.uint8)


def _block_list(layer: SystemLayer, runs: list[_Run], products: list[Stimulus]) -> Words:
    """First row fold, row folds, first column fold, column folds, words of results so far."""
    job, plan = layer.scheduled.job, layer.scheduled.plan
    results = [0] * plan.blocks
    for run, product in zip(runs, products, strict=True):
        results[run.block] += len(product.golden)
    so_far = np.cumsum(results).tolist()
    return _words(
        [
            [i * plan.rows, rows, j * plan.columns, columns, words]
            for (i, j, rows, columns), words in zip(block_folds(job, plan), so_far, strict=True)
        ]
    )


def _run_list(runs: list[_Run], products: list[Stimulus]) -> Words:
    """Block, counters of the controller, and where the operands of a run begin."""
    rows: list[list[int]] = []
    left = top = 0
    for run, product in zip(runs, products, strict=True):
        rows.append([run.block, *(product.counts[name] for name in RUN_COUNTS), left, top])
        left, top = left + len(product.left), top + len(product.top)
    return _words(rows)


def _layer_words(layer: SystemLayer, cols: int) -> Words:
    """The layer and the port, one number a word, in the order of the loader's inputs."""
    gemm, job, port = layer.gemm, layer.scheduled.job, layer.port
    window, traffic = job.window, job.traffic
    numbers = (
        gemm.pixels, window.out_width, gemm.groups * gemm.filters, gemm.filters,
        window.height, window.kernel, window.stride, window.padding,
        traffic.constants, traffic.inputs, traffic.others, traffic.writes,
        job.pixels, layer.fold_filters(cols), layer.group_folds,
        port.burst, layer.width, port.latency, port.rate.numerator, port.rate.denominator,
    )  # fmt: skip
    return _words([[number] for number in numbers])


def port_width(port: Port) -> int:
    """Bytes of a port wide enough for its rate: a power of two."""
    return 1 << (math.ceil(port.rate) - 1).bit_length()


def compile_system(
    design: Design,
    folder: Path,
    *,
    simulator: str,
    words: int = 2**16,
    library: Path | None = None,
    level: str = "-O1",
) -> SystemBench:
    """Compile ``design`` with loader, writer and DRAM; arguments as in ``compile_bench``."""
    names = write_sources(design, folder, words=words, bench=SYSTEM_BENCH)
    command = compile_sources(
        names, folder, top=SYSTEM_BENCH, simulator=simulator, library=library, level=level
    )
    return SystemBench(design, folder, command, words)
