"""The row of each step: timed, remembered, forced, or the only one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bitfold.errors import UsageError
from bitfold.kernels.c_library import Library
from bitfold.kernels.c_steps import OPS, pack_step, row_fits
from bitfold.kernels.packed_step import PackedStep, constant_bytes
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep, Step
from bitfold.kernels.tuning.cache import Memory, Times, cache_folder
from bitfold.kernels.tuning.contenders import contenders, layer_key
from bitfold.kernels.tuning.identity import machine_identity
from bitfold.kernels.tuning.mode import TuneMode
from bitfold.kernels.tuning.trial import Trial

NS_PER_US = 1000
AS_QUICK = 110  # percent of the least time; those of trials on a busy machine differ by more


@dataclass(frozen=True, slots=True)
class Pick:
    """The row that runs a step, its constants, and why it is this row."""

    row: Row
    packed: PackedStep
    reason: str


def memory_of(library: Library) -> Memory:
    """Times known on this machine for ``library``; the same object as long as places stay."""
    return _memory(cache_folder(), library)


@cache
def _memory(folder: Path | None, library: Library) -> Memory:
    return Memory(folder, machine_identity(library))


class Chooser:
    """Chooses rows for the steps of one plan."""

    def __init__(
        self,
        library: Library,
        rows: Sequence[Row],
        *,
        force: str | None,
        mode: TuneMode,
        arena_bytes: int,
        weight_bytes: int,
    ) -> None:
        """``rows``: those the host covers, best first. ``force`` is what was asked for, if any."""
        self._rows, self._force, self._mode = rows, force, mode
        self._memory = memory_of(library) if mode != "off" and not force else None
        self._trial = (library, arena_bytes, weight_bytes)

    def pick(self, step: Step) -> Pick:
        """The row for ``step``; raises UsageError where none fits."""
        fitting = tuple(row for row in self._rows if row_fits(row, step))
        if not fitting:
            raise UsageError(f"no kernel for {OPS[type(step)]}", where=f"step {step.name}")
        if self._memory is None or not isinstance(step, ConvStep):
            return Pick(fitting[0], pack_step(step, fitting[0]), self._plain_reason(fitting))
        rivals = contenders(step, fitting)
        if len(rivals) == 1:
            reason = "the only row that fits" if len(fitting) == 1 else "the best row that fits"
            return Pick(rivals[0], pack_step(step, rivals[0]), reason)
        return self._quickest(step, rivals, self._memory)

    def save(self) -> None:
        """Remember for other processes what was timed."""
        if self._memory is not None:
            self._memory.save()

    def _plain_reason(self, fitting: Sequence[Row]) -> str:
        if len(fitting) == 1:
            return "the only row that fits"
        if self._force:
            named = fitting[0].answers_to(self._force)
            return f"{self._force} is forced" if named else f"{self._force} is forced but not here"
        return "the first row that fits"

    def _quickest(self, step: ConvStep, rivals: tuple[Row, ...], memory: Memory) -> Pick:
        layer = layer_key(step)
        known = memory.recall(layer)
        if known is not None and known.keys() == {row.symbol for row in rivals}:
            near = {row: pack_step(step, row) for row in _as_quick(rivals, known)}
            return _smallest(near, rivals, known, how="remembered")
        if self._mode == "cached":
            return Pick(rivals[0], pack_step(step, rivals[0]), "the first row that fits; not timed")
        library, arena_bytes, weight_bytes = self._trial
        packed = {row: pack_step(step, row) for row in rivals}
        others = weight_bytes - step.weight.nbytes
        trial = Trial(library, arena_bytes=arena_bytes, swept_bytes=others)
        times = trial.time(step, rivals, tuple(packed.values()))
        memory.learn(layer, times)
        near = {row: packed[row] for row in _as_quick(rivals, times)}
        return _smallest(near, rivals, times, how="timed")


def _as_quick(rows: Sequence[Row], times: Times) -> list[Row]:
    """The fastest of ``rows`` and those that no trial could tell from it, fastest first."""
    ordered = sorted(rows, key=lambda row: times[row.symbol])
    least = times[ordered[0].symbol]
    return [row for row in ordered if 100 * times[row.symbol] <= AS_QUICK * least]


def _smallest(
    near: Mapping[Row, PackedStep], rows: Sequence[Row], times: Times, *, how: str
) -> Pick:
    """The row of ``near`` whose constants take the least memory.

    Its reason: ``timed: 812.4 µs against packed:avx2's 901.0 µs``, the best of the others.
    """
    row = min(near, key=lambda each: constant_bytes(near[each]))
    second = min((each for each in rows if each != row), key=lambda each: times[each.symbol])
    ours, theirs = (times[each.symbol] / NS_PER_US for each in (row, second))
    reason = f"{how}: {ours:.1f} µs against {second.layout}:{second.isa}'s {theirs:.1f} µs"
    return Pick(row, near[row], reason if ours <= theirs else f"{reason}, in less memory")
