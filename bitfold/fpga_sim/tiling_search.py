"""The fastest tiling of many layers at once: bounds of every case, then the few that can win.

``schedule.step_blocks`` prices one case block by block and is the slow twin of all of this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bitfold.fpga_sim.tiling import FILTERS, Job, Plan, Port
from bitfold.fpga_sim.tiling_cases import Cases, Columns, Ints, Numbers, Rows, edge_cycles

# Plans kept of each port, and ports: some hundred arrays on a network of some fifty layers.
PLANS_KEPT, PORTS_KEPT = 16384, 16
# Cases priced in one go, each with 49 kinds of block.
AT_ONCE = 1024
IMPOSSIBLE = np.int64(2**62)
# A sum of 64-bit floats is not wrong by more than this share.
ROUNDING = 1e-9


@lru_cache(maxsize=PORTS_KEPT)
def _known(port: Port) -> dict[Job, Plan]:
    """Plans of earlier calls: buffers and clocks of a sweep leave many jobs as they are."""
    del port
    return {}


def plans(jobs: Sequence[Job], port: Port) -> list[Plan]:
    """``choose`` of every job; equal jobs, also of earlier calls, share the work."""
    known = _known(port)
    found = {job: known.get(job) for job in jobs}
    missing = [job for job, plan in found.items() if plan is None]
    if missing:
        if len(known) + len(missing) > PLANS_KEPT:
            known.clear()
        fresh = dict(zip(missing, choose_all(missing, port), strict=True))
        known.update(fresh)
        found.update(fresh)
    return [plan for job in jobs if (plan := found[job]) is not None]


def choose(job: Job, port: Port) -> Plan:
    """The plan of fewest cycles, then of fewest bytes; requires that one fold of each fits."""
    return choose_all([job], port)[0]


def choose_all(jobs: Sequence[Job], port: Port) -> list[Plan]:
    """``choose`` of every job, side by side.

    A case is (job, loop order, rows, columns). Its cycles are at least those that compute, and at
    least those that the port is busy. The case of the least bound is priced first; those whose
    bound is no greater than its cycles come next, and nothing else can be as fast.
    """
    table = _Table.of(jobs, port)
    bound, moved = (x.reshape(len(jobs), -1) for x in table.bounds())
    every = np.arange(len(jobs))
    first = bound.argmin(axis=1)
    assert (bound[every, first] < IMPOSSIBLE).all(), "a job of which nothing fits"
    total, computing = table.priced(every, first)
    hopeful = bound <= total[:, None]
    hopeful[every, first] = False
    job, place = hopeful.nonzero()
    more, more_computing = table.priced(job, place)
    job, place = np.concatenate([every, job]), np.concatenate([first, place])
    total, computing = np.concatenate([total, more]), np.concatenate([computing, more_computing])
    order = np.lexsort((place, moved[job, place], total, job))
    best = order[np.unique(job[order], return_index=True)[1]]
    place = place[best]
    return table.plans(place, total[best], computing[best], moved[every, place])


@dataclass(frozen=True, slots=True)
class _Table:
    """Every case of some jobs: (jobs, loop orders, row sizes, column sizes).

    A place is the index of a case among those of its job: orders, rows, columns.
    """

    numbers: Numbers
    rows: Rows
    columns: Columns
    port: Port

    @classmethod
    def of(cls, jobs: Sequence[Job], port: Port) -> Self:
        """All sizes of blocks of ``jobs``."""
        numbers = Numbers.of(jobs).at((slice(None), None))
        return cls(numbers, Rows.of(numbers, port), Columns.of(numbers, port), port)

    def parts(self, place: Ints) -> tuple[NDArray[np.bool_], Ints, Ints]:
        """Whether rows are outside, and the indices of the sizes in rows and in columns."""
        shape = 2, self.rows.size.shape[1], self.columns.size.shape[1]
        outside, m, n = np.unravel_index(place, shape)
        return outside == 1, m, n

    def plans(self, place: Ints, total: Ints, computing: Ints, moved: Ints) -> list[Plan]:
        """One plan a job, of the case at ``place``."""
        every = np.arange(len(place))
        outside, m, n = self.parts(place)
        blocks = self.rows.bands[every, m] * self.columns.blocks[every, n]
        fields = (self.rows.size[every, m], self.columns.size[every, n], outside, total, computing,
                  moved, blocks)  # fmt: skip
        return [Plan(*row) for row in zip(*(field.tolist() for field in fields), strict=True)]

    def priced(self, job: Ints, place: Ints) -> tuple[Ints, Ints]:
        """(cases,) cycles, and those that compute."""
        total, computing = np.empty_like(place), np.empty_like(place)
        for i in range(0, len(job), AT_ONCE):
            some = slice(i, i + AT_ONCE)
            total[some], computing[some] = self._cases(job[some], place[some]).totals()
        return total, computing

    def _cases(self, job: Ints, place: Ints) -> Cases:
        outside, m, n = self.parts(place)
        blocks = (None, None)
        return Cases(
            self.numbers.at((job, 0, *blocks)),
            self.rows.at((job, m, *blocks)),
            self.columns.at((job, n, *blocks)),
            outside[:, None, None],
            self.port,
        )

    def bounds(self) -> tuple[Ints, Ints]:
        """Cycles that a case takes at least, and its bytes before rounding to bursts.

        Cases that are none, or do not fit, have IMPOSSIBLE cycles.
        """
        every = slice(None)
        job = self.numbers.at((every, every, None, None))
        m = self.rows.at((every, None, every, None))
        n = self.columns.at((every, None, None, every))
        outside = np.array([False, True])[:, None, None]
        # How often the map, and all constants, are loaded.
        sweeps = np.where(outside | (m.bands == 1), 1, n.blocks)
        reloads = np.where(outside & (n.blocks > 1), m.bands, 1)
        moved = job.inputs * sweeps + job.constants * reloads + job.others + job.writes
        waiting = _port_at_least(job, m, n, sweeps, reloads, self.port)
        computing = (
            m.factors * n.factors + n.blocks * m.extras + m.bands * n.extras
            + np.where(job.stream == FILTERS, n.tail, m.tail)
        )  # fmt: skip
        least = np.maximum(computing + edge_cycles(job, m, n, self.port), waiting)
        # A column block of a grouped layer reads its own channels: the band holds them all.
        ordered = outside | (job.grouped == 0) | (m.size == job.row_folds)
        allowed = (m.fits == 1) & (n.fits == 1) & ordered
        return np.where(allowed, least, IMPOSSIBLE), moved


def _port_at_least(
    job: Numbers, m: Rows, n: Columns, sweeps: Ints, reloads: Ints, port: Port
) -> Ints:
    """Cycles in which the port is busy, at least: others and results without their rounding."""
    blocks = m.bands * n.blocks
    weights = (job.constants > 0) * reloads * n.blocks
    loads = np.maximum(np.where(job.others > 0, blocks, weights), m.loads * sweeps)
    transfers = loads + blocks * (job.writes > 0)
    num_bytes = m.all_bytes * sweeps + n.all_bytes * reloads + job.others + job.writes
    busy = port.latency * transfers + num_bytes * float(1 / port.rate)
    found: Ints = (busy * (1 - ROUNDING)).astype(np.int64)
    return found
