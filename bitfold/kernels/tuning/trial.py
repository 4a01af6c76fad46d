"""Short timed trials of rows on a layer, on an arena of their own."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import get_clock_info, perf_counter_ns, thread_time_ns

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.c_binding import bind_steps
from bitfold.kernels.c_library import Library
from bitfold.kernels.packed_step import PackedStep
from bitfold.kernels.packing import round_up
from bitfold.kernels.program import allocate_arena
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ALIGNMENT, Buffer, ConvStep, ToWide

SPEND_NS = 6_000_000  # on a layer, if more than the fewest rounds
FEWEST_ROUNDS, MOST_ROUNDS = 3, 25
HOPELESS = 3  # times as slow as the best in its first run: tried no more
MOST_SWEPT = 1 << 22
LARGEST_ADDEND = 1 << 20
# Time of this thread alone, where the system counts it finely: others may be busy meanwhile.
_FINE = get_clock_info("thread_time").resolution * 10**6 <= 1
CLOCK = thread_time_ns if _FINE else perf_counter_ns

_one_at_a_time = Lock()  # trials of two threads would disturb each other

Run = Callable[[], None]


class Trial:
    """Runs rows on steps of one plan, on random indices, with caches as within an inference."""

    def __init__(self, library: Library, *, arena_bytes: int, swept_bytes: int) -> None:
        """``swept_bytes`` pass through the caches between two runs, as other layers' weights do."""
        self._library = library
        self._arena_bytes = round_up(arena_bytes, ALIGNMENT)
        self._swept = np.zeros(min(swept_bytes, MOST_SWEPT), np.uint8)
        self._random = np.random.default_rng(0)

    def time(
        self, step: ConvStep, rows: Sequence[Row], packed: Sequence[PackedStep]
    ) -> dict[str, int]:
        """Nanoseconds of each row on ``step``, by symbol; the least of several runs."""
        scratch_bytes = round_up(max(p.scratch_bytes for p in packed), ALIGNMENT)
        steps, kept = bind_steps(
            self._library, tuple(rows), tuple(packed),
            scratch=self._arena_bytes, scratch_bytes=scratch_bytes,
        )  # fmt: skip
        arena = allocate_arena(self._arena_bytes + scratch_bytes)
        operands = self._operands(step, arena)
        ffi = self._library.ffi
        place, alone = ffi.cast("uint8_t *", arena.ctypes.data), ffi.new("bf_share *", (0, 1))

        def prepare() -> None:
            np.bitwise_not(self._swept, out=self._swept)
            for target, values in operands:
                target[:] = values

        runs = {
            row.symbol: lambda i=i: steps[i].kernel(steps + i, place, alone)
            for i, row in enumerate(rows)
        }
        with _one_at_a_time:
            times = time_runs(runs, prepare=prepare)
        del kept  # what the steps point to lived until here
        return times

    def _operands(
        self, step: ConvStep, arena: NDArray[np.uint8]
    ) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Places in the arena that ``step`` reads, and random numbers for them."""
        indices = self._random.integers(0, step.x_grid.levels, step.x.num_bytes, dtype=np.uint8)
        operands = [(_bytes_of(arena, step.x), indices)]
        add = step.epilogue.add if isinstance(step.epilogue, ToWide) else None
        if add is not None:
            ends = (-LARGEST_ADDEND, LARGEST_ADDEND)
            values = self._random.integers(*ends, add.num_elements, dtype=np.int32)
            operands.append((_bytes_of(arena, add), values.view(np.uint8)))
        return operands


def _bytes_of(arena: NDArray[np.uint8], buffer: Buffer) -> NDArray[np.uint8]:
    return arena[buffer.offset : buffer.offset + buffer.num_bytes]


def time_runs(
    runs: Mapping[str, Run], *, prepare: Run, clock: Callable[[], int] = CLOCK
) -> dict[str, int]:
    """The least time of each run, taken in turns; ``prepare`` goes before each and is not timed.

    A run that is hopeless at first keeps that one time. The others go round until the time for a
    layer is spent; their first run only warms up.
    """

    def timed(run: Run) -> int:
        prepare()
        start = clock()
        run()
        return max(1, clock() - start)

    best = {name: timed(run) for name, run in runs.items()}
    rivals = [name for name, ns in best.items() if ns <= HOPELESS * min(best.values())]
    times, spent = dict[str, int](), 0
    for turn in range(MOST_ROUNDS):
        if turn >= FEWEST_ROUNDS and spent > SPEND_NS:
            break
        for name in rivals:
            ns = timed(runs[name])
            times[name] = min(ns, times.get(name, ns))
            spent += ns
    return best | times
