"""A quantizer behind a max pool moves in front of it: codes rise with values, so both agree.

    Activation(MaxPool(x))  →  MaxPool(Activation(x))

Requires: nothing. Ensures: a ``MaxPool`` that only one quantizer reads pools codes. The pool takes
the quantizer's name, so that codes keep the name and shape of the module that made them.
"""

from dataclasses import replace

from bitfold.export.qgraph import Activation, MaxPool, QGraph, QNode

BEFORE = ".before_pool"


def commute_max_pool(graph: QGraph) -> QGraph:
    """Quantize before pooling wherever a quantizer is the only reader of a max pool."""
    pools = {node.name: node for node in graph.nodes if isinstance(node, MaxPool)}
    moved = {
        node.name: pools[node.x]
        for node in graph.nodes
        if isinstance(node, Activation)
        and node.x in pools
        and len(graph.consumers(node.x)) == 1
        and len(node.scales) == 1
    }
    gone = {pool.name for pool in moved.values()}

    def rule(node: QNode) -> tuple[QNode, ...]:
        if node.name in gone:
            return ()
        if isinstance(node, Activation) and node.name in moved:
            pool = moved[node.name]
            early = f"{node.name}{BEFORE}"
            first = replace(node, name=early, x=pool.x, layer=node.layer or node.name)
            return (first, replace(pool, name=node.name, x=early))
        return (node,)

    return graph.rewrite(rule)
