"""Packed programs as JSON and arrays, to be kept in a file and read back with suspicion.

What is read names its row, and every value is checked against the C struct that it goes into: only
fields that exist, integers where C has integers, arrays of the type that C points to.
``program_bounds`` then checks that no kernel leaves an array or the arena.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.buffer import ALIGNMENT, ELEMENT_BYTES, Buffer
from bitfold.kernels.c_library import Foreign, Library
from bitfold.kernels.packed_step import (
    FieldValue,
    PackedEpilogue,
    PackedProgram,
    PackedStep,
    Segment,
)
from bitfold.kernels.program_bounds import check_bounds

Array = NDArray[np.generic]
Document = dict[str, Any]

# Fields that binding fills in itself.
_BOUND = frozenset(
    {"kernel", "scratch", "scratch_bytes", "segments", "num_segments", "extra", "epilogue"}
)
_ITEMS = {
    "int8_t": "int8", "uint8_t": "uint8", "int16_t": "int16", "int32_t": "int32",
    "int64_t": "int64", "size_t": np.dtype(np.uintp).name, "float": "float32",
}  # fmt: skip
_EXTRAS = {
    "packed": "bf_packed", "dictionary": "bf_dictionary", "bitserial": "bf_planes",
    "depthwise": "bf_depthwise", "vector": "bf_vector", "winograd": "bf_winograd",
}  # fmt: skip


def program_document(program: PackedProgram, arrays: list[Array]) -> Document:
    """``program`` as JSON values; its arrays go to the end of ``arrays``, named by their place."""
    columns = zip(program.symbols, program.reasons, program.steps, strict=True)
    return {
        "input": buffer_document(program.input),
        "output": buffer_document(program.output),
        "arena_bytes": program.arena_bytes,
        "steps": [
            {"row": symbol, "why": reason, **_step_document(step, arrays)}
            for symbol, reason, step in columns
        ],
    }


def _step_document(step: PackedStep, arrays: list[Array]) -> Document:
    document: Document = {
        "fields": _field_document(step.fields, arrays),
        "epilogue": _field_document(step.epilogue.fields, arrays),
        "scratch_bytes": step.scratch_bytes,
    }
    if step.segments:
        document["segments"] = [[s.offset, s.num_quads, int(s.flush)] for s in step.segments]
    if step.extra is not None:
        document["extra"] = _field_document(step.extra[1], arrays)
    return document


def _field_document(fields: Mapping[str, FieldValue], arrays: list[Array]) -> Document:
    document: Document = {}
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            document[name] = [len(arrays)]
            arrays.append(value)
        else:
            document[name] = int(value)
    return document


def buffer_document(buffer: Buffer) -> list[Any]:
    """Offset, kind and shape of a buffer."""
    return [buffer.offset, buffer.kind, *buffer.shape]


def read_buffer(document: Sequence[Any], *, arena_bytes: int) -> Buffer:
    """What ``buffer_document`` wrote; raises ValueError where it does not lie in the arena."""
    offset, kind, *shape = document
    if kind not in ELEMENT_BYTES or not shape:
        raise ValueError("not a buffer")
    buffer = Buffer(whole(offset), tuple(whole(size, least=1) for size in shape), kind)
    if buffer.offset % ALIGNMENT or buffer.offset + buffer.num_bytes > arena_bytes:
        raise ValueError("a buffer leaves the arena")
    return buffer


def whole(value: object, *, least: int = 0) -> int:
    """``value`` as an integer from ``least`` on; raises ValueError on anything else."""
    if type(value) is not int or value < least:
        raise ValueError(f"{value!r} is no integer from {least} on")
    return value


def named(value: object) -> Document:
    """``value`` as a JSON object; raises TypeError on anything else."""
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    return value


def text(value: object) -> str:
    """``value`` as text; raises TypeError on anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def read_program(
    document: Mapping[str, Any], arrays: Sequence[Array], library: Library
) -> PackedProgram:
    """What ``program_document`` wrote, for rows of ``library`` that this machine covers.

    Raises ValueError, KeyError, TypeError or IndexError on anything else.
    """
    arena_bytes = whole(document["arena_bytes"])
    rows = {row.symbol: row for row in library.rows if row.runs_on(library.features)}
    symbols = tuple(text(step["row"]) for step in document["steps"])
    steps = tuple(
        _read_step(step, arrays, library.ffi, _EXTRAS.get(rows[symbol].layout))
        for step, symbol in zip(document["steps"], symbols, strict=True)
    )
    image, result = (read_buffer(document[k], arena_bytes=arena_bytes) for k in ("input", "output"))
    if (image.kind, len(image.shape), result.kind) != ("u8", 3, "f32"):
        raise ValueError("a program makes results of images")
    reasons = tuple(text(step["why"]) for step in document["steps"])
    program = PackedProgram(symbols, reasons, steps, image, result, arena_bytes)
    check_bounds(program, rows)
    return program


def _read_step(
    document: Mapping[str, Any], arrays: Sequence[Array], ffi: Foreign, extra: str | None
) -> PackedStep:
    if ("extra" in document) != (extra is not None):
        raise ValueError("a row's own struct is missing or not wanted")
    segments = tuple(
        Segment(whole(offset), whole(count), flush=bool(whole(flush)))
        for offset, count, flush in document.get("segments", ())
    )
    return PackedStep(
        _read_fields(document["fields"], arrays, ffi, "bf_step"),
        PackedEpilogue(_read_fields(document["epilogue"], arrays, ffi, "bf_epilogue")),
        segments,
        whole(document["scratch_bytes"]),
        (extra, _read_fields(document["extra"], arrays, ffi, extra)) if extra else None,
    )


def _read_fields(
    document: object, arrays: Sequence[Array], ffi: Foreign, struct: str
) -> dict[str, FieldValue]:
    members = dict(ffi.typeof(struct).fields)
    return {
        name: _read_value(value, arrays, members[name].type, name)
        for name, value in named(document).items()
    }


def _read_value(value: object, arrays: Sequence[Array], kind: Foreign, name: str) -> FieldValue:
    if name in _BOUND:
        raise ValueError(f"{name} is not to be stored")
    if kind.kind == "primitive":
        if type(value) is not int:
            raise ValueError(f"{name} is no integer")
        return value
    if not isinstance(value, list):
        raise TypeError(f"{name} is no array")
    array = arrays[whole(value[0])]
    if name != "weight" and array.dtype.name != _ITEMS[kind.item.cname]:
        raise ValueError(f"{name} has elements of another type")
    return array
