"""FINN's analytical estimate of a folding: cycles of every unit and block RAM of its weights.

The equations are those of FINN's source (docs/fpga_model.md, section 8). A folding names for each
unit in order how many rows (PE) and columns (SIMD) of its matrix it computes at once.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bitfold.errors import InputError, UsageError
from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.mapping import mac_nodes
from bitfold.fpga_sim.memory import bram18
from bitfold.ir.graph import IntGraph
from bitfold.ir.ops import Linear

SCHEMA = "bitfold/simulate/1"
# Names of one unit over FINN's versions.
MATRIX_UNIT = re.compile(
    r"(?:MatrixVectorActivation|StreamingFCLayer_Batch|MVAU(?:_hls|_rtl)?)_(\d+)"
)
VECTOR_UNIT = re.compile(
    r"(?:VectorVectorActivation|Vector_Vector_Activate_Batch|VVAU(?:_hls|_rtl)?)_(\d+)"
)
FOLDING_FORM = 'Give {"MVAU_0": {"PE": 16, "SIMD": 3}, …}, one entry a layer in order.'


@dataclass(frozen=True, slots=True)
class Unit:
    """A matrix unit: ``rows`` (MH) × ``columns`` (MW) weights, ``vectors`` products an image.

    A ``vector`` unit is depthwise: rows are channels, columns the taps of a kernel.
    """

    name: str
    rows: int
    columns: int
    vectors: int
    w_bits: int
    vector: bool = False

    @property
    def macs(self) -> int:
        """Multiplications an image."""
        return self.rows * self.columns * self.vectors


@dataclass(frozen=True, slots=True)
class Folding:
    """PE and SIMD of one unit, and where its weights lie."""

    pe: int
    simd: int
    ram: str = "auto"


@dataclass(frozen=True, slots=True)
class UnitCount:
    """One folded unit: (MH / PE) · (MW / SIMD) · vectors cycles, weights PE·SIMD·W bits wide."""

    unit: Unit
    folding: Folding

    @property
    def cycles(self) -> int:
        """Cycles between two images."""
        unit, folding = self.unit, self.folding
        return unit.rows * unit.columns // (folding.pe * folding.simd) * unit.vectors

    @property
    def bram18(self) -> int:
        """18-kbit blocks of the weights; 0 in distributed memory."""
        if self.folding.ram == "distributed":
            return 0
        parallel = self.folding.pe * self.folding.simd
        depth = ceil_div(self.unit.rows * self.unit.columns, parallel)
        return bram18(parallel * self.unit.w_bits, depth)


@dataclass(frozen=True, slots=True)
class PipelineReport:
    """A folded pipeline: all units work at once, each on its own image."""

    units: tuple[UnitCount, ...]
    clock_mhz: float

    @property
    def interval(self) -> int:
        """Cycles between two images: the slowest unit's."""
        return max(count.cycles for count in self.units)

    @property
    def critical_path(self) -> int:
        """FINN's ``critical_path_cycles``: the plain sum, as if nothing overlapped."""
        return sum(count.cycles for count in self.units)

    @property
    def bram18(self) -> int:
        """18-kbit blocks of all weights."""
        return sum(count.bram18 for count in self.units)

    def to_dict(self) -> dict[str, object]:
        """The JSON object; ``cycles`` is the interval, ``latency_ms`` the pessimistic sum."""
        return {
            "schema": SCHEMA,
            "device": None,
            "array": {"mode": "finn"},
            "clock_mhz": self.clock_mhz,
            "cycles": self.interval,
            "critical_path_cycles": self.critical_path,
            "latency_ms": self.critical_path / (self.clock_mhz * 1000),
            "images_per_s": self.clock_mhz * 1e6 / self.interval,
            "bram18": self.bram18,
            "layers": [
                {
                    "name": count.unit.name,
                    "cycles": count.cycles,
                    "pe": count.folding.pe,
                    "simd": count.folding.simd,
                    "bram18": count.bram18,
                    "macs": count.unit.macs,
                }
                for count in self.units
            ],
            "notes": [
                "FINN's own estimate: no stalls, no queues, no input generators, weights alone",
                "critical_path_cycles and latency_ms assume that no two units overlap",
            ],
        }

    def to_text(self) -> str:
        """The same as a table."""
        width = max(4, *(len(count.unit.name) for count in self.units))
        lines = [
            f"FINN pipeline: an image every {self.interval} cycles, sum {self.critical_path}, "
            f"{self.clock_mhz * 1e6 / self.interval:.1f} images/s at {self.clock_mhz:g} MHz (a "
            f"parameter), {self.bram18} BRAM18 of weights",
            "",
            f"{'unit':<{width}} {'PE':>5} {'SIMD':>5} {'cycles':>10} {'BRAM18':>7}",
        ]
        lines += [
            f"{x.unit.name:<{width}} {x.folding.pe:>5} {x.folding.simd:>5} {x.cycles:>10} "
            f"{x.bram18:>7}"
            for x in self.units
        ]
        return "\n".join(lines)


