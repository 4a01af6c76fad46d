"""The timeline of a plan, block by block: the slow, obvious twin of ``tiling``'s closed form."""

from dataclasses import dataclass

from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.tiling import Job, Plan, Port


@dataclass(frozen=True, slots=True)
class Block:
    """One block: when it begins, how long it computes, and what the port does meanwhile.

    ``load`` brings the operands of the next block, ``store`` takes the results of the one before;
    the last block computes until its results have left the array.
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
    cells = block_folds(job, plan)
    loads = [_load(job, port, plan, cells, i) for i in range(len(cells))]
    stores = [_store(job, port, plan, cell) for cell in cells]
    timeline: list[Block] = []
    now = loads[0]
    for b, cell in enumerate(cells):
        last = b + 1 == len(cells)
        outputs = _outputs(job, plan, cell)
        compute = job.cost(*outputs) + (job.tail(*outputs) if last else 0)
        block = Block(now, compute, 0 if last else loads[b + 1], stores[b - 1] if b else 0)
        timeline.append(block)
        now = block.end
    return timeline


def stepped_cycles(job: Job, port: Port, plan: Plan) -> int:
    """Cycles of the whole layer, to the end of the last store."""
    last = block_folds(job, plan)[-1]
    return step_blocks(job, port, plan)[-1].end + _store(job, port, plan, last)


def block_folds(job: Job, plan: Plan) -> list[tuple[int, int, int, int]]:
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
    band, column, _, _ = cells[b]
    held = cells[b - 1] if b else (-1, -1, 0, 0)
    pixels, filters = _outputs(job, plan, cells[b])
    num_bytes = port.rounded(ceil_div(job.traffic.others * pixels * filters, job.area))
    if held[0] != band:
        num_bytes += port.rounded(job.input_bytes(plan.rows, band))
    if held[1] != column:
        num_bytes += port.rounded(ceil_div(job.traffic.constants * filters, job.all_filters))
    return port.cycles(num_bytes)


def _store(job: Job, port: Port, plan: Plan, cell: tuple[int, int, int, int]) -> int:
    pixels, filters = _outputs(job, plan, cell)
    return port.cycles(port.rounded(ceil_div(job.traffic.writes * pixels * filters, job.area)))


def _outputs(job: Job, plan: Plan, cell: tuple[int, int, int, int]) -> tuple[int, int]:
    """Pixels and filters of a block: the last ones may have fewer than their folds hold."""
    band, column, rows, columns = cell
    pixel, filter_ = band * plan.rows * job.pixels, column * plan.columns * job.filters
    return (
        min(pixel + rows * job.pixels, job.all_pixels) - pixel,
        min(filter_ + columns * job.filters, job.all_filters) - filter_,
    )
