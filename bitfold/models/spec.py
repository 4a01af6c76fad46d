"""What a network is: everything needed to build it again and to feed it, as plain data."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from bitfold.models.quantizers.sawb import DEFAULT_GRID, GridKind


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """(pixel − mean)/std for pixels 0…255, one integer each for all channels.

    An integer mean puts real zero on a pixel value, so that padding is exact (ADR 0009).
    """

    mean: int
    std: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (0 <= self.mean <= 255 and self.std > 0):
            raise ValueError(f"mean must be 0…255 and std positive, got {self.mean} and {self.std}")


@dataclass(frozen=True, slots=True)
class NetSpec:
    """A network by name and numbers; ``input_shape`` is (H, W, C), ``bits`` is (weights, acts)."""

    net: str
    method: str
    bits: tuple[int, int]
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    weight_grid: GridKind = "odd"
    width: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, the inverse of ``from_dict``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Rebuild from ``to_dict``'s result."""
        known = dict(fields)
        known["bits"] = tuple(known["bits"])
        known["input_shape"] = tuple(known["input_shape"])
        known["class_names"] = tuple(known["class_names"])
        known["preprocessing"] = Preprocessing(**known["preprocessing"])
        return cls(**known)

    @classmethod
    def with_default_grid(cls, **fields: Any) -> Self:
        """A spec whose weight grid is the default for its width."""
        return cls(weight_grid=DEFAULT_GRID[fields["bits"][0]], **fields)
