"""The nodes that each operation becomes, as text."""

from collections.abc import Callable

import onnx

from bitfold.export.onnx.qdq import onnx_model
from tests.property.strategies import every_op_graph


def listing(model: onnx.ModelProto) -> str:
    """One line a node and an initializer."""
    lines = [
        f"{', '.join(node.output)} = {node.op_type}({', '.join(node.input)})"
        + "".join(
            f" {a.name}={a.i if a.type == onnx.AttributeProto.INT else list(a.ints)}"
            for a in node.attribute
        )
        for node in model.graph.node
    ]
    lines += [
        f"{tensor.name}: {onnx.TensorProto.DataType.Name(tensor.data_type)} {list(tensor.dims)}"
        for tensor in model.graph.initializer
    ]
    lines += [f"{entry.key}: {entry.value}" for entry in model.metadata_props]
    return "\n".join(lines) + "\n"


def test_every_operation_is_written_as_listed(check_golden: Callable[[str, str], None]) -> None:
    model = onnx.load_from_string(onnx_model(every_op_graph()))
    check_golden("onnx_every_op.txt", listing(model))
