"""What becomes of every node of an ONNX file, without running anything."""

from pathlib import Path

from bitfold.errors import BitfoldError
from bitfold.export.foreign import NodeReport, Survey, survey_model
from bitfold.export.onnx.file import is_ours, parse, read_bytes
from bitfold.export.onnx.reader import read_onnx


def survey_onnx(path: str | Path) -> Survey:
    """A report for every node of the file, and the first reason why it cannot be read.

    Raises InputError where it is missing or damaged, UnsupportedError where it cannot be decoded.
    """
    data = read_bytes(path)
    try:
        model = parse(data)
        if not is_ours(model):
            return survey_model(model, Path(path).parent)
    except BitfoldError as error:
        raise error.within(f"file {path}") from error
    read_onnx(path)
    nodes = tuple(
        NodeReport(node.name, node.op_type, "supported", f"layer {node.name.partition('/')[0]}")
        for node in model.graph.node
    )
    return Survey(nodes, None, None)
