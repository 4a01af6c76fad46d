"""The fold pipeline, in one visible tuple."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from bitfold.export.lowering import Folded, lower_with_decisions
from bitfold.export.passes import commute_max_pool, fold_batchnorm
from bitfold.export.qgraph import QGraph
from bitfold.export.trace import trace

if TYPE_CHECKING:
    from torch import nn

PIPELINE: tuple[Callable[[QGraph], QGraph], ...] = (
    fold_batchnorm,
    commute_max_pool,
)


def fold_network(model: "nn.Module") -> Folded:
    """Trace ``model`` (a network of ours, in eval mode) and fold it to integers."""
    graph = trace(model)
    for run_pass in PIPELINE:
        graph = run_pass(graph)
    return lower_with_decisions(graph)
