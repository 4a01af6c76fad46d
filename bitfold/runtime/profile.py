"""Time per step. The only place of the runtime that looks at a clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.program import Program
from bitfold.runtime.outline import Outline

NS_PER_MS = 10**6


@dataclass(frozen=True, slots=True)
class StepTime:
    """Median milliseconds of a step for one image; ``kernel`` is the symbol of its row."""

    name: str
    op: str
    kernel: str
    ms: float
    macs: int


def profile_program(
    program: Program,
    outline: Outline,
    *,
    images: NDArray[np.uint8],
    arena: NDArray[np.uint8],
    repeats: int,
) -> list[StepTime]:
    """Median time of each step over ``repeats`` passes over ``images``, one more to warm up."""
    times: Sequence[list[int]] = [[] for _ in outline.steps]
    place = slice(outline.input.offset, outline.input.offset + outline.input.num_bytes)
    for turn in range(repeats + 1):
        for image in images:
            arena[place] = image.reshape(-1)
            for i in range(len(outline.steps)):
                start = perf_counter_ns()
                program.run_step(i, arena)
                if turn:
                    times[i].append(perf_counter_ns() - start)
    return [
        StepTime(
            step.name,
            row.op if row else step.op,
            row.symbol if row else "",
            median(ns) / NS_PER_MS,
            step.macs,
        )
        for step, row, ns in zip(outline.steps, program.rows, times, strict=True)
    ]
