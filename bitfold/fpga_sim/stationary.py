"""Stepped simulation of the weight- and input-stationary arrays (docs/fpga_model.md, section 3).

Nothing here knows the closed forms. A visit loads one stationary operand, row after row, and
streams a chunk of the other operand past it; partial sums move down.

    cycle t         a position is read from the buffer (issue), or a row of the stationary operand
    t + 1           it meets PE (0, 0); or the loaded rows move down by one
    t + 1 + d       every PE with r + c = d multiplies it
    t + R + C       skew registers have aligned the sums of all columns; the accumulator memory
                    adds them to those of earlier visits
    t + R + C + 1   the output register is written, if the visit was the last one of its sums
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import Gemm, Visits, ceil_div, visits
from bitfold.ir.types import IntArray


@dataclass(frozen=True, slots=True)
class Position:
    """Position ``spot`` of the stream of visit ``visit``; a visit of −1 carries only a swap.

    ``last`` marks the visit's last position; ``swap`` takes the next operand over behind it.
    """

    visit: int
    spot: int
    last: bool = False
    swap: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """Row ``row`` of the stationary operand of visit ``visit``, as it enters at the top."""

    visit: int
    row: int


@dataclass(frozen=True, slots=True)
class Wave:
    """What happens in one cycle: ``active[d]`` meets the PEs with r + c = d, ``load`` moves in.

    ``write`` is the position whose sums the output register holds.
    """

    active: tuple[Position | None, ...]
    load: Load | None
    write: Position | None


class _Loader:
    """Issues the rows of one visit after the other, each time when told that it may begin."""

    def __init__(self, rows: int, *, count: int) -> None:
        self.rows = rows
        self.count = count
        self.visit = self.row = 0
        self.going = True

    def issue(self) -> Load | None:
        """The row issued in this cycle."""
        if not self.going or self.visit == self.count:
            return None
        load = Load(self.visit, self.row)
        self.row += 1
        if self.row == self.rows:
            self.visit, self.row, self.going = self.visit + 1, 0, False
        return load


class _Control:
    """The controller and the wave of positions through the array, cycle by cycle."""

    def __init__(self, array: ArrayConfig, lengths: list[int]) -> None:
        self.lengths = lengths
        self.front = deque[Position | None]([None] * (array.rows + array.cols - 1))
        self.loader = _Loader(array.rows, count=len(lengths))
        self.visit, self.spot = (0, 0) if array.drain == "shared" else (-1, 0)
        self.double = array.drain == "shadow"

    def issue(self) -> tuple[Load | None, Position | None]:
        """What is read in this cycle, from what the corner PE sees in it."""
        corner = self.front[-1]
        passed = corner is not None and (corner.swap if self.double else corner.last)
        # A load moves all rows at once, so the last operand must have been used everywhere.
        self.loader.going = self.loader.going or passed
        loaded = self.loader.visit  # operands complete before this cycle
        load = self.loader.issue()
        return load, self._double(loaded) if self.double else self._single(loaded)

    def _single(self, loaded: int) -> Position | None:
        if self.visit == len(self.lengths) or loaded <= self.visit:
            return None
        last = self.spot == self.lengths[self.visit] - 1
        slot = Position(self.visit, self.spot, last=last)
        self.visit, self.spot = (self.visit + 1, 0) if last else (self.visit, self.spot + 1)
        return slot

    def _double(self, loaded: int) -> Position | None:
        """A visit ends with a swap, which needs the next operand; bubbles fill a short one."""
        ripe = loaded > self.visit + 1
        ending = self.visit < 0 or self.spot >= self.lengths[self.visit] - 1
        finished = self.visit < 0 or self.spot >= self.lengths[self.visit]
        if self.visit == len(self.lengths) - 1:
            ripe = False  # nothing follows
        swap = ending and ripe
        slot = None
        if not finished:
            slot = Position(self.visit, self.spot, last=ending, swap=swap)
        elif swap:
            slot = Position(-1, 0, swap=True)
        self.visit, self.spot = (self.visit + 1, 0) if swap else (self.visit, self.spot + 1)
        return slot


def control(array: ArrayConfig, lengths: list[int]) -> Iterator[Wave]:
    """One ``Wave`` a cycle for visits of these lengths, until the last sums are written."""
    machine = _Control(array, lengths)
    adding = write = None
    loading: Load | None = None
    issued: Position | None = None
    final = Position(len(lengths) - 1, lengths[-1] - 1)
    while True:
        machine.front.appendleft(issued)
        machine.front.pop()
        yield Wave(tuple(machine.front), loading, write)
        if write is not None and (write.visit, write.spot) == (final.visit, final.spot):
            return
        write, adding = adding, machine.front[-1]
        loading, issued = machine.issue()


def visit_lengths(found: Visits) -> list[int]:
    """Positions of every visit, in order."""
    chunk = [found.full] * found.repeats * (found.chunks - 1) + [found.rest] * found.repeats
    return chunk * found.sequences


def count_stationary(gemm: Gemm, array: ArrayConfig) -> int:
    """Cycles of one layer by running the controller through all its visits."""
    return sum(1 for _ in control(array, visit_lengths(visits(gemm, array))))


class _Datapath:
    """Registers of B arrays in lockstep: (B, R, C, S) operands, (B, R, C) sums."""

    def __init__(self, array: ArrayConfig, *, batch: int) -> None:
        shape = (batch, array.rows, array.cols, array.lanes)
        self.chain = np.zeros(shape, dtype=np.int64)
        self.used = np.zeros(shape, dtype=np.int64) if array.drain == "shadow" else self.chain
        self.x = np.zeros(shape, dtype=np.int64)
        self.sums = np.zeros(shape[:3], dtype=np.int64)
        self.corner = np.add.outer(np.arange(array.rows), np.arange(array.cols))

    def step(self, wave: Wave, stream: IntArray, stationary: IntArray | None) -> None:
        """Advance one cycle; stream (B, R, S) enters on the left, skewed by the caller."""
        self.x[:, :, 1:] = self.x[:, :, :-1].copy()
        self.x[:, :, 0] = stream
        dots = (self.x * self.used).sum(axis=3)
        self.sums[:, 1:] = self.sums[:, :-1] + dots[:, 1:]
        self.sums[:, 0] = dots[:, 0]
        swaps = np.array([slot is not None and slot.swap for slot in wave.active])
        if self.used is not self.chain and swaps.any():
            np.copyto(self.used, self.chain, where=swaps[self.corner][:, :, None])
        if stationary is not None:
            self.chain[:, 1:] = self.chain[:, :-1].copy()
            self.chain[:, 0] = stationary


@dataclass(frozen=True, slots=True)
class _Cut:
    """A product in folds: x (F, L, R, S) streams, y (J, F, R, C, S) stays."""

    x: IntArray
    y: IntArray

    @classmethod
    def of(cls, x: IntArray, y: IntArray, array: ArrayConfig) -> "_Cut":
        """From x (L, K) and y (T, K); what is missing is code 0."""
        rows, cols, lanes = array.rows, array.cols, array.lanes
        folds, tops = ceil_div(x.shape[1], rows * lanes), ceil_div(len(y), cols)
        wide = np.zeros((len(x), folds * rows * lanes), dtype=np.int64)
        wide[:, : x.shape[1]] = x
        tall = np.zeros((tops * cols, folds * rows * lanes), dtype=np.int64)
        tall[: len(y), : y.shape[1]] = y
        return cls(
            wide.reshape(len(x), folds, rows, lanes).swapaxes(0, 1),
            tall.reshape(tops, cols, folds, rows, lanes).transpose(0, 2, 3, 1, 4),
        )


def _skewed(x: IntArray, active: tuple[Position | None, ...]) -> IntArray:
    """Row r of the position that is at row r: x (B, L, R, S) → (B, R, S)."""
    row = np.zeros((len(x), *x.shape[2:]), dtype=np.int64)
    for r, slot in enumerate(active[: x.shape[2]]):
        if slot is not None and slot.visit >= 0:
            row[:, r] = x[:, slot.spot, r]
    return row


def _step_visits(cut: _Cut, array: ArrayConfig, plan: list[tuple[int, int, int]],
                 lengths: list[int]) -> tuple[IntArray, int]:  # fmt: skip
    """Visits (top fold, first position, depth fold) one after the other: sums (J, L, C), cycles."""
    path = _Datapath(array, batch=1)
    rows, cols = array.rows, array.cols
    totals = np.zeros((len(cut.y), cut.x.shape[1], cols), dtype=np.int64)
    cycles = 0
    for wave in control(array, lengths):
        row = np.zeros((1, rows, array.lanes), dtype=np.int64)
        for r, slot in enumerate(wave.active[:rows]):
            if slot is not None and slot.visit >= 0:
                _, start, fold = plan[slot.visit]
                row[:, r] = cut.x[fold, start + slot.spot, r]
        operand = None
        if wave.load is not None:
            top, _, fold = plan[wave.load.visit]
            operand = cut.y[top, fold, rows - 1 - wave.load.row]
        path.step(wave, row, operand)
        for c, slot in enumerate(wave.active[rows - 1 :]):
            if slot is not None and slot.visit >= 0:
                top, start, _ = plan[slot.visit]
                totals[top, start + slot.spot, c] += path.sums[0, -1, c]
        cycles += 1
    return totals, cycles


def step_stationary(x: IntArray, y: IntArray, array: ArrayConfig) -> tuple[IntArray, int]:
    """Stream x (L, K) past y (T, K), visit after visit: products (L, T) and cycles."""
    cut = _Cut.of(x, y, array)
    folds, length = cut.x.shape[:2]
    full = min(length, array.acc_words)
    plan = [
        (top, start, fold)
        for top in range(len(cut.y))
        for start in range(0, length, full)
        for fold in range(folds)
    ]
    lengths = [min(full, length - start) for _, start, _ in plan]
    totals, cycles = _step_visits(cut, array, plan, lengths)
    return _join(totals, len(y)), cycles


def step_stationary_values(x: IntArray, y: IntArray, array: ArrayConfig) -> IntArray:
    """The products of ``step_stationary`` with all visits in lockstep: faster, not counted."""
    cut = _Cut.of(x, y, array)
    tops, folds = cut.y.shape[:2]
    streams = np.tile(cut.x, (tops, 1, 1, 1))  # (J · F, L, R, S)
    operands = cut.y.reshape(tops * folds, *cut.y.shape[2:])
    path = _Datapath(array, batch=tops * folds)
    sums = np.zeros((tops * folds, cut.x.shape[1], array.cols), dtype=np.int64)
    for wave in control(array, [cut.x.shape[1]]):
        row = None if wave.load is None else operands[:, array.rows - 1 - wave.load.row]
        path.step(wave, _skewed(streams, wave.active), row)
        for c, slot in enumerate(wave.active[array.rows - 1 :]):
            if slot is not None and slot.visit >= 0:
                sums[:, slot.spot, c] = path.sums[:, -1, c]
    totals = sums.reshape(tops, folds, cut.x.shape[1], array.cols).sum(axis=1)
    return _join(totals, len(y))


def _join(totals: IntArray, num: int) -> IntArray:
    """(J, L, C) → (L, T)."""
    tops, length, cols = totals.shape
    whole = totals.swapaxes(0, 1).reshape(length, tops * cols)
    return np.ascontiguousarray(whole[:, :num])
