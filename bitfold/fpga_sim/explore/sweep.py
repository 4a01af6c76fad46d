"""What a sweep varies: a grid over keys of ``ArrayConfig``, all of it or a seeded sample."""

import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Self

from bitfold.errors import InputError, UsageError
from bitfold.fpga_sim.array import ArrayConfig

Value = int | float | str
KEYS = frozenset(field.name for field in fields(ArrayConfig)) - {"mode", "rows", "cols"}
SIZES = (4, 8, 16, 32, 64)
DEFAULT: Mapping[str, tuple[Value, ...]] = MappingProxyType(
    {
        "array": tuple(f"{rows}x{cols}" for rows in SIZES for cols in SIZES),
        "lanes": (1, 2, 4, 8, 16, 32),
        "dataflow": ("os", "ws", "is"),
        "drain": ("shared", "shadow"),
    }
)
SWEEP_FORM = 'Write a [sweep] table of lists, for example: array = ["8x8", "16x16"]'


@dataclass(frozen=True, slots=True)
class Sweep:
    """Values by key in order; ``array`` is rows x cols, every other key one of ``ArrayConfig``.

    ``points`` asks for that many, drawn without repetition by ``seed``; None is the whole grid.
    Raises UsageError on an unknown key or an empty list.
    """

    axes: Mapping[str, tuple[Value, ...]]
    points: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", dict(self.axes))  # a copy that workers can unpickle
        for key, values in self.axes.items():
            if key != "array" and key not in KEYS:
                raise UsageError(
                    f"{key!r} is no setting of the array",
                    where="sweep",
                    todo=f"Known: array, {', '.join(sorted(KEYS))}.",
                )
            if not values or len(set(values)) != len(values):
                raise UsageError(
                    f"{key} is {list(values)}", where="sweep", todo="Give different values."
                )
        for text in self.axes.get("array", ()):
            _shape(text)

    @property
    def size(self) -> int:
        """Points of the whole grid."""
        return prod(len(values) for values in self.axes.values())

    def numbers(self) -> Sequence[int]:
        """Which points of the grid, ascending."""
        if self.points is None or self.points >= self.size:
            return range(self.size)
        return sorted(random.Random(self.seed).sample(range(self.size), self.points))

    def settings(self, number: int) -> dict[str, Value]:
        """Point ``number`` of the grid, the last key fastest."""
        found: dict[str, Value] = {}
        for key, values in reversed(list(self.axes.items())):
            number, place = divmod(number, len(values))
            found[key] = values[place]
        return dict(reversed(found.items()))

    def identity(self) -> dict[str, object]:
        """What makes two sweeps the same: the grid; the sample may grow."""
        return {key: list(values) for key, values in self.axes.items()}

    def with_axis(self, text: str) -> Self:
        """This sweep with an axis given as ``key=a,b,…``; raises UsageError."""
        key, equals, rest = text.partition("=")
        if not equals:
            raise UsageError(f"{text!r} is no axis", where="sweep", todo="Write KEY=A,B,…")
        values = tuple(_plain(word) for word in rest.split(",") if word)
        return type(self)({**self.axes, key: values}, self.points, self.seed)


def _plain(word: str) -> Value:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _shape(text: Value) -> tuple[int, int]:
    rows, _, cols = str(text).partition("x")
    if not (rows.isdecimal() and cols.isdecimal()):
        raise UsageError(f"array {text!r} is no size", where="sweep", todo="Write RxC, as 16x16.")
    return int(rows), int(cols)


def changes_of(settings: Mapping[str, Value]) -> dict[str, object]:
    """Settings as fields of ``ArrayConfig``."""
    found: dict[str, object] = {key: value for key, value in settings.items() if key != "array"}
    if "array" in settings:
        found["rows"], found["cols"] = _shape(settings["array"])
    return found


def read_sweep(path: str | Path) -> Mapping[str, tuple[Value, ...]]:
    """The ``[sweep]`` table of a TOML file: a list, or one value, for each key.

    Raises InputError where the file cannot be read or holds something else.
    """
    try:
        table = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"not a readable TOML file: {error}", where=f"file {path}", todo=SWEEP_FORM
        ) from error
    row = table.get("sweep")
    if not isinstance(row, dict) or set(table) != {"sweep"}:
        raise InputError(
            f"one table [sweep] is needed, found {sorted(table)}",
            where=f"file {path}",
            todo=SWEEP_FORM,
        )
    return {key: tuple(v) if isinstance(v, list) else (v,) for key, v in row.items()}
