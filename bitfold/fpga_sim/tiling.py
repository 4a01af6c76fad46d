"""Tiling of one layer under buffer capacity, in closed form (docs/fpga_model.md, section 6).

A layer is cut into blocks of ``rows`` row folds × ``columns`` column folds. The operand of the
outer loop stays while the inner loop runs. Buffers are double: while block b computes, the port
loads what block b + 1 lacks and stores what block b − 1 left:

    cycles = load(0) + Σ_b max(compute(b), load(b + 1) + store(b − 1)) + store(last)

``choose`` takes the cheapest of all sizes 1, 2, 4, … folds in both loop orders;
``schedule.step_blocks`` is the same timeline, block by block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bitfold.fpga_sim.cycles import ceil_div

Ints = NDArray[np.int64]
# A rate is a ratio of integers below this denominator, so that sums stay exact in 64 bits.
RATE_DENOMINATOR = 10**6


@dataclass(frozen=True, slots=True)
class Port:
    """DRAM port: ``rate`` bytes a cycle, ``latency`` cycles a transfer, bursts of ``burst``."""

    rate: Fraction
    latency: int
    burst: int

    def cycles(self, num_bytes: int) -> int:
        """Cycles of one transfer of ``num_bytes`` already rounded to bursts; 0 for none."""
        if num_bytes == 0:
            return 0
        return self.latency + ceil_div(num_bytes * self.rate.denominator, self.rate.numerator)

    def rounded(self, num_bytes: int) -> int:
        """Bytes that move: whole bursts."""
        return ceil_div(num_bytes, self.burst) * self.burst


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of a layer's input: of the map, of the kernel, the stride, and the output's size.

    ``taps`` counts the kernel's positions.
    """

    height: int
    kernel: int
    stride: int
    out_height: int
    out_width: int
    taps: int

    def rows(self, pixels: int) -> int:
        """Most input rows that ``pixels`` consecutive output pixels need."""
        whole, rest = divmod(pixels, self.out_width)
        # Consecutive pixels that are no whole rows may begin and end inside a row.
        spanned = whole if rest == 0 else (pixels - 2) // self.out_width + 2
        spanned = min(self.out_height, max(1, spanned))
        return min(self.height, (spanned - 1) * self.stride + self.kernel)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packed bytes of one layer: constants, its input map, other tensors read, tensors written."""

    constants: int
    inputs: int
    others: int
    writes: int

    @property
    def total(self) -> int:
        """Everything moved once."""
        return self.constants + self.inputs + self.others + self.writes


@dataclass(frozen=True, slots=True)
class Job:
    """One layer on one array, ready to be tiled.

    ``pixels`` of one row fold; ``cost(rows, columns)`` cycles of a block on chip, ``tail`` once a
    layer; ``most_rows``, ``most_columns`` and ``most_band`` (bytes): what half a buffer holds.
    """

    row_folds: int
    column_folds: int
    pixels: int
    grouped: bool
    window: Window
    traffic: Traffic
    cost: Callable[[int, int], int]
    tail: int
    most_rows: int
    most_columns: int
    most_band: int

    def band_bytes(self, rows: int) -> int:
        """Input bytes of a block of ``rows`` row folds: the rows of its largest band."""
        if rows >= self.row_folds:
            return self.traffic.inputs
        needed = self.window.rows(rows * self.pixels)
        return ceil_div(self.traffic.inputs * needed, self.window.height)

    def next_bytes(self, rows: int) -> int:
        """Input bytes of every band but the first: a line buffer keeps the rows they share."""
        bands = ceil_div(self.row_folds, rows)
        rest = self.traffic.inputs - self.band_bytes(rows)
        return ceil_div(rest, bands - 1) if bands > 1 else 0

    def fits_rows(self, rows: int) -> bool:
        """Whether half of each buffer holds a block of ``rows`` row folds."""
        return rows <= self.most_rows and self.band_bytes(rows) <= self.most_band


@dataclass(frozen=True, slots=True)
class Plan:
    """A tiling: folds of a block, which loop is outside, and what it takes."""

    rows: int
    columns: int
    rows_outside: bool
    cycles: int
    compute_cycles: int
    dram_bytes: int
    blocks: int

    @property
    def stall_cycles(self) -> int:
        """Cycles in which the array waits for the port."""
        return self.cycles - self.compute_cycles


def sizes(folds: int) -> list[int]:
    """1, 2, 4, … below ``folds``, and ``folds``: every size of a smaller buffer is among them."""
    return [*(1 << i for i in range((folds - 1).bit_length()) if 1 << i < folds), folds]


def choose(job: Job, port: Port) -> Plan:
    """The plan of fewest cycles, then of fewest bytes; requires that one fold of each fits."""
    rows = [m for m in sizes(job.row_folds) if job.fits_rows(m)]
    columns = [n for n in sizes(job.column_folds) if n <= job.most_columns]
    cases = [
        (m, n, outside)
        for outside in (False, True)
        for m in rows
        for n in columns
        # A column block of a grouped layer reads its own channels: the band holds them all.
        if outside or not job.grouped or m == job.row_folds
    ]
    m, n = (np.array([case[i] for case in cases], dtype=np.int64) for i in (0, 1))
    outside = np.array([case[2] for case in cases])
    total, compute = _totals(job, port, m, n, outside)
    moved = _moved(job, m, n, outside)
    best = int(np.lexsort((moved, total))[0])
    blocks = ceil_div(job.row_folds, int(m[best])) * ceil_div(job.column_folds, int(n[best]))
    return Plan(
        rows=int(m[best]),
        columns=int(n[best]),
        rows_outside=bool(outside[best]),
        cycles=int(total[best]),
        compute_cycles=int(compute[best]),
        dram_bytes=int(moved[best]),
        blocks=blocks,
    )


def _ceil(a: Ints, b: Ints | int) -> Ints:
    found: Ints = -(-a // b)
    return found


def _moved(job: Job, m: Ints, n: Ints, outside: NDArray[np.bool_]) -> Ints:
    """DRAM bytes of each case, before rounding to bursts."""
    bands, columns = _ceil(np.int64(job.row_folds) + 0 * m, m), _ceil(job.column_folds + 0 * n, n)
    sweeps = np.where(outside | (bands == 1), 1, columns)
    weight_loads = np.where(outside & (columns > 1), bands, 1)
    fixed = job.traffic.others + job.traffic.writes
    found: Ints = job.traffic.inputs * sweeps + job.traffic.constants * weight_loads + fixed
    return found


@dataclass(frozen=True, slots=True)
class _Cases:
    """All cases side by side, arrays (cases, 1, 1); blocks (outer, inner) broadcast against them.

    ``counts`` are the blocks of the outer and of the inner loop, ``bands`` the input bytes of the
    first band and of any other, ``costs`` the cycles of the four kinds of block: full or last in
    rows, in columns.
    """

    job: Job
    port: Port
    m: Ints
    n: Ints
    outside: NDArray[np.bool_]
    counts: tuple[Ints, Ints]
    bands: tuple[Ints, Ints]
    costs: tuple[tuple[Ints, Ints], tuple[Ints, Ints]]

    def folds(self, outer: Ints, inner: Ints) -> tuple[Ints, Ints]:
        """Row and column folds of a block; the last one of a loop may be smaller."""
        i, j = np.where(self.outside, outer, inner), np.where(self.outside, inner, outer)
        rows = np.minimum(self.m, self.job.row_folds - i * self.m)
        return rows, np.minimum(self.n, self.job.column_folds - j * self.n)

    def compute(self, outer: Ints, inner: Ints) -> Ints:
        """Cycles of a block on chip."""
        rows, columns = self.folds(outer, inner)
        (full, last_column), (last_row, corner) = self.costs
        whole = rows == self.m
        found: Ints = np.where(
            columns == self.n, np.where(whole, full, last_row), np.where(whole, last_column, corner)
        )
        return found

    def load(self, outer: Ints, inner: Ints) -> Ints:
        """Port cycles of what a block lacks; 0 past the last block."""
        rows, columns = self.folds(outer, inner)
        job, count = self.job, self.counts
        first = inner == 0
        every = (count[1] > 1) | (outer == 0)
        area = job.row_folds * job.column_folds
        weights = self._bursts(_ceil(job.traffic.constants * columns, job.column_folds))
        others = self._bursts(_ceil(job.traffic.others * rows * columns, area))
        at_top = np.where(self.outside, outer, inner) == 0
        band = self._bursts(np.where(at_top, *self.bands))
        num_bytes = others + np.where(np.where(self.outside, first, every), band, 0)
        num_bytes += np.where(np.where(self.outside, every, first), weights, 0)
        return np.where(outer < count[0], self._cycles(num_bytes), 0)

    def store(self, outer: Ints, inner: Ints) -> Ints:
        """Port cycles of what a block leaves; 0 before the first block."""
        rows, columns = self.folds(outer, inner)
        area = self.job.row_folds * self.job.column_folds
        num_bytes = self._bursts(_ceil(self.job.traffic.writes * rows * columns, area))
        return np.where(outer >= 0, self._cycles(num_bytes), 0)

    def _bursts(self, num_bytes: Ints) -> Ints:
        return _ceil(num_bytes, self.port.burst) * self.port.burst

    def _cycles(self, num_bytes: Ints) -> Ints:
        rate = self.port.rate
        moving = _ceil(num_bytes * rate.denominator, rate.numerator)
        return np.where(num_bytes > 0, self.port.latency + moving, 0)


def _representatives(count: Ints) -> tuple[Ints, Ints]:
    """Indices 0, 1, 2 … and the last two of a loop, with how many blocks behave like each."""
    index = np.concatenate([0 * count, 0 * count + 1, 0 * count + 2, count - 2, count - 1], axis=-1)
    times = np.concatenate(
        [1 + 0 * count, 1 * (count >= 4), np.maximum(0, count - 4), 1 * (count >= 3),
         1 * (count >= 2)], axis=-1,
    )  # fmt: skip
    return index, times


def _totals(
    job: Job, port: Port, m: Ints, n: Ints, outside: NDArray[np.bool_]
) -> tuple[Ints, Ints]:
    """Cycles of each case, and the part that computes."""

    def cost(rows: Ints, columns: Ints) -> Ints:
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return np.array([job.cost(*pair) for pair in pairs], dtype=np.int64)[:, None, None]

    def per_case(count: Callable[[int], int]) -> Ints:
        known = {rows: count(rows) for rows in set(m.tolist())}
        return np.array([known[rows] for rows in m.tolist()], dtype=np.int64)[:, None, None]

    num_bands, num_columns = _ceil(job.row_folds + 0 * m, m), _ceil(job.column_folds + 0 * n, n)
    last_m = job.row_folds - (num_bands - 1) * m
    last_n = job.column_folds - (num_columns - 1) * n
    counts = np.where(outside, num_bands, num_columns), np.where(outside, num_columns, num_bands)
    cases = _Cases(
        job, port, m[:, None, None], n[:, None, None], outside[:, None, None],
        (counts[0][:, None, None], counts[1][:, None, None]),
        (per_case(job.band_bytes), per_case(job.next_bytes)),
        ((cost(m, n), cost(m, last_n)), (cost(last_m, n), cost(last_m, last_n))),
    )  # fmt: skip
    num_outer, num_inner = cases.counts
    outer, outer_times = _representatives(num_outer)
    inner, inner_times = _representatives(num_inner)
    outer, outer_times = np.swapaxes(outer, 1, 2), np.swapaxes(outer_times, 1, 2)
    ends, begins = inner == num_inner - 1, inner == 0
    following = np.where(ends, outer + 1, outer), np.where(ends, 0, inner + 1)
    preceding = np.where(begins, outer - 1, outer), np.where(begins, num_inner - 1, inner - 1)
    compute = cases.compute(outer, inner)
    busy = np.maximum(compute, cases.load(*following) + cases.store(*preceding))
    times = outer_times * inner_times
    zero = np.zeros_like(num_outer)
    edges = cases.load(zero, zero) + cases.store(num_outer - 1, num_inner - 1)
    computing = (compute * times).sum(axis=(1, 2)) + job.tail
    total = (busy * times).sum(axis=(1, 2)) + edges[:, 0, 0] + job.tail
    return total, computing
