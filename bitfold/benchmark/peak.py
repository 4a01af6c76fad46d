"""The machine's measured peak: 8-bit multiply-accumulates, clock, memory bandwidth, of one core.

Multiply-accumulates are the widest dot product that the CPU has, on registers alone; no kernel that
multiplies as often can be faster. Bandwidth is that of the C library's search for a byte that is
not there. All are the best of the turns that the meter had, spread over the race.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from bitfold.kernels import PeakLoop, peak_loops

ROUNDS = 4000
REPEATS = 8
NS_PER_S = 10**9
CACHE_BYTES = 1 << 18
MEMORY_BYTES = 1 << 27


@dataclass(frozen=True, slots=True)
class Peak:
    """Of one core: ``isa`` is the instruction set that reached ``gmac_per_s``.

    ``macs_per_cycle`` and ``clock_ghz`` are None where the clock cannot be measured.
    ``cache_gb_per_s`` reads 256 KB again and again, ``memory_gb_per_s`` 128 MB.
    """

    isa: str
    gmac_per_s: float
    clock_ghz: float | None
    macs_per_cycle: float | None
    cache_gb_per_s: float
    memory_gb_per_s: float


def _per_ns(amount: Callable[[], int]) -> float:
    """The best of some repeats."""
    best = 0.0
    for _ in range(REPEATS):
        start = time.perf_counter_ns()
        done = amount()
        best = max(best, done / max(time.perf_counter_ns() - start, 1))
    return best


def _read(block: bytearray) -> int:
    return len(block) + min(block.find(b"\0"), 0)


class PeakMeter:
    """Measures in short turns; ``peak`` is the best so far."""

    def __init__(self) -> None:
        self._loops: tuple[PeakLoop, ...] = peak_loops()
        self._best: dict[str, float] = {}
        self._blocks = {"cache": bytearray(b"\1") * CACHE_BYTES}

    def turn(self) -> None:
        """Measure for a few milliseconds."""
        for loop in self._loops:
            key = "cycles" if loop.of == "cycles" else loop.name
            self._keep(key, _per_ns(lambda run=loop.run: run(ROUNDS)))  # type: ignore[misc]
        self._keep("cache", _per_ns(lambda: _read(self._blocks["cache"])))

    def read_memory(self) -> None:
        """Measure the bandwidth of main memory; takes about a second."""
        block = bytearray(b"\1") * MEMORY_BYTES
        self._keep("memory", _per_ns(lambda: _read(block)))

    def _keep(self, key: str, value: float) -> None:
        self._best[key] = max(self._best.get(key, 0.0), value)

    @property
    def peak(self) -> Peak | None:
        """None without the C library, or before the first turn."""
        rates = {name: self._best.get(name, 0.0) for name in self._names()}
        if not rates:
            return None
        isa = max(rates, key=lambda name: rates[name])
        clock = self._best.get("cycles")
        return Peak(
            isa, rates[isa], clock, rates[isa] / clock if clock else None,
            self._best.get("cache", 0.0), self._best.get("memory", 0.0),
        )  # fmt: skip

    def _names(self) -> list[str]:
        return [loop.name for loop in self._loops if loop.of == "macs"]
