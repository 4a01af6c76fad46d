"""Run an exported model under ONNX Runtime and compare it, tensor by tensor, with the oracle."""

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from bitfold.errors import InputError, MissingDependencyError, UnsupportedError
from bitfold.export.onnx.build import QCDQ
from bitfold.export.onnx.qdq import GRAPH_KEY, PROFILE_KEY
from bitfold.ir.float64 import trace_float64
from bitfold.ir.graph import IntGraph

if TYPE_CHECKING:
    import onnxruntime

Images = NDArray[np.uint8]
Traced = NDArray[np.int64] | NDArray[np.float32]
Level = Literal["off", "basic", "extended", "all"]

LEVELS: tuple[Level, ...] = ("off", "basic", "extended", "all")
IMAGES_AT_A_TIME = 64
INPUT, OUTPUT = "image", "logits"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first integer of ``node`` that differs; ``index`` is (n, h, w, c) or (n, c)."""

    node: str
    index: tuple[int, ...]
    got: float
    want: float
    count: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What ``compare_onnxruntime`` found: numbers compared, and one Difference a differing node."""

    nodes: tuple[str, ...]
    compared: int
    differences: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        """Whether every number is equal."""
        return not self.differences


def is_available() -> bool:
    """Whether ONNX Runtime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def require_onnxruntime() -> None:
    """Raise MissingDependencyError where ONNX Runtime is not installed."""
    if not is_available():
        raise MissingDependencyError(
            "ONNX Runtime is not installed",
            where="package onnxruntime",
            todo="pip install 'bitfold[bench]'",
        )


def open_session(data: bytes, *, level: Level, threads: int) -> "onnxruntime.InferenceSession":
    """A session on the CPU; UnsupportedError where ONNX Runtime does not load the model."""
    require_onnxruntime()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.graph_optimization_level = {
        "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }[level]
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's exceptions share no base below Exception.
    except Exception as error:
        raise UnsupportedError(
            f"ONNX Runtime {ort.__version__} does not load the model: {error}",
            where="model",
            todo="Install the newest onnxruntime, or export the model again.",
        ) from error


def model_bytes(model: bytes | str | Path) -> bytes:
    """The content of an ONNX file, or ``model`` itself where it is that."""
    if isinstance(model, bytes):
        return model
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the model: {error}", where=f"file {model}") from error


def _feeds(images: Images) -> Iterator[Images]:
    """Slices of ``images``; memory then does not grow with their number."""
    for start in range(0, len(images), IMAGES_AT_A_TIME):
        yield np.ascontiguousarray(images[start : start + IMAGES_AT_A_TIME])


def _run(
    session: "onnxruntime.InferenceSession", names: list[str], images: Images
) -> list[NDArray[np.generic]]:
    parts = [session.run(names, {INPUT: feed}) for feed in _feeds(images)]
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def run_onnxruntime(
    model: bytes | str | Path, images: Images, *, optimized: bool = True, threads: int = 1
) -> NDArray[np.float32]:
    """float32 logits (N, classes) that ONNX Runtime gives for uint8 images (N, H, W, C).

    ``optimized=False`` is ORT_DISABLE_ALL, True the default level.
    """
    session = open_session(model_bytes(model), level="all" if optimized else "off", threads=threads)
    return _run(session, [OUTPUT], images)[0].astype(np.float32, copy=False)


def profile_in(data: bytes) -> str | None:
    """The profile of a file that bitfold wrote; None for other tools' models."""
    properties = {e.key: e.value for e in onnx.ModelProto.FromString(data).metadata_props}
    return properties.get(PROFILE_KEY, QCDQ.name) if GRAPH_KEY in properties else None


@dataclass(frozen=True, slots=True)
class Exposed:
    """A copy of a model whose every integer tensor is an output.

    ``tensors``: node name → tensor name; ``grids``: node name → (lo, step) where that tensor holds
    indices; ``output``: the node that defines the logits.
    """

    data: bytes
    tensors: Mapping[str, str]
    grids: Mapping[str, tuple[int, int]]
    output: str


