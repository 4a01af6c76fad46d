"""The timeline of a plan, block by block: the slow, obvious twin of ``tiling``'s closed form."""

from dataclasses import dataclass

from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.tiling import Job, Plan, Port


@dataclass(frozen=True, slots=True)
class Block:
    """One block: when it begins, how long it computes, and what the port does meanwhile.

    ``load`` brings the operands of the next block, ``store`` takes the results of the one before.
    """

    begin: int
    compute: int
    load: int
    store: int

    @property
    def end(self) -> int:
        """The next block begins when both are done."""
        return self.begin + max(self.compute, self.load + self.store)


def step_blocks(job: Job, port: Port, plan: Plan) -> list[Block]:
    """Every block of ``plan`` in time; the layer's first load ends where the first block begins."""
    cells = _cells(job, plan)
    loads = [_load(job, port, plan, cells, i) for i in range(len(cells))]
    stores = [_store(job, port, cell[2], cell[3]) for cell in cells]
    timeline: list[Block] = []
    now = loads[0]
    for b, (_, _, rows, columns) in enumerate(cells):
        load = loads[b + 1] if b + 1 < len(cells) else 0
        block = Block(now, job.cost(rows, columns), load, stores[b - 1] if b else 0)
        timeline.append(block)
        now = block.end
    return timeline


def stepped_cycles(job: Job, port: Port, plan: Plan) -> int:
    """Cycles of the whole layer: to the end of the last store, and what shows once a layer."""
    timeline = step_blocks(job, port, plan)
    last = _cells(job, plan)[-1]
    return timeline[-1].end + _store(job, port, last[2], last[3]) + job.tail


def _cells(job: Job, plan: Plan) -> list[tuple[int, int, int, int]]:
    """(band, column block, row folds, column folds) of every block in order."""
    bands = range(ceil_div(job.row_folds, plan.rows))
    columns = range(ceil_div(job.column_folds, plan.columns))
    if plan.rows_outside:
        order = [(i, j) for i in bands for j in columns]
    else:
        order = [(i, j) for j in columns for i in bands]
    return [
        (
            i,
            j,
            min(plan.rows, job.row_folds - i * plan.rows),
            min(plan.columns, job.column_folds - j * plan.columns),
        )
        for i, j in order
    ]


def _load(job: Job, port: Port, plan: Plan, cells: list[tuple[int, int, int, int]], b: int) -> int:
    """Port cycles of what block ``b`` needs and the block before it did not hold."""
    band, column, rows, columns = cells[b]
    held = cells[b - 1] if b else (-1, -1, 0, 0)
    traffic, area = job.traffic, job.row_folds * job.column_folds
    num_bytes = port.rounded(ceil_div(traffic.others * rows * columns, area))
    if held[0] != band:
        num_bytes += port.rounded((job.next_bytes if band else job.band_bytes)(plan.rows))
    if held[1] != column:
        num_bytes += port.rounded(ceil_div(traffic.constants * columns, job.column_folds))
    return port.cycles(num_bytes)


def _store(job: Job, port: Port, rows: int, columns: int) -> int:
    area = job.row_folds * job.column_folds
    return port.cycles(port.rounded(ceil_div(job.traffic.writes * rows * columns, area)))
