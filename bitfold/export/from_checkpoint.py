"""Checkpoint file → integer graph, in one call."""

from pathlib import Path

from bitfold.export.pipeline import fold_network
from bitfold.ir import IntGraph
from bitfold.models import load_checkpoint


def from_checkpoint(path: str | Path) -> IntGraph:
    """The verified integer graph of a checkpoint; raises InputError or UnsupportedError."""
    return fold_network(load_checkpoint(Path(path)).model).graph
