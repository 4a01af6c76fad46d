"""What a search chooses: one branch a block and, where asked for, one bit width a block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Self

from bitfold.errors import UsageError

NUM_BRANCHES = 7  # of every block (BASQ's published code: one L2 decay each)
BLOCK_BITS = (2, 3, 4)


@dataclass(frozen=True, order=True, slots=True)
class Genome:
    """``branches``: 0…6, one a block; ``bits``: as many widths, or empty (the supernet's own)."""

    branches: tuple[int, ...]
    bits: tuple[int, ...] = ()

    @property
    def genes(self) -> tuple[int, ...]:
        """Branches, then bits."""
        return self.branches + self.bits

    @property
    def key(self) -> str:
        """The genes as text, ``"5,3,2"`` or ``"5,3,2/4,2,2"``: the inverse of ``from_key``."""
        parts = (self.branches, self.bits) if self.bits else (self.branches,)
        return "/".join(",".join(map(str, part)) for part in parts)

    @classmethod
    def from_key(cls, key: str) -> Self:
        """Rebuild from ``key``; raises ValueError for any other text."""
        parts = [tuple(map(int, part.split(","))) for part in key.split("/")]
        if len(parts) > 2 or len({len(part) for part in parts}) != 1:
            raise ValueError(f"{key!r} is not a genome")
        return cls(*parts)

    def to_dict(self) -> dict[str, list[int] | None]:
        """``genome`` and ``block_bits`` (null where the supernet's own), as files have them."""
        return {"genome": list(self.branches), "block_bits": list(self.bits) or None}


@dataclass(frozen=True, slots=True)
class GeneSpace:
    """All genomes of a supernet of ``num_blocks`` blocks; ``with_bits``: widths are genes too."""

    num_blocks: int
    with_bits: bool = False

    def __post_init__(self) -> None:
        """Check the size."""
        if self.num_blocks < 1:
            raise UsageError(
                f"a network of {self.num_blocks} blocks has nothing to choose",
                where="supernet",
                todo="Train a BASQ supernet: bitfold train --method basq --supernet.",
            )

    @property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """The values that each gene may take."""
        branches = (tuple(range(NUM_BRANCHES)),) * self.num_blocks
        return branches + (BLOCK_BITS,) * (self.num_blocks if self.with_bits else 0)

    @property
    def size(self) -> int:
        """How many genomes there are."""
        size = 1
        for values in self.choices:
            size *= len(values)
        return size

    def genome(self, genes: Sequence[int]) -> Genome:
        """The genome of ``genes``, branches first."""
        return Genome(tuple(genes[: self.num_blocks]), tuple(genes[self.num_blocks :]))

    def random(self, generator: Random) -> Genome:
        """Every gene uniform."""
        return self.genome([generator.choice(values) for values in self.choices])

    def mutated(self, parent: Genome, generator: Random, *, rate: float) -> Genome:
        """Each gene drawn anew with probability ``rate``; it may fall on its old value."""
        pairs = zip(parent.genes, self.choices, strict=True)
        return self.genome(
            [generator.choice(c) if generator.random() < rate else gene for gene, c in pairs]
        )

    def crossed(self, first: Genome, second: Genome, generator: Random) -> Genome:
        """Each gene from one of two parents, by the toss of a coin."""
        pairs = zip(first.genes, second.genes, strict=True)
        return self.genome([a if generator.random() < 0.5 else b for a, b in pairs])


def genome_of_fields(fields: Mapping[str, object]) -> Genome:
    """The genome under ``genome`` and ``block_bits`` of a result file; raises UsageError."""
    branches, bits = fields.get("genome"), fields.get("block_bits") or []
    if not _are_integers(branches) or not _are_integers(bits):
        raise UsageError(
            f"no genome: 'genome' is {branches!r} and 'block_bits' {bits!r}",
            todo="Name a file that `bitfold search` wrote.",
        )
    assert isinstance(branches, list)
    assert isinstance(bits, list)
    return Genome(tuple(branches), tuple(bits))


def _are_integers(value: object) -> bool:
    return isinstance(value, list) and all(type(entry) is int for entry in value)