def exposed(data: bytes) -> Exposed:
    """``data`` with every integer tensor as an output; UnsupportedError for others' models."""
    model = onnx.ModelProto.FromString(data)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if GRAPH_KEY not in properties:
        raise UnsupportedError(
            f"no {GRAPH_KEY} property: this file was not written by bitfold",
            where="model metadata",
            todo="Export it with bitfold first.",
        )
    entries = json.loads(properties[GRAPH_KEY])["nodes"]
    tensors = {e["name"]: e["tensor"] for e in entries if "tensor" in e}
    infos = {info.name: info for info in model.graph.value_info}
    model.graph.output.extend(infos[tensor] for tensor in tensors.values())
    changed = model.SerializeToString(deterministic=True)
    return Exposed(changed, tensors, _index_grids(entries), entries[-1]["name"])


def _index_grids(entries: list[dict[str, object]]) -> dict[str, tuple[int, int]]:
    """(lo, step) of the code tensors that hold indices, from the file's own facts."""
    grids: dict[str, tuple[int, int]] = {}
    for entry in entries:
        lo_hi, levels = entry.get("range"), entry.get("levels")
        if entry.get("holds") == "codes":
            continue
        if isinstance(lo_hi, list) and isinstance(levels, int):
            step = (lo_hi[1] - lo_hi[0]) // (levels - 1) if levels > 1 else 1
            grids[str(entry["name"])] = (lo_hi[0], step)
    return grids


def trace_onnxruntime(
    model: bytes | str | Path,
    images: Images,
    *,
    optimized: bool = True,
    threads: int = 1,
    level: Level | None = None,
) -> dict[str, Traced]:
    """Node name → its integers, int64 (N, H, W, C) or (N, C); the output's float32 logits last.

    ``level`` overrides ``optimized`` with one of ONNX Runtime's four levels.
    """
    copy = exposed(model_bytes(model))
    chosen: Level = level or ("all" if optimized else "off")
    session = open_session(copy.data, level=chosen, threads=threads)
    return integers_of(copy, _run(session, [*copy.tensors.values(), OUTPUT], images))


def integers_of(copy: Exposed, arrays: Sequence[NDArray[np.generic]]) -> dict[str, Traced]:
    """Node name → its integers (…, C), from what the tensors of ``copy`` and the logits held."""
    pairs = zip(copy.tensors, arrays[:-1], strict=True)
    result: dict[str, Traced] = {name: node_integers(copy, name, array) for name, array in pairs}
    result[copy.output] = arrays[-1].astype(np.float32, copy=False)
    return result


def node_integers(copy: Exposed, name: str, array: NDArray[np.generic]) -> NDArray[np.int64]:
    """The integers (…, C) of node ``name`` from what its tensor held."""
    integers = array.astype(np.int64)
    if name in copy.grids:
        integers = copy.grids[name][0] + copy.grids[name][1] * integers
    return np.moveaxis(integers, 1, -1)


def compare_onnxruntime(
    graph: IntGraph,
    model: bytes | str | Path,
    images: Images,
    *,
    optimized: bool = True,
    level: Level | None = None,
) -> Comparison:
    """Compare every tensor that the file holds with the oracle's, by ``==``.

    The logits come from a second run without extra outputs: those keep ONNX Runtime from
    optimizing across them.
    """
    chosen: Level = level or ("all" if optimized else "off")
    got = trace_onnxruntime(model, images, level=chosen)
    want = dict(trace_float64(graph, images))
    plain = _run(open_session(model_bytes(model), level=chosen, threads=1), [OUTPUT], images)[0]
    pairs = {name: (got[name], want[name]) for name in want if name in got}
    pairs[graph.output.name] = (plain.astype(np.float32), want[graph.output.name])
    found = (first_difference(name, *pair) for name, pair in pairs.items())
    compared = sum(pair[0].size for pair in pairs.values())
    return Comparison(tuple(pairs), compared, tuple(x for x in found if x is not None))


def first_difference(name: str, got: Traced, want: Traced) -> Difference | None:
    """The first place in row-major order where two arrays differ, None where they are equal."""
    if got.shape != want.shape:
        return Difference(name, (), float(got.size), float(want.size), max(got.size, want.size))
    places = np.argwhere(got != want)
    if not len(places):
        return None
    index = tuple(int(i) for i in places[0])
    return Difference(name, index, float(got[index]), float(want[index]), len(places))
