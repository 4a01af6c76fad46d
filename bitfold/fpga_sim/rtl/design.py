"""One array in Verilog: what ``ArrayConfig`` and two operands make of the parameters of ``bf_top``.

An operand reaches a PE as ``bits`` bits: an unsigned number, two's complement, or the index of an
odd code (code = 2 · index − (2^bits − 1)). Other grids send their index, and the constant that
this leaves out of a sum, lo · Σ w, is known for every filter (docs/fpga_model.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitfold.errors import UnsupportedError
from bitfold.fpga_sim.array import ArrayConfig, bit_planes
from bitfold.ir.grid import Grid
from bitfold.ir.types import IntArray

KINDS = {"binary": 0, "ternary": 1, "parallel": 2, "serial": 3, "dsp": 4}
DATAFLOWS = {"os": 0, "ws": 1, "is": 2}
UNSIGNED, SIGNED, ODD = 0, 1, 2
# Codes of more bits are found by a binary search, unless the configuration says otherwise.
PARALLEL_BITS = 3
# Widths of the counters and addresses of the emitted controller.
COUNT_BITS = 16
ADDRESS_BITS = 24


@dataclass(frozen=True, slots=True)
class Operand:
    """How one operand is written in ``bits`` bits; ``form`` is UNSIGNED, SIGNED or ODD."""

    bits: int
    form: int

    @classmethod
    def of(cls, grid: Grid, *, serial: bool = False) -> "Operand":
        """The operand that codes of ``grid`` are sent as; a serial PE sends planes of the code."""
        if grid.lo == 0 and grid.step == 1:
            return cls(grid.bits, UNSIGNED)
        if grid == Grid.odd(grid.bits):
            return cls(bit_planes(grid), SIGNED) if serial else cls(grid.bits, ODD)
        if grid.lo == -grid.hi and grid.step == 1:
            return cls(grid.bits, SIGNED)
        return cls(grid.bits, UNSIGNED)

    @property
    def has_zero(self) -> bool:
        """Whether a product can be left out by sending code 0."""
        return self.form != ODD

    def encode(self, codes: IntArray) -> IntArray:
        """The bits of ``codes`` as unsigned numbers."""
        top: int = 2**self.bits - 1
        raw: IntArray = (codes + top) // 2 if self.form == ODD else codes & top
        return raw

    def decode(self, raw: int) -> int:
        """The code of one unsigned number."""
        if self.form == ODD:
            return 2 * raw + 1 - (1 << self.bits)
        negative = self.form == SIGNED and raw >> (self.bits - 1)
        return raw - (1 << self.bits) if negative else raw


@dataclass(frozen=True, slots=True)
class ThresholdUnit:
    """``count`` thresholds a channel, codes of ``bits`` bits: index + ``offset``.

    ``search``: one pipelined comparator a bit instead of ``count`` parallel ones.
    """

    bits: int
    count: int
    offset: int
    tables: int
    search: bool = False

    @property
    def latency(self) -> int:
        """Cycles from a result to its code: one, or one a bit."""
        return self.bits if self.search else 1


@dataclass(frozen=True, slots=True)
class Design:
    """The array ``array`` for these operands; ``array.pe`` must be settled.

    Raises UnsupportedError for an operand that the PE kind cannot multiply.
    """

    array: ArrayConfig
    weight: Operand
    activation: Operand
    acc_bits: int
    thresholds: ThresholdUnit | None = None

    def __post_init__(self) -> None:
        pe = self.array.pe
        wrong = {
            "binary": self.weight != Operand(1, ODD),
            "ternary": self.weight != Operand(2, SIGNED),
            "serial": ODD in (self.weight.form, self.activation.form),
        }
        if pe not in KINDS or wrong.get(pe, False):
            raise UnsupportedError(
                f"a {pe} PE does not multiply weights of {self.weight.bits} bits "
                f"({('unsigned', 'signed', 'odd')[self.weight.form]})",
                where="pe",
                todo="Use pe parallel.",
            )

    @classmethod
    def from_parameters(cls, values: Mapping[str, int]) -> "Design":
        """The design of some of the ``parameters``, defaults for the rest.

        Threshold units only where their COUNT is given.
        """
        array = ArrayConfig(
            rows=values.get("ROWS", 1),
            cols=values.get("COLS", 1),
            lanes=values.get("LANES", 1),
            dataflow=_name(DATAFLOWS, values.get("DATAFLOW", 0)),
            drain="shadow" if values.get("SHADOW") else "shared",
            pe=_name(KINDS, values.get("KIND", KINDS["parallel"])),
            acc_words=values.get("DEPTH", 1024),
        )
        unit = None
        if "COUNT" in values:
            unit = ThresholdUnit(values["OB"], values["COUNT"], 0, values["TABLES"],
                                 search=bool(values["SEARCH"]))  # fmt: skip
        weight = Operand(values.get("WB", 2), values.get("W_FMT", SIGNED))
        activation = Operand(values.get("AB", 2), values.get("A_FMT", UNSIGNED))
        return cls(array, weight, activation, values.get("ACC", 16), unit)

    @property
    def counts_matches(self) -> bool:
        """Whether both operands are one bit, so that PEs count matches (XNOR)."""
        return self.array.pe == "binary" and self.activation == Operand(1, ODD)

    @property
    def serial(self) -> int:
        """Cycles that a PE spends on one operand step."""
        return self.weight.bits * self.activation.bits if self.array.pe == "serial" else 1

    def parameters(self) -> dict[str, int]:
        """Parameters of ``bf_top`` by name."""
        array, unit = self.array, self.thresholds or ThresholdUnit(1, 1, 0, 1)
        depth_bits = max(1, (array.acc_words - 1).bit_length())
        return {
            "DATAFLOW": DATAFLOWS[array.dataflow],
            "ROWS": array.rows,
            "COLS": array.cols,
            "WB": self.weight.bits,
            "AB": self.activation.bits,
            "LANES": array.lanes,
            "ACC": self.acc_bits,
            "KIND": KINDS[array.pe],
            "SHADOW": int(array.drain == "shadow"),
            "W_FMT": self.weight.form,
            "A_FMT": self.activation.form,
            "DEPTH": array.acc_words,
            "DW": depth_bits,
            "THRESHOLDS": int(self.thresholds is not None),
            "OB": unit.bits,
            "COUNT": unit.count,
            "OFFSET": unit.offset % 2**unit.bits,
            "SEARCH": int(unit.search),
            "TABLES": unit.tables,
            "TW": max(1, (unit.tables - 1).bit_length()),
            "CW": COUNT_BITS,
            "AW": ADDRESS_BITS,
        }


def _name(codes: Mapping[str, int], code: int) -> str:
    return next(name for name, value in codes.items() if value == code)


def natural_kind(weight: Grid) -> str:
    """The PE kind that ``pe = auto`` stands for with these weights."""
    if weight == Grid.odd(1):
        return "binary"
    return "ternary" if weight == Grid.narrow(2) else "parallel"


def zero_or(value: int, operand: Operand) -> int:
    """What to send where there is no operand: code 0, or ``value`` where 0 is not a code."""
    return 0 if operand.has_zero else value


def fits(values: IntArray, bits: int) -> bool:
    """Whether all ``values`` are two's complement numbers of ``bits`` bits."""
    return bool(np.all((values >= -(2 ** (bits - 1))) & (values < 2 ** (bits - 1))))
