"""Facts of a graph that do not depend on the array, counted once a graph: sweeps ask again."""

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from bitfold.ir.graph import IntGraph

Fact = TypeVar("Fact")
# Graphs kept at a time: the models of one sweep.
KEPT = 8


def per_graph(count: Callable[[IntGraph], Fact]) -> Callable[[IntGraph], Fact]:
    """``count`` with its results of the last few graphs kept, told apart by identity.

    A graph is immutable, and a kept one stays alive, so that its identity is not given away.
    """
    known: OrderedDict[int, tuple[IntGraph, Fact]] = OrderedDict()

    @wraps(count)
    def counted(graph: IntGraph) -> Fact:
        found = known.get(id(graph))
        if found is not None:
            return found[1]
        fact = count(graph)
        known[id(graph)] = graph, fact
        if len(known) > KEPT:
            known.popitem(last=False)
        return fact

    return counted
