"""What a network is: everything needed to build it again and to feed it, as plain data."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from bitfold.errors import UsageError

GridKind = Literal["odd", "narrow"]
Stem = Literal["auto", "large", "small"]

# The grid a width is trained on unless asked otherwise: below 4 bits a lost level costs more than
# a missing zero; from 4 bits on −7…7 keeps the zero and fits a signed integer of as many bits.
DEFAULT_GRID: dict[int, GridKind] = {2: "odd", 3: "odd", 4: "narrow", 8: "narrow"}

MAX_SIDE = 4096
MAX_CHANNELS = 64
MAX_CLASSES = 100_000
MAX_WIDTH = 16.0
MAX_LAYER_CHANNELS = 1 << 16


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """(pixel − mean)/std for pixels 0…255, one integer each for all channels.

    An integer mean puts real zero on a pixel value, so that padding is exact (ADR 0009).
    """

    mean: int
    std: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (0 <= self.mean <= 255 and 0 < self.std <= 255):
            raise UsageError(
                f"mean must be 0…255 and std 1…255, got {self.mean} and {self.std}",
                where="preprocessing",
                todo="Give whole numbers in units of one pixel step.",
            )


@dataclass(frozen=True, slots=True)
class PublishedPreprocessing:
    """(pixel/255 − mean)/std with real numbers, one pair a channel, as published networks have.

    Real zero is then no pixel value; the first layer carries the border correction.
    """

    means: tuple[float, ...]
    stds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the numbers."""
        numbers = (*self.means, *self.stds)
        sound = all(map(math.isfinite, numbers)) and all(std > 0 for std in self.stds)
        if not sound or len(self.means) != len(self.stds) or not self.means:
            raise UsageError(
                f"means {self.means} and stds {self.stds}",
                where="preprocessing",
                todo="Give one finite mean and one positive std a channel, in units of pixel/255.",
            )


@dataclass(frozen=True, slots=True)
class NetSpec:
    """A network by name and numbers; ``input_shape`` is (H, W, C), ``bits`` is (weights, acts).

    The defaults of the last fields are each method's own; a network reads those it knows.
    ``channels`` overrides the widths that ``net`` and ``width`` give (a checkpoint's shapes do);
    ``genome`` is BASQ's choice of a branch a block (empty: all branches, a supernet) and
    ``block_bits`` its bit width a block; ``edge_bits`` are those of first and last layers that a
    method leaves in float; ``per_kernel`` asks for one weight scale a kernel (UniQ),
    ``per_channel`` for one activation scale an input channel (BASQ, as published); ``stem`` is
    the first layer's form, by image size where "auto".

    Sizes are checked here; whether ``net``, ``method`` and ``bits`` are offered, by
    ``build_network``.
    """

    net: str
    method: str
    bits: tuple[int, int]
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing | PublishedPreprocessing
    weight_grid: GridKind = "odd"
    width: float = 1.0
    channels: tuple[int, ...] = ()
    genome: tuple[int, ...] = ()
    block_bits: tuple[int, ...] = ()
    edge_bits: int = 8
    per_kernel: bool = False
    per_channel: bool = False
    stem: Stem = "auto"

    def __post_init__(self) -> None:
        """Check the sizes."""
        limits = (MAX_SIDE, MAX_SIDE, MAX_CHANNELS)
        shape = list(self.input_shape)
        if len(shape) != 3 or not all(1 <= n <= m for n, m in zip(shape, limits, strict=True)):
            _refuse(f"input {self.input_shape} is not (H, W, C) within {limits}", "input_shape")
        if not 1 <= len(self.class_names) <= MAX_CLASSES:
            _refuse(f"{len(self.class_names)} classes; 1…{MAX_CLASSES} are possible", "class_names")
        if not (math.isfinite(self.width) and 0 < self.width <= MAX_WIDTH):
            _refuse(f"width {self.width} is not in (0, {MAX_WIDTH:g}]", "width")
        if self.weight_grid not in ("odd", "narrow"):
            _refuse(f"weight grid {self.weight_grid!r} is neither 'odd' nor 'narrow'", "grid")
        if self.stem not in ("auto", "large", "small"):
            _refuse(f"stem {self.stem!r} is none of auto, large, small", "stem")
        if self.edge_bits not in (8, 16):
            _refuse(f"edges of {self.edge_bits} bits; 8 and 16 are possible", "edge_bits")
        if not all(1 <= c <= MAX_LAYER_CHANNELS for c in self.channels):
            _refuse(f"channels {self.channels} leave 1…{MAX_LAYER_CHANNELS}", "channels")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, the inverse of ``from_dict``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild from ``to_dict``'s result; KeyError, TypeError or UsageError if it is not one."""
        known = dict(fields)
        known["bits"] = tuple(known["bits"])
        known["input_shape"] = tuple(known["input_shape"])
        known["class_names"] = tuple(map(str, known["class_names"]))
        known["preprocessing"] = _preprocessing(known["preprocessing"])
        for name in ("channels", "genome", "block_bits"):
            known[name] = tuple(map(int, known.get(name, ())))
        return cls(**known)

    @classmethod
    def with_default_grid(
        cls,
        *,
        net: str,
        method: str,
        bits: tuple[int, int],
        input_shape: tuple[int, int, int],
        class_names: tuple[str, ...],
        preprocessing: Preprocessing,
        width: float = 1.0,
    ) -> Self:
        """A spec whose weight grid is the default for its width."""
        grid = DEFAULT_GRID.get(bits[0], "odd")
        return cls(net, method, bits, input_shape, class_names, preprocessing, grid, width)


def _preprocessing(fields: Mapping[str, Any]) -> Preprocessing | PublishedPreprocessing:
    if "means" in fields:
        means, stds = (tuple(map(float, fields[name])) for name in ("means", "stds"))
        return PublishedPreprocessing(means, stds)
    return Preprocessing(**fields)


def _refuse(what: str, field: str) -> None:
    raise UsageError(what, where=f"network specification, {field}", todo=f"Change {field}.")
