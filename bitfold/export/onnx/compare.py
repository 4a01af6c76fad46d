"""Threshold tables as comparisons of int32 (docs/onnx.md): any table, no rounding anywhere."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bitfold.errors import UnsupportedError
from bitfold.export.onnx.build import EXACT_FLOAT, UINT8, tensor_name
from bitfold.export.onnx.int32 import BOOL, INT32, Int32Emitter, int32, shape_of
from bitfold.export.onnx.single import oriented_ends
from bitfold.ir.ops import Thresholds
from bitfold.ir.types import INT32_MAX, IntArray

MOST_AT_ONCE = 15


@dataclass(frozen=True, slots=True)
class Clip:
    """One end that sign·x is clipped to, without moving an index: the greatest or the least."""

    end: int
    is_upper: bool

    def stored(self, table: IntArray, ends: tuple[IntArray, IntArray]) -> IntArray:
        """``table`` where an entry that always (or never) holds stays so behind the clip."""
        least, most = ends
        if self.is_upper:
            return np.where(table > most, self.end + 1, table)
        return np.where(table <= least, self.end, table)

    def restored(self, stored: IntArray, ends: tuple[IntArray, IntArray]) -> IntArray:
        """The inverse of ``stored``."""
        least, most = ends
        if self.is_upper:
            return np.where(stored == self.end + 1, most + 1, stored)
        return np.where(stored == self.end, least, stored)


def is_near(ends: tuple[IntArray, IntArray]) -> bool:
    """Whether float32 holds all of sign·x and its thresholds."""
    return max(-int(ends[0].min()), int(ends[1].max()) + 1) < EXACT_FLOAT


def clip_of(node: Thresholds, ends: tuple[IntArray, IntArray]) -> Clip | None:
    """What keeps differences from the thresholds in int32; None where nothing is needed.

    Entries that always or never hold bind nothing. Raises UnsupportedError where one clip does not
    suffice.
    """
    least, most = int(ends[0].min()), int(ends[1].max())
    if most + 1 - least <= INT32_MAX:
        return None
    real = node.table[(node.table > ends[0]) & (node.table <= ends[1])]
    low, high = (int(real.min()) - 1, int(real.max())) if real.size else (-1, 0)
    if high + 1 - least <= INT32_MAX:
        return Clip(high, is_upper=True)
    if most + 1 - low <= INT32_MAX:
        return Clip(low, is_upper=False)
    raise UnsupportedError(
        f"its thresholds span {low + 1} … {high}: differences from them leave int32",
        where=f"node {node.name}",
        todo="Use the qcdq profile, or fewer fraction bits in front of it.",
    )


class ComparingEmitter(Int32Emitter):
    """Writes Thresholds as comparisons."""

    def _thresholds(self, node: Thresholds) -> None:
        """A comparison with all thresholds at once; with more than 15 a binary search."""
        name, value = node.name, self._codes(node.x)
        if (node.sign < 0).any():
            sign = self._per_channel(node.sign, node.x).astype(np.int64)
            value = self._with("Mul", value, sign, out=f"{name}/oriented", key=f"{name}.sign")
        ends = oriented_ends(node.sign, self._range(node.x))
        clip, table, near = clip_of(node, ends), node.table, is_near(ends)
        if clip is not None:
            table = clip.stored(table, ends)
            op, key = ("Min", "most") if clip.is_upper else ("Max", "least")
            value = self._apart(value, out=f"{name}/apart")
            value = self._with(op, value, clip.end, out=f"{name}/{key}", key=f"{name}.{key}")
        if table.shape[1] <= MOST_AT_ONCE:
            count = self._count(node, value, table, near=near)
        else:
            never = int(ends[1].max()) + 1
            if clip is not None and clip.is_upper:
                never = clip.end + 1
            count = self._search(node, value, table, never=never, near=near)
        self._cast(count, UINT8, out=tensor_name(name))

    def _taken(
        self,
        value: ir.Value,
        threshold: ir.Value,
        dims: list[int | str],
        *,
        near: bool,
        out: str,
    ) -> ir.Value:
        """1 where value ≥ threshold. OpenVINO compares in float32: far from 0 by difference."""
        if not near:
            value = self._op("Sub", [value, threshold], out=f"{out}/difference", like=(INT32, dims))
            threshold = self._zero(out)
        mask = self._op("GreaterOrEqual", [value, threshold], out=f"{out}/mask", like=(BOOL, dims))
        return self._cast(mask, INT32, out=out)

    def _zero(self, out: str) -> ir.Value:
        return self._constant(f"{out.replace('/', '.')}.zero", np.int32(0))

    def _count(self, node: Thresholds, value: ir.Value, table: IntArray, *, near: bool) -> ir.Value:
        """Σ_j [t_j ≤ x]: a tensor ``levels − 1`` times as large."""
        name, shape = node.name, list(self._shape(node.x))
        last = self._constant(f"{name}.last", np.array([-1], dtype=np.int64))
        deep = self._op("Unsqueeze", [value, last], out=f"{name}/deep", like=(INT32, [*shape, 1]))
        spread = table.reshape(-1, 1, 1, table.shape[1]) if len(shape) == 4 else table
        thresholds = self._constant(f"{name}.thresholds", int32(spread))
        dims = [*shape, table.shape[1]]
        ones = self._taken(deep, thresholds, dims, near=near, out=f"{name}/taken")
        like = (INT32, shape)
        return self._op("ReduceSum", [ones, last], out=f"{name}/count", like=like, keepdims=0)

    def _search(
        self, node: Thresholds, value: ir.Value, table: IntArray, *, never: int, near: bool
    ) -> ir.Value:
        """Bits of the index from the highest: is the threshold in the middle of the rest taken?"""
        name, dims, bits = node.name, shape_of(value), table.shape[1].bit_length()
        length = 2**bits - 1
        full = np.full((len(table), length), never, dtype=np.int64)
        full[:, : table.shape[1]] = table
        flat = self._constant(f"{name}.thresholds", int32(full.reshape(-1)))
        starts = self._per_channel(np.arange(len(table)) * length, node.x).astype(np.int64)
        index: ir.Value | None = None
        for bit in reversed(range(bits)):
            out, step = f"{name}/bit{bit}", 1 << bit
            place = self._constant(f"{name}.places{bit}", int32(starts + step - 1))
            if index is not None:
                place = self._binary("Add", index, place, out=f"{out}/place")
            like = (INT32, shape_of(place))
            threshold = self._op("Gather", [flat, place], out=f"{out}/threshold", like=like, axis=0)
            taken = self._taken(value, threshold, dims, near=near, out=f"{out}/taken")
            if step > 1:
                taken = self._with("Mul", taken, step, out=out)
            index = taken if index is None else self._binary("Add", index, taken, out=f"{out}/sum")
        assert index is not None
        return index
