"""The fold pipeline, in one visible tuple."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfold.export.lowering import LayerReport, lower
from bitfold.export.passes import commute_max_pool, fold_batchnorm
from bitfold.export.qgraph import QGraph
from bitfold.export.trace import trace
from bitfold.ir import IntGraph

if TYPE_CHECKING:
    from torch import nn

PIPELINE: tuple[Callable[[QGraph], QGraph], ...] = (
    fold_batchnorm,
    commute_max_pool,
)


@dataclass(frozen=True, slots=True)
class Folded:
    """A verified integer graph and, layer by layer, what is exact and what is bounded."""

    graph: IntGraph
    layers: tuple[LayerReport, ...]


def fold_network(model: "nn.Module") -> Folded:
    """Trace ``model`` (a network of ours, in eval mode) and fold it to integers."""
    graph = trace(model)
    for run_pass in PIPELINE:
        graph = run_pass(graph)
    return Folded(*lower(graph))
