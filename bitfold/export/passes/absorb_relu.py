"""A ReLU in front of an unsigned activation quantizer is part of it.

    Activation(Relu(x))  →  Activation(x)          grid.lo = 0 clamps negatives anyway

Requires: nothing. Ensures: a ``Relu`` whose only readers are unsigned activations is gone.
"""

from bitfold.export.qgraph import Activation, QGraph, Relu


def absorb_relu(graph: QGraph) -> QGraph:
    """Remove the ReLUs that unsigned quantizers make redundant."""
    absorbed = {
        node.name: node.x
        for node in graph.nodes
        if isinstance(node, Relu)
        and all(isinstance(c, Activation) and c.grid.lo == 0 for c in graph.consumers(node.name))
    }
    kept = graph.rewrite(lambda node: () if node.name in absorbed else (node,))
    return kept.redirect(absorbed)
