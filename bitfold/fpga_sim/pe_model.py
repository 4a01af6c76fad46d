"""LUT, LC and CARRY4 of one PE: from the table, by lanes between its rows, or fitted.

A PE that owns its sum has 3 LUT (2 LC) a bit of accumulator: adder, reset and drain multiplexer.
What is left is its dot product, which does not depend on the accumulator:

    n terms of t bits:  products, compression to two rows, one carry chain

``docs/fpga_model.md``, section 5, has the terms and their residuals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from bitfold.fpga_sim.array import dsp_packing
from bitfold.fpga_sim.calibration import calibration
from bitfold.fpga_sim.rtl.design import KINDS, ODD, UNSIGNED, Design
from bitfold.fpga_sim.synthesis import Cells

NAMES = ("KIND", "WB", "AB", "W_FMT", "A_FMT")
BINARY, TERNARY, PARALLEL = KINDS["binary"], KINDS["ternary"], KINDS["parallel"]
SERIAL, DSP = KINDS["serial"], KINDS["dsp"]
# LUT and LC of an accumulator bit; the second where nothing but a carry reaches its upper bits.
PER_BIT = {"lut": 3.0, "lc": 2.0, "carry4": 0.25}
PER_BIT_SMALL = {"lut": 2.0, "lc": 1.5, "carry4": 0.25}
SMALL_COUNT = 4
NARROW_BITS = 4
# What a stationary PE, which keeps no sum, is without; a serial one neither shifts nor negates.
MOVING = {"lut": 2.0, "lc": 1.5, "carry4": 0.0}
MOVING_SERIAL = {"lut": 2.0, "lc": 2.5, "carry4": 0.25}
# How far a row's residual reaches: squared distances in log2 of the lanes and in operand bits.
DAMPING = 0.3
LANES_REACH, BITS_REACH = 2.25, 0.36
FORM_PLACE = (2.0, 0.5, 0.0)


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
        """Whether a term is one bit: a match (XNOR) or a pair of bit planes."""
        return self.kind == SERIAL or (
            self.kind == BINARY and self.ab == 1 and self.a_fmt == ODD
        )  # fmt: skip

    @property
    def packed(self) -> bool:
        """Whether two lanes fit one multiplier of a ``dsp`` PE."""
        return self.kind == DSP and dsp_packing(self.wb, self.ab) == 2

    @property
    def fitted_class(self) -> str:
        """Whose residuals a fitted PE has: operands up to 4 bits, wider ones, unsigned ones."""
        if self.kind == PARALLEL and self.w_fmt == self.a_fmt == UNSIGNED:
            return "fitted unsigned"
        return "fitted" if max(self.wb, self.ab) <= NARROW_BITS else "fitted wide"

    def per_bit(self, lanes: int, what: str) -> float:
        """Cost of an accumulator bit: less behind a sum that is never negative, or in a DSP."""
        unsigned = self.kind == PARALLEL and self.w_fmt == self.a_fmt == UNSIGNED
        alone = lanes == 1 and (unsigned or self.kind == DSP)
        small = self.kind == BINARY and self.counts and lanes <= SMALL_COUNT
        return (PER_BIT_SMALL if alone or small else PER_BIT)[what]

    def terms(self, lanes: int) -> int:
        """Terms that are added up."""
        return (lanes + 1) // 2 if self.packed and lanes > 1 else lanes

    def term_bits(self, lanes: int) -> int:
        """Bits of a term."""
        if self.packed and lanes > 1:
            return self.wb + self.ab + 2
        if self.counts:
            return 2
        return self.ab + 1 if self.kind in (BINARY, TERNARY) else self.wb + self.ab + 1


@dataclass(frozen=True, slots=True)
class Dot:
    """A dot product in the table: counts less the accumulator's share."""

    operands: Operands
    lanes: int
    acc: int
    lut: float
    lc: float
    carry4: float

    @classmethod
    def of(cls, operands: Operands, lanes: int, acc: int, cells: Cells) -> "Dot":
        """From a PE that owns its sum and has ``acc`` bits of it."""
        lut, lc, carry4 = (
            getattr(cells, what) - operands.per_bit(lanes, what) * acc for what in PER_BIT
        )
        return cls(operands, lanes, acc, lut, lc, carry4)

    def value(self, what: str) -> float:
        """``lut``, ``lc`` or ``carry4``."""
        return float(getattr(self, what))


