"""The shipped table of Yosys runs (``calibration.toml``) and the errors of what is made of it.

``benchmarks/fpga_calibration.py`` writes it; its header has the version of Yosys and the command.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from types import MappingProxyType

from bitfold.fpga_sim.synthesis import Cells, Unit

# From here on an error is one of a model that is too high: nothing is so far too low.
LARGE = 0.6
FIELDS = tuple(field.name for field in fields(Cells))


@dataclass(frozen=True, slots=True)
class Residuals:
    """|model − Yosys| / Yosys: the worst and the median case, of ``count`` configurations."""

    worst: float
    median: float
    count: int

    @property
    def bar(self) -> float:
        """The worst error as a fraction of the model's count, where that is too low by it."""
        return self.worst / (1 - self.worst) if self.worst < LARGE else self.worst


@dataclass(frozen=True, slots=True)
class Calibration:
    """Counts by the key of a unit, and residuals by name."""

    tool: str
    units: Mapping[str, Cells]
    residuals: Mapping[str, Residuals]


def parse_calibration(text: str) -> Calibration:
    """The table of a TOML text."""
    found = tomllib.loads(text)
    return Calibration(
        tool=found["tool"],
        units=MappingProxyType(
            {key: Cells(*row) for key, row in found["units"].items()}
        ),
        residuals=MappingProxyType(
            {key: Residuals(*row) for key, row in found["residuals"].items()}
        ),
    )  # fmt: skip


@cache
def calibration() -> Calibration:
    """The shipped table."""
    text = resources.files("bitfold.fpga_sim").joinpath("calibration.toml").read_text("utf-8")
    return parse_calibration(text)


def measured(unit: Unit) -> Cells | None:
    """What Yosys said of exactly this unit, or None."""
    return calibration().units.get(unit.key)
