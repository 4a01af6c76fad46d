"""Time per step. The only place of the runtime that looks at a clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels import ConvStep, Program, Step
from bitfold.runtime.plan import Plan

NS_PER_MS = 10**6


@dataclass(frozen=True, slots=True)
class StepTime:
    """Median milliseconds of a step for one image; ``kernel`` is the symbol of its row."""

    name: str
    op: str
    kernel: str
    ms: float
    macs: int


def count_macs(step: Step) -> int:
    """Multiply-accumulates of a step, padding included; 0 for all but convolutions."""
    if not isinstance(step, ConvStep):
        return 0
    return step.out.shape[0] * step.out.shape[1] * step.weight.size


def profile_program(
    program: Program,
    plan: Plan,
    *,
    images: NDArray[np.uint8],
    arena: NDArray[np.uint8],
    repeats: int,
) -> list[StepTime]:
    """Median time of each step over ``repeats`` passes over ``images``, one more to warm up."""
    times: Sequence[list[int]] = [[] for _ in plan.steps]
    place = slice(plan.input.offset, plan.input.offset + plan.input.num_bytes)
    for turn in range(repeats + 1):
        for image in images:
            arena[place] = image.reshape(-1)
            for i in range(len(plan.steps)):
                start = perf_counter_ns()
                program.run_step(i, arena)
                if turn:
                    times[i].append(perf_counter_ns() - start)
    return [
        StepTime(
            step.name,
            row.op if row else type(step).__name__.removesuffix("Step").lower(),
            row.symbol if row else "",
            median(ns) / NS_PER_MS,
            count_macs(step),
        )
        for step, row, ns in zip(plan.steps, program.rows, times, strict=True)
    ]