@dataclass(frozen=True, slots=True)
class PeCounts:
    """One interior PE. ``standing``: table, moving, lanes or fitted…; errors are fractions."""

    lut: int
    lc: int
    ff: int
    carry4: int
    dsp: int
    lut_error: float
    lc_error: float
    carry4_error: float
    standing: str


def design_operands(design: Design) -> Operands:
    """What enters a PE of ``design``: a serial one sees planes."""
    kind = KINDS[design.array.pe]
    if kind == SERIAL:
        return Operands(SERIAL, 1, 1, UNSIGNED, UNSIGNED)
    return Operands(kind, design.weight.bits, design.activation.bits, design.weight.form,
                    design.activation.form)  # fmt: skip


def parse_pe(key: str) -> tuple[Operands, int, int] | None:
    """Operands, lanes and accumulator bits of a key of ``bf_pe``; None of any other unit."""
    module, *texts = key.removesuffix(" +dsp").split()
    values = {name: int(value) for name, value in (text.split("=") for text in texts)}
    if module != "bf_pe" or "TOP" in values or "SHADOW" in values:
        return None
    return Operands(*(values[name] for name in NAMES)), values["LANES"], values["ACC"]


def table_dots(units: Mapping[str, Cells]) -> tuple[Dot, ...]:
    """Every PE of a table."""
    found = []
    for key, cells in units.items():
        parsed = parse_pe(key)
        if parsed is not None:
            found.append(Dot.of(*parsed, cells))
    return tuple(found)


def is_fitted(operands: Operands, lanes: int) -> bool:
    """Whether the terms describe it: popcounts and unpacked DSP blocks go by lanes alone."""
    if operands.counts or lanes < 2:
        return False
    return operands.kind != DSP or operands.packed


class Products:
    """LUT or LC of one ``parallel`` product: the PE of one lane, or the nearest to it in bits.

    A one-lane PE of unsigned operands has the bits of its product in the adder besides.
    """

    def __init__(self, rows: Sequence[Dot]) -> None:
        self._alone = [x for x in rows if x.lanes == 1 and x.operands.kind == PARALLEL]
        self._known: dict[tuple[Operands, str], float] = {}

    def of(self, operands: Operands, what: str) -> float:
        """``what`` of the product; of another width in proportion to W · A."""
        key = operands, what
        if key not in self._known:
            near = min(self._alone, key=lambda row: _unlike(row.operands, operands))
            found = near.value(what)
            if near.operands.w_fmt == UNSIGNED:
                found -= near.operands.wb + near.operands.ab
            scale = operands.wb * operands.ab / (near.operands.wb * near.operands.ab)
            self._known[key] = max(0.0, found * scale)
        return self._known[key]


def _unlike(a: Operands, b: Operands) -> float:
    bits = abs(a.wb - b.wb) + abs(a.ab - b.ab)
    return bits + 0.4 * (a.w_fmt != b.w_fmt) + 0.1 * (a.a_fmt != b.a_fmt)


def features(products: Products, operands: Operands, lanes: int, what: str) -> list[float]:
    """Terms of the fit for two lanes and more.

    The carry chain, compression, its growth beyond 8 terms, the rows compressed, products of LUT
    multipliers, of binary and of ternary selectors, and packed terms of DSP blocks.
    """
    n, t = operands.terms(lanes), operands.term_bits(lanes)
    rest = max(0, n - 2)
    kind = operands.kind
    return [
        float(t + 1) if n > 1 else 0.0,
        float(rest * t),
        rest * t * max(0.0, math.log2(n) - 3),
        float(rest),
        n * products.of(operands, what) if kind == PARALLEL else 0.0,
        float(n * operands.ab) if kind == BINARY else 0.0,
        float(n * operands.ab) if kind == TERNARY else 0.0,
        float(n) if kind == TERNARY else 0.0,
        float(n * t) if operands.packed else 0.0,
    ]


