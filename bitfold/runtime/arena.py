"""Where tensors lie in the arena: memory is reused as soon as a tensor has no reader left."""

from collections.abc import Sequence
from dataclasses import dataclass

from bitfold.kernels.buffer import ALIGNMENT

SLACK_BYTES = 64  # behind each tensor, for vector loads past its end


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A tensor's size and the steps, first … last inclusive, at which it must stay intact."""

    num_bytes: int
    first: int
    last: int

    def overlaps(self, other: "Lifetime") -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


def reserved_bytes(num_bytes: int) -> int:
    """Bytes the arena keeps for a tensor: its own and the slack, up to the next multiple of 64."""
    return -(-(num_bytes + SLACK_BYTES) // ALIGNMENT) * ALIGNMENT


def _best_fit(taken: Sequence[tuple[int, int]], size: int) -> int:
    """Start of the smallest gap between ``taken`` (start, end) spans that holds ``size`` bytes."""
    best, best_room, cursor = -1, 0, 0
    for start, end in sorted(taken):
        room = start - cursor
        if room >= size and (best < 0 or room < best_room):
            best, best_room = cursor, room
        cursor = max(cursor, end)
    return best if best >= 0 else cursor


def assign_offsets(lifetimes: Sequence[Lifetime]) -> tuple[tuple[int, ...], int]:
    """(offset of each tensor, arena size in bytes); no two tensors alive at one step overlap.

    Greatest first, each into the smallest gap that holds it.
    """
    offsets: dict[int, int] = {}
    arena_bytes = 0
    order = sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].num_bytes, i))
    for i in order:
        size = reserved_bytes(lifetimes[i].num_bytes)
        taken = [
            (offset, offset + reserved_bytes(lifetimes[j].num_bytes))
            for j, offset in offsets.items()
            if lifetimes[i].overlaps(lifetimes[j])
        ]
        offsets[i] = _best_fit(taken, size)
        arena_bytes = max(arena_bytes, offsets[i] + size)
    return tuple(offsets[i] for i in range(len(lifetimes))), arena_bytes
