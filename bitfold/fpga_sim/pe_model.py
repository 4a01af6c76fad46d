"""Cells of one PE: products from the table, and what adds them up by law.

The emitted Verilog keeps the boundaries of products, counters of lanes, adders and PEs, so that
synthesis maps each by itself and a PE has exactly their sum. ``docs/fpga_model.md``, section 5.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache

from bitfold.fpga_sim.array import dsp_packing
from bitfold.fpga_sim.calibration import calibration
from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.rtl.design import KINDS, ODD, SIGNED, UNSIGNED, Design
from bitfold.fpga_sim.synthesis import Cells, Unit

BINARY, TERNARY, PARALLEL = KINDS["binary"], KINDS["ternary"], KINDS["parallel"]
SERIAL, DSP = KINDS["serial"], KINDS["dsp"]
# Lanes of which one table a bit counts the matches.
COUNTED = 3
COUNTERS = {1: Cells(lut2=1), 2: Cells(lut4=2), 3: Cells(lut6=2)}
# Bits of a product from which on Yosys takes a DSP block; neither operand may be a sign alone.
DSP_BITS = 9


@dataclass(frozen=True, slots=True)
class Operands:
    """Kind and operands of a PE as parameters of ``bf_pe``."""

    kind: int
    wb: int
    ab: int
    w_fmt: int
    a_fmt: int

    @property
    def counts(self) -> bool:
        """Whether a lane is one bit: a match (XNOR) or a pair of bit planes."""
        return self.kind == SERIAL or (
            self.kind == BINARY and self.ab == 1 and self.a_fmt == ODD
        )  # fmt: skip

    @property
    def signed(self) -> bool:
        """Whether a dot product may be negative."""
        selects = self.kind in (BINARY, TERNARY)
        return not self.counts and (selects or not self.w_fmt == self.a_fmt == UNSIGNED)

    @property
    def product_bits(self) -> int:
        """Bits of one lane's product."""
        if self.kind in (BINARY, TERNARY):
            return self.ab + 1
        return self.wb + self.ab + (ODD in (self.w_fmt, self.a_fmt) and
                                    SIGNED not in (self.w_fmt, self.a_fmt))  # fmt: skip

    def packed(self, lanes: int) -> bool:
        """Whether two lanes share a multiplier."""
        return self.kind == DSP and lanes > 1 and dsp_packing(self.wb, self.ab) == 2

    def terms(self, lanes: int) -> int:
        """Terms that the tree adds up."""
        if self.counts:
            return ceil_div(lanes, COUNTED)
        return ceil_div(lanes, 2) if self.packed(lanes) else lanes

    def term_bits(self, lanes: int) -> int:
        """Bits of a term."""
        if self.counts:
            return 2
        return self.wb + self.ab + 2 if self.packed(lanes) else self.product_bits

    def dot_bits(self, lanes: int) -> int:
        """Bits of the dot product."""
        return self.term_bits(lanes) + (self.terms(lanes) - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a PE is in the array: edges leave out what would go on beyond them."""

    top: bool = False
    right: bool = False
    bottom: bool = False


INTERIOR = Place()


def design_operands(design: Design) -> Operands:
    """What enters a PE of ``design``: a serial one sees planes."""
    kind = KINDS[design.array.pe]
    if kind == SERIAL:
        return Operands(SERIAL, 1, 1, UNSIGNED, UNSIGNED)
    return Operands(kind, design.weight.bits, design.activation.bits, design.weight.form,
                    design.activation.form)  # fmt: skip


@cache
def product_cells(operands: Operands) -> Cells:
    """One lane's product: in a DSP block, or the row of the table."""
    sign = (1, SIGNED) in ((operands.wb, operands.w_fmt), (operands.ab, operands.a_fmt))
    if operands.kind == DSP and operands.product_bits >= DSP_BITS and not sign:
        return Cells(dsp=1)
    kind = PARALLEL if operands.kind == DSP else operands.kind
    values = {"KIND": kind, "WB": operands.wb, "AB": operands.ab, "W_FMT": operands.w_fmt,
              "A_FMT": operands.a_fmt}  # fmt: skip
    return calibration().units[Unit("bf_product", values).key]


@cache
def packed_cells(operands: Operands) -> Cells:
    """Two lanes in one DSP block, and what puts them together and takes them apart.

    The block's adder packs the wider factor; tables subtract the signs of the narrower one, and add
    what the lower field has borrowed. Single bits take no block.
    """
    field = operands.wb + operands.ab + 2
    if 2 * field >= DSP_BITS:
        weight = operands.wb <= operands.ab
        form = operands.w_fmt if weight else operands.a_fmt
        bits = 0 if form == UNSIGNED else min(operands.wb, operands.ab)
        chain = ceil_div(field, 4) + (ceil_div(bits + 2, 4) if bits else 0)
        return Cells(lut2=1 + bits, carry4=chain, dsp=1)
    values = {"WB": operands.wb, "AB": operands.ab, "W_FMT": operands.w_fmt,
              "A_FMT": operands.a_fmt, "FIELD": field}  # fmt: skip
    return calibration().units[Unit("bf_packed", values, dsp=True).key]


def add_cells(bits: int, out_bits: int) -> Cells:
    """An adder of two numbers of ``bits`` bits: a table a bit, and a carry chain."""
    return Cells(lut2=min(bits, out_bits), carry4=ceil_div(out_bits, 4))


def tree_heights(terms: int) -> Counter[int]:
    """Adders by their height in a heap of ``terms`` leaves."""
    found: Counter[int] = Counter()
    for node in range(terms - 1):
        height, at = 0, node
        while at < terms - 1:
            height, at = height + 1, 2 * at + 1
        found[height] += 1
    return found


def term_cells(operands: Operands, lanes: int) -> Cells:
    """All terms of a dot product."""
    if operands.counts:
        whole, rest = divmod(lanes, COUNTED)
        return COUNTERS[COUNTED].times(whole) + (COUNTERS[rest] if rest else Cells())
    if operands.packed(lanes):
        single = product_cells(operands) if lanes % 2 else Cells()
        return packed_cells(operands).times(lanes // 2) + single
    return product_cells(operands).times(lanes)


@cache
def dot_cells(operands: Operands, lanes: int, acc: int) -> Cells:
    """Terms and the tree that adds them, no wider than ``acc`` bits."""
    found, bits = term_cells(operands, lanes), operands.term_bits(lanes)
    for height, count in tree_heights(operands.terms(lanes)).items():
        out = bits + height
        found += add_cells(min(out - 1, acc), min(out, acc)).times(count)
    return found


def sum_cells(operands: Operands, lanes: int, acc: int, place: Place) -> Cells:
    """The accumulator of a PE that owns its sum, without its register.

    A bit has an adder, a gate that forgets the sum, and a drain multiplexer; where the dot product
    is unsigned and narrower, gate and adder share a table. A serial one also shifts and negates.
    """
    bits = min(operands.dot_bits(lanes), acc)
    drain = Cells(lut5=0 if place.top else acc)
    chain = ceil_div(acc, 4)
    if operands.kind == SERIAL:
        return drain + Cells(lut2=acc - bits, lut3=bits, lut5=2 * (bits - 1),
                             lut6=acc - bits + 1, carry4=2 * chain)  # fmt: skip
    if operands.signed or bits == acc:
        return drain + Cells(lut2=acc, lut3=acc, carry4=chain)
    return drain + Cells(lut2=acc - bits, lut3=bits, carry4=chain)


@cache
def os_cells(
    operands: Operands, lanes: int, acc: int, *, shadow: bool, place: Place = INTERIOR
) -> Cells:
    """One output-stationary PE.

    Flip-flops: the sum, what goes right (operand, valid, first; last with a shadow register; two
    flags of a serial PE), what goes down, and a shadow register of the sum.
    """
    ff = acc * (2 if shadow else 1)
    if not place.right:
        ff += lanes * operands.ab + 2 + shadow + (2 if operands.kind == SERIAL else 0)
    if not place.bottom:
        ff += lanes * operands.wb
    logic = dot_cells(operands, lanes, acc) + sum_cells(operands, lanes, acc, place)
    return logic + Cells(ff=ff)


@cache
def moving_cells(
    operands: Operands, lanes: int, acc: int, *, shadow: bool, inputs: bool, place: Place = INTERIOR
) -> Cells:
    """One PE of a stationary dataflow; ``inputs``: input-stationary.

    The sum of the PE above is added to. The top row registers its dot product alone.
    """
    bits = min(operands.dot_bits(lanes), acc)
    x_bits, y_bits = operands.ab, operands.wb
    if inputs:
        x_bits, y_bits = y_bits, x_bits
    ff = lanes * y_bits * (2 if shadow else 1) + (bits if place.top else acc)
    if not place.right:
        ff += lanes * x_bits + shadow
    found = dot_cells(operands, lanes, acc) + Cells(ff=ff)
    if place.top:
        return found
    width = acc if operands.signed else bits
    return found + Cells(lut2=width, carry4=ceil_div(acc, 4))


def pe_cells(design: Design, place: Place = INTERIOR) -> Cells:
    """One PE of ``design``."""
    array, operands = design.array, design_operands(design)
    shadow, lanes = array.drain == "shadow", array.lanes
    if array.dataflow == "os":
        return os_cells(operands, lanes, design.acc_bits, shadow=shadow, place=place)
    inputs = array.dataflow == "is"
    return moving_cells(operands, lanes, design.acc_bits, shadow=shadow, inputs=inputs, place=place)


def array_cells(design: Design) -> Cells:
    """All PEs of the array, each as its place has it."""
    rows, cols = design.array.rows, design.array.cols
    found = Cells()
    for top in (True, False):
        for bottom in (True, False):
            down = sum((r == 0) == top and (r == rows - 1) == bottom for r in range(rows))
            for right, across in ((True, 1), (False, cols - 1)):
                if down * across:
                    place = Place(top, right, bottom)
                    found += pe_cells(design, place).times(down * across)
    return found
