"""A file of JSON and arrays, whole or refused: flat bytes behind a digest of all of them.

Nothing is executed or mapped: the file is read into memory once, then checked, then used. Arrays
are views of that memory, each at a multiple of 64 bytes.
"""

import json
import math
import os
import stat
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.buffer import ALIGNMENT, aligned_bytes
from bitfold.kernels.program import allocate_arena

Array = NDArray[np.generic]

MAGIC = b"bitfold plan 1\n\0"
DIGEST_BYTES, LENGTH_BYTES = 32, 16
HEAD_BYTES = len(MAGIC) + DIGEST_BYTES + LENGTH_BYTES
MAX_BYTES = 1 << 30
MAX_JSON_BYTES = 1 << 24
DTYPES = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float32")
OTHERS_MAY_WRITE = 0o022


def file_bytes(document: dict[str, Any], arrays: Sequence[Array]) -> bytes:
    """The file that holds ``document`` and ``arrays``."""
    places, end = [], 0
    for array in arrays:
        places.append([array.dtype.name, end, *array.shape])
        end += aligned_bytes(array.nbytes)
    text = json.dumps({**document, "arrays": places}, separators=(",", ":")).encode()
    start = aligned_bytes(HEAD_BYTES + len(text))
    parts = [len(text).to_bytes(LENGTH_BYTES, "little"), text]
    parts.append(bytes(start - HEAD_BYTES - len(text)))
    for array in arrays:
        parts.append(array.tobytes())
        parts.append(bytes(-array.nbytes % ALIGNMENT))
    rest = b"".join(parts)
    return MAGIC + sha256(rest).digest() + rest


def read_file(path: Path) -> tuple[dict[str, Any], list[Array]]:
    """What ``file_bytes`` made; raises OSError, ValueError or TypeError on anything else.

    Only a regular file that belongs to this user, and that nobody else may write, is read.
    """
    data = _content(path)
    head = data[:HEAD_BYTES].tobytes()
    if not head.startswith(MAGIC):
        raise ValueError("not a plan")
    signed = len(MAGIC) + DIGEST_BYTES
    if sha256(data[signed:].data).digest() != head[len(MAGIC) : signed]:
        raise ValueError("damaged")
    length = int.from_bytes(head[signed:], "little")
    if length > min(MAX_JSON_BYTES, len(data) - HEAD_BYTES):
        raise ValueError("the description is too long")
    document = json.loads(data[HEAD_BYTES : HEAD_BYTES + length].tobytes())
    if not isinstance(document, dict) or not isinstance(document.get("arrays"), list):
        raise TypeError("not a description")
    body = data[aligned_bytes(HEAD_BYTES + length) :]
    return document, [_array(body, *place) for place in document["arrays"]]


def _array(body: NDArray[np.uint8], dtype: str, start: int, *shape: int) -> Array:
    if dtype not in DTYPES or any(type(n) is not int or n < 0 for n in (start, *shape)):
        raise ValueError("not an array")
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if start % ALIGNMENT or start + num_bytes > len(body):
        raise ValueError("an array lies outside the file")
    return body[start : start + num_bytes].view(dtype).reshape(shape)


def _content(path: Path) -> NDArray[np.uint8]:
    """All bytes of a trustworthy file, the first at a multiple of 64."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe must not block
    with os.fdopen(handle, "rb", buffering=0) as stream:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or not HEAD_BYTES <= status.st_size <= MAX_BYTES:
            raise ValueError("no regular file of a sensible size")
        if hasattr(os, "geteuid") and (
            status.st_uid != os.geteuid() or status.st_mode & OTHERS_MAY_WRITE
        ):
            raise ValueError("another user may have written it")
        data = allocate_arena(status.st_size)
        view, filled = data.data, 0
        while filled < len(data):
            count = stream.readinto(view[filled:])
            if not count:
                raise ValueError("it became shorter")
            filled += count
    return data
