"""One entry of the kernel table; C and numba rows share this type."""

from dataclasses import dataclass

# Bytes of a register, of the rows whose constants are laid out by registers.
REGISTER_BYTES = {"scalar": 16, "neon": 16, "avx2": 32, "avx512bw": 64}


@dataclass(frozen=True, slots=True)
class Row:
    """A kernel: what it computes, how constants are packed for it, and what it needs of the CPU.

    ``layout`` names the weight packing of ``packing.py`` (``dense`` where there are no weights);
    ``needs`` holds feature names as ``host_features`` gives them.
    """

    op: str
    layout: str
    isa: str
    needs: frozenset[str]
    symbol: str
    backend: str

    def runs_on(self, features: frozenset[str]) -> bool:
        """Whether a host with ``features`` covers the row's needs."""
        return features.issuperset(self.needs)

    def answers_to(self, name: str) -> bool:
        """Whether ``name`` is its ISA, layout, backend, ``layout:isa`` or symbol."""
        names = (self.isa, self.layout, self.backend, f"{self.layout}:{self.isa}", self.symbol)
        return name in names
