"""What a memory of the emitted Verilog becomes: block RAM, LUT RAM or flip-flops.

The choice is that of Yosys' ``memory_libmap`` with its cells of 7-series parts: every cell and
width is priced, the cheapest wins. A price is cells · cost, half a unit a multiplexed read bit and
write enable, and 2 a separate read port; the best price of one cell is kept as an integer, as
there.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from bitfold.fpga_sim.cycles import ceil_div

MUX_PRICE = 0.5
PORT_PRICE = 2
# Inputs of a multiplexer bit that one LUT6 takes; MUXF7 and MUXF8 join them.
MUX_INPUTS = 4
BYTE = 9


@dataclass(frozen=True, slots=True)
class RamKind:
    """A cell of one mode: ``address_bits`` of its narrowest width, data ``widths``, price.

    ``scaled`` of the price is paid for the bits in use only. ``blocks`` is RAMB18 and RAMB36 of one
    cell, ``sites`` its LUT sites.
    """

    address_bits: int
    widths: tuple[int, ...]
    cost: int
    scaled: int = 0
    blocks: tuple[int, int] = (0, 0)
    sites: int = 0

    def depth(self, index: int) -> int:
        """Words at ``widths[index]``."""
        return 1 << (self.address_bits - index)


# Simple dual-port halves and whole blocks, and the cascade of two (true dual-port, narrow).
BLOCKS = (
    RamKind(14, (1, 2, 4, 9, 18, 36), 129, blocks=(1, 0)),
    RamKind(15, (1, 2, 4, 9, 18, 36, 72), 257, blocks=(0, 1)),
    RamKind(16, (1, 2, 4, 9), 513, blocks=(0, 2)),
)
# Dual-port, then simple dual-port memories of 32, 64 (and 128) words in four LUT sites.
LUT_RAMS = (
    RamKind(5, (4,), 8, 8, sites=4),
    RamKind(6, (2,), 8, 8, sites=4),
    RamKind(7, (1,), 8, 8, sites=4),
    RamKind(5, (6,), 8, 7, sites=4),
    RamKind(6, (3,), 8, 7, sites=4),
)


@dataclass(frozen=True, slots=True)
class MemoryCells:
    """Cells of one memory. ``lut`` multiplexes, ``lutram`` are the LUT sites that store."""

    ramb18: int = 0
    ramb36: int = 0
    lut: int = 0
    lutram: int = 0
    ff: int = 0

    @property
    def bram18(self) -> int:
        """Blocks in halves."""
        return self.ramb18 + 2 * self.ramb36


@dataclass(frozen=True, slots=True)
class _Choice:
    kind: RamKind
    cells: int
    banks: int
    price: float


def _choices(kind: RamKind, width: int, depth: int) -> Iterator[_Choice]:
    """Every width of ``kind``: cells side by side, banks behind a multiplexer, price."""
    for index, unit in enumerate(kind.widths):
        banks = ceil_div(depth, kind.depth(index))
        byte = min(BYTE, unit) if kind.sites == 0 else unit
        cells = ceil_div(banks * ceil_div(width, byte) * byte, unit)
        price = (kind.cost - kind.scaled) * cells + kind.scaled * banks * width / unit
        price += MUX_PRICE * (banks - 1) * width + (MUX_PRICE * banks if banks > 1 else 0)
        yield _Choice(kind, cells, banks, price + PORT_PRICE)


def _cheapest(kind: RamKind, width: int, depth: int) -> _Choice:
    """The first width that is cheaper than the truncated price of the best before it."""
    best: _Choice | None = None
    for choice in _choices(kind, width, depth):
        if best is None or choice.price < math.floor(best.price):
            best = choice
    assert best is not None
    return best


# One width, no narrower words.
ULTRA = RamKind(12, (72,), 1024)


@dataclass(frozen=True, slots=True)
class UltraCells:
    """UltraRAM blocks of one memory, its multiplexer and what selects its banks."""

    blocks: int
    lut: int
    ff: int


@cache
def ultra_cells(width: int, depth: int) -> UltraCells:
    """``depth`` words of ``width`` bits in UltraRAM, where that is asked for."""
    choice = _cheapest(ULTRA, width, depth)
    found = _cells(choice, width, registered=True)
    return UltraCells(choice.cells, found.lut, found.ff)


@cache
def memory_cells(width: int, depth: int, *, registered: bool = True) -> MemoryCells:
    """Cells of ``depth`` words of ``width`` bits with one write and one read port.

    ``registered``: the read data are registered (``bf_memory``), so that block RAM is possible;
    else the read is combinational (tables of the threshold units).
    """
    groups = ((LUT_RAMS, True), (BLOCKS, registered))
    best: _Choice | None = None
    least = width * depth
    for kinds, allowed in groups:
        if not allowed:
            continue
        choice = min((_cheapest(kind, width, depth) for kind in kinds), key=lambda x: x.price)
        if choice.price < least:
            best, least = choice, math.floor(choice.price)
    if best is None:
        return flip_flop_cells(width, depth, registered=registered)
    return _cells(best, width, registered=registered)


def flip_flop_cells(width: int, depth: int, *, registered: bool) -> MemoryCells:
    """A memory in flip-flops: enables of the words, multiplexers of the bits."""
    read = ceil_div(depth, MUX_INPUTS) * width if depth > 1 else 0
    return MemoryCells(lut=read + (depth if depth > 1 else 0),
                       ff=width * depth + (width if registered else 0))  # fmt: skip


def _cells(choice: _Choice, width: int, *, registered: bool) -> MemoryCells:
    mux = ceil_div(choice.banks, MUX_INPUTS) * width + choice.banks if choice.banks > 1 else 0
    stored = choice.kind.sites > 0
    held = width if stored and registered else 0
    if not stored and choice.banks > 1:
        held = (choice.banks - 1).bit_length()
    ramb18, ramb36 = choice.kind.blocks
    return MemoryCells(
        ramb18=ramb18 * choice.cells,
        ramb36=ramb36 * choice.cells,
        lut=mux,
        lutram=choice.kind.sites * choice.cells,
        ff=held,
    )
