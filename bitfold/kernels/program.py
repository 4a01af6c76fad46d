"""What every backend makes of steps: a program, and an arena and threads to run it on."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.buffer import ALIGNMENT
from bitfold.kernels.rows import Row


def allocate_arena(arena_bytes: int) -> NDArray[np.uint8]:
    """Zeroed bytes, the first at an address that is a multiple of 64."""
    block = np.zeros(arena_bytes + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + arena_bytes]


class Workers(Protocol):
    """Threads of a program; ``pool`` is its backend's own handle."""

    @property
    def pool(self) -> object:
        """What the backend calls them."""

    def close(self) -> None:
        """Stop them."""


class Program(Protocol):
    """Steps bound to kernels: immutable, for several threads at once, each with its own arena."""

    @property
    def rows(self) -> Sequence[Row | None]:
        """The row that runs each step; None where a step needs no kernel of the table."""

    @property
    def reasons(self) -> Sequence[str]:
        """Why each step runs on its row."""

    @property
    def arena_bytes(self) -> int:
        """Bytes of arena that a run needs: the plan's, and what kernels need behind it."""

    def start_workers(self) -> Workers | None:
        """Threads that ``run`` may share each step with; None where the program has one thread."""

    def run(
        self,
        images: NDArray[np.uint8],
        logits: NDArray[np.float32],
        arena: NDArray[np.uint8],
        workers: Workers | None = None,
    ) -> None:
        """Images (N, H, W, C) uint8 → logits (N, …) float32, both C-contiguous.

        ``arena`` is 1-D uint8, of ``arena_bytes``, aligned to 64; its content is lost.
        """

    def run_step(self, i: int, arena: NDArray[np.uint8]) -> None:
        """Step ``i`` alone, on what the arena holds."""
