"""Checkpoint file → integer graph, in one call."""

from pathlib import Path

from bitfold.export.pipeline import fold_network
from bitfold.ir import IntGraph
from bitfold.models import PublishedOptions, load_one_network


def from_checkpoint(path: str | Path, *, published: PublishedOptions | None = None) -> IntGraph:
    """The verified integer graph of a checkpoint, ours or a published one.

    Raises as ``load_one_network``, and UnsupportedError for a network that cannot be folded.
    """
    return fold_network(load_one_network(path, published=published).model).graph
