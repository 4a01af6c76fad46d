"""Tiling of one layer under buffer capacity, in closed form (docs/fpga_model.md, section 6).

A layer is cut into blocks of ``rows`` row folds × ``columns`` column folds. The operand of the
outer loop stays while the inner loop runs. Buffers are double: while block b computes, the port
loads what block b + 1 lacks and stores what block b − 1 left:

    cycles = load(0) + Σ_b max(compute(b), load(b + 1) + store(b − 1)) + store(last)

and the last block computes until its results have left the array, ``tail`` cycles more.

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

    ``taps`` counts the kernel's positions, ``padding`` the rows above the map.
    """

    height: int
    kernel: int
    stride: int
    out_height: int
    out_width: int
    taps: int
    padding: int = 0

    def part(self, num_bytes: int, pixels: int) -> int:
        """What the loader has read, of a map of ``num_bytes``, for the first ``pixels`` outputs.

        It follows the output through its row: (pixels − 1) / out_width · stride + kernel − padding
        rows, so that rows come in even parts.
        """
        read = (pixels - 1) * self.stride + (self.kernel - self.padding) * self.out_width
        whole = self.height * self.out_width
        return ceil_div(num_bytes * min(whole, max(0, read)), whole)

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

    ``pixels`` of one row fold and of all, ``filters`` of one column fold and of all (a grouped
    layer counts whole folds); ``cost(pixels, filters)`` cycles of a block on chip, ``tail`` what
    the last one takes more; ``most_rows``, ``most_columns`` and ``most_band`` (bytes): what half a
    buffer holds.
    """

    row_folds: int
    column_folds: int
    pixels: int
    all_pixels: int
    filters: int
    all_filters: int
    grouped: bool
    window: Window
    traffic: Traffic
    cost: Callable[[int, int], int]
    tail: Callable[[int, int], int]
    most_rows: int
    most_columns: int
    most_band: int

    @property
    def area(self) -> int:
        """Outputs of the layer: ``all_pixels`` · ``all_filters``."""
        return self.all_pixels * self.all_filters

    def band_bytes(self, rows: int) -> int:
        """Most input bytes of a block of ``rows`` row folds: what its rows take on chip."""
        if rows >= self.row_folds:
            return self.traffic.inputs
        needed = self.window.rows(rows * self.pixels)
        return ceil_div(self.traffic.inputs * needed, self.window.height)

    def first_bytes(self, rows: int) -> int:
        """Input bytes that the first band of ``rows`` row folds loads."""
        if rows >= self.row_folds:
            return self.traffic.inputs
        return self.window.part(self.traffic.inputs, rows * self.pixels)

    def next_bytes(self, rows: int) -> int:
        """Input bytes of a band after the first: as far as its pixels go."""
        window = self.window
        area = window.out_width * window.height
        return ceil_div(self.traffic.inputs * rows * self.pixels * window.stride, area)

    def full_bands(self, rows: int) -> int:
        """Bands after the first that load ``next_bytes``; one more takes the rest of the map."""
        rest = self.traffic.inputs - self.first_bytes(rows)
        bands = ceil_div(self.row_folds, rows)
        return max(0, min(rest // max(1, self.next_bytes(rows)), bands - 2))

    def input_bytes(self, rows: int, band: int) -> int:
        """Input bytes that ``band`` of those of ``rows`` row folds loads."""
        full = self.full_bands(rows)
        if band == 0:
            return self.first_bytes(rows)
        if band <= full:
            return self.next_bytes(rows)
        rest = self.traffic.inputs - self.first_bytes(rows) - full * self.next_bytes(rows)
        return rest if band == full + 1 else 0

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
    first band and of others, and how many others are full, ``costs`` the cycles of the four kinds
    of block: full or last in rows, in columns.
    """

    job: Job
    port: Port
    m: Ints
    n: Ints
    outside: NDArray[np.bool_]
    counts: tuple[Ints, Ints]
    bands: tuple[Ints, Ints, Ints]
    costs: tuple[tuple[Ints, Ints], tuple[Ints, Ints]]

    def compute(self, outer: Ints, inner: Ints) -> Ints:
        """Cycles of a block on chip."""
        pixels, filters = self.outputs(outer, inner)
        (full, last_column), (last_row, corner) = self.costs
        whole = pixels == self.m * self.job.pixels
        found: Ints = np.where(
            filters == self.n * self.job.filters,
            np.where(whole, full, last_row),
            np.where(whole, last_column, corner),
        )
        return found

    def outputs(self, outer: Ints, inner: Ints) -> tuple[Ints, Ints]:
        """Pixels and filters of a block; the last one of a loop may be smaller."""
        i, j = np.where(self.outside, outer, inner), np.where(self.outside, inner, outer)
        job, pixels, filters = self.job, self.m * self.job.pixels, self.n * self.job.filters
        return (
            np.minimum(pixels, job.all_pixels - i * pixels),
            np.minimum(filters, job.all_filters - j * filters),
        )

    def load(self, outer: Ints, inner: Ints) -> Ints:
        """Port cycles of what a block lacks; 0 past the last block."""
        pixels, filters = self.outputs(outer, inner)
        job, count = self.job, self.counts
        first = inner == 0
        every = (count[1] > 1) | (outer == 0)
        weights = self._bursts(_ceil(job.traffic.constants * filters, job.all_filters))
        others = self._bursts(_ceil(job.traffic.others * pixels * filters, job.area))
        index, (first_band, next_band, full) = np.where(self.outside, outer, inner), self.bands
        rest = job.traffic.inputs - first_band - full * next_band
        later = np.where(index <= full, next_band, np.where(index == full + 1, rest, 0))
        band = self._bursts(np.where(index == 0, first_band, later))
        num_bytes = others + np.where(np.where(self.outside, first, every), band, 0)
        num_bytes += np.where(np.where(self.outside, every, first), weights, 0)
        return np.where(outer < count[0], self._cycles(num_bytes), 0)

    def store(self, outer: Ints, inner: Ints) -> Ints:
        """Port cycles of what a block leaves; 0 before the first block."""
        pixels, filters = self.outputs(outer, inner)
        num_bytes = self._bursts(_ceil(self.job.traffic.writes * pixels * filters, self.job.area))
        return np.where(outer >= 0, self._cycles(num_bytes), 0)

    def _bursts(self, num_bytes: Ints) -> Ints:
        return _ceil(num_bytes, self.port.burst) * self.port.burst

    def _cycles(self, num_bytes: Ints) -> Ints:
        rate = self.port.rate
        moving = _ceil(num_bytes * rate.denominator, rate.numerator)
        return np.where(num_bytes > 0, self.port.latency + moving, 0)


