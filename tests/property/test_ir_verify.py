"""Damaged graphs are refused with an error of ours, or they still keep every promise."""

from dataclasses import fields, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitfold.errors import GraphError
from bitfold.ir import FloatTensor, Grid, IntGraph, Node, trace_oracle, verify
from tests.property.strategies import images_for, int_graphs

INTEGERS = st.sampled_from(
    (-(2**63), -(2**31) - 1, -7, -1, 0, 1, 2, 3, 255, 2**31, 2**62, 2**63 - 1)
)
SMALL = st.integers(-1, 3)


@st.composite
def damaged_arrays(draw, array):
    """Another value somewhere, another shape, or nothing left."""
    match draw(st.sampled_from(("value", "row", "flat", "empty"))):
        case "value" if array.size:
            damaged = array.copy()
            damaged.flat[draw(st.integers(0, array.size - 1))] = draw(INTEGERS)
            return damaged
        case "row":
            return array[:-1]
        case "flat":
            return array.ravel()
        case _:
            return array[:0]


def damaged_tuples(value):
    """Tuples of scales, names or sizes."""
    if any(isinstance(item, float) for item in value):
        return st.sampled_from(((), (0.0,), (0.5,) * 3, (float("nan"),)))
    if any(isinstance(item, str) for item in value):
        return st.sampled_from(((), ("n0",), ("n0", "n1"), (*value, "n99")))
    return st.tuples(*[SMALL for _ in value])


def damaged_values(value):
    """A value of the same kind as ``value`` that may make no sense."""
    match value:
        case np.ndarray():
            return damaged_arrays(value)
        case Grid():
            return st.sampled_from((Grid(1, 4), Grid.odd(9), Grid.unsigned(1), Grid(5, 5)))
        case float():
            return st.sampled_from((0.0, -1.0, float("nan"), float("inf"), 1e-300, 0.5))
        case int():
            return SMALL | INTEGERS
        case str():
            return st.sampled_from(("", "n0", "n1", "n2", "n99", "a b"))
        case tuple():
            return damaged_tuples(value)
        case _:
            return st.just(value)


def refusal_of(nodes: list[Node]) -> GraphError | None:
    """What inference or ``verify`` raises; anything but a GraphError is a bug."""
    try:
        verify(IntGraph.of(nodes))
    except GraphError as error:
        return error
    return None


@st.composite
def damaged_nodes(draw, graph: IntGraph) -> list[Node]:
    """The nodes of ``graph`` with one attribute changed, or one node lost or doubled."""
    nodes = list(graph.nodes)
    i = draw(st.integers(0, len(nodes) - 1))
    match draw(
        st.sampled_from(("attribute", "attribute", "attribute", "lost", "doubled", "swapped"))
    ):
        case "lost":
            del nodes[i]
        case "doubled":
            nodes.insert(i, nodes[i])
        case "swapped":
            nodes[i], nodes[i - 1] = nodes[i - 1], nodes[i]
        case _:
            name = draw(st.sampled_from([field.name for field in fields(nodes[i])]))
            nodes[i] = replace(nodes[i], **{name: draw(damaged_values(getattr(nodes[i], name)))})
    return nodes


@given(st.data())
def test_damaged_graphs_raise_graph_errors_or_stay_in_range(data):
    nodes = data.draw(damaged_nodes(data.draw(int_graphs())))
    refusal = refusal_of(nodes)
    if refusal is not None:
        assert all((refusal.what, refusal.where, refusal.todo))
        return
    graph = IntGraph.of(nodes)
    for name, values in trace_oracle(graph, data.draw(images_for(graph))).items():
        kind = graph.types[name]
        if not isinstance(kind, FloatTensor):
            assert kind.lo <= values.min()
            assert values.max() <= kind.hi
