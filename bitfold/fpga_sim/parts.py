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
from bitfold.fpga_sim.pe_model import array_cells, design_operands, pe_cells
from bitfold.fpga_sim.rtl.design import COUNT_BITS, Design, ThresholdUnit
from bitfold.fpga_sim.synthesis import Cells

SRL_BITS = 32
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
# Worst difference in LUT of a PE synthesised in a run of its own, up to so many operand bits and
# beyond: how Yosys maps a multiplier depends on the other units that it reads.
RUN_BITS, RUN_BARS = 6, (0.02, 0.185)
# Flags of a stationary core that travel beside the sums.
FLAGS = 6
# FF and LUT of a bit of a table's index, by ROLE: output-stationary, column folds, filters.
INDEX_BITS = {-1: (2, 0), 0: (1, 0), 1: (3, 2)}


@dataclass(frozen=True, slots=True)
class PartCost:
    """Cells of a part; ``lut`` and ``lc`` include the LUT sites of LUT RAM and shift registers.

    ``*_error`` are absolute bounds; ``standing`` is table, law, or formula: a part
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


def synthesised(name: str, cells: Cells) -> PartCost:
    """A part as Yosys counted it."""
    return PartCost(name, cells.luts, cells.lc + cells.lutram, cells.ff, cells.carry4, cells.dsp,
                    cells.ramb18, cells.ramb36, standing="table")  # fmt: skip


def pe_cost(design: Design) -> PartCost:
    """One interior PE."""
    found = replace(synthesised("pe", pe_cells(design)), standing="law").uncertain("pe")
    return _of_a_run(design, found)


def array_cost(design: Design, pe: Cells | None = None) -> PartCost:
    """The R × C array alone: the sum of its PEs; ``pe``: an interior one as synthesised."""
    cells = array_cells(design)
    if pe is None:
        found = replace(synthesised("array", cells), standing="law").uncertain("array")
        return _of_a_run(design, found)
    more = {what: design.array.pes * (getattr(pe, what) - getattr(pe_cells(design), what))
            for what in ("luts", "lc", "ff", "carry4", "dsp")}  # fmt: skip
    return PartCost("array", cells.luts + more["luts"], cells.lc + more["lc"],
                    cells.ff + more["ff"], cells.carry4 + more["carry4"],
                    cells.dsp + more["dsp"])  # fmt: skip


def _of_a_run(design: Design, part: PartCost) -> PartCost:
    """With what LUT multipliers differ by between runs of Yosys that read other units besides."""
    operands = design_operands(design)
    if design.array.pe != "parallel":
        return part
    bar = RUN_BARS[operands.wb + operands.ab > RUN_BITS]
    return replace(part, lut_error=part.lut_error + bar * part.lut,
                   lc_error=part.lc_error + bar * part.lc)  # fmt: skip


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
        flags = 2 + shadow + (2 if array.pe == "serial" else 0)
        parts = [(array.rows, lanes * operands.ab + flags), (array.cols, lanes * operands.wb)]
    else:
        x_bits = operands.wb if array.dataflow == "is" else operands.ab
        parts = [(array.rows, lanes * x_bits + shadow)]
    sites = sum(_skew(*part)[0] for part in parts)
    ff = sum(_skew(*part)[1] for part in parts)
    if array.dataflow != "os":
        # The last row's sum register is the last column's result: PEs keep their boundary.
        more, kept = _skew(array.cols, design.acc_bits)
        sites, ff = sites + more, ff + kept
    return PartCost("skew", sites, sites, ff)


def control_values(design: Design) -> dict[str, int]:
    """Parameters of the controller of ``design``."""
    array = design.array
    found = {"ROWS": array.rows, "COLS": array.cols, "SHADOW": int(array.drain == "shadow"),
             "TW": max(1, table_bits(design))}  # fmt: skip
    if array.pe == "serial":
        found |= {"PA": design.activation.bits, "PW": design.weight.bits}
    return found if array.dataflow == "os" else found | {"ROLE": int(array.dataflow == "is")}


def control_module(design: Design) -> str:
    """The controller of ``design``."""
    return "bf_control_os" if design.array.dataflow == "os" else "bf_control_ws"


def control_cost(module: str, values: Mapping[str, int], *, itself: bool = True) -> PartCost:
    """A controller: of the table, or the nearest there; ``itself`` allows the former.

    Counters of tables, one or three registers of TW bits and one beside the drain, go by law.
    """
    rows = [row for row in _units(module) if itself or row[0] != values]
    near, cells = min(rows, key=lambda row: _control_apart(row[0], values))
    found = synthesised("controller", cells)
    if near == values:
        return found
    bits = values["TW"] - near["TW"]
    held, logic = INDEX_BITS[values.get("ROLE", -1)]
    found = replace(found, lut=found.lut + logic * bits, ff=found.ff + held * bits)
    return found.uncertain("control")


def _control_apart(values: Mapping[str, int], wanted: Mapping[str, int]) -> tuple[int, int, float]:
    """Flags and bit-serial or not first, then planes, then size and bits of the table's index."""
    flags = sum(values.get(key) != wanted.get(key) for key in ("SHADOW", "ROLE"))
    flags += ("PA" in values) != ("PA" in wanted)
    planes = sum(abs(values.get(key, 0) - wanted.get(key, 0)) for key in ("PA", "PW"))
    sizes = (row["ROWS"] * row["COLS"] for row in (values, wanted))
    apart = abs(math.log2(next(sizes) / next(sizes))) + abs(values["TW"] - wanted["TW"])
    return flags, planes, apart


@cache
def _units(module: str) -> tuple[tuple[dict[str, int], Cells], ...]:
    found = []
    for key, cells in calibration().units.items():
        name, *texts = key.split()
        if name == module:
            pairs = (text.split("=") for text in texts if "=" in text)
            found.append(({a: int(b) for a, b in pairs}, cells))
    return tuple(found)


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
        control_cost(control_module(design), control_values(design)),
        result_cost(design),
        accumulate_cost(design),
        thresholds_cost(design),
    )
