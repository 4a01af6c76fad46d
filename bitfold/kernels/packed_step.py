"""Steps as C reads them: values for the fields of its structs, arrays where it has pointers."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.buffer import Buffer

FieldValue = int | NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Segment:
    """C's ``bf_segment``: ``num_quads`` quads of input at ``offset``, then maybe a flush."""

    offset: int
    num_quads: int
    flush: bool


@dataclass(frozen=True, slots=True)
class PackedEpilogue:
    """Values for the fields of C's ``bf_epilogue``; arrays become pointers."""

    fields: dict[str, FieldValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PackedStep:
    """Values for the fields of C's ``bf_step``; arrays become pointers.

    ``scratch_bytes`` is what one thread needs. ``extra`` names the struct that the step's ``extra``
    points to, and holds the values of its fields.
    """

    fields: dict[str, FieldValue]
    epilogue: PackedEpilogue
    segments: tuple[Segment, ...] = ()
    scratch_bytes: int = 0
    extra: tuple[str, dict[str, FieldValue]] | None = None


def constant_bytes(packed: PackedStep) -> int:
    """Bytes of the weights, and of the tables beside them."""
    tables = packed.extra[1].values() if packed.extra is not None else ()
    arrays = (packed.fields.get("weight"), *tables)
    return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))


@dataclass(frozen=True, slots=True)
class PackedProgram:
    """All steps of a plan, packed for the rows named by ``symbols``; ``reasons``: why those rows.

    The image goes to ``input``, results are read from ``output``; the plan's own tensors take
    ``arena_bytes``.
    """

    symbols: tuple[str, ...]
    reasons: tuple[str, ...]
    steps: tuple[PackedStep, ...]
    input: Buffer
    output: Buffer
    arena_bytes: int
