"""Stepped simulation: every PE, every cycle, every value (docs/fpga_model.md, section 3).

``cycles.py`` is a formula, this is the machine it describes. Nothing here knows the formula: the
controller issues operands, the last operand's flag starts the drain when it reaches the far
corner, and the cycles are counted.

    cycle t     operands of step k are read from the buffers (issue)
    t + 1       operand registers hold them; PE (0, 0) multiplies
    t + 1 + d   skew registers: every PE with r + c = d multiplies step k
    afterwards  R shifts move the sums down, the bottom row enters the output register
    one later   the output register is written
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bitfold.errors import RangeError
from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import Gemm, ceil_div, num_tiles, tile_steps
from bitfold.fpga_sim.stationary import (
    count_stationary,
    step_stationary,
    step_stationary_values,
)
from bitfold.ir.types import IntArray


@dataclass(frozen=True, slots=True)
class Slot:
    """Operands of step ``step`` of tile ``tile``; ``last`` marks a tile's last step."""

    tile: int
    step: int
    last: bool


@dataclass(frozen=True, slots=True)
class Signals:
    """What the controller drives in one cycle.

    ``active[d]`` is the slot that PEs with r + c = d multiply, None a bubble; ``shift`` moves the
    drain one row down; ``write`` says that the output register holds a result row.
    """

    active: tuple[Slot | None, ...]
    shift: bool
    write: bool


def control(array: ArrayConfig, *, steps: int, tiles: int) -> Iterator[Signals]:
    """The tile controller: one ``Signals`` a cycle until the last row is written.

    ``busy`` is a register: set when a tile's last operands are issued, cleared when its last row
    has been shifted out. A shared drain issues nothing meanwhile. A shadow drain starts tiles at
    least 2R + C cycles apart; AssertionError if a sum would enter a drain register while rows are
    still being shifted.
    """
    front = deque[Slot | None]([None] * (array.rows + array.cols - 1))
    tile = step = shifts_left = drained = gap = 0
    issued: Slot | None = None
    busy = write = False
    while drained < tiles or write:
        front.appendleft(issued)
        front.pop()
        shift = shifts_left > 0
        lasts = any(slot is not None and slot.last for slot in front)
        assert not (shift and lasts), "a sum enters a drain register that is still in use"
        yield Signals(tuple(front), shift, write)
        write = shift
        held = busy if array.drain == "shared" else step == 0 and gap > 0
        issued = None if held or tile == tiles else Slot(tile, step, step == steps - 1)
        gap = max(0, gap - 1)
        if shift:
            shifts_left -= 1
            busy = shifts_left > 0
            drained += not busy
        corner = front[-1]
        if corner is not None and corner.last:
            shifts_left = array.rows
        if issued is not None:
            gap = array.drain_cycles - 1 if step == 0 else gap
            busy = busy or issued.last
            tile, step = (tile + 1, 0) if issued.last else (tile, step + 1)


def count_cycles(array: ArrayConfig, *, steps: int, tiles: int) -> int:
    """Cycles of ``tiles`` tiles of ``steps`` operand steps, by running the controller alone."""
    return sum(1 for _ in control(array, steps=steps, tiles=tiles))


class Feed(Protocol):
    """Operand buffers: what a slot reads."""

    def activations(self, slot: Slot) -> IntArray:
        """(I, R, S) codes, one row vector for each of I row folds stepped side by side."""

    def weights(self, slot: Slot) -> IntArray:
        """(J, C, S) codes for each of J column folds stepped side by side."""


