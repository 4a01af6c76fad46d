"""How much a file's protobuf would unfold to, counted before anything is unfolded.

A field takes two bytes in a file and a hundred in memory. The walk follows messages alone and
steps over texts and tensors, so that a large model costs little.
"""

# The package has no stubs.
from google.protobuf.descriptor import (  # type: ignore[import-untyped]
    Descriptor,
    FieldDescriptor,
)
from onnx import ModelProto

from bitfold.errors import InputError

MAX_FIELDS = 500_000
MAX_PACKED = 2**26
MAX_DEPTH = 32
LENGTH = 2
PACKED_KINDS = (
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
)


def check_wire(data: bytes) -> None:
    """InputError where the bytes hold more fields or numbers than any model that is read.

    What is no protobuf passes: decoding says so.
    """
    fields = packed = 0
    waiting: list[tuple[int, int, Descriptor, int]] = [(0, len(data), ModelProto.DESCRIPTOR, 0)]
    while waiting:
        at, end, kind, depth = waiting.pop()
        while at < end:
            tag, at = _varint(data, at, end)
            number, wire = tag >> 3, tag & 7
            size, at = _size(data, at, end, wire)
            if size < 0 or at + size > end:
                return
            field = kind.fields_by_number.get(number)
            if field is not None and wire == LENGTH:
                if field.message_type is not None and depth < MAX_DEPTH:
                    waiting.append((at, at + size, field.message_type, depth + 1))
                elif field.type in PACKED_KINDS:
                    packed += size
            at += size
            fields += 1
            if fields > MAX_FIELDS or packed > MAX_PACKED:
                raise InputError(
                    f"more than {MAX_FIELDS} nodes, attributes and names, or more than"
                    f" {MAX_PACKED} numbers outside raw tensors",
                    where="model",
                    todo="This is no network that is read.",
                )


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(value, what follows it); an endless one ends the walk."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return -1, end


def _size(data: bytes, at: int, end: int, wire: int) -> tuple[int, int]:
    """(bytes of the content, where it begins); a size of −1 for what is no field."""
    match wire:
        case 0:
            return 0, _varint(data, at, end)[1]
        case 1:
            return 8, at
        case 2:
            return _varint(data, at, end)
        case 5:
            return 4, at
    return -1, at
