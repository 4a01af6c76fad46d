"""What is asked of a race, and what comes out."""

import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from bitfold.benchmark.peak import Peak

SCHEMA = "bitfold/bench/1"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """``rounds`` turns of ``turn_s`` seconds each; ``batch`` images per inference.

    ``cold_starts`` fresh processes an engine give the median of its cold start.
    """

    threads: int = 1
    batch: int = 1
    rounds: int = 15
    turn_s: float = 0.08
    seed: int = 0
    cold_starts: int = 3


@dataclass(frozen=True, slots=True)
class EngineResult:
    """Times of one engine; ``peak_rss_mb`` is its process's, imports included.

    ``cold_start_ms`` is the time of a fresh process from opening the model's file to the first
    answer, after ``import_ms`` for importing the engine; interpreter and numpy come before both.
    """

    name: str
    version: str
    precision: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    images_per_s: float
    peak_rss_mb: float
    import_ms: float
    cold_start_ms: float


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One step of our plan; ``share`` is its part of the steps' total time.

    ``peak_share`` is its rate divided by the peak of 8-bit multiply-accumulates in registers: an
    algorithm that multiplies less (Winograd, popcounts) may be above 1. ``bytes`` counts what the
    step reads and writes at least: input, output, weights at their own width. Without a measured
    peak or clock the fields that need it are None.
    """

    name: str
    op: str
    kernel: str
    ms: float
    macs: int
    gmac_per_s: float
    share: float
    bytes: int
    macs_per_cycle: float | None
    peak_share: float | None


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """``packed`` bytes of our weights in memory; ``least`` is bits times parameters."""

    packed: int
    least: int


@dataclass(frozen=True, slots=True)
class BenchReport:
    """One race; ``peak`` is None without the C library, ``features`` are the CPU's."""

    cpu: str
    threads: int
    batch: int
    rounds: int
    engines: tuple[EngineResult, ...]
    ratios: dict[str, float]
    layers: tuple[LayerTime, ...]
    peak: Peak | None
    weights: WeightBytes
    features: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """The JSON form (INTERFACE: bench)."""
        return {"schema": SCHEMA, **asdict(self)}


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
