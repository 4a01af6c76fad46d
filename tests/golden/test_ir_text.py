"""The canonical text of a graph that uses every operation."""

from bitfold.ir import to_text, verify
from tests.property.strategies import every_op_graph


def test_text_of_every_operation_is_golden(check_golden):
    graph = every_op_graph()
    verify(graph)
    check_golden("every_op.txt", to_text(graph))