def _representatives(count: Ints, full: Ints) -> tuple[Ints, Ints]:
    """Indices of a loop, with how many blocks behave like each.

    The first two, the last two, and of those between them the ones before which loads are alike,
    the one at ``full`` and those behind it.
    """
    end = count - 3
    after = np.maximum(2, full + 1)
    index = np.concatenate([0 * count, 0 * count + 1, 0 * count + 2, full, after, count - 2,
                            count - 1], axis=-1)  # fmt: skip
    times = np.concatenate(
        [1 + 0 * count, 1 * (count >= 4), np.maximum(0, np.minimum(end, full - 1) - 1),
         1 * ((full >= 2) & (full <= end)), np.maximum(0, end - after + 1), 1 * (count >= 3),
         1 * (count >= 2)], axis=-1,
    )  # fmt: skip
    return index, times


def _totals(
    job: Job, port: Port, m: Ints, n: Ints, outside: NDArray[np.bool_]
) -> tuple[Ints, Ints]:
    """Cycles of each case, and the part that computes."""

    def priced(of: Callable[[int, int], int], pixels: Ints, filters: Ints) -> Ints:
        pairs = zip(pixels.tolist(), filters.tolist(), strict=True)
        return np.array([of(*pair) for pair in pairs], dtype=np.int64)[:, None, None]

    def per_case(count: Callable[[int], int]) -> Ints:
        known = {rows: count(rows) for rows in set(m.tolist())}
        return np.array([known[rows] for rows in m.tolist()], dtype=np.int64)[:, None, None]

    num_bands, num_columns = _ceil(job.row_folds + 0 * m, m), _ceil(job.column_folds + 0 * n, n)
    pixels = np.minimum(m * job.pixels, job.all_pixels)
    filters = np.minimum(n * job.filters, job.all_filters)
    last_pixels = job.all_pixels - (num_bands - 1) * pixels
    last_filters = job.all_filters - (num_columns - 1) * filters
    counts = np.where(outside, num_bands, num_columns), np.where(outside, num_columns, num_bands)
    cases = _Cases(
        job, port, m[:, None, None], n[:, None, None], outside[:, None, None],
        (counts[0][:, None, None], counts[1][:, None, None]),
        (per_case(job.first_bytes), per_case(job.next_bytes), per_case(job.full_bands)),
        ((priced(job.cost, pixels, filters), priced(job.cost, pixels, last_filters)),
         (priced(job.cost, last_pixels, filters), priced(job.cost, last_pixels, last_filters))),
    )  # fmt: skip
    num_outer, num_inner = cases.counts
    full = cases.bands[2]
    outer, outer_times = _representatives(num_outer, np.where(cases.outside, full, 0))
    inner, inner_times = _representatives(num_inner, np.where(cases.outside, 0, full))
    outer, outer_times = np.swapaxes(outer, 1, 2), np.swapaxes(outer_times, 1, 2)
    ends, begins = inner == num_inner - 1, inner == 0
    following = np.where(ends, outer + 1, outer), np.where(ends, 0, inner + 1)
    preceding = np.where(begins, outer - 1, outer), np.where(begins, num_inner - 1, inner - 1)
    at_last = (outer == num_outer - 1) & ends
    compute = cases.compute(outer, inner) + at_last * priced(job.tail, last_pixels, last_filters)
    busy = np.maximum(compute, cases.load(*following) + cases.store(*preceding))
    times = outer_times * inner_times
    zero = np.zeros_like(num_outer)
    edges = cases.load(zero, zero) + cases.store(num_outer - 1, num_inner - 1)
    computing = (compute * times).sum(axis=(1, 2))
    total = (busy * times).sum(axis=(1, 2)) + edges[:, 0, 0]
    return total, computing