class _Datapath:
    """Registers of I × J arrays in lockstep; array (i, j) meets activations i and weights j."""

    def __init__(self, array: ArrayConfig, *, num_i: int, num_j: int) -> None:
        rows, cols, lanes = array.rows, array.cols, array.lanes
        self.shadow = array.drain == "shadow"
        # Operands on the wires of every PE this cycle; the next cycle they are one PE further.
        self.a = np.zeros((num_i, rows, cols, lanes), dtype=np.int64)
        self.w = np.zeros((num_j, rows, cols, lanes), dtype=np.int64)
        self.acc = np.zeros((num_i, num_j, rows, cols), dtype=np.int64)
        self.drain = np.zeros_like(self.acc) if self.shadow else self.acc
        self.output = np.zeros((num_i, num_j, cols), dtype=np.int64)
        self.wave = np.add.outer(np.arange(rows), np.arange(cols))  # r + c

    def step(self, signals: Signals, feed: Feed) -> None:
        """Advance one clock cycle."""
        if any(slot is not None for slot in signals.active):
            self._multiply(signals.active, feed)
        if signals.shift:
            self.output = self.drain[:, :, -1].copy()
            # The top row has no drain input: it keeps its value.
            self.drain[:, :, 1:] = self.drain[:, :, :-1].copy()
        if self.shadow and any(slot is not None and slot.last for slot in signals.active):
            last = np.array([slot is not None and slot.last for slot in signals.active])
            np.copyto(self.drain, self.acc, where=last[self.wave])

    def _multiply(self, active: tuple[Slot | None, ...], feed: Feed) -> None:
        """Move the operands one PE on, take new ones through the skew registers, accumulate."""
        self.a[:, :, 1:] = self.a[:, :, :-1].copy()
        self.w[:, 1:] = self.w[:, :-1].copy()
        for r in range(self.a.shape[1]):
            slot = active[r]
            self.a[:, r, 0] = 0 if slot is None else feed.activations(slot)[:, r]
        for c in range(self.w.shape[2]):
            slot = active[c]
            self.w[:, 0, c] = 0 if slot is None else feed.weights(slot)[:, c]
        products = self.a[:, None, ..., 0] * self.w[None, ..., 0]
        for lane in range(1, self.a.shape[3]):
            products += self.a[:, None, ..., lane] * self.w[None, ..., lane]
        valid = np.array([slot is not None for slot in active])[self.wave]
        first = np.array([slot is not None and slot.step == 0 for slot in active])[self.wave]
        np.copyto(self.acc, 0, where=first)
        np.add(self.acc, products, out=self.acc, where=valid)


def step_tiles(array: ArrayConfig, feed: Feed, *, steps: int, tiles: int, num_i: int = 1,
               num_j: int = 1) -> tuple[IntArray, int]:  # fmt: skip
    """Run ``tiles`` tiles one after the other on num_i × num_j arrays in lockstep.

    Returns the results (tiles, num_i, num_j, R, C) as the output register delivers them, and the
    number of cycles.
    """
    path = _Datapath(array, num_i=num_i, num_j=num_j)
    written: list[IntArray] = []
    cycles = 0
    for signals in control(array, steps=steps, tiles=tiles):
        if signals.write:
            written.append(path.output)
        path.step(signals, feed)
        cycles += 1
    rows = np.stack(written).reshape(tiles, array.rows, num_i, num_j, array.cols)
    # The bottom row comes out first.
    return rows[:, ::-1].transpose(0, 2, 3, 1, 4), cycles


@dataclass(frozen=True, slots=True)
class _Operands:
    """A product cut into tiles: a (I, K', R, S), w (J, K', C, S), zero beyond the edges."""

    a: IntArray
    w: IntArray

    @classmethod
    def cut(cls, a: IntArray, w: IntArray, array: ArrayConfig) -> "_Operands":
        steps = tile_steps(Gemm(len(a), a.shape[1], w.shape[1]), array)
        return cls(
            _tiles(a, steps, array.rows, array.lanes), _tiles(w.T, steps, array.cols, array.lanes)
        )


def _tiles(x: IntArray, steps: int, size: int, lanes: int) -> IntArray:
    """(X, K) → (⌈X / size⌉, steps, size, lanes); what is missing is code 0."""
    folds = ceil_div(len(x), size)
    padded = np.zeros((folds * size, steps * lanes), dtype=np.int64)
    padded[: len(x), : x.shape[1]] = x
    cut = padded.reshape(folds, size, steps, lanes).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cut)


