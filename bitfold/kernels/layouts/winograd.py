"""Layout ``winograd``: exact integer tiles of 3x3 convolutions of stride 1.

Transformed inputs are bytes with an offset for every position, transformed weights int8. A tile is
taken only where the grids prove that both fit (winograd_tiles.py). Weights on a grid of step 2 may
be written w = 2u + middle; the middle then multiplies the sum of the window.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitfold.ir import Grid
from bitfold.kernels.layouts.common import (
    INT16_MAX,
    SPARE_BYTES,
    conv_epilogue,
    conv_fields,
    image_shape,
)
from bitfold.kernels.layouts.winograd_tiles import ALGORITHMS, TAPS, TILES, Tile
from bitfold.kernels.packed_step import FieldValue, PackedStep
from bitfold.kernels.packing import LANES, QUAD, round_up, to_lanes
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep, Int64Array

SIXTEEN_BIT_ISAS = ("avx2",)  # rows that add products in 16 bits, and scale the sums they flush
SCALED_WEIGHT_ISAS = ("avx512vnni",)  # rows that find the scales in the weights
GROUP_TILES = 6  # tiles that share a panel's loads
# Weights that stay in a second-level cache are read again for every group of tiles; larger ones
# once for a block of tiles that stays there instead.
CACHED_BYTES = 256 * 1024
TRANSFORMED_BYTES = 240 * 1024
INT32_MAX = 2**31 - 1
VECTOR_BYTES = {"scalar": QUAD, "avx2": 32, "avx512vnni": 64}

Int8Array = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Scheme:
    """A tile, and the form of the weights: w = ``weight_step`` · u + ``middle``."""

    tile: Tile
    weight_step: int = 1
    middle: int = 0


class WinogradLayout:
    """Tiles whose operands provably fit bytes; [position][quad][16 lanes][4] int8 a block."""

    name = "winograd"

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Whether a tile is proven exact for the step's grids and depth."""
        return choose_scheme(step, row) is not None

    def fits_every_step(self, row: Row) -> bool:
        """Never: only 3x3 windows of stride 1, of narrow codes."""
        return False

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """Panels, the tile's constants, and scratch for a block of transformed tiles."""
        scheme = choose_scheme(step, row)
        if scheme is None:
            raise ValueError(f"{row.symbol} does not fit step {step.name}")
        weight, scale = transformed_weights(step, scheme, row)
        panels = to_panels(weight)
        fields = conv_fields(step) | {"weight": panels, "panel_bytes": panels[0].nbytes}
        block_bytes = 0 if panels.nbytes <= CACHED_BYTES else TRANSFORMED_BYTES
        places, scratch = lay_out(
            step, scheme.tile, vector_bytes=VECTOR_BYTES[row.isa], block_bytes=block_bytes
        )
        offsets = scheme.tile.offsets(step.x_grid.levels - 1)
        constants: dict[str, FieldValue] = {
            **places,
            **recombination(scheme, step.x_grid),
            "tile_h": scheme.tile.rows,
            "tile_w": scheme.tile.columns,
            "num_quads": panels.shape[2],
            "offsets": repeated(offsets),
            "borders": border_bytes(scheme.tile, fields),
            "starts": start_values(weight, offsets * scale),
            "scales": scale.astype(np.int32),
        }
        if row.isa in SIXTEEN_BIT_ISAS:
            widths = scheme.tile.widths(step.x_grid.levels - 1)
            constants["flushes"] = flush_intervals(weight, widths)
        return PackedStep(fields, conv_epilogue(step), (), scratch, ("bf_winograd", constants))


def choose_scheme(step: ConvStep, row: Row) -> Scheme | None:
    """The proven scheme of the fewest products; without window sums and with more rows first.

    Tiles of a row share their vertical transform, so that rows cost less than columns.
    """
    if not is_plain(step):
        return None
    height, width, _ = image_shape(step.out.shape)
    schemes = [s for s in candidates(step.weight_grid) if is_proven(s, step, row)]
    products = {s: np.prod(s.tile.count(height, width)) * s.tile.positions for s in schemes}
    return min(schemes, key=lambda s: (products[s], s.weight_step, -s.tile.rows), default=None)


