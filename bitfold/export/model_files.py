"""ONNX files, ours or another tool's: read as a graph, or surveyed node by node."""

from pathlib import Path

from bitfold.errors import BitfoldError
from bitfold.export.foreign import NodeReport, Survey, read_model, survey_model
from bitfold.export.onnx import own_graph
from bitfold.export.onnx.file import is_ours, parse, read_bytes
from bitfold.ir import IntGraph


def read_onnx(path: str | Path) -> IntGraph:
    """The verified graph of an ONNX file: one that ``to_onnx`` wrote, or another tool's.

    Another tool's model keeps its own input (``bitfold.ir.own_input``). Raises InputError for a
    missing, truncated or damaged file, UnsupportedError (naming node and operator) for what is
    not read, GraphError where an edit broke an invariant.
    """
    data = read_bytes(path)
    try:
        model = parse(data)
        return own_graph(model) if is_ours(model) else read_model(model, Path(path).parent).graph
    except BitfoldError as error:
        raise error.within(f"file {path}") from error


def graph_of(data: bytes) -> IntGraph:
    """``read_onnx`` for bytes already in memory; external data is refused."""
    model = parse(data)
    return own_graph(model) if is_ours(model) else read_model(model).graph


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
