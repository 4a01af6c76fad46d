"""Two integer graphs side by side: which node belongs to which, and what differs in a pair."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import SequenceMatcher

import numpy as np

from bitfold.ir import Dequantize, IntGraph, Node

NAMES = frozenset(("name", "x", "a", "b", "xs"))


@dataclass(frozen=True, slots=True)
class Alignment:
    """Pairs of nodes (first graph's, second's) in topological order, and what has no partner."""

    pairs: tuple[tuple[Node, Node], ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def _signature(graph: IntGraph, node: Node) -> tuple[str, tuple[int, ...]]:
    return type(node).__name__, graph.types[node.name].shape


def align(first: IntGraph, second: IntGraph) -> Alignment:
    """Nodes by name where most agree, kind and shape included; else by their order."""
    others = {node.name: node for node in second.nodes}
    named = [
        (node, others[node.name])
        for node in first.nodes
        if node.name in others and _signature(first, node) == _signature(second, others[node.name])
    ]
    fewest = min(len(first.nodes), len(second.nodes))
    pairs = named if 2 * len(named) >= fewest else _in_order(first, second)
    taken = [{node.name for node in column} for column in zip(*pairs, strict=True)] or [
        set(),
        set(),
    ]
    return Alignment(tuple(pairs), _rest(first, taken[0]), _rest(second, taken[1]))


def _in_order(first: IntGraph, second: IntGraph) -> list[tuple[Node, Node]]:
    a, b = ([_signature(g, node) for node in g.nodes] for g in (first, second))
    blocks = SequenceMatcher(a=a, b=b, autojunk=False).get_matching_blocks()
    return [
        (first.nodes[block.a + i], second.nodes[block.b + i])
        for block in blocks
        for i in range(block.size)
    ]


def _rest(graph: IntGraph, taken: set[str]) -> tuple[str, ...]:
    return tuple(
        f"{type(node).__name__} {node.name} {_dimensions(graph.types[node.name].shape)}"
        for node in graph.nodes
        if node.name not in taken
    )


def _dimensions(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def parameter_differences(first: Node, second: Node) -> tuple[str, ...]:
    """Which fields of a pair differ, and the first place in each: this node's, not the other's."""
    found = []
    for field in fields(first):
        if field.name in NAMES:
            continue
        pair = getattr(first, field.name), getattr(second, field.name)
        if isinstance(pair[0], np.ndarray) and isinstance(pair[1], np.ndarray):
            found += _array_difference(field.name, *pair)
        elif isinstance(pair[0], np.ndarray) or isinstance(pair[1], np.ndarray):
            found.append(f"{field.name} is absent in one")
        elif pair[0] != pair[1]:
            found.append(_plain_difference(field.name, *pair))
    return tuple(found)


def _plain_difference(name: str, first: object, second: object) -> str:
    if isinstance(first, tuple) and isinstance(second, tuple) and len(first) > 4:
        return f"{name} differ"
    return f"{name} {first}, not {second}"


def _array_difference(name: str, first: np.ndarray, second: np.ndarray) -> list[str]:
    if first.shape != second.shape:
        return [f"{name} has shape {first.shape}, not {second.shape}"]
    places = np.argwhere(first != second)
    if not len(places):
        return []
    at = tuple(int(i) for i in places[0])
    where = f"in {len(places)} of {first.size} places, first at {at}"
    return [f"{name} differs {where}: {first[at]}, not {second[at]}"]


def is_output(node: Node) -> bool:
    """Whether it gives the logits."""
    return isinstance(node, Dequantize)
