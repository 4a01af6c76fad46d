"""Closed-form cycle counts of one matrix product on the array (fpga_model.md, sections 2 and 7).

A product is (P, K) × (K, M): P output pixels on the rows, M filters on the columns.
"""

from dataclasses import dataclass

from bitfold.fpga_sim.array import ArrayConfig


def ceil_div(a: int, b: int) -> int:
    """⌈a / b⌉ for b > 0."""
    return -(-a // b)


@dataclass(frozen=True, slots=True)
class Gemm:
    """``groups`` products of (P, K) × (K, M), each visited ``passes`` times (pairs of digits).

    ``serial`` is the number of cycles that a PE spends on one operand step (pairs of bits).
    """

    pixels: int
    depth: int
    filters: int
    groups: int = 1
    passes: int = 1
    serial: int = 1

    @property
    def macs(self) -> int:
        """Multiplications of the layer itself: P · K · M · groups."""
        return self.pixels * self.depth * self.filters * self.groups

    @property
    def products(self) -> int:
        """Multiplications that PEs carry out: macs · passes · serial."""
        return self.macs * self.passes * self.serial


def tile_steps(gemm: Gemm, array: ArrayConfig) -> int:
    """K' = ⌈K / S⌉ · serial operand steps of one tile, output-stationary."""
    return ceil_div(gemm.depth, array.lanes) * gemm.serial


def num_tiles(gemm: Gemm, array: ArrayConfig) -> int:
    """T = passes · groups · ⌈P / R⌉ · ⌈M / C⌉: a group is a product of its own."""
    folds = ceil_div(gemm.pixels, array.rows) * ceil_div(gemm.filters, array.cols)
    return gemm.passes * gemm.groups * folds


def shared_cycles(steps: int, tiles: int, *, rows: int, cols: int) -> int:
    """T · (K' + 2R + C − 1) + 1: each tile fills, computes and drains before the next."""
    return tiles * (steps + 2 * rows + cols - 1) + 1


def shadow_cycles(steps: int, tiles: int, *, rows: int, cols: int) -> int:
    """(T − 1) · max(K', 2R + C) + K' + 2R + C: only the last tile's drain shows.

    A drain register is in use for 2R + C cycles after a tile's last operands, so shorter tiles
    start that far apart. T · K' + 2R + C for all others.
    """
    drain = 2 * rows + cols
    return (tiles - 1) * max(steps, drain) + steps + drain


@dataclass(frozen=True, slots=True)
class Visits:
    """What a stationary array does: ``sequences`` times, one chunk of the stream after the other.

    A chunk of ``full`` positions, the last one of ``rest``, is streamed ``repeats`` times: once
    for each fold of the depth and pair of bit planes.
    """

    sequences: int
    chunks: int
    repeats: int
    full: int
    rest: int

    @property
    def lengths(self) -> tuple[tuple[int, int], ...]:
        """(number of visits, positions of each)."""
        ends = self.sequences * self.repeats
        return ((ends * (self.chunks - 1), self.full), (ends, self.rest))


def visits(gemm: Gemm, array: ArrayConfig) -> Visits:
    """WS: depth on the rows, filters on the columns, pixels stream; IS: filters and pixels swap."""
    streamed, across = gemm.pixels, gemm.filters
    if array.dataflow == "is":
        streamed, across = across, streamed
    full = min(streamed, array.acc_words)
    chunks = ceil_div(streamed, full)
    return Visits(
        sequences=gemm.passes * gemm.groups * ceil_div(across, array.cols),
        chunks=chunks,
        repeats=ceil_div(gemm.depth, array.rows * array.lanes) * gemm.serial,
        full=full,
        rest=streamed - (chunks - 1) * full,
    )


def single_cycles(found: Visits, *, rows: int, cols: int) -> int:
    """Σ (L + 2R + C − 2) + 3: a visit loads R rows, streams L positions and leaves the array."""
    turnaround = 2 * rows + cols - 2
    return sum(count * (length + turnaround) for count, length in found.lengths) + 3


def double_cycles(found: Visits, *, rows: int, cols: int) -> int:
    """Σ max(L, 2R + C − 1), the last visit just L, + 2R + C + 2: loads hide behind the stream.

    The next operand can be loaded only after the last swap has crossed the array: R + C − 1
    cycles, then R loads.
    """
    least = 2 * rows + cols - 1
    total = sum(count * max(length, least) for count, length in found.lengths)
    return total - max(found.rest, least) + found.rest + 2 * rows + cols + 2


def refill_cycles(found: Visits, *, rows: int, cols: int) -> int:
    """Cycles that a run after another one takes more than its visits in ``double_cycles``.

    Its first operand is not there while the last visit before it streams: R loads and a swap come
    after that visit, and not before its own swap has crossed the array, R + C − 1 cycles.
    """
    padded = max(found.rest, 2 * rows + cols - 1)
    return max(found.rest, rows + cols - 1) - padded + rows + 1


def compute_cycles(gemm: Gemm, array: ArrayConfig) -> int:
    """Cycles of one layer on the array, from its first operand read to its last result."""
    if array.mode == "scalesim":
        return scalesim_cycles(gemm, array)
    shared = array.drain == "shared"
    if array.dataflow == "os":
        formula = shared_cycles if shared else shadow_cycles
        steps, tiles = tile_steps(gemm, array), num_tiles(gemm, array)
        return formula(steps, tiles, rows=array.rows, cols=array.cols)
    stationary = single_cycles if shared else double_cycles
    return stationary(visits(gemm, array), rows=array.rows, cols=array.cols)


def scalesim_cycles(gemm: Gemm, array: ArrayConfig) -> int:
    """SCALE-Sim 3.0.0's "Total Cycles" of each group without stalls, summed.

    folds · per_fold − 1; the stationary operands OS (P, M), WS (K, M), IS (K, P) are folded onto
    the array, the third dimension streams. WS and IS load R rows of operands first.
    """
    rows, cols = array.rows, array.cols
    p, k, m = gemm.pixels, gemm.depth, gemm.filters
    down, across, streamed, load = {
        "os": (p, m, k, 0),
        "ws": (k, m, p, rows),
        "is": (k, p, m, rows),
    }[array.dataflow]
    folds = ceil_div(down, rows) * ceil_div(across, cols)
    # Their count is the index of the last cycle, hence one less (their issue 125).
    excess = 1 if array.scalesim_minus_one else 0
    return gemm.groups * (folds * (streamed + load + rows + cols - 2) - excess)


def scalesim_output_size(size: int, *, kernel: int, stride: int) -> int:
    """⌈(size − kernel + stride) / stride⌉, where convolution rounds down; size includes padding."""
    return ceil_div(size - kernel + stride, stride)