class PeModel:
    """Rows of a table and the terms fitted to them; predicts dot products that are not rows."""

    def __init__(
        self,
        rows: Sequence[Dot],
        terms: Mapping[str, Sequence[float]],
        products: Products | None = None,
    ) -> None:
        self._rows = tuple(rows)
        self._terms = terms
        self._products = products or Products(rows)
        self._ratios: dict[str, list[tuple[Dot, float]]] = {}

    def dot(self, operands: Operands, lanes: int, what: str, *, acc: int) -> tuple[float, str]:
        """Cost of a dot product, and its standing: ``table``, ``lanes`` or ``fitted``….

        Of several rows the one with the accumulator nearest to ``acc`` bits.
        """
        rows = sorted(
            (row for row in self._rows if row.operands == operands),
            key=lambda row: -abs(row.acc - acc),
        )
        same = {row.lanes: row.value(what) for row in rows}
        if lanes in same:
            return same[lanes], "table"
        if is_fitted(operands, lanes):
            return self.fitted(operands, lanes, what), operands.fitted_class
        if same:
            return between(same, lanes), "lanes"
        if operands.kind == DSP:
            return 0.0, "lanes"
        return self._products.of(operands, what), operands.fitted_class

    def fitted(self, operands: Operands, lanes: int, what: str) -> float:
        """The terms, times the ratio that near rows of the table have to theirs."""
        total = weighted = 0.0
        for row, excess in self._excess(what):
            if row.operands.kind == operands.kind:
                weight = math.exp(-_apart(row, operands, lanes))
                total += weight
                weighted += weight * excess
        return self._sum(operands, lanes, what) * (1 + weighted / (total + DAMPING))

    def _excess(self, what: str) -> list[tuple[Dot, float]]:
        if what not in self._ratios:
            self._ratios[what] = [
                (row, row.value(what) / self._sum(row.operands, row.lanes, what) - 1)
                for row in self._rows
                if is_fitted(row.operands, row.lanes)
            ]
        return self._ratios[what]

    def _sum(self, operands: Operands, lanes: int, what: str) -> float:
        values = features(self._products, operands, lanes, what)
        return sum(a * b for a, b in zip(self._terms[what], values, strict=True))


def _apart(row: Dot, operands: Operands, lanes: int) -> float:
    other = row.operands
    step = math.log2(row.lanes / lanes)
    bits = (other.wb - operands.wb) ** 2 + (other.ab - operands.ab) ** 2
    formats = (FORM_PLACE[other.w_fmt] - FORM_PLACE[operands.w_fmt]) ** 2
    return LANES_REACH * step**2 + BITS_REACH * bits + formats


def between(points: Mapping[int, float], lanes: int) -> float:
    """Linear between the lanes of ``points``, with the last slope beyond them."""
    known = sorted(points)
    if len(known) == 1:
        return points[known[0]] * lanes / known[0]
    upper = next((s for s in known[1:] if s >= lanes), known[-1])
    lower = known[known.index(upper) - 1]
    slope = (points[upper] - points[lower]) / (upper - lower)
    return points[lower] + slope * (lanes - lower)


@cache
def shipped_model() -> PeModel:
    """The model of the shipped table."""
    table = calibration()
    return PeModel(table_dots(table.units), table.terms)


@cache
def measured_sums(operands: Operands, lanes: int) -> frozenset[int]:
    """Accumulator widths with which the table has exactly this PE."""
    rows = (parse_pe(key) for key in calibration().units)
    return frozenset(row[2] for row in rows if row is not None and row[:2] == (operands, lanes))


@cache
def pe_counts(operands: Operands, lanes: int, acc: int, *, moving: bool, kept: int) -> PeCounts:
    """One interior PE, ``acc`` bits of sum, ``kept`` flip-flops besides.

    ``moving``: weight- or input-stationary, the sum of the PE above is added to.
    """
    found: dict[str, float] = {}
    standing = "table"
    for what in PER_BIT:
        dot, standing = shipped_model().dot(operands, lanes, what, acc=acc)
        found[what] = dot + operands.per_bit(lanes, what) * acc
        if moving:
            found[what] -= (MOVING_SERIAL if operands.kind == SERIAL else MOVING)[what] * acc
    key = "moving" if moving and standing == "table" else standing
    exact = key == "table" and acc in measured_sums(operands, lanes)
    bars = calibration().residuals
    return PeCounts(
        lut=max(1, round(found["lut"])),
        lc=max(1, round(found["lc"])),
        ff=acc + kept,
        carry4=max(1, round(found["carry4"])),
        dsp=operands.terms(lanes) if operands.kind == DSP else 0,
        lut_error=0.0 if exact else bars[f"{key} lut"].bar,
        lc_error=0.0 if exact else bars[f"{key} lc"].bar,
        carry4_error=0.0 if exact else bars[f"{key} carry4"].bar,
        standing=key,
    )