def units_of(graph: IntGraph) -> tuple[Unit, ...]:
    """The units that FINN would build: one for each Conv2d and Linear."""
    found: list[Unit] = []
    for node in mac_nodes(graph):
        bits = node.weight_grid.bits
        if isinstance(node, Linear):
            filters, depth = node.weight.shape
            found.append(Unit(node.name, filters, depth, 1, bits))
            continue
        filters, kh, kw, depth = node.weight.shape
        height, width = graph.types[node.name].shape[:2]
        vector = node.groups > 1 and depth == 1
        columns = kh * kw * depth * (1 if vector else node.groups)
        found.append(Unit(node.name, filters, columns, height * width, bits, vector))
    return tuple(found)


def read_folding(path: str | Path) -> tuple[dict[int, Folding], dict[int, Folding]]:
    """The foldings of matrix and of vector units by number; other entries are not needed.

    Raises InputError where the file is not a folding.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        if not isinstance(content, dict):
            raise TypeError("not an object")
        return _foldings(content, MATRIX_UNIT), _foldings(content, VECTOR_UNIT)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"not a folding: {error!r}", where=f"file {path}", todo=FOLDING_FORM
        ) from error


def _foldings(
    content: dict[str, dict[str, object]], pattern: re.Pattern[str]
) -> dict[int, Folding]:
    found: dict[int, Folding] = {}
    for name, row in content.items():
        match = pattern.fullmatch(name)
        if match is not None:
            pe, simd = row["PE"], row.get("SIMD", 1)
            if not isinstance(pe, int) or not isinstance(simd, int) or min(pe, simd) < 1:
                raise ValueError(f"{name}: PE {pe!r}, SIMD {simd!r}")
            found[int(match[1])] = Folding(pe, simd, str(row.get("ram_style", "auto")))
    return found


def simulate_folding(
    units: Sequence[Unit],
    foldings: tuple[dict[int, Folding], dict[int, Folding]],
    *,
    clock_mhz: float,
    where: str,
) -> PipelineReport:
    """FINN's estimate of ``units``; every PE must divide its rows and every SIMD its columns.

    Raises UsageError, naming the numbers that would do.
    """
    counts: list[UnitCount] = []
    seen = [0, 0]
    for unit in units:
        number = seen[unit.vector]
        seen[unit.vector] += 1
        folding = foldings[unit.vector].get(number)
        if folding is None:
            kind = "VVAU" if unit.vector else "MVAU"
            raise UsageError(
                f"no folding for {kind}_{number} ({unit.name})", where=where, todo=FOLDING_FORM
            )
        _require_divisor(unit, "PE", folding.pe, unit.rows, where=where)
        _require_divisor(unit, "SIMD", folding.simd, unit.columns, where=where)
        counts.append(UnitCount(unit, folding))
    return PipelineReport(tuple(counts), clock_mhz)


def _require_divisor(unit: Unit, key: str, value: int, size: int, *, where: str) -> None:
    if size % value:
        fits = [n for n in range(1, size + 1) if size % n == 0]
        raise UsageError(
            f"{key} {value} does not divide {size}",
            where=f"{where}, unit {unit.name}",
            todo=f"Use one of {', '.join(map(str, fits))}.",
        )
