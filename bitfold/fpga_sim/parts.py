"""Cells of what surrounds the PEs in the emitted Verilog: laws, each compared with Yosys.

Part by part as in ``bf_top``: array, skew, controller, result registers, accumulator memory,
threshold units. ``docs/fpga_model.md``, section 5, lists their errors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache

from bitfold.fpga_sim.block_memory import MemoryCells, flip_flop_cells, memory_cells
from bitfold.fpga_sim.calibration import calibration
from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.pe_model import PeCounts, design_operands, pe_counts
from bitfold.fpga_sim.rtl.design import COUNT_BITS, UNSIGNED, Design, ThresholdUnit
from bitfold.fpga_sim.synthesis import Cells

SRL_BITS = 32
# Operand bits up to which an array is as many PEs, to the LUT or nearly.
PLAIN_BITS = 3
# Two LUT compare three bits of a sum with a threshold.
COMPARED_BITS, COMPARE_LUTS = 3, 2
# LUT of a unit that counts the thresholds reached and loads its table, by code bits.
COUNTING_LUTS = {1: 3, 2: 6, 3: 15, 4: 34}
COUNTING_LUTS_EACH = 2.3
# A search: prefixes and load decoders grow with the square of the code bits.
SEARCH_LUTS = 0.55
# Flip flags of so many tables: their read address is registered, which makes LUT RAM dearer.
FLIPS_IN_FLIP_FLOPS = 8
# A table in block RAM reads what is being written through a bypass: a comparison of addresses.
BYPASS_LUTS = 10
PAIRED = 0.95
# LUT that select a bit plane of an operand, by its bits.
PLANE_LUTS = {1: 0, 2: 1, 3: 2, 8: 3}
PLANE_LUTS_MOST = 4
# Results register, table and flags of a stationary core.
FLAGS = 6


@dataclass(frozen=True, slots=True)
class PartCost:
    """Cells of a part; ``lut`` and ``lc`` include the LUT sites of LUT RAM and shift registers.

    ``*_error`` are absolute bounds; ``standing`` is table, law, lanes, fitted, or formula: a part
    that no Verilog exists of.
    """

    name: str
    lut: int
    lc: int
    ff: int
    carry4: int = 0
    dsp: int = 0
    ramb18: int = 0
    ramb36: int = 0
    lut_error: float = 0.0
    lc_error: float = 0.0
    ff_error: float = 0.0
    carry4_error: float = 0.0
    standing: str = "law"

    def times(self, count: int) -> "PartCost":
        """``count`` of them."""
        numbers = {field.name: getattr(self, field.name) * count for field in fields(self)
                   if field.name not in ("name", "standing")}  # fmt: skip
        return replace(self, **numbers)

    def uncertain(self, key: str) -> "PartCost":
        """With the worst residuals that the table has for parts called ``key``."""
        found = calibration().residuals
        errors = {
            f"{what}_error": getattr(self, f"{what}_error")
            + getattr(self, what) * found[f"{key} {what}"].bar
            for what in ("lut", "lc", "ff", "carry4")
        }
        return replace(self, **errors)


def pe_cost(design: Design) -> PeCounts:
    """One interior PE.

    FF = ACC + S · (W + A) + flags: valid, first and last (two more in a serial PE), and ACC of a
    shadow drain; a stationary PE has one flag, and a second stationary operand with ``shadow``.
    """
    array, operands = design.array, design_operands(design)
    moving = array.dataflow != "os"
    shadow = array.drain == "shadow"
    wires = array.lanes * (operands.wb + operands.ab)
    if moving:
        y_bits = operands.ab if array.dataflow == "is" else operands.wb
        kept = wires + 1 + (array.lanes * y_bits if shadow else 0)
    else:
        kept = wires + _flags(design) + (design.acc_bits if shadow else 0)
    return pe_counts(operands, array.lanes, design.acc_bits, moving=moving, kept=kept)


def _flags(design: Design) -> int:
    return 5 if design.array.pe == "serial" else 3


def dot_bits(design: Design) -> int:
    """Bits of a PE's dot product."""
    operands, lanes = design_operands(design), design.array.lanes
    terms = operands.terms(lanes)
    return min(design.acc_bits, operands.term_bits(lanes) + max(0, terms - 1).bit_length())


def array_cost(design: Design, pe: PeCounts | None = None) -> PartCost:
    """The R × C array alone, from one PE: the model's, or the one given."""
    pe = pe or pe_cost(design)
    return _os_array(design, pe) if design.array.dataflow == "os" else _moving_array(design, pe)


