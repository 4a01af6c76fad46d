"""The array under simulation: its size, dataflow, drain style, operand widths and modes."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

from bitfold.errors import InputError, UsageError
from bitfold.ir.grid import Grid

CHOICES = {
    "dataflow": ("os", "ws", "is"),
    "drain": ("shared", "shadow"),
    "pe": ("auto", "binary", "ternary", "parallel", "serial", "dsp"),
    "edge": ("passes", "wide"),
    "thresholds": ("auto", "parallel", "search"),
    "depthwise": ("array", "vector"),
    "subarray": ("full", "best"),
    "weight_ram": ("bram", "uram"),
    "tile_ram": ("bram", "uram"),
    "map_ram": ("bram", "uram"),
    "output_ram": ("bram", "uram"),
    "mode": ("native", "scalesim", "finn"),
}
# Greatest value of every integer field.
MAX_SIZE = 4096
MAX_BITS = 8
MAX_ACC_BITS = 48
MAX_WORDS = 2**26
SIZES = {"rows": MAX_SIZE, "cols": MAX_SIZE, "lanes": MAX_SIZE, "vector_taps": MAX_SIZE,
         "acc_words": MAX_WORDS, "dram_burst": 2**16}  # fmt: skip
OPTIONAL_SIZES = {
    "w_bits": MAX_BITS,
    "a_bits": MAX_BITS,
    "acc_bits": MAX_ACC_BITS,
    "vector_channels": MAX_SIZE,
    "weight_words": MAX_WORDS,
    "tile_words": MAX_WORDS,
    "map_words": MAX_WORDS,
    "output_words": MAX_WORDS,
    "dram_bits": 2**16,
}
# Operand widths that a PE kind settles.
PE_BITS = {"binary": 1, "ternary": 2, "serial": 1}
# Signed bits of a DSP block's narrow port: two products need a field of all their bits and two.
DSP_PORT = 18


def dsp_packing(w_bits: int, a_bits: int) -> int:
    """Products that one DSP block of the emitted PE multiplies at once: 2 where both factors fit.

    A factor holds two operands, W + A + 2 bits apart: 4 × 4 bits do fit, 5 × 5 do not.
    """
    return 2 if w_bits + a_bits + 2 + max(w_bits, a_bits) + 2 <= DSP_PORT else 1


def bit_planes(grid: Grid) -> int:
    """Bit planes that a ``serial`` PE takes of codes of ``grid``.

    An odd code of b bits is a two's complement number of b + 1.
    """
    return grid.bits + (grid == Grid.odd(grid.bits))


@dataclass(frozen=True, slots=True)
class ArrayConfig:
    """A systolic array of ``rows`` × ``cols`` PEs with ``lanes`` multipliers each.

    dataflow
        Which operand stays in the PEs: ``os`` the sums, ``ws`` the weights, ``is`` the inputs.
    drain
        ``shared``: the accumulators shift the results out, the next tile waits.
        ``shadow``: a second register per PE shifts them out while the next tile computes. In
        ``ws`` and ``is`` that register takes the next stationary operand instead.
    acc_words
        ``ws`` and ``is``: positions whose partial sums the accumulator memory holds at once.
    pe
        ``parallel`` multiplies ``w_bits`` × ``a_bits`` in LUTs, ``dsp`` in DSP blocks (2 products
        a block up to 4 × 4 bits), ``binary`` and ``ternary`` codes of that kind, ``serial``
        one pair of bits a lane and cycle. ``auto`` is ``parallel``, or ``ternary`` operands where
        all low-bit codes are.
    edge
        What to do with layers of more than 4 bits, such as first, last and shortcut: ``passes``
        multiplies digits of ``w_bits`` and ``a_bits``, one tile visit per pair of digits;
        ``wide`` builds every PE for the widest layer.
    w_bits, a_bits, acc_bits
        Operand and accumulator widths of a PE; None takes them from the graph
        (docs/fpga_model.md).
    thresholds
        Unit behind each column: ``parallel`` comparators, ``search`` a comparator a bit with its
        table in memory; ``auto`` is parallel up to 4 bits.
    depthwise, vector_channels, vector_taps
        Depthwise layers on the ``array`` (one column works), or on a ``vector`` unit of
        ``vector_channels`` (None: cols) × ``vector_taps`` multipliers beside it.
    subarray
        ``full``: every layer uses all rows and columns. ``best``: the controller may use the first
        r rows and c columns, and the drain leaves after row r, where that is faster.
    weight_words, tile_words, map_words, output_words
        Depth of the four buffers, both halves of the double buffer together, in words as wide as
        what they feed (docs/fpga_model.md); None is deep enough for the largest layer.
        ``*_ram`` maps each to block RAM or UltraRAM.
    dram_bytes_per_cycle, dram_bits, dram_latency, dram_burst
        Sustained rate (None: the device's), width of the port (None: no limit of its own), cycles
        before the first byte of a transfer, and bytes that a transfer is rounded up to.
    mode
        ``native``, or ``scalesim``: the closed forms of SCALE-Sim 3.0.0, with
        ``scalesim_minus_one`` (its count is an index) and ``scalesim_ceil`` (its output sizes
        round up).
    clock_mhz
        A parameter; None takes the device's default.

    Raises UsageError on an impossible value.
    """

    rows: int = 16
    cols: int = 16
    dataflow: str = "os"
    lanes: int = 1
    drain: str = "shared"
    acc_words: int = 1024
    pe: str = "auto"
    edge: str = "passes"
    w_bits: int | None = None
    a_bits: int | None = None
    acc_bits: int | None = None
    thresholds: str = "auto"
    depthwise: str = "array"
    vector_channels: int | None = None
    vector_taps: int = 9
    subarray: str = "full"
    weight_words: int | None = None
    tile_words: int | None = None
    map_words: int | None = None
    output_words: int | None = None
    weight_ram: str = "bram"
    tile_ram: str = "bram"
    map_ram: str = "bram"
    output_ram: str = "bram"
    clock_mhz: float | None = None
    dram_bytes_per_cycle: float | None = None
    dram_bits: int | None = None
    dram_latency: int = 64
    dram_burst: int = 64
    mode: str = "native"
    scalesim_minus_one: bool = True
    scalesim_ceil: bool = False

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            _require_choice(key, getattr(self, key), allowed)
        for key, most in SIZES.items():
            _require_integer(key, getattr(self, key), most=most)
        for key, most in OPTIONAL_SIZES.items():
            if getattr(self, key) is not None:
                _require_integer(key, getattr(self, key), most=most)
        _require_integer("dram_latency", self.dram_latency, least=0, most=2**20)
        for key in ("scalesim_minus_one", "scalesim_ceil"):
            _require_switch(key, getattr(self, key))
        for key in ("clock_mhz", "dram_bytes_per_cycle"):
            _require_positive(key, getattr(self, key))
        self._require_modelled()
        self._require_pe_bits()

    def _require_modelled(self) -> None:
        if self.mode == "finn":
            raise UsageError(
                "FINN's pipeline has a folding a layer, not an array",
                where="mode",
                todo="Give a folding: --mode finn --config FOLDING.json, or simulate_folding.",
            )
        if self.mode == "scalesim" and self.lanes != 1:
            raise UsageError(
                f"scalesim mode has one multiplier per PE, not {self.lanes} lanes",
                where="lanes",
                todo="Use lanes 1, or mode native.",
            )

    def _require_pe_bits(self) -> None:
        """Widths given must be those of the PE kind; lanes must fill whole DSP blocks."""
        settled = PE_BITS.get(self.pe)
        for key in ("w_bits", "a_bits"):
            given = getattr(self, key)
            if settled is not None and given not in (None, settled):
                raise UsageError(
                    f"a {self.pe} PE has operands of {settled} bits, {key} is {given}",
                    where=key,
                    todo=f"Leave {key} out, or use pe parallel.",
                )
        if self.pe == "dsp" and self.w_bits is not None and self.a_bits is not None:
            self.require_whole_dsps(self.w_bits, self.a_bits)

    def require_whole_dsps(self, w_bits: int, a_bits: int) -> None:
        """Raise UsageError where the lanes of a ``dsp`` PE do not fill whole DSP blocks."""
        packed = dsp_packing(w_bits, a_bits)
        if self.lanes % packed:
            low, high = self.lanes // packed * packed, (self.lanes // packed + 1) * packed
            fits = f"{low} or {high}" if low else str(high)
            raise UsageError(
                f"{self.lanes} lanes do not divide into DSP blocks of {packed} products of "
                f"{w_bits} x {a_bits} bits",
                where="lanes",
                todo=f"Use {fits} lanes.",
            )

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read the ``[array]`` table of a TOML file, one key a field.

        Raises InputError where the file cannot be read, UsageError on an unknown key.
        """
        try:
            table = tomllib.loads(Path(path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(
                f"not a readable TOML file: {error}",
                where=str(path),
                todo="Write an [array] table, for example: rows = 16",
            ) from error
        known = {field.name for field in fields(cls)}
        row = table.get("array")
        if not isinstance(row, dict) or set(table) != {"array"}:
            raise UsageError(
                f"one table [array] is needed, found {sorted(table)}",
                where=str(path),
                todo="Put all settings under [array].",
            )
        unknown = sorted(set(row) - known)
        if unknown:
            raise UsageError(
                f"unknown keys {unknown}",
                where=f"{path}, [array]",
                todo=f"Known keys: {', '.join(sorted(known))}.",
            )
        return cls(**row)

    @property
    def pes(self) -> int:
        """Rows · cols."""
        return self.rows * self.cols

    def with_settings(self, settings: Sequence[str]) -> Self:
        """This array with ``key=value`` texts on top, values as in TOML or bare words.

        Raises UsageError on an unknown key or an impossible value.
        """
        known = {field.name for field in fields(self)}
        given: dict[str, object] = {}
        for text in settings:
            key, equals, value = text.partition("=")
            if not equals or key not in known:
                raise UsageError(
                    f"{text!r} is no setting of the array",
                    where="setting",
                    todo=f"Write KEY=VALUE with one of {', '.join(sorted(known))}.",
                )
            given[key] = _parsed(value)
        return replace(self, **given)  # type: ignore[arg-type]  # checked by __post_init__

    def multipliers(self, *, vector: bool) -> int:
        """Multipliers of the array, R·C·S, or of the vector unit."""
        if vector:
            return (self.vector_channels or self.cols) * self.vector_taps
        return self.pes * self.lanes

    @property
    def drain_cycles(self) -> int:
        """2R + C: cycles from a tile's last operands until its last row has left."""
        return 2 * self.rows + self.cols

    def with_bits(self, *, w_bits: int, a_bits: int) -> Self:
        """The same array with its operand widths settled."""
        return replace(self, w_bits=w_bits, a_bits=a_bits)


def _parsed(value: str) -> object:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _require_choice(key: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(
            f"{key} {value!r} is unknown", where=key, todo=f"Use {', '.join(allowed)}."
        )


def _require_switch(key: str, value: object) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{key} is {value!r}", where=key, todo="Use true or false.")


def _require_integer(key: str, value: object, *, most: int, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{key} is {value!r}", where=key, todo=f"Use an integer {least} … {most}.")


def _require_positive(key: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        raise UsageError(f"{key} is {value!r}", where=key, todo="Use a positive number.")
