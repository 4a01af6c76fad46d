"""Races: our session against other engines, each in a process of its own, one turn each a round.

All processes stay alive; in every round each runs for about the same time while the others wait, so
that a noisy machine disturbs all of them alike. Times are wall-clock per inference; a ratio is
their median divided by ours, from one run.
"""

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
