"""Tiling of one layer under buffer capacity, in closed form (docs/fpga_model.md, section 6).

A layer is cut into blocks of ``rows`` row folds × ``columns`` column folds. The operand of the
outer loop stays while the inner loop runs. Buffers are double: while block b computes, the port
loads what block b + 1 lacks and stores what block b − 1 left:

    cycles = load(0) + Σ_b max(compute(b), load(b + 1) + store(b − 1)) + store(last)

and the last block computes until its results have left the array, ``tail`` cycles more.

``tiling_search.choose`` takes the cheapest of all sizes 1, 2, 4, … folds in both loop orders;
``schedule.step_blocks`` is the same timeline, block by block.
"""

from dataclasses import dataclass
from fractions import Fraction

from bitfold.fpga_sim.cycles import ceil_div

# What of a block streams through the array.
NOTHING, PIXELS, FILTERS = 0, 1, 2
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
class BlockLaw:
    """Cycles of a block on chip, as a stationary array's visits (docs/fpga_model.md, section 2).

    ``stream`` says what of a block streams: NOTHING (an ``os`` array: a fold is one position),
    PIXELS or FILTERS. Of a stream of L positions, chunks of ``words`` and the rest are visited
    ``repeats`` times; a visit of x takes max(x, ``least``) + ``turn``. A block takes besides

        added + settles · (max(rest, crossing) − max(rest, least))

    and the layer's last one ``shown`` + settles · (rest − max(rest, crossing)) more.
    """

    stream: int
    repeats: int
    least: int
    turn: int = 0
    words: int = 1
    settles: int = 0
    crossing: int = 0
    added: int = 0
    shown: int = 0

    def rest(self, length: int) -> int:
        """Positions of the last chunk."""
        return (length - 1) % self.words + 1

    def steady(self, length: int) -> int:
        """Cycles of one fold of a block whose stream has ``length`` positions."""
        rest, least = self.rest(length), self.least
        chunks = (length - rest) // self.words
        visits = chunks * (max(self.words, least) + self.turn) + max(rest, least) + self.turn
        return self.repeats * visits

    def extra(self, length: int) -> int:
        """Cycles that a block takes besides its folds."""
        rest = self.rest(length)
        return self.added + self.settles * (max(rest, self.crossing) - max(rest, self.least))

    def tail(self, length: int) -> int:
        """Cycles that the last block takes more."""
        rest = self.rest(length)
        return self.shown + self.settles * (rest - max(rest, self.crossing))


@dataclass(frozen=True, slots=True)
class Job:
    """One layer on one array, ready to be tiled.

    ``pixels`` of one row fold and of all, ``filters`` of one column fold and of all (a grouped
    layer counts whole folds); ``law``: cycles of a block on chip; ``most_rows``, ``most_columns``
    and ``most_band`` (bytes): what half a buffer holds. Equal jobs have equal plans.
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
    law: BlockLaw
    most_rows: int
    most_columns: int
    most_band: int

    @property
    def area(self) -> int:
        """Outputs of the layer: ``all_pixels`` · ``all_filters``."""
        return self.all_pixels * self.all_filters

    def cost(self, pixels: int, filters: int) -> int:
        """Cycles of a block of (pixels, filters): from its first operand to the next block's."""
        law, rows, columns = (
            self.law,
            ceil_div(pixels, self.pixels),
            ceil_div(filters, self.filters),
        )
        length, folds = (
            (1, rows * columns) if law.stream == NOTHING
            else (pixels, columns) if law.stream == PIXELS else (filters, rows)
        )  # fmt: skip
        return folds * law.steady(length) + law.extra(length)

    def tail(self, pixels: int, filters: int) -> int:
        """Cycles that a block takes more where it is the last: until its results have left."""
        return self.law.tail((1, pixels, filters)[self.law.stream])

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
