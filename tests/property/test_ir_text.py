"""Canonical text: equal exactly where graphs are equal."""

from dataclasses import fields, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitfold.ir import IntGraph, to_text
from tests.property.strategies import int_graphs


@given(int_graphs())
def test_equal_graphs_give_equal_text(graph: IntGraph):
    again = IntGraph.of([replace(node) for node in graph.nodes], meta=dict(graph.meta))
    assert again == graph
    assert to_text(again) == to_text(graph)


@given(int_graphs(), st.data())
def test_one_changed_integer_changes_the_text(graph: IntGraph, data):
    places = [
        (i, field.name)
        for i, node in enumerate(graph.nodes)
        for field in fields(node)
        if field.name in {"bias", "offset", "weight", "table"} and getattr(node, field.name).size
    ]
    if not places:
        return
    i, name = data.draw(st.sampled_from(places))
    array = getattr(graph.nodes[i], name).copy()
    array.flat[data.draw(st.integers(0, array.size - 1))] += 1
    nodes = list(graph.nodes)
    nodes[i] = replace(nodes[i], **{name: array})
    other = IntGraph.of(nodes, meta=dict(graph.meta))
    assert other != graph
    assert to_text(other) != to_text(graph)
    assert np.array_equal(getattr(other.nodes[i], name), array)
