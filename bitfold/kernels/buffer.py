"""A tensor's place in the arena."""

from dataclasses import dataclass
from math import prod
from typing import Literal

ElementKind = Literal["u8", "i32", "f32"]

ALIGNMENT = 64
ELEMENT_BYTES: dict[str, int] = {"u8": 1, "i32": 4, "f32": 4}


def aligned_bytes(num_bytes: int) -> int:
    """Least multiple of 64 that is at least ``num_bytes``."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor's place in the arena: byte offset (a multiple of 64), shape, element kind."""

    offset: int
    shape: tuple[int, ...]
    kind: ElementKind

    @property
    def num_elements(self) -> int:
        """Product of the shape."""
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor itself; the arena reserves 64 more behind it for vector loads."""
        return self.num_elements * ELEMENT_BYTES[self.kind]
