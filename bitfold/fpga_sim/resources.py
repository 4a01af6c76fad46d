"""LUT, FF, DSP and block RAM of the array and its surroundings (docs/fpga_model.md, section 5).

Calibrated on Yosys 0.23 (``calibration.toml``). Every formula names its range of validity there.
"""

import tomllib
from collections.abc import Mapping as ReadOnlyDict
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

from bitfold.errors import UnsupportedError
from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.mapping import Mapping
from bitfold.fpga_sim.memory import bram36, buffers
from bitfold.ir.graph import IntGraph
from bitfold.ir.ops import Rescale
from bitfold.ir.types import FloatTensor, signed_bits

KINDS = ("1", "T", "2", "3", "4", "5", "6", "7", "8")
SRL_BITS = 32
# Controller and address counters of the one measured top level, 8×8: the dearer of (2,2) and
# (T,T). Skew registers and threshold units are counted apart.
CONTROL_LUT = 243
CONTROL_FF = 98
# A LUT for the adder bit, a LUT for the drain multiplexer bit.
LUT_PER_ACC_BIT = 2
PARALLEL_THRESHOLD_BITS = 4
# Signed operand widths of DSP48E1, the narrowest multiplier of the families in devices.toml.
DSP_WIDE, DSP_NARROW = 25, 18


def kind_bits(kind: str) -> int:
    """Wires of an operand kind: a ternary code takes two."""
    return 2 if kind == "T" else int(kind)


@dataclass(frozen=True, slots=True)
class PeRow:
    """One synthesised PE: LUT and estimated LC by lanes, at ``acc`` accumulator bits."""

    weight: str
    activation: str
    acc: int
    threshold_lut: int
    threshold_ff: int
    lanes: ReadOnlyDict[int, tuple[int, int]]

    @property
    def name(self) -> str:
        """``(W,A)``."""
        return f"({self.weight},{self.activation})"


@cache
def calibration() -> tuple[PeRow, ...]:
    """The rows of ``calibration.toml``, cheapest first."""
    text = resources.files("bitfold.fpga_sim").joinpath("calibration.toml").read_text("utf-8")
    return tuple(
        PeRow(
            weight=row["weight"],
            activation=row["activation"],
            acc=row["acc"],
            threshold_lut=row["threshold"][0],
            threshold_ff=row["threshold"][1],
            lanes=MappingProxyType({int(s): (v[0], v[1]) for s, v in row["lanes"].items()}),
        )
        for row in tomllib.loads(text)["pe"]
    )


def covering_row(weight: str, activation: str) -> PeRow:
    """The cheapest synthesised PE both of whose operands are at least as wide (1 < T < 2 < 3 …)."""
    wanted = KINDS.index(weight), KINDS.index(activation)
    for row in calibration():
        if KINDS.index(row.weight) >= wanted[0] and KINDS.index(row.activation) >= wanted[1]:
            return row
    raise UnsupportedError(f"no synthesised PE covers ({weight},{activation})", where="array")


def interpolate_lanes(row: PeRow, lanes: int) -> tuple[int, int]:
    """LUT and LC at ``lanes``: between synthesised points linear, beyond them with the last slope.

    Rounded up; exact at the synthesised points.
    """
    points = sorted(row.lanes)
    upper = next((s for s in points[1:] if s >= lanes), points[-1])
    lower = points[points.index(upper) - 1]
    span, past = upper - lower, lanes - lower
    low, high = row.lanes[lower], row.lanes[upper]
    lut, lc = (a + ceil_div((b - a) * past, span) for a, b in zip(low, high, strict=True))
    return lut, lc


@dataclass(frozen=True, slots=True)
class PeCost:
    """One interior PE; ``notes`` say where the numbers leave the synthesised table."""

    lut: int
    lc: int
    ff: int
    notes: tuple[str, ...]


