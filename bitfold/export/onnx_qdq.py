"""Integer graph → ONNX model, profile ``qcdq`` (docs/onnx.md).

Every integer of the graph comes out of ONNX Runtime unchanged, at any optimization level: each
operation is written in a form that is exact in float32 or float64, and a form that cannot be
proven exact for the graph at hand is not written.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from bitfold.errors import UsageError
from bitfold.export.onnx_affine import Line, fit_line
from bitfold.export.onnx_emit import OPSET, Emitter, tensor_name
from bitfold.files import write_atomically
from bitfold.ir.graph import IntGraph
from bitfold.ir.grid import Grid
from bitfold.ir.ops import Conv2d, Linear, Node, Quantize, Rescale, SumPool2d, Thresholds
from bitfold.ir.types import CodeTensor, FloatTensor

Json = str | int | float | None | list["Json"] | dict[str, "Json"]

FORMAT = "1"
VERSION_KEY, GRAPH_KEY = "bitfold.version", "bitfold.graph"
PROFILES = ("qcdq",)


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """What was written: the file, and which layers took which form."""

    path: Path
    opset: int
    fused_layers: tuple[str, ...]
    exact_layers: tuple[str, ...]
    warnings: tuple[str, ...]


def fit_lines(graph: IntGraph) -> dict[str, Line]:
    """The affine form of every Thresholds that has a proven one."""
    lines: dict[str, Line] = {}
    for node in graph.nodes:
        if isinstance(node, Thresholds):
            x = graph.types[node.x]
            assert not isinstance(x, FloatTensor)
            line = fit_line(node.table, node.sign, lo=x.lo, hi=x.hi)
            if line is not None:
                lines[node.name] = line
    return lines


def _grid(grid: Grid) -> Json:
    return [grid.lo, grid.hi, grid.step]


def _describe(node: Node, graph: IntGraph, lines: Mapping[str, Line]) -> dict[str, Json]:
    """What the ONNX nodes cannot say about ``node``, and facts for readers of the file."""
    kind = graph.types[node.name]
    entry: dict[str, Json] = {"name": node.name, "kind": type(node).__name__}
    if not isinstance(kind, FloatTensor):
        entry |= {"tensor": tensor_name(node.name), "range": [kind.lo, kind.hi]}
    if isinstance(kind, CodeTensor):
        entry |= {"bits": kind.grid.bits, "levels": kind.grid.levels}
    match node:
        case Quantize() | Thresholds():
            entry |= {"grid": _grid(node.grid), "scale": node.scale.hex()}
            if isinstance(node, Thresholds):
                entry["form"] = "line" if node.name in lines else "comparisons"
        case Conv2d() | Linear():
            entry |= {
                "weight_grid": _grid(node.weight_grid),
                "weight_bits": node.weight_grid.bits,
                "weight_scales": [scale.hex() for scale in node.weight_scales],
            }
        case Rescale():
            entry |= {
                "scale": node.scale.hex(),
                "shift": node.shift,
                "negative_shift": node.negative_shift,
            }
        case SumPool2d():
            entry["stride"] = list(node.stride)
        case _:
            pass
    return entry


def metadata(graph: IntGraph, lines: Mapping[str, Line]) -> dict[str, str]:
    """Model-level properties: format version, and the graph's non-tensor facts as compact JSON."""
    document: dict[str, Json] = {
        "meta": dict(graph.meta),
        "nodes": [_describe(node, graph, lines) for node in graph.nodes],
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return {VERSION_KEY: FORMAT, GRAPH_KEY: text}


def build_model(graph: IntGraph, lines: Mapping[str, Line]) -> ir.Model:
    """``graph`` as an ONNX model, its tables in the given affine forms."""
    return Emitter(graph, lines).model(metadata(graph, lines))


def serialize(model: ir.Model) -> bytes:
    """Deterministic protobuf bytes."""
    data: bytes = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    return data


def onnx_model(graph: IntGraph) -> bytes:
    """``graph`` as the bytes of an ONNX file: uint8 ``image`` (N, H, W, C) → float32 ``logits``.

    The same graph gives the same bytes. Raises UnsupportedError, naming the node, where an
    operation cannot be written exactly.
    """
    return serialize(build_model(graph, fit_lines(graph)))


def to_onnx(graph: IntGraph, path: str | Path, *, profile: str = "qcdq") -> OnnxExport:
    """Write ``graph`` to an ONNX file, whole or not at all.

    Raises UsageError for an unknown profile, UnsupportedError naming a node that cannot be
    written exactly, OutputError where the file cannot be written.
    """
    if profile not in PROFILES:
        raise UsageError(
            f"unknown profile {profile!r}",
            where="profile",
            todo=f"Choose from: {', '.join(PROFILES)}.",
        )
    lines = fit_lines(graph)
    write_atomically(path, serialize(build_model(graph, lines)))
    layers = tuple(node.name for node in graph.nodes if isinstance(node, Conv2d | Linear))
    warnings = tuple(
        f"{node.name}: no line reproduces the thresholds; {node.grid.levels - 1} comparisons do"
        for node in graph.nodes
        if isinstance(node, Thresholds) and node.name not in lines
    )
    return OnnxExport(Path(path), OPSET, (), layers, warnings)
