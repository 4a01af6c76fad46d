"""Constants of an epilogue, lane by lane, in the forms that C kernels evaluate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.lines import LONG_BITS, SHORT_BITS, Line, fit_line
from bitfold.kernels.packed_step import FieldValue, PackedEpilogue
from bitfold.kernels.packing import LANES, to_blocks, to_lanes
from bitfold.kernels.steps import Epilogue, Int64Array, ToIndices, ToWide

TO_INDICES, TO_WIDE, TO_ACCUMULATORS = 0, 1, 2
COMPARE, LINE32, LINE64 = 0, 1, 2
WIDE32, WIDE64, WIDE_ANY = 0, 1, 2
# Up to this many thresholds, comparing is as quick as a line.
MAX_COMPARED = 3
INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, slots=True)
class Intervals:
    """Proven least and greatest accumulator of every output channel: two (O,) arrays."""

    lo: Int64Array
    hi: Int64Array

    @classmethod
    def of_int32(cls, count: int) -> "Intervals":
        """Nothing is known but the type."""
        return cls(np.full(count, INT32.min, np.int64), np.full(count, INT32.max, np.int64))


def pack_epilogue(epilogue: Epilogue, *, intervals: Intervals, groups: int = 1) -> PackedEpilogue:
    """Constants of ``epilogue`` for accumulators within ``intervals``."""
    match epilogue:
        case ToIndices():
            return PackedEpilogue(_pack_indices(epilogue, intervals, groups))
        case ToWide():
            return PackedEpilogue(_pack_wide(epilogue, intervals, groups))
        case _:
            return PackedEpilogue({"kind": TO_ACCUMULATORS})


def _pack_indices(epilogue: ToIndices, intervals: Intervals, groups: int) -> dict[str, FieldValue]:
    table = epilogue.table.astype(np.int64)
    sign = epilogue.sign.astype(np.int64)
    lo, hi = _oriented(intervals, sign)
    form = np.full(len(table), COMPARE, dtype=np.int64)
    lines = [Line(0, 0, 0, 0, 0)] * len(table)
    if table.shape[1] > MAX_COMPARED:
        form, lines = _fit_blocks(table, lo, hi, groups)
    lines = [line.negated() if s < 0 else line for line, s in zip(lines, sign, strict=True)]
    columns = np.array(
        [(x.low, x.high, x.slope, x.intercept, x.shift) for x in lines], dtype=np.int64
    )
    low, high, slope, intercept, shift = to_lanes(columns, groups=groups).T
    return {
        "kind": TO_INDICES,
        "num_thresholds": table.shape[1],
        "table": to_blocks(epilogue.table.astype(np.int32), groups=groups),
        "sign": to_lanes(sign.astype(np.int32), groups=groups, fill=1),
        "index_form": to_lanes(form, groups=groups)[::LANES].astype(np.uint8),
        "low": _int32(low),
        "high": _int32(high),
        "slope": _int32(slope),
        "intercept": np.ascontiguousarray(intercept),
        "index_shift": _int32(shift),
    }


def _int32(values: NDArray[np.generic]) -> NDArray[np.int32]:
    return np.ascontiguousarray(values, dtype=np.int32)


def _oriented(intervals: Intervals, sign: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Ends of sign · acc, within int32."""
    lo = np.where(sign < 0, -intervals.hi, intervals.lo)
    hi = np.where(sign < 0, -intervals.lo, intervals.hi)
    return lo, np.minimum(hi, INT32.max)


def _fit_blocks(
    table: Int64Array, lo: Int64Array, hi: Int64Array, groups: int
) -> tuple[Int64Array, list[Line]]:
    """Form and line of every channel; a block of 16 lanes takes one form."""
    forms = np.full(len(table), COMPARE, dtype=np.int64)
    lines = [Line(0, 0, 0, 0, 0)] * len(table)
    per_group = len(table) // groups
    for group in range(groups):
        for first in range(0, per_group, LANES):
            start = group * per_group + first
            stop = min(start + LANES, (group + 1) * per_group)
            for form, bits in ((LINE32, SHORT_BITS), (LINE64, LONG_BITS)):
                fitted = _fit_lanes(table[start:stop], lo[start:stop], hi[start:stop], bits)
                if len(fitted) == stop - start:
                    forms[start:stop], lines[start:stop] = form, fitted
                    break
    return forms, lines


def _fit_lanes(table: Int64Array, lo: Int64Array, hi: Int64Array, sum_bits: int) -> list[Line]:
    """Lines of the channels up to the first that has none; equal channels are fitted once."""
    known: dict[tuple[bytes, int, int], Line] = {}
    lines = []
    for row, least, most in zip(table, lo.tolist(), hi.tolist(), strict=True):
        key = (row.tobytes(), least, most)
        line = known.get(key) or fit_line(row, lo=least, hi=most, sum_bits=sum_bits)
        if line is None:
            break
        known[key] = line
        lines.append(line)
    return lines


def _pack_wide(epilogue: ToWide, intervals: Intervals, groups: int) -> dict[str, FieldValue]:
    half = 1 << (epilogue.shift - 1) if epilogue.shift else 0
    offset = epilogue.offset + half
    fields: dict[str, FieldValue] = {
        "kind": TO_WIDE,
        "wide_form": _wide_form(epilogue, offset, intervals),
        "multiplier": to_lanes(epilogue.multiplier.astype(np.int64), groups=groups),
        "offset": to_lanes(offset.astype(np.int64), groups=groups),
        "shift": epilogue.shift,
    }
    negative = epilogue.negative_multiplier
    if negative is not None and not negative.any():
        fields["has_relu"] = 1
    elif negative is not None:
        fields["negative_multiplier"] = to_lanes(negative.astype(np.int64), groups=groups)
        fields["negative_shift"] = epilogue.negative_shift
    if epilogue.add is not None:
        fields["has_add"], fields["add"] = 1, epilogue.add.offset
    return fields


def _wide_form(epilogue: ToWide, offset: Int64Array, intervals: Intervals) -> int:
    """The cheapest form in which nothing overflows on the way, the bend at 0 included."""
    bends = epilogue.negative_multiplier
    if not _fits(epilogue.multiplier) or not (bends is None or _fits(bends)):
        return WIDE_ANY
    ends = [
        m * x + b
        for m, b, lo, hi in zip(
            epilogue.multiplier.tolist(),
            offset.tolist(),
            intervals.lo.tolist(),
            intervals.hi.tolist(),
            strict=True,
        )
        for x in (lo, hi)
    ]
    if bends is not None and min(ends) >> epilogue.shift < INT32.min:
        return WIDE_ANY  # what is cut off or bent need not fit 32 bits before
    return WIDE32 if INT32.min <= min(ends) and max(ends) <= INT32.max else WIDE64


def _fits(multiplier: Int64Array) -> bool:
    return -int(multiplier.min()) - 1 <= INT32.max and int(multiplier.max()) <= INT32.max
