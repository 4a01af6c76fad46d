"""Many tilings of many layers in closed form, side by side (docs/fpga_model.md, section 6).

``Numbers`` are the layers, ``Rows`` and ``Columns`` the sizes of their blocks in each direction,
``Cases`` some pairs of those with a loop order. ``Job`` has the same formulas one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bitfold.fpga_sim.tiling import FILTERS, PIXELS, Job, Port

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# Which jobs and sizes, or all with axes added.
Index = tuple[slice | int | NDArray[np.int64] | NDArray[np.intp] | None, ...]


def up(a: Ints, b: Ints | int) -> Ints:
    """⌈a / b⌉."""
    found: Ints = -(-a // b)
    return found


def whole_bursts(num_bytes: Ints, port: Port) -> Ints:
    """``Port.rounded`` of each."""
    return up(num_bytes, port.burst) * port.burst


def port_cycles(num_bytes: Ints, port: Port) -> Ints:
    """``Port.cycles`` of each."""
    moving = up(num_bytes * port.rate.denominator, port.rate.numerator)
    return np.where(num_bytes > 0, port.latency + moving, 0)


class Numbers(NamedTuple):
    """Fields of jobs, their windows, traffic and laws, each (jobs,) or spread; see there.

    ``reach`` is (kernel − padding) · out_width, ``pixel_bytes`` the input's bytes times its stride.
    """

    row_folds: Ints
    column_folds: Ints
    pixels: Ints
    all_pixels: Ints
    filters: Ints
    all_filters: Ints
    area: Ints
    grouped: Ints
    most_rows: Ints
    most_columns: Ints
    most_band: Ints
    constants: Ints
    inputs: Ints
    others: Ints
    writes: Ints
    height: Ints
    kernel: Ints
    stride: Ints
    out_height: Ints
    out_width: Ints
    reach: Ints
    stream: Ints
    repeats: Ints
    least: Ints
    turn: Ints
    words: Ints
    settles: Ints
    crossing: Ints
    added: Ints
    shown: Ints

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> Self:
        """(jobs,) of each."""
        return cls(*np.array([_fields(job) for job in jobs], np.int64).T)

    def at(self, index: Index) -> Self:
        """Every field at ``index``."""
        return type(self)(*np.array(self)[:, *index])

    def law(self, length: Ints) -> tuple[Ints, Ints, Ints]:
        """``steady``, ``extra`` and ``tail`` of ``BlockLaw``."""
        rest = (length - 1) % self.words + 1
        padded = np.maximum(rest, self.least)
        chunks = (length - rest) // self.words
        visits = chunks * (np.maximum(self.words, self.least) + self.turn) + padded + self.turn
        crossed = np.maximum(rest, self.crossing)
        return (
            self.repeats * visits,
            self.added + self.settles * (crossed - padded),
            self.shown + self.settles * (rest - crossed),
        )

    def output_bytes(self, of: Ints, pixels: Ints, filters: Ints) -> Ints:
        """The share of ``of`` bytes that ``pixels`` · ``filters`` of the outputs have."""
        return up(of * pixels * filters, self.area)


def _fields(job: Job) -> tuple[int, ...]:
    window, traffic, law = job.window, job.traffic, job.law
    return (
        job.row_folds, job.column_folds, job.pixels, job.all_pixels, job.filters, job.all_filters,
        job.area, job.grouped, job.most_rows, job.most_columns, job.most_band,
        traffic.constants, traffic.inputs, traffic.others, traffic.writes,
        window.height, window.kernel, window.stride, window.out_height, window.out_width,
        (window.kernel - window.padding) * window.out_width,
        law.stream, law.repeats, law.least, law.turn, law.words, law.settles, law.crossing,
        law.added, law.shown,
    )  # fmt: skip


def _sizes(folds: Ints) -> tuple[Ints, Bools]:
    """(jobs, most) ``tiling.sizes`` of (jobs, 1) folds, and which there are."""
    powers = 1 << np.arange((int(folds.max()) - 1).bit_length() + 1, dtype=np.int64)
    return np.minimum(powers, folds), powers < 2 * folds


class Rows(NamedTuple):
    """Sizes of blocks in row folds, (jobs, sizes) or spread.

    ``bands`` of them, the last of ``last_pixels``; whole bursts that the first band, ``full`` ones
    after it, and one more load; what a band contributes to its blocks' cycles: ``factor`` times the
    column's, and ``extra``. ``factors``, ``extras`` and ``all_bytes`` are sums over all bands,
    ``loads`` those that load anything.
    """

    size: Ints
    fits: Ints
    bands: Ints
    pixels: Ints
    last_pixels: Ints
    first: Ints
    next: Ints
    rest: Ints
    full: Ints
    factor: Ints
    last_factor: Ints
    extra: Ints
    last_extra: Ints
    tail: Ints

    @classmethod
    def of(cls, job: Numbers, port: Port) -> Self:
        """Of all sizes of (jobs, 1) numbers."""
        size, exist = _sizes(job.row_folds)
        bands = up(job.row_folds, size)
        pixels = np.minimum(size * job.pixels, job.all_pixels)
        last = job.all_pixels - (bands - 1) * pixels
        first, following, full = _bands(job, size, bands)
        fits = exist & (size <= job.most_rows) & (_most_bytes(job, size) <= job.most_band)
        kinds = (_row_law(job, count, of) for count, of in
                 ((size, pixels), (job.row_folds - (bands - 1) * size, last)))  # fmt: skip
        (factor, extra, _), (last_factor, last_extra, tail) = kinds
        rest = job.inputs - first - full * following
        first, following, rest = (whole_bursts(x, port) for x in (first, following, rest))
        return cls(size, 1 * fits, bands, pixels, last, first, following, rest, full, factor,
                   last_factor, extra, last_extra, tail)  # fmt: skip

    def at(self, index: Index) -> Self:
        """Every field at ``index``."""
        return type(self)(*np.array(self)[:, *index])

    @property
    def factors(self) -> Ints:
        """Sum of ``factor`` over all bands."""
        return (self.bands - 1) * self.factor + self.last_factor

    @property
    def extras(self) -> Ints:
        """Sum of ``extra`` over all bands."""
        return (self.bands - 1) * self.extra + self.last_extra

    @property
    def all_bytes(self) -> Ints:
        """Whole bursts of the map."""
        return self.first + self.full * self.next + self.rest

    @property
    def loads(self) -> Ints:
        """Bands that load anything."""
        return 1 * (self.first > 0) + self.full * (self.next > 0) + (self.rest > 0)


def _row_law(job: Numbers, count: Ints, pixels: Ints) -> tuple[Ints, Ints, Ints]:
    """Factor, extra and tail of ``count`` row folds: pixels stream, or filters, or nothing."""
    steady, extra, tail = job.law(np.where(job.stream == PIXELS, pixels, 1))
    factor = np.where(job.stream == PIXELS, 1, count) * np.where(job.stream == FILTERS, 1, steady)
    return factor, np.where(job.stream == FILTERS, 0, extra), tail


def _bands(job: Numbers, size: Ints, bands: Ints) -> tuple[Ints, Ints, Ints]:
    """``first_bytes``, ``next_bytes`` and ``full_bands`` of ``Job``."""
    pixels, whole = size * job.pixels, job.height * job.out_width
    read = np.maximum(0, (pixels - 1) * job.stride + job.reach)
    part = up(job.inputs * np.minimum(whole, read), whole)
    first = np.where(size >= job.row_folds, job.inputs, part)
    following = up(job.inputs * pixels * job.stride, whole)
    full = np.minimum((job.inputs - first) // np.maximum(1, following), bands - 2)
    return first, following, np.maximum(0, full)


def _most_bytes(job: Numbers, size: Ints) -> Ints:
    """``band_bytes`` of ``Job``."""
    pixels, width = size * job.pixels, job.out_width
    spanned = np.where(pixels % width == 0, pixels // width, (pixels - 2) // width + 2)
    spanned = np.minimum(job.out_height, np.maximum(1, spanned))
    needed = np.minimum(job.height, (spanned - 1) * job.stride + job.kernel)
    return np.where(size >= job.row_folds, job.inputs, up(job.inputs * needed, job.height))


class Columns(NamedTuple):
    """Sizes of blocks in column folds, as ``Rows``; ``weights`` are whole bursts of constants."""

    size: Ints
    fits: Ints
    blocks: Ints
    filters: Ints
    last_filters: Ints
    weights: Ints
    last_weights: Ints
    factor: Ints
    last_factor: Ints
    extra: Ints
    last_extra: Ints
    tail: Ints

    @classmethod
    def of(cls, job: Numbers, port: Port) -> Self:
        """Of all sizes of (jobs, 1) numbers."""
        size, exist = _sizes(job.column_folds)
        count = up(job.column_folds, size)
        filters = np.minimum(size * job.filters, job.all_filters)
        last = job.all_filters - (count - 1) * filters
        weights, last_weights = (
            whole_bursts(up(job.constants * some, job.all_filters), port)
            for some in (filters, last)
        )
        kinds = (_column_law(job, folds, of) for folds, of in
                 ((size, filters), (job.column_folds - (count - 1) * size, last)))  # fmt: skip
        (factor, extra, _), (last_factor, last_extra, tail) = kinds
        fits = exist & (size <= job.most_columns)
        return cls(size, 1 * fits, count, filters, last, weights, last_weights, factor,
                   last_factor, extra, last_extra, tail)  # fmt: skip

    def at(self, index: Index) -> Self:
        """Every field at ``index``."""
        return type(self)(*np.array(self)[:, *index])

    @property
    def factors(self) -> Ints:
        """Sum of ``factor`` over all columns."""
        return (self.blocks - 1) * self.factor + self.last_factor

    @property
    def extras(self) -> Ints:
        """Sum of ``extra`` over all columns."""
        return (self.blocks - 1) * self.extra + self.last_extra

    @property
    def all_bytes(self) -> Ints:
        """Whole bursts of all constants."""
        return (self.blocks - 1) * self.weights + self.last_weights


def _column_law(job: Numbers, count: Ints, filters: Ints) -> tuple[Ints, Ints, Ints]:
    """Factor, extra and tail of ``count`` column folds; what does not stream is in the row's."""
    steady, extra, tail = job.law(filters)
    streams = job.stream == FILTERS
    return np.where(streams, steady, count), np.where(streams, extra, 0), tail


