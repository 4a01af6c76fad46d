"""Devices: part numbers and their resource totals, each number with its source and certainty."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

from bitfold.errors import UsageError

RESOURCES = ("lut", "ff", "dsp", "bram36", "uram")
# Shares of a device that a design may fill before timing closure fails (FINN's defaults).
CEILING_PERCENT: Mapping[str, int] = MappingProxyType(
    {"lut": 70, "ff": 50, "dsp": 80, "bram36": 80, "uram": 80}
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a device, where it comes from, and how sure it is: high, medium or low."""

    value: int
    source: str
    certainty: str


@dataclass(frozen=True, slots=True)
class Device:
    """Totals of one part; ``clock_mhz`` and ``dram_mb_per_s`` are defaults, never predictions."""

    name: str
    part: str
    aliases: tuple[str, ...]
    clock_mhz: int
    dram_mb_per_s: int
    quantities: Mapping[str, Quantity]

    @property
    def available(self) -> dict[str, int]:
        """Total of each resource."""
        return {key: self.quantities[key].value for key in RESOURCES}

    @property
    def limits(self) -> dict[str, int]:
        """Most of each resource that a design may use: total · ceiling, rounded down."""
        return {key: self.available[key] * CEILING_PERCENT[key] // 100 for key in RESOURCES}


@cache
def devices() -> Mapping[str, Device]:
    """All devices of ``devices.toml`` by name, in its order."""
    text = resources.files("bitfold.fpga_sim").joinpath("devices.toml").read_text("utf-8")
    table = tomllib.loads(text)
    sources = table["sources"]
    found: dict[str, Device] = {}
    for name, row in table["device"].items():
        family = table["family"][row["family"]]
        quantities = {
            key: Quantity(row[key][0], sources[row[key][1]], row[key][2]) for key in RESOURCES
        }
        found[name] = Device(
            name=name,
            part=row["part"],
            aliases=tuple(row["aliases"]),
            clock_mhz=family["clock_mhz"],
            dram_mb_per_s=family["dram_mb_per_s"],
            quantities=MappingProxyType(quantities),
        )
    return MappingProxyType(found)


def find_device(name: str) -> Device:
    """The device called ``name`` or one of its aliases, in any case.

    Raises UsageError, naming all known devices, where there is none.
    """
    wanted = name.strip().lower().replace("_", "-")
    for device in devices().values():
        if wanted == device.name or wanted in device.aliases:
            return device
    names = [alias for d in devices().values() for alias in (d.name, *d.aliases)]
    close = difflib.get_close_matches(wanted, names, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise UsageError(
        f"unknown device {name!r}",
        where="device",
        todo=f"{hint}Known devices: {', '.join(devices())}.",
    )
