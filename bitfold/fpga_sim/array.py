"""The array under simulation: its size, dataflow, drain style, operand widths and modes."""

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

from bitfold.errors import InputError, UnsupportedError, UsageError

CHOICES = {
    "dataflow": ("os", "ws", "is"),
    "drain": ("shared", "shadow"),
    "edge": ("passes", "wide"),
    "mode": ("native", "scalesim", "finn"),
}
SIZES = ("rows", "cols", "lanes")
MAX_SIZE = 4096
MAX_BITS = 8


@dataclass(frozen=True, slots=True)
class ArrayConfig:
    """A systolic array of ``rows`` × ``cols`` PEs with ``lanes`` multipliers each.

    drain
        ``shared``: the accumulators shift the results out, the next tile waits.
        ``shadow``: a second register per PE shifts them out while the next tile computes.
    edge
        What to do with layers of more than 4 bits, such as first, last and shortcut: ``passes``
        multiplies digits of ``w_bits`` and ``a_bits``, one tile visit per pair of digits;
        ``wide`` builds every PE for the widest layer.
    w_bits, a_bits
        Operand widths of a PE; None takes them from the graph (docs/fpga_model.md).
    mode
        ``native``, or ``scalesim``: the closed forms of SCALE-Sim 3.0.0, with
        ``scalesim_minus_one`` (its count is an index) and ``scalesim_ceil`` (its output sizes
        round up).
    clock_mhz, dram_bytes_per_cycle
        Parameters; None takes the device's default.

    Raises UsageError on an impossible value, UnsupportedError on what is not modelled.
    """

    rows: int = 16
    cols: int = 16
    dataflow: str = "os"
    lanes: int = 1
    drain: str = "shared"
    edge: str = "passes"
    w_bits: int | None = None
    a_bits: int | None = None
    mode: str = "native"
    scalesim_minus_one: bool = True
    scalesim_ceil: bool = False
    clock_mhz: float | None = None
    dram_bytes_per_cycle: float | None = None

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            _require_choice(key, getattr(self, key), allowed)
        for key in SIZES:
            _require_integer(key, getattr(self, key), most=MAX_SIZE)
        for key in ("w_bits", "a_bits"):
            if getattr(self, key) is not None:
                _require_integer(key, getattr(self, key), most=MAX_BITS)
        for key in ("scalesim_minus_one", "scalesim_ceil"):
            _require_switch(key, getattr(self, key))
        for key in ("clock_mhz", "dram_bytes_per_cycle"):
            _require_positive(key, getattr(self, key))
        self._require_modelled()

    def _require_modelled(self) -> None:
        if self.mode == "finn":
            raise UnsupportedError(
                "FINN's folded dataflow pipeline is not modelled",
                where="mode",
                todo="Use mode native or scalesim.",
            )
        if self.mode == "native" and self.dataflow != "os":
            raise UnsupportedError(
                f"dataflow {self.dataflow} is modelled only in scalesim mode; the native array is "
                "output-stationary",
                where="dataflow",
                todo="Use dataflow os, or mode scalesim.",
            )
        if self.mode == "scalesim" and self.lanes != 1:
            raise UsageError(
                f"scalesim mode has one multiplier per PE, not {self.lanes} lanes",
                where="lanes",
                todo="Use lanes 1, or mode native.",
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

    @property
    def drain_cycles(self) -> int:
        """2R + C: cycles from a tile's last operands until its last row has left."""
        return 2 * self.rows + self.cols

    def with_bits(self, *, w_bits: int, a_bits: int) -> Self:
        """The same array with its operand widths settled."""
        return replace(self, w_bits=w_bits, a_bits=a_bits)


def _require_choice(key: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(
            f"{key} {value!r} is unknown", where=key, todo=f"Use {', '.join(allowed)}."
        )


def _require_switch(key: str, value: object) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{key} is {value!r}", where=key, todo="Use true or false.")


def _require_integer(key: str, value: object, *, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UsageError(f"{key} is {value!r}", where=key, todo=f"Use an integer 1 … {most}.")


def _require_positive(key: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        raise UsageError(f"{key} is {value!r}", where=key, todo="Use a positive number.")
