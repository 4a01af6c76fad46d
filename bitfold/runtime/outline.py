"""What a session needs to know of a plan once its steps are packed: names, places, sizes."""

from collections.abc import Mapping
from dataclasses import dataclass

from bitfold.kernels.buffer import Buffer


@dataclass(frozen=True, slots=True)
class OutlinedTensor:
    """A graph tensor that lies in the arena from the end of step ``ready`` (−1: the image) on.

    ``codes`` is (lo, step) of the grid whose indices are stored; None for integers and results.
    """

    buffer: Buffer
    ready: int
    codes: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class OutlinedStep:
    """Name and kind of a step, and its multiply-accumulates."""

    name: str
    op: str
    macs: int


@dataclass(frozen=True, slots=True)
class Outline:
    """Steps in order and tensors by node name; the image is the tensor called ``image``."""

    steps: tuple[OutlinedStep, ...]
    tensors: Mapping[str, OutlinedTensor]
    image: str

    @property
    def input(self) -> Buffer:
        """Where the image goes."""
        return self.tensors[self.image].buffer
