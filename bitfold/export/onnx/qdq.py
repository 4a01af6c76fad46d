"""Integer graph → ONNX model, in one of the profiles of docs/onnx.md.

Every integer of the graph comes out of ONNX Runtime unchanged, at any optimization level: each
operation is written in a form that is exact in float32 or float64, and a form that cannot be
proven exact for the graph at hand is not written.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import onnx_ir as ir

from bitfold.errors import UsageError
from bitfold.export.onnx.affine import Line
from bitfold.export.onnx.build import INTEGER, LOWBIT, PROFILES, QCDQ, QONNX, Profile, tensor_name
from bitfold.export.onnx.emit import Emitter, Form, Json
from bitfold.export.onnx.fused import Fused
from bitfold.export.onnx.integer import IntegerEmitter
from bitfold.export.onnx.lowbit import LowbitEmitter
from bitfold.export.onnx.qonnx import QonnxEmitter, fit_singles
from bitfold.export.onnx.records import (
    ExactLayer,
    FusedLayer,
    exact_records,
    fit_lines,
    fused_facts,
    fused_records,
    search_forms,
)
from bitfold.files import write_atomically
from bitfold.ir.graph import IntGraph
from bitfold.ir.grid import Grid
from bitfold.ir.ops import Conv2d, Linear, Node, Quantize, Rescale, SumPool2d, Thresholds
from bitfold.ir.types import CodeTensor, FloatTensor

FORMAT = "1"
VERSION_KEY, GRAPH_KEY = "bitfold.version", "bitfold.graph"
PROFILE_KEY = "bitfold.profile"
FORM_NAMES: Mapping[type, str] = {Line: "line", Fused: "fused", type(None): "comparisons"}


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """What was written: the file, which layers took which form, with what proof and reason."""

    path: Path
    opset: int
    fused_layers: tuple[str, ...]
    exact_layers: tuple[str, ...]
    warnings: tuple[str, ...]
    fused: tuple[FusedLayer, ...] = ()
    exact: tuple[ExactLayer, ...] = ()


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


def metadata(
    graph: IntGraph,
    forms: Mapping[str, Form],
    *,
    profile: Profile = QCDQ,
    facts: Mapping[str, Mapping[str, Json]] = MappingProxyType({}),
) -> dict[str, str]:
    """Model-level properties: version, profile, and the graph's non-tensor facts as compact JSON.

    ``facts`` are what the profile's writer adds to the facts of a node.
    """
    fused = fused_layers(graph, forms)
    document: dict[str, Json] = {
        "meta": dict(graph.meta),
        "nodes": [
            _place(node, graph, fused) | _facts(node, forms) | dict(facts.get(node.name, {}))
            for node in graph.nodes
        ],
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return {VERSION_KEY: FORMAT, PROFILE_KEY: profile.name, GRAPH_KEY: text}


def write_qcdq(graph: IntGraph) -> tuple[Emitter, tuple[FusedLayer, ...], tuple[ExactLayer, ...]]:
    """The default profile, and how and why each of its layers is written."""
    forms = search_forms(graph)
    fused = fused_records(graph, forms)
    return Emitter(graph, forms.chosen, fused_facts(fused)), fused, exact_records(graph, forms)


def write_nodes(graph: IntGraph, profile: Profile) -> Emitter:
    """``graph`` as ONNX nodes in the form of ``profile``.

    Raises UnsupportedError, naming the node, where an operation cannot be written exactly.
    """
    match profile.name:
        case INTEGER.name:
            return IntegerEmitter(graph)
        case LOWBIT.name:
            return LowbitEmitter(graph, fit_lines(graph))
        case QONNX.name:
            return QonnxEmitter(graph, fit_singles(graph))
        case _:
            return write_qcdq(graph)[0]


def finished(emitter: Emitter, graph: IntGraph) -> bytes:
    """The file: nodes, and the facts about them as metadata."""
    properties = metadata(graph, emitter.forms, profile=emitter.profile, facts=emitter.facts)
    return serialize(emitter.model(properties))


def serialize(model: ir.Model) -> bytes:
    """Deterministic protobuf bytes."""
    data: bytes = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    return data


def onnx_model(graph: IntGraph, *, profile: str = "qcdq") -> bytes:
    """``graph`` as the bytes of an ONNX file: ``image`` (N, H, W, C) → float32 ``logits``.

    The same graph gives the same bytes. Raises UsageError for an unknown profile,
    UnsupportedError, naming the node, where an operation cannot be written exactly.
    """
    return finished(write_nodes(graph, profile_of(profile)), graph)


def profile_of(name: str) -> Profile:
    """The profile called ``name``; UsageError where there is none."""
    if name not in PROFILES:
        raise UsageError(
            f"unknown profile {name!r}",
            where="profile",
            todo=f"Choose from: {', '.join(PROFILES)}.",
        )
    return PROFILES[name]


def to_onnx(graph: IntGraph, path: str | Path, *, profile: str = "qcdq") -> OnnxExport:
    """Write ``graph`` to an ONNX file, whole or not at all.

    Raises UsageError for an unknown profile, UnsupportedError naming a node that cannot be
    written exactly, OutputError where the file cannot be written.
    """
    chosen = profile_of(profile)
    records: tuple[tuple[FusedLayer, ...], tuple[ExactLayer, ...]] = ((), ())
    if chosen.name == QCDQ.name:
        emitter, written, refused = write_qcdq(graph)
        records = (written, refused)
    else:
        emitter = write_nodes(graph, chosen)
    write_atomically(path, finished(emitter, graph))
    fused = fused_layers(graph, emitter.forms)
    layers = (node.name for node in graph.nodes if isinstance(node, Conv2d | Linear))
    exact = tuple(name for name in layers if name not in fused)
    return OnnxExport(
        Path(path), chosen.opset, tuple(fused), exact, tuple(emitter.warnings), *records
    )
