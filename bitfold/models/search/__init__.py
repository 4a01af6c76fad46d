"""BASQ's search: k-fold evolution over a supernet, alone or against latency; resumable.

``search`` runs a whole request; ``evolve`` is the evolution itself, over any fitness. The names
load on first use: the evolution alone needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold.models.search.evolution import EvolutionConfig, Evolved, Generation, evolve
    from bitfold.models.search.fitness import assemble
    from bitfold.models.search.folds import FoldOrder, Folds, ValidationSet, open_validation_set
    from bitfold.models.search.genome import (
        BLOCK_BITS,
        GeneSpace,
        Genome,
        genome_of_fields,
    )
    from bitfold.models.search.kfold import search
    from bitfold.models.search.pareto import (
        LatencyTable,
        Scored,
        evolve_two_objectives,
        pareto_front,
    )
    from bitfold.models.search.request import (
        FoldResult,
        MeasureLatency,
        Objective,
        SearchProgress,
        SearchRequest,
        SearchResult,
    )

__all__ = [
    # what is searched
    "BLOCK_BITS",
    "Genome",
    "GeneSpace",
    "genome_of_fields",
    "FoldOrder",
    "Folds",
    "ValidationSet",
    "open_validation_set",
    # how
    "EvolutionConfig",
    "Evolved",
    "Generation",
    "evolve",
    "evolve_two_objectives",
    "LatencyTable",
    "Scored",
    "pareto_front",
    # the whole
    "FoldResult",
    "MeasureLatency",
    "Objective",
    "SearchProgress",
    "SearchRequest",
    "SearchResult",
    "search",
    "assemble",
]

_HOMES = {
    "EvolutionConfig": "evolution",
    "Evolved": "evolution",
    "Generation": "evolution",
    "evolve": "evolution",
    "assemble": "fitness",
    "FoldOrder": "folds",
    "Folds": "folds",
    "ValidationSet": "folds",
    "open_validation_set": "folds",
    "BLOCK_BITS": "genome",
    "Genome": "genome",
    "GeneSpace": "genome",
    "genome_of_fields": "genome",
    "search": "kfold",
    "LatencyTable": "pareto",
    "Scored": "pareto",
    "evolve_two_objectives": "pareto",
    "pareto_front": "pareto",
    "FoldResult": "request",
    "MeasureLatency": "request",
    "Objective": "request",
    "SearchProgress": "request",
    "SearchRequest": "request",
    "SearchResult": "request",
}


def __getattr__(name: str) -> object:
    """Import the module that holds ``name`` (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
