"""Threads that share a step: Python's own, since kernels release the interpreter lock.

numba's parallel loops are left alone: their default threading layer must not be entered from two
threads at once, and the layers that may be are not installed everywhere.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Share = tuple[int, int]  # part i of n
ALONE: Share = (0, 1)


def part_of(total: int, share: Share) -> slice:
    """The share's part of ``total`` rows, even to one."""
    index, count = share
    return slice(total * index // count, total * (index + 1) // count)


class NumbaWorkers:
    """``threads`` − 1 threads beside the caller; several callers may use them at once."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads - 1)

    def share_out(self, work: Callable[[Share], None]) -> None:
        """``work`` on each share: the first by the caller, the others by the threads."""
        waiting = [self.pool.submit(work, (i, self.threads)) for i in range(1, self.threads)]
        work((0, self.threads))
        for done in waiting:
            done.result()

    def close(self) -> None:
        """Stop the threads; nothing may run on them any more."""
        self.pool.shutdown()
