"""Closed-form cycle counts of one matrix product on the array (fpga_model.md, sections 2 and 7).

A product is (P, K) × (K, M): P output pixels on the rows, M filters on the columns.
"""

from dataclasses import dataclass

from bitfold.errors import UnsupportedError
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
    """K' = ⌈K / S⌉ · serial operand steps of one tile; with a shadow drain at least 2R + C.

    A shadow drain is in use for 2R + C cycles after a tile, so a shorter tile is padded with steps
    of code 0 until its last operands can no longer reach a register in use.
    """
    steps = ceil_div(gemm.depth, array.lanes) * gemm.serial
    return max(steps, array.drain_cycles) if array.drain == "shadow" else steps


def num_tiles(gemm: Gemm, array: ArrayConfig) -> int:
    """T = passes · groups · ⌈P / R⌉ · ⌈M / C⌉: a group is a product of its own."""
    folds = ceil_div(gemm.pixels, array.rows) * ceil_div(gemm.filters, array.cols)
    return gemm.passes * gemm.groups * folds


def shared_cycles(steps: int, tiles: int, *, rows: int, cols: int) -> int:
    """T · (K' + 2R + C − 1) + 1: each tile fills, computes and drains before the next."""
    return tiles * (steps + 2 * rows + cols - 1) + 1


def shadow_cycles(steps: int, tiles: int, *, rows: int, cols: int) -> int:
    """T · K' + 2R + C: tiles follow one another, only the last one's drain shows.

    Requires K' ≥ 2R + C, which ``tile_steps`` sees to.
    """
    return tiles * steps + 2 * rows + cols


def compute_cycles(gemm: Gemm, array: ArrayConfig) -> int:
    """Cycles of one layer on the array, from its first operand read to its last result."""
    if array.mode == "scalesim":
        return scalesim_cycles(gemm, array)
    if array.dataflow != "os":
        raise UnsupportedError(
            f"dataflow {array.dataflow} is modelled only in scalesim mode; the native array is "
            "output-stationary",
            where="dataflow",
            todo="Use dataflow os, or mode scalesim.",
        )
    formula = shared_cycles if array.drain == "shared" else shadow_cycles
    steps, tiles = tile_steps(gemm, array), num_tiles(gemm, array)
    return formula(steps, tiles, rows=array.rows, cols=array.cols)


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