def pe_cost(array: ArrayConfig, *, weight: str, activation: str, acc_bits: int) -> PeCost:
    """One PE of ``array``.

    FF = ACC + S·(W + A) + 3 flags, plus ACC for a shadow drain: exact on all synthesised PEs.
    LUT and LC come from the table, plus or minus 2 per accumulator bit of difference.
    """
    row = covering_row(weight, activation)
    lut, lc = interpolate_lanes(row, array.lanes)
    shift = LUT_PER_ACC_BIT * (acc_bits - row.acc)
    bits = kind_bits(weight) + kind_bits(activation)
    ff = acc_bits + array.lanes * bits + 3 + (acc_bits if array.drain == "shadow" else 0)
    facts = {
        f"PE ({weight},{activation}) bounded by the synthesised {row.name}": (
            row.name != f"({weight},{activation})"
        ),
        f"{array.lanes} lanes interpolated": array.lanes not in row.lanes,
        f"accumulator of {acc_bits} bits, synthesised with {row.acc}": acc_bits != row.acc,
    }
    notes = tuple(text for text, holds in facts.items() if holds)
    return PeCost(max(1, lut + shift), max(1, lc + shift), ff, notes)


@dataclass(frozen=True, slots=True)
class LogicCost:
    """LUT cells, estimated LC and FF of a part."""

    lut: int
    lc: int
    ff: int

    def __add__(self, other: "LogicCost") -> "LogicCost":
        """Sums, field by field."""
        return LogicCost(self.lut + other.lut, self.lc + other.lc, self.ff + other.ff)


def array_cost(array: ArrayConfig, *, weight: str, activation: str, acc_bits: int) -> LogicCost:
    """The R × C array alone.

    LUT = R·C·PE − C·ACC (the top row has no drain multiplexer; a shadow drain the same).
    FF = R·C·(PE − 1) − R·(S·A + 2) − C·S·W for a shared drain: the flag of the last step is unused
    and the registers behind the last row and column are trimmed. A shadow drain keeps that flag:
    R·C·PE − R·(S·A + 3) − C·S·W, by the same reasoning, not synthesised.
    """
    pe = pe_cost(array, weight=weight, activation=activation, acc_bits=acc_bits)
    kept = array.drain == "shadow"
    ff = array.pes * (pe.ff - (0 if kept else 1))
    ff -= array.rows * (array.lanes * kind_bits(activation) + (3 if kept else 2))
    ff -= array.cols * array.lanes * kind_bits(weight)
    drain = array.cols * acc_bits
    return LogicCost(array.pes * pe.lut - drain, array.pes * pe.lc - drain, ff)


def threshold_cost(activation: str, acc_bits: int, *, cols: int) -> LogicCost:
    """Threshold units of all columns.

    Up to 4 bits 2^A − 1 parallel comparators and a load chain: LUT of the table in proportion to
    the accumulator, FF = N·ACC + A exactly. Above, one comparator per column (table row (8,8)).
    """
    parallel = kind_bits(activation) <= PARALLEL_THRESHOLD_BITS
    row = covering_row(activation if parallel else "8", activation if parallel else "8")
    lut = ceil_div(row.threshold_lut * acc_bits, row.acc)
    comparators = 2 ** kind_bits(activation) - 1 if parallel else 1
    wires = kind_bits(activation) if parallel else 1
    return LogicCost(cols * lut, cols * lut, cols * (comparators * acc_bits + wires))


def skew_cost(array: ArrayConfig, *, weight: str, activation: str) -> LogicCost:
    """Input skew: a delay of r at row r and c at column c, in shift-register LUTs from 3 on."""

    def delays(count: int) -> int:
        return sum(ceil_div(d, SRL_BITS) for d in range(3, count))

    a_wires, w_wires = array.lanes * kind_bits(activation), array.lanes * kind_bits(weight)
    lut = delays(array.rows) * a_wires + delays(array.cols) * w_wires
    return LogicCost(lut, lut, array.rows * a_wires + array.cols * w_wires)