@dataclass(frozen=True, slots=True)
class _InSequence:
    """One array, tile after tile: row folds inside, column folds outside."""

    operands: _Operands

    def activations(self, slot: Slot) -> IntArray:
        fold = slot.tile % len(self.operands.a)
        return self.operands.a[fold : fold + 1, slot.step]

    def weights(self, slot: Slot) -> IntArray:
        fold = slot.tile // len(self.operands.a)
        return self.operands.w[fold : fold + 1, slot.step]


@dataclass(frozen=True, slots=True)
class _SideBySide:
    """All tiles of a product in lockstep, each on an array of its own: the same values."""

    operands: _Operands

    def activations(self, slot: Slot) -> IntArray:
        return self.operands.a[:, slot.step]

    def weights(self, slot: Slot) -> IntArray:
        return self.operands.w[:, slot.step]


@dataclass(frozen=True, slots=True)
class Stepped:
    """Accumulators (P, M) and the cycles counted."""

    acc: IntArray
    cycles: int


def step_gemm(a: IntArray, w: IntArray, array: ArrayConfig) -> Stepped:
    """Compute ``a`` (P, K) × ``w`` (K, M) on one array, fold after fold, cycle by cycle.

    Raises RangeError where a sum does not fit into ``array.acc_bits``.
    """
    if array.dataflow == "ws":
        acc, cycles = step_stationary(a, w.T, array)
        return Stepped(_checked(acc, array), cycles)
    if array.dataflow == "is":
        acc, cycles = step_stationary(w.T, a, array)
        return Stepped(_checked(acc.T, array), cycles)
    operands = _Operands.cut(a, w, array)
    num_i, num_j = len(operands.a), len(operands.w)
    tiles, cycles = step_tiles(
        array, _InSequence(operands), steps=operands.a.shape[1], tiles=num_i * num_j
    )
    results = tiles[:, 0, 0].reshape(num_j, num_i, array.rows, array.cols).swapaxes(0, 1)
    return Stepped(_checked(_join(results, len(a), w.shape[1]), array), cycles)


def step_gemm_values(a: IntArray, w: IntArray, array: ArrayConfig) -> IntArray:
    """The accumulators of ``step_gemm`` with all folds stepped in lockstep: faster, not counted."""
    if array.dataflow == "ws":
        return _checked(step_stationary_values(a, w.T, array), array)
    if array.dataflow == "is":
        return _checked(step_stationary_values(w.T, a, array).T, array)
    operands = _Operands.cut(a, w, array)
    tiles, _ = step_tiles(
        array,
        _SideBySide(operands),
        steps=operands.a.shape[1],
        tiles=1,
        num_i=len(operands.a),
        num_j=len(operands.w),
    )
    return _checked(_join(tiles[0], len(a), w.shape[1]), array)


def _checked(acc: IntArray, array: ArrayConfig) -> IntArray:
    """``acc`` if every sum fits; partial sums may wrap, two's complement takes that back."""
    if array.acc_bits is None:
        return acc
    half = 1 << (array.acc_bits - 1)
    if acc.min() < -half or acc.max() >= half:
        raise RangeError(
            f"sums {acc.min()} … {acc.max()} overflow an accumulator of {array.acc_bits} bits",
            where="acc_bits",
            todo="Widen acc_bits, or leave it out.",
        )
    return acc


def _join(tiles: IntArray, num_pixels: int, num_filters: int) -> IntArray:
    """(I, J, R, C) → (P, M)."""
    num_i, num_j, rows, cols = tiles.shape
    whole = tiles.transpose(0, 2, 1, 3).reshape(num_i * rows, num_j * cols)
    return np.ascontiguousarray(whole[:num_pixels, :num_filters])


def step_layer_cycles(gemm: Gemm, array: ArrayConfig) -> int:
    """Cycles of one layer by stepping the controller through its whole sequence of folds."""
    if array.dataflow != "os":
        return count_stationary(gemm, array)
    return count_cycles(array, steps=tile_steps(gemm, array), tiles=num_tiles(gemm, array))
