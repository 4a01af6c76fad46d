"""The yardstick of ``bitfold bench``: what a core does at most, in registers (csrc/peak.c)."""

from collections.abc import Callable
from dataclasses import dataclass

_CYCLES = 0
# As in enum bf_peak_kind.
_KINDS = {1: "portable", 2: "avx2", 3: "avxvnni", 4: "avx512vnni"}


@dataclass(frozen=True, slots=True)
class PeakLoop:
    """``run(rounds)`` does that many rounds and says how many ``of`` it were."""

    name: str
    of: str
    run: Callable[[int], int]


def peak_loops() -> tuple[PeakLoop, ...]:
    """Loops that this machine can run: cycles first, then multiply-accumulates of each ISA.

    None without the C library.
    """
    from bitfold.kernels.c_library import find_library, load_library  # loads cffi

    path = find_library()
    if path is None:
        return ()
    lib = load_library(path).lib

    def loop(kind: int, name: str, of: str) -> PeakLoop:
        return PeakLoop(name, of, lambda rounds: int(lib.bf_peak(kind, rounds)))

    loops = [loop(_CYCLES, "add", "cycles")]
    loops += [loop(kind, name, "macs") for kind, name in _KINDS.items()]
    return tuple(each for each in loops if each.run(1))
