"""Packed steps become C's ``bf_step``: numbers into fields, arrays behind pointers."""

import numpy as np

from bitfold.kernels.c_library import Foreign, Library
from bitfold.kernels.packed_step import FieldValue, PackedStep, Segment
from bitfold.kernels.rows import Row


def bind_steps(
    library: Library,
    rows: tuple[Row, ...],
    packed: tuple[PackedStep, ...],
    *,
    scratch: int,
    scratch_bytes: int,
) -> tuple[Foreign, tuple[object, ...]]:
    """A ``bf_step[]`` that runs ``rows`` on ``packed``, and what its pointers point to.

    ``scratch`` is the offset of the first thread's scratch area in the arena, ``scratch_bytes``
    the size of one. The array keeps nothing alive: hold the second part as long as the first.
    """
    table, kept = library.ffi.new("bf_step[]", len(rows)), list[object]()
    kernels = _kernels(library)
    for target, row, values in zip(table, rows, packed, strict=True):
        target.kernel = kernels[row.symbol]
        _fill(library, target, values, kept)
        target.scratch, target.scratch_bytes = scratch, scratch_bytes
    return table, tuple(kept)


def _kernels(library: Library) -> dict[str, Foreign]:
    table = library.lib.bf_kernel_table()
    return {row.symbol: table[i].kernel for i, row in enumerate(library.rows)}


def _fill(library: Library, target: Foreign, values: PackedStep, kept: list[object]) -> None:
    """Writes ``values`` into a bf_step; ``kept`` collects what its pointers point to."""
    _fill_fields(library, target, values.fields, kept)
    _fill_fields(library, target.epilogue, values.epilogue.fields, kept)
    if values.segments:
        segments = library.ffi.new("bf_segment[]", [_as_tuple(x) for x in values.segments])
        kept.append(segments)
        target.segments, target.num_segments = segments, len(values.segments)
    if values.extra is not None:
        name, fields = values.extra
        extra = library.ffi.new(f"{name} *")
        _fill_fields(library, extra[0], fields, kept)
        kept.append(extra)
        target.extra = extra


def _as_tuple(segment: Segment) -> tuple[int, int, int]:
    return segment.offset, segment.num_quads, int(segment.flush)


def _fill_fields(
    library: Library, target: Foreign, fields: dict[str, FieldValue], kept: list[object]
) -> None:
    members = dict(library.ffi.typeof(target).fields)
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            kept.append(value)
            setattr(target, name, library.ffi.cast(members[name].type, value.ctypes.data))
        else:
            setattr(target, name, value)
