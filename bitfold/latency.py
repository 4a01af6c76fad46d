"""Latency of a BASQ network as a sum over its blocks, from our kernels or the FPGA model.

For every width the network is built with random weights, all blocks at that width, folded, and
either run (median time of each step of the plan) or simulated (cycles of each layer). A step
belongs to the block that its name lies in; what lies in none is the rest, which does not depend on
the widths. The estimate for a mix adds up what its blocks took in networks of one width: it leaves
out what caches, and the memory between blocks of different widths, do.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from bitfold.benchmark import cpu_name
from bitfold.errors import UnsupportedError
from bitfold.export import fold_network
from bitfold.fpga_sim import ArrayConfig, simulate
from bitfold.ir import IntGraph
from bitfold.models import NetSpec, new_network
from bitfold.models.search import BLOCK_BITS, LatencyTable
from bitfold.runtime import Session

BLOCK_NAME = re.compile(r"(?:^|\.)blocks\.(\d+)(?:\.|$)")
REPEATS = 20
# One piece of hardware for every width: the array must not grow with the network.
DIGIT_ARRAY = ArrayConfig(w_bits=2, a_bits=2)

Times = Mapping[str, float]


def cpu_latency(spec: NetSpec, *, num_blocks: int) -> LatencyTable:
    """Milliseconds on this machine, one thread, median of 20 runs a step."""
    return latency_table(
        spec, num_blocks=num_blocks, measure=_step_times, source=f"cpu: {cpu_name()}, 1 thread"
    )


def fpga_latency(spec: NetSpec, *, num_blocks: int, device: str) -> LatencyTable:
    """Milliseconds of one array on ``device``; raises UsageError if the device is unknown.

    The array is 16x16 PEs of 2-bit operands: a wider operand takes one visit a pair of 2-bit
    digits, so that 3 bits compute as long as 4 and only have fewer bytes to move.
    """

    def layer_times(graph: IntGraph) -> Times:
        report = simulate(graph, device=device, config=DIGIT_ARRAY)
        return {layer.name: layer.cycles / (report.clock_mhz * 1e3) for layer in report.layers}

    return latency_table(
        spec, num_blocks=num_blocks, measure=layer_times, source=f"fpga: {device}, estimated"
    )


def latency_table(
    spec: NetSpec, *, num_blocks: int, measure: Callable[[IntGraph], Times], source: str
) -> LatencyTable:
    """The table of ``spec``'s network, ``measure`` giving milliseconds by step.

    Raises UnsupportedError where a block has no step of its name.
    """
    blocks: list[dict[int, float]] = [{} for _ in range(num_blocks)]
    rest = 0.0
    for bits in BLOCK_BITS:
        uniform = replace(spec, genome=(0,) * num_blocks, block_bits=(bits,) * num_blocks)
        times = measure(fold_network(new_network(uniform)).graph)
        by_block = _sums(times, num_blocks)
        rest += by_block.pop(None, 0.0) / len(BLOCK_BITS)
        for i, table in enumerate(blocks):
            if i not in by_block:
                raise UnsupportedError(
                    f"block {i} has no step of its own",
                    where=f"{spec.net}, {source}",
                    todo="Search for accuracy alone.",
                )
            table[bits] = by_block[i]
    return LatencyTable(tuple(blocks), rest, source)


def _step_times(graph: IntGraph) -> Times:
    times: dict[str, float] = {}
    with Session(graph, threads=1) as session:
        for step in session.profile(repeats=REPEATS):
            times[step.name] = times.get(step.name, 0.0) + step.ms
    return times


def _sums(times: Times, num_blocks: int) -> dict[int | None, float]:
    """Milliseconds by block; under None, those of steps in none of the searched blocks."""
    sums: dict[int | None, float] = {}
    for name, ms in times.items():
        found = BLOCK_NAME.search(name)
        block = None if found is None or int(found[1]) >= num_blocks else int(found[1])
        sums[block] = sums.get(block, 0.0) + ms
    return sums
