"""Races: our session against other engines, each in a process of its own, one turn each a round.

All processes stay alive; in every round each runs for about the same time while the others wait, so
that a noisy machine disturbs all of them alike. Times are wall-clock per inference; a ratio is
their median divided by ours, from one run.

Names are resolved when first used: an engine's process loads that engine and no more.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold.benchmark.engines import PEERS, require_engines
    from bitfold.benchmark.peak import Peak, PeakMeter
    from bitfold.benchmark.race import run_bench
    from bitfold.benchmark.report import (
        BenchOptions,
        BenchReport,
        EngineResult,
        LayerTime,
        WeightBytes,
        cpu_name,
    )

_NAMES = {
    "engines": "PEERS require_engines",
    "peak": "Peak PeakMeter",
    "race": "run_bench",
    "report": "BenchOptions BenchReport EngineResult LayerTime WeightBytes cpu_name",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = [
    "PEERS",
    "BenchOptions",
    "BenchReport",
    "EngineResult",
    "LayerTime",
    "Peak",
    "PeakMeter",
    "WeightBytes",
    "cpu_name",
    "require_engines",
    "run_bench",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