def passes_cost(array: ArrayConfig, *, activation: str, out_bits: int) -> LogicCost:
    """What digit passes need beside the PEs: a formula, not synthesised.

    Per row an adder of S operands for Σ i_a; per column a shifter-adder and R words of LUTRAM.
    """
    row_lut = out_bits + array.lanes * kind_bits(activation)
    column_lut = 2 * out_bits + ceil_div(array.rows, 64) * out_bits
    lut = array.rows * row_lut + array.cols * column_lut
    return LogicCost(lut, lut, (array.rows + array.cols) * out_bits)


def rescale_dsps(graph: IntGraph, *, cols: int) -> int:
    """One multiplier a column, as wide as the widest Rescale needs, in 25 × 18-bit blocks."""
    most = 0
    for node in graph.nodes:
        if not isinstance(node, Rescale):
            continue
        x = graph.types[node.x]
        assert not isinstance(x, FloatTensor)
        values = node.multiplier
        most = max(
            most,
            dsp_blocks(
                signed_bits(min(x.lo, 0), max(x.hi, 0)),
                signed_bits(min(int(values.min()), 0), max(int(values.max()), 0)),
            ),
        )
    return cols * most


def dsp_blocks(x_bits: int, multiplier_bits: int) -> int:
    """Blocks of one signed product; each further block adds an unsigned part, one bit less wide."""
    straight = _parts(x_bits, DSP_WIDE) * _parts(multiplier_bits, DSP_NARROW)
    crossed = _parts(x_bits, DSP_NARROW) * _parts(multiplier_bits, DSP_WIDE)
    return min(straight, crossed)


def _parts(bits: int, width: int) -> int:
    return ceil_div(max(bits - 1, 1), width - 1)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Resources of the whole design, and where they leave the synthesised range."""

    lut: int
    ff: int
    dsp: int
    bram36: int
    uram: int
    lc: int
    lut_error: float | None
    notes: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """The five kinds that a device counts."""
        return {
            "lut": self.lut,
            "ff": self.ff,
            "dsp": self.dsp,
            "bram36": self.bram36,
            "uram": self.uram,
        }


def estimate(graph: IntGraph, mapping: Mapping) -> Estimate:
    """Array, skew, thresholds, controller, digit passes, buffers. No DMA, no processor shell."""
    array, weight, activation = mapping.array, mapping.w_kind, mapping.a_kind
    acc_bits = mapping.acc_bits
    out_bits = max(layer.out_bits for layer in mapping.layers)
    pe = pe_cost(array, weight=weight, activation=activation, acc_bits=acc_bits)
    logic = array_cost(array, weight=weight, activation=activation, acc_bits=acc_bits)
    logic += threshold_cost(activation, out_bits, cols=array.cols)
    logic += skew_cost(array, weight=weight, activation=activation)
    logic += LogicCost(CONTROL_LUT, CONTROL_LUT, CONTROL_FF)
    if mapping.has_passes:
        logic += passes_cost(array, activation=activation, out_bits=out_bits)
    row = covering_row(weight, activation)
    synthesised = (row.weight, row.activation) == (weight, activation) and array.lanes in row.lanes
    measured = 0.0 if max(kind_bits(weight), kind_bits(activation)) <= 3 else 0.014
    return Estimate(
        lut=logic.lut,
        ff=logic.ff,
        dsp=rescale_dsps(graph, cols=array.cols),
        bram36=bram36(buffers(graph, mapping)),
        uram=0,
        lc=logic.lc,
        lut_error=measured if synthesised else None,
        notes=pe.notes,
    )


__all__ = [
    "Estimate",
    "LogicCost",
    "PeCost",
    "PeRow",
    "array_cost",
    "calibration",
    "covering_row",
    "dsp_blocks",
    "estimate",
    "interpolate_lanes",
    "kind_bits",
    "passes_cost",
    "pe_cost",
    "rescale_dsps",
    "skew_cost",
    "threshold_cost",
]