def _os_array(design: Design, pe: PeCounts) -> PartCost:
    """LUT = R · C · PE − C · ACC: the top row has no drain multiplexer.

    FF: behind the last column and row operands and flags are trimmed; without a shadow register
    nobody reads the flag of the last step.
    """
    array, operands = design.array, design_operands(design)
    unread = 0 if array.drain == "shadow" else 1
    top = array.cols * design.acc_bits
    ff = array.pes * (pe.ff - unread)
    ff -= array.rows * (array.lanes * operands.ab + _flags(design) - unread)
    ff -= array.cols * array.lanes * operands.wb
    return _of_pes(design, pe, lut=top, lc=top, ff=ff - _in_dsp(design))


def _in_dsp(design: Design) -> int:
    """Activations that only the last column reads: input registers of its DSP blocks hold them."""
    array, operands = design.array, design_operands(design)
    moves = operands.packed and operands.a_fmt == UNSIGNED and array.cols > 1
    return array.rows * array.lanes * operands.ab if moves else 0


def _moving_array(design: Design, pe: PeCounts) -> PartCost:
    """The top row adds nothing, the sums of the second are as narrow as a dot product.

    FF: behind the last column operands and flag are trimmed, and the flag altogether without a
    second register; the sums of the top row have the bits of a dot product.
    """
    array, operands = design.array, design_operands(design)
    shadow = array.drain == "shadow"
    x_bits = operands.wb if array.dataflow == "is" else operands.ab
    narrow = design.acc_bits - dot_bits(design)
    top = array.cols * (design.acc_bits + (narrow if array.rows > 1 else 0))
    ff = array.pes * (pe.ff - (0 if shadow else 1))
    ff -= array.rows * (array.lanes * x_bits + (1 if shadow else 0))
    ff -= array.cols * narrow + (_in_dsp(design) if array.dataflow == "ws" else 0)
    return _of_pes(design, pe, lut=top, lc=top // 2, ff=ff)


def _of_pes(design: Design, pe: PeCounts, *, lut: int, lc: int, ff: int) -> PartCost:
    pes, table = design.array.pes, calibration().residuals
    key = array_standing(design)
    lut, lc = pes * pe.lut - lut, pes * pe.lc - lc
    carry = pes * pe.carry4
    return PartCost(
        "array",
        lut,
        lc,
        ff,
        carry4=carry,
        dsp=pes * pe.dsp,
        lut_error=lut * (pe.lut_error + table[f"{key} lut"].bar),
        lc_error=lc * (pe.lc_error + table[f"{key} lc"].bar),
        ff_error=ff * table[f"{key} ff"].bar,
        carry4_error=carry * (pe.carry4_error + table[f"{key} carry4"].bar),
        standing=pe.standing,
    )


def array_standing(design: Design) -> str:
    """Whose residuals an array has: popcounts and wide products are mapped otherwise than alone."""
    operands = design_operands(design)
    if design.array.pe == "dsp" and not operands.packed:
        return "unpacked dsp array"
    if design.array.dataflow != "os":
        return "moving array"
    if operands.counts:
        return "popcount array"
    return "array" if max(operands.wb, operands.ab) <= PLAIN_BITS else "wide array"


def delay_cost(wires: int, cycles: int) -> tuple[int, int]:
    """LUT sites and FF of ``wires`` delayed by ``cycles``: shift-register LUT from 3 cycles on."""
    if cycles < 3:
        return 0, wires * cycles
    return wires * ceil_div(cycles, SRL_BITS), 0


def _skew(parts: int, wires: int) -> tuple[int, int]:
    found = [delay_cost(wires, i) for i in range(parts)]
    return sum(sites for sites, _ in found), sum(ff for _, ff in found)


def skew_cost(design: Design) -> PartCost:
    """Row r and column c enter r and c cycles late; sums of stationary arrays leave aligned."""
    array, operands = design.array, design_operands(design)
    lanes, shadow = array.lanes, array.drain == "shadow"
    if array.dataflow == "os":
        rows = lanes * operands.ab + _flags(design) - (0 if shadow else 1)
        parts = [(array.rows, rows), (array.cols, lanes * operands.wb)]
    else:
        x_bits = operands.wb if array.dataflow == "is" else operands.ab
        parts = [(array.rows, lanes * x_bits + (1 if shadow else 0))]
    sites = sum(_skew(*part)[0] for part in parts)
    ff = sum(_skew(*part)[1] for part in parts)
    if array.dataflow != "os":
        more, kept = _deskew(array.cols, design.acc_bits)
        sites, ff = sites + more, ff + kept
    return PartCost("skew", sites, sites, ff)


def _deskew(cols: int, wires: int) -> tuple[int, int]:
    """Sums leave aligned; the last row's sum register is the first of its column's delay.

    FF beyond those registers, which the array counts: fewer where they go into shift registers.
    """
    found = [delay_cost(wires, i + 1) for i in range(cols)]
    return sum(sites for sites, _ in found), sum(ff for _, ff in found) - cols * wires


def control_cost(design: Design, *, itself: bool = True) -> PartCost:
    """The controller: of the table, or of the nearest size there; ``itself`` allows the former."""
    array = design.array
    module = "bf_control_os" if array.dataflow == "os" else "bf_control_ws"
    wanted = {"ROWS": array.rows, "COLS": array.cols, "SHADOW": int(array.drain == "shadow")}
    if array.pe == "serial":
        wanted |= {"PA": design.activation.bits, "PW": design.weight.bits}
    rows = [row for row in _units(module) if itself or row[0] != wanted]
    values, cells = min(rows, key=lambda row: _control_apart(row[0], wanted))
    found = synthesised("controller", cells)
    return found if values == wanted else found.uncertain("control")


def _control_apart(values: Mapping[str, int], wanted: Mapping[str, int]) -> tuple[int, float]:
    """Serial or not first, then the drain, planes, and size."""
    planes = sum(abs(values.get(key, 0) - wanted.get(key, 0)) for key in ("SHADOW", "PA", "PW"))
    serial = 100 * (("PA" in values) != ("PA" in wanted))
    sizes = (row["ROWS"] * row["COLS"] for row in (values, wanted))
    return serial + planes, abs(math.log2(next(sizes) / next(sizes)))


@cache
def _units(module: str) -> tuple[tuple[dict[str, int], Cells], ...]:
    found = []
    for key, cells in calibration().units.items():
        name, *texts = key.split()
        if name == module:
            pairs = (text.split("=") for text in texts if "=" in text)
            found.append(({a: int(b) for a, b in pairs}, cells))
    return tuple(found)


def synthesised(name: str, cells: Cells) -> PartCost:
    """A part as Yosys counted it."""
    return PartCost(name, cells.luts, cells.lc + cells.lutram, cells.ff, cells.carry4, cells.dsp,
                    cells.ramb18, cells.ramb36, standing="table")  # fmt: skip


def memory_cost(name: str, cells: MemoryCells) -> PartCost:
    """A memory."""
    lut = cells.lut + cells.lutram
    found = PartCost(name, lut, lut, cells.ff, ramb18=cells.ramb18, ramb36=cells.ramb36)
    return found.uncertain("memory")


def threshold_cost(unit: ThresholdUnit, acc_bits: int) -> PartCost:
    """One threshold unit: COUNT comparators, or a pipeline of one a bit."""
    width = acc_bits + 1
    compare = COMPARE_LUTS * ceil_div(width, COMPARED_BITS)
    carry = ceil_div(ceil_div(width, COMPARED_BITS), 4)
    if unit.search:
        return _search_cost(unit, acc_bits, compare=compare, carry=carry)
    table = memory_cost("", memory_cells(width, unit.tables, registered=False)).times(unit.count)
    flips = memory_cost("", memory_cells(1, unit.tables, registered=False))
    counting = COUNTING_LUTS.get(unit.bits, COUNTING_LUTS_EACH * unit.count)
    logic = unit.count * compare + round(counting)
    sites = table.lut + flips.lut
    found = PartCost(
        "thresholds", logic + sites, round(logic * PAIRED) + sites, unit.bits + table.ff + flips.ff,
        carry4=unit.count * carry,
    )  # fmt: skip
    return found.uncertain("threshold")


def _search_cost(unit: ThresholdUnit, acc_bits: int, *, compare: int, carry: int) -> PartCost:
    """Stage j has tables · 2^j entries; all but the first are read by a registered address."""
    width, bits = acc_bits + 1, unit.bits
    tables = [_stage_table(width, unit.tables << j, first=j == 0) for j in range(bits)]
    few = unit.tables <= FLIPS_IN_FLIP_FLOPS
    flips = (flip_flop_cells if few else memory_cells)(1, unit.tables, registered=False)
    blocks = sum(x.bram18 > 0 for x in tables)
    logic = bits * compare + round(SEARCH_LUTS * bits**2) + blocks * (width + BYPASS_LUTS)
    logic += sum(x.lut for x in tables) + flips.lut
    sites = sum(x.lutram for x in tables) + flips.lutram
    index = (unit.tables - 1).bit_length() if unit.tables > 1 else 0
    ff = (bits - 1) * acc_bits + bits * index + bits * (bits + 1) // 2
    ff += sum(x.ff for x in tables) + flips.ff + ((width + blocks) if blocks else 0)
    found = PartCost(
        "thresholds", logic + sites, round(logic * PAIRED) + sites, ff, carry4=bits * carry,
        ramb18=sum(x.ramb18 for x in tables), ramb36=sum(x.ramb36 for x in tables),
    )  # fmt: skip
    return found.uncertain("threshold")


def _stage_table(width: int, depth: int, *, first: bool) -> MemoryCells:
    """A table of a search; the registers in front of LUT RAM are those of the pipeline."""
    found = memory_cells(width, depth, registered=not first)
    return found if found.bram18 else memory_cells(width, depth, registered=False)


def unread_cost(design: Design) -> PartCost:
    """What nobody reads of a controller in its place: counters of tables beyond their address.

    Negative. A weight-stationary array counts column folds, an input-stationary one filters.
    """
    spare = COUNT_BITS - table_bits(design)
    if design.array.dataflow == "os":
        return PartCost("unread", 0, 0, -2 * spare)
    ff = 3 * COUNT_BITS + spare if design.array.dataflow == "ws" else COUNT_BITS + 3 * spare
    return PartCost("unread", -ff, -ff, -ff)


def table_bits(design: Design) -> int:
    """Address bits of the threshold tables."""
    return 0 if design.thresholds is None else max(1, (design.thresholds.tables - 1).bit_length())


def thresholds_cost(design: Design, unit: PartCost | None = None) -> PartCost:
    """The units of all columns, the model's or one given, and the decoder of the column loaded."""
    if design.thresholds is None:
        return PartCost("thresholds", 0, 0, 0)
    units = (unit or threshold_cost(design.thresholds, design.acc_bits)).times(design.array.cols)
    latency = design.thresholds.latency
    decoder = design.array.cols * ceil_div(COUNT_BITS, 6)
    return replace(units, lut=units.lut + decoder, lc=units.lc + decoder, ff=units.ff + latency)


def result_cost(design: Design) -> PartCost:
    """Result registers; matches become sums by subtraction; serial PEs have planes selected."""
    array, operands = design.array, design_operands(design)
    ff = array.cols * design.acc_bits
    if array.pe == "serial":
        wires = ((design.activation, array.rows), (design.weight, array.cols))
        lut = sum(n * array.lanes * PLANE_LUTS.get(x.bits, PLANE_LUTS_MOST) for x, n in wires)
        return PartCost("results", lut, lut, ff)
    if not operands.counts:
        return PartCost("results", 0, 0, ff)
    lut = array.cols * (design.acc_bits - 1)
    carry = array.cols * ceil_div(design.acc_bits, 4)
    return PartCost("results", lut, ceil_div(lut, 2), ff, carry4=carry)


def accumulate_cost(design: Design) -> PartCost:
    """Stationary dataflows: an adder a column, and what travels beside the sums."""
    array = design.array
    if array.dataflow == "os":
        return PartCost("accumulators", 0, 0, 0)
    address = max(1, (array.acc_words - 1).bit_length())
    serial = array.pe == "serial"
    table = table_bits(design)
    tags = (FLAGS if serial else FLAGS - 2) + address + table
    sites, waiting = delay_cost(tags, array.rows + array.cols - 1)
    lut = array.cols * design.acc_bits * (2 if serial else 1) + sites
    carry = array.cols * ceil_div(design.acc_bits, 4)
    ff = waiting + 2 * table + address + FLAGS
    return PartCost("accumulators", lut, lut, ff, carry4=carry)


def accumulator_memory(design: Design) -> PartCost:
    """The memory of partial sums of the stationary dataflows."""
    array = design.array
    if array.dataflow == "os":
        return PartCost("sums", 0, 0, 0)
    return memory_cost("sums", memory_cells(array.cols * design.acc_bits, array.acc_words))


def design_parts(design: Design) -> tuple[PartCost, ...]:
    """Every part of ``bf_top`` but its accumulator memory."""
    return (
        array_cost(design),
        skew_cost(design),
        control_cost(design),
        unread_cost(design),
        result_cost(design),
        accumulate_cost(design),
        thresholds_cost(design),
    )
