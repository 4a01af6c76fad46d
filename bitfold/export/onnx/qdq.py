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
from bitfold.export.onnx_build import OPSET, tensor_name
from bitfold.export.onnx_emit import Emitter, Form
from bitfold.export.onnx_fused import Fused, fit_fused
from bitfold.files import write_atomically
from bitfold.ir.graph import IntGraph
from bitfold.ir.grid import Grid
from bitfold.ir.ops import Conv2d, Linear, Node, Quantize, Rescale, SumPool2d, Thresholds
from bitfold.ir.types import CodeTensor, FloatTensor

Json = str | int | float | None | list["Json"] | dict[str, "Json"]

FORMAT = "1"
VERSION_KEY, GRAPH_KEY = "bitfold.version", "bitfold.graph"
PROFILES = ("qcdq",)
FORM_NAMES: Mapping[type, str] = {Line: "line", Fused: "fused", type(None): "comparisons"}


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """What was written: the file, and which layers took which form."""

    path: Path
    opset: int
    fused_layers: tuple[str, ...]
    exact_layers: tuple[str, ...]
    warnings: tuple[str, ...]


def fit_forms(graph: IntGraph) -> dict[str, Form]:
    """How each Thresholds is written: fused, else as a line; absent: as comparisons. All proven."""
    forms: dict[str, Form] = {}
    for node in graph.nodes:
        if isinstance(node, Thresholds):
            x = graph.types[node.x]
            assert not isinstance(x, FloatTensor)
            form = fit_fused(graph, node) or fit_line(node.table, node.sign, lo=x.lo, hi=x.hi)
            if form is not None:
                forms[node.name] = form
    return forms


def fused_layers(graph: IntGraph, forms: Mapping[str, Form]) -> dict[str, Fused]:
    """The convolutions that are written together with their Thresholds."""
    return {
        node.x: form
        for node in graph.nodes
        if isinstance(node, Thresholds) and isinstance(form := forms.get(node.name), Fused)
    }


def _grid(grid: Grid) -> Json:
    return [grid.lo, grid.hi, grid.step]


def _place(node: Node, graph: IntGraph, fused: Mapping[str, Fused]) -> dict[str, Json]:
    """Where the node's integers are in the file, and what is proven about them."""
    kind = graph.types[node.name]
    entry: dict[str, Json] = {"name": node.name, "kind": type(node).__name__}
    if node.name in fused:
        return entry | {"form": "fused", "factors": fused[node.name].factor.tolist()}
    if not isinstance(kind, FloatTensor):
        entry |= {"tensor": tensor_name(node.name), "range": [kind.lo, kind.hi]}
    if isinstance(kind, CodeTensor):
        entry |= {"bits": kind.grid.bits, "levels": kind.grid.levels}
    return entry


def _facts(node: Node, forms: Mapping[str, Form]) -> dict[str, Json]:
    """What the ONNX nodes cannot say about ``node``."""
    match node:
        case Quantize():
            return {"grid": _grid(node.grid), "scale": node.scale.hex()}
        case Thresholds():
            form = FORM_NAMES[type(forms.get(node.name))]
            return {"grid": _grid(node.grid), "scale": node.scale.hex(), "form": form}
        case Conv2d() | Linear():
            return {
                "weight_grid": _grid(node.weight_grid),
                "weight_bits": node.weight_grid.bits,
                "weight_scales": [scale.hex() for scale in node.weight_scales],
            }
        case Rescale():
            shifts: dict[str, Json] = {"shift": node.shift, "negative_shift": node.negative_shift}
            return shifts | {"scale": node.scale.hex()}
        case SumPool2d():
            return {"stride": list(node.stride)}
        case _:
            return {}


def metadata(graph: IntGraph, forms: Mapping[str, Form]) -> dict[str, str]:
    """Model-level properties: format version, and the graph's non-tensor facts as compact JSON."""
    fused = fused_layers(graph, forms)
    document: dict[str, Json] = {
        "meta": dict(graph.meta),
        "nodes": [_place(node, graph, fused) | _facts(node, forms) for node in graph.nodes],
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return {VERSION_KEY: FORMAT, GRAPH_KEY: text}


def build_model(graph: IntGraph, forms: Mapping[str, Form]) -> ir.Model:
    """``graph`` as an ONNX model, its tables in the given affine forms."""
    return Emitter(graph, forms).model(metadata(graph, forms))


def serialize(model: ir.Model) -> bytes:
    """Deterministic protobuf bytes."""
    data: bytes = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    return data


def onnx_model(graph: IntGraph) -> bytes:
    """``graph`` as the bytes of an ONNX file: uint8 ``image`` (N, H, W, C) → float32 ``logits``.

    The same graph gives the same bytes. Raises UnsupportedError, naming the node, where an
    operation cannot be written exactly.
    """
    return serialize(build_model(graph, fit_forms(graph)))


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
    forms = fit_forms(graph)
    write_atomically(path, serialize(build_model(graph, forms)))
    fused = fused_layers(graph, forms)
    layers = (node.name for node in graph.nodes if isinstance(node, Conv2d | Linear))
    exact = tuple(name for name in layers if name not in fused)
    warnings = tuple(
        f"{node.name}: no line reproduces the thresholds; {node.grid.levels - 1} comparisons do"
        for node in graph.nodes
        if isinstance(node, Thresholds) and node.name not in forms
    )
    return OnnxExport(Path(path), OPSET, tuple(fused), exact, warnings)