@dataclass(frozen=True, slots=True)
class Cases:
    """Cases side by side, every field (cases, 1, 1); blocks are (cases, rows, columns)."""

    job: Numbers
    m: Rows
    n: Columns
    outside: Bools
    port: Port

    def totals(self) -> tuple[Ints, Ints]:
        """Cycles of each case, and the part that computes; (cases,)."""
        m, n, outside = self.m, self.n, self.outside
        column, column_times = _representatives(n.blocks, 0 * n.blocks)
        row, row_times = (np.swapaxes(x, 1, 2) for x in _representatives(m.bands, m.full))
        ends = row == m.bands - 1, column == n.blocks - 1
        begins = row == 0, column == 0
        following = (
            np.where(outside, row + ends[1], np.where(ends[0], 0, row + 1)),
            np.where(outside, np.where(ends[1], 0, column + 1), column + ends[0]),
        )
        preceding = (
            np.where(outside, row - begins[1], np.where(begins[0], m.bands - 1, row - 1)),
            np.where(outside, np.where(begins[1], n.blocks - 1, column - 1), column - begins[0]),
        )
        compute = self._compute(*ends)
        busy = np.maximum(compute, self._load(*following) + self._store(*preceding))
        times = row_times * column_times
        computing: Ints = (compute * times).sum(axis=(1, 2))
        total: Ints = (busy * times).sum(axis=(1, 2))
        return total + edge_cycles(self.job, m, n, self.port)[:, 0, 0], computing

    def _compute(self, last_row: Bools, last_column: Bools) -> Ints:
        """Cycles of blocks on chip; the very last one until its results have left."""
        m, n = self.m, self.n
        factor = np.where(last_row, m.last_factor, m.factor)
        factor = factor * np.where(last_column, n.last_factor, n.factor)
        extra = np.where(last_row, m.last_extra, m.extra)
        tail = np.where(self.job.stream == FILTERS, n.tail, m.tail)
        found: Ints = factor + extra + np.where(last_column, n.last_extra, n.extra)
        return found + (last_row & last_column) * tail

    def _shares(self, of: Ints, last_row: Bools, last_column: Bools) -> Ints:
        """Whole bursts of the part of ``of`` that belongs to blocks; there are four kinds."""
        m, n = self.m, self.n
        pixels = np.concatenate([m.pixels, m.pixels, m.last_pixels, m.last_pixels], axis=-1)
        filters = np.concatenate([n.filters, n.last_filters] * 2, axis=-1)
        kinds = whole_bursts(self.job.output_bytes(of, pixels, filters), self.port)
        full, side, below, corner = (kinds[..., i : i + 1] for i in range(4))
        return np.where(last_row, np.where(last_column, corner, below),
                        np.where(last_column, side, full))  # fmt: skip

    def _load(self, row: Ints, column: Ints) -> Ints:
        """Port cycles of what a block lacks; 0 past the last block."""
        m, n, outside = self.m, self.n, self.outside
        top, left, last_column = row == 0, column == 0, column == n.blocks - 1
        later = np.where(row <= m.full, m.next, np.where(row == m.full + 1, m.rest, 0))
        band = np.where(top, m.first, later)
        weights = np.where(last_column, n.last_weights, n.weights)
        num_bytes = self._shares(self.job.others, row == m.bands - 1, last_column)
        num_bytes = num_bytes + np.where(outside, left, (m.bands > 1) | left) * band
        num_bytes += np.where(outside, (n.blocks > 1) | top, top) * weights
        cycles = port_cycles(num_bytes, self.port)
        return np.where((row < m.bands) & (column < n.blocks), cycles, 0)

    def _store(self, row: Ints, column: Ints) -> Ints:
        """Port cycles of what a block leaves; 0 before the first block."""
        m, n = self.m, self.n
        num_bytes = self._shares(self.job.writes, row == m.bands - 1, column == n.blocks - 1)
        return np.where((row >= 0) & (column >= 0), port_cycles(num_bytes, self.port), 0)


def edge_cycles(job: Numbers, m: Rows, n: Columns, port: Port) -> Ints:
    """Cycles of the first load and of the last store, which nothing hides."""
    others = whole_bursts(job.output_bytes(job.others, m.pixels, n.filters), port)
    writes = whole_bursts(job.output_bytes(job.writes, m.last_pixels, n.last_filters), port)
    return port_cycles(others + m.first + n.weights, port) + port_cycles(writes, port)


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