def is_plain(step: ConvStep) -> bool:
    """3x3, stride 1, one group."""
    return step.weight.shape[1:3] == (TAPS, TAPS) and step.stride == (1, 1) and step.groups == 1


def candidates(grid: Grid) -> tuple[Scheme, ...]:
    """Every tile with the weights as they are and, on a wider step, as w = step · u + middle."""
    plain = tuple(Scheme(tile) for tile in TILES)
    if grid.step == 1:
        return plain
    middle = grid.lo + grid.step * (grid.levels // 2)
    return plain + tuple(replace(s, weight_step=grid.step, middle=middle) for s in plain)


def is_proven(scheme: Scheme, step: ConvStep, row: Row) -> bool:
    """Whether operands fit bytes, 16-bit sums a quad, and the scaled result 31 bits."""
    tile, most = scheme.tile, step.x_grid.levels - 1
    lo, hi = (
        (end - scheme.middle) // scheme.weight_step
        for end in (step.weight_grid.lo, step.weight_grid.hi)
    )
    least, greatest = tile.weight_range(lo, hi)
    reach = np.maximum(-least, greatest)
    if row.isa in SCALED_WEIGHT_ISAS:
        ends = np.stack((least * tile.scale, greatest * tile.scale))
        least, greatest = ends.min(0), ends.max(0)
    widths = tile.widths(most)
    pairs = 2 * widths * reach if row.isa in SIXTEEN_BIT_ISAS else 0 * widths
    sums = TAPS * TAPS * step.weight.shape[3] * most * max(-lo, hi)
    return bool(
        widths.max() <= np.iinfo(np.uint8).max
        and least.min() >= np.iinfo(np.int8).min
        and greatest.max() <= np.iinfo(np.int8).max
        and pairs.max() <= INT16_MAX
        and sums * tile.divisor <= INT32_MAX
    )


def transformed_weights(
    step: ConvStep, scheme: Scheme, row: Row
) -> tuple[NDArray[np.int16], Int64Array]:
    """Weights (positions, O, C), and the factors (positions,) that ``row`` gives their sums."""
    units = step.weight.astype(np.int8)
    if scheme.weight_step != 1:
        codes = step.weight.astype(np.int64)
        units = ((codes - scheme.middle) // scheme.weight_step).astype(np.int8)
    weight, scale = scheme.tile.transform(units), scheme.tile.scale
    if row.isa in SCALED_WEIGHT_ISAS:
        return weight * scale.astype(np.int16)[:, None, None], np.ones_like(scale)
    return weight, scale


def recombination(scheme: Scheme, x_grid: Grid) -> dict[str, FieldValue]:
    """Acc = bias + (sum >> shift) · multiplier + window_factor · Σ index.

    The sum is a multiple of the divisor 2^shift · odd: the shift is exact, and so is the product
    with the inverse of ``odd`` modulo 2^32.
    """
    divisor = scheme.tile.divisor
    shift = (divisor & -divisor).bit_length() - 1
    inverse = pow(divisor >> shift, -1, 2**32)
    return {
        "shift": shift,
        "multiplier": _signed32(inverse * scheme.weight_step * x_grid.step),
        "window_factor": _signed32(scheme.middle * x_grid.step),
    }


def _signed32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def to_panels(weight: NDArray[np.int16]) -> Int8Array:
    """(positions, O, C) → (blocks, positions, quads, 16, 4) int8."""
    positions, num_out, depth = weight.shape
    quads = round_up(depth, QUAD) // QUAD
    full = np.zeros((positions, round_up(num_out, LANES), quads * QUAD), dtype=np.int8)
    full[:, :num_out, :depth] = weight
    blocks = full.reshape(positions, -1, LANES, quads, QUAD)
    return np.ascontiguousarray(blocks.transpose(1, 0, 3, 2, 4))


def repeated(offsets: Int64Array) -> NDArray[np.uint8]:
    """(positions,) → (positions, 64): a vector register of each."""
    return np.repeat(offsets[:, None], SPARE_BYTES, axis=1).astype(np.uint8)


def lay_out(
    step: ConvStep, tile: Tile, *, vector_bytes: int, block_bytes: int
) -> tuple[dict[str, FieldValue], int]:
    """Sizes, and places in the scratch area, of what a block of tiles needs; the area's bytes."""
    height, width, _ = image_shape(step.out.shape)
    _, columns, depth = image_shape(step.x.shape)
    tiles_y, tiles_x = tile.count(height, width)
    row_pixels = tiles_x * tile.columns + TAPS - 1
    pitch = round_up(depth, vector_bytes)
    tile_bytes = tile.positions * pitch
    block_tiles = round_up(max(1, min(tiles_y * tiles_x, block_bytes // tile_bytes)), GROUP_TILES)
    row_bytes = round_up(row_pixels * depth + 2 * SPARE_BYTES, SPARE_BYTES)
    areas = {
        "fill_at": columns * depth,
        "rows_at": (tile.rows + TAPS - 1) * row_bytes,
        "sums_at": (tile.rows + TAPS - 1) * row_pixels * 4,
        "windows_at": tiles_y * tile.rows * tiles_x * tile.columns * 4,
        "transformed_at": block_tiles * tile_bytes,
    }
    places: dict[str, FieldValue] = {
        "tiles_y": tiles_y, "tiles_x": tiles_x, "block_tiles": block_tiles,
        "pitch": pitch, "row_bytes": row_bytes,
    }  # fmt: skip
    end = 0
    for name, num_bytes in areas.items():
        places[name] = end
        end += round_up(num_bytes + SPARE_BYTES, SPARE_BYTES)
    return places, end


def border_bytes(tile: Tile, fields: dict[str, FieldValue]) -> NDArray[np.uint8]:
    """Vertically transformed padding, one byte a row of the tile, modulo 256."""
    sums = ALGORITHMS[tile.rows].b.sum(1) * int(fields["fill"])
    borders: NDArray[np.uint8] = (sums % 256).astype(np.uint8)
    return borders


def start_values(weight: NDArray[np.int16], offsets: Int64Array) -> NDArray[np.int32]:
    """What takes the offsets out of the sums again: (blocks, positions, 16)."""
    sums = -offsets[:, None] * weight.sum(2, dtype=np.int64)
    lanes = to_lanes(np.ascontiguousarray(sums.T), groups=1)
    blocks = lanes.reshape(-1, LANES, len(offsets)).swapaxes(1, 2)
    return np.ascontiguousarray(blocks).astype(np.int32)


def flush_intervals(weight: NDArray[np.int16], widths: Int64Array) -> NDArray[np.uintp]:
    """Quads that a 16-bit sum holds, for every position: equal runs that provably fit."""
    return np.array(
        [flush_interval(of_one, int(width)) for of_one, width in zip(weight, widths, strict=True)],
        dtype=np.uintp,
    )


def flush_interval(weight: NDArray[np.int16], width: int) -> int:
    """A long equal run of quads of weights (O, C) whose sums fit 16 bits.

    With inputs 0 … width, a sum lies between width times the sum of its negative weights and width
    times that of its positive ones; all of its partial sums do.
    """
    signed = weight.astype(np.float32)  # sums below 2^24 are exact
    absolute = np.abs(signed)
    depth = weight.shape[1]
    quads: int = -(-depth // QUAD)
    interval = quads
    runs = 1
    while interval > 1:
        interval = -(-quads // runs)
        sums = run_indicator(depth, interval)
        one_sided = float((absolute @ sums + np.abs(signed @ sums)).max()) / 2
        if one_sided * width <= INT16_MAX:
            break
        runs = max(runs + 1, int(runs * one_sided * width / INT16_MAX))
    return interval


def run_indicator(depth: int, interval: int) -> NDArray[np.float32]:
    """(C, sums): which channels each 16-bit sum takes, every other pair of a run of quads."""
    channel = np.arange(depth)
    which = channel // (interval * QUAD) * 2 + channel % QUAD // 2
    taken: NDArray[np.float32] = (which[:, None] == np.arange(which.max() + 1)).astype(np.float32)
    return taken
