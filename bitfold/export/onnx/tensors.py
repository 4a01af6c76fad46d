"""Any ONNX model under ONNX Runtime, with any of its tensors: to compare two files name by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from bitfold.errors import InputError, UnsupportedError, UsageError
from bitfold.export.onnx.check import Level, open_session
from bitfold.export.onnx.file import decode_tensor, parse, read_bytes

Values = NDArray[np.generic]

# What numpy has a type for.
PLAIN_TYPES = {
    f"tensor({name})"
    for name in (
        "float", "double", "float16", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16",
        "uint32", "uint64",
    )
}  # fmt: skip
DTYPES = {"tensor(float)": np.dtype(np.float32), "tensor(uint8)": np.dtype(np.uint8)}


@dataclass(frozen=True, slots=True)
class RunnableModel:
    """An ONNX file for ONNX Runtime. ``tensors``: what its nodes give, in topological order."""

    path: Path
    model: onnx.ModelProto
    tensors: tuple[str, ...]
    outputs: tuple[str, ...]


def runnable_model(path: Path) -> RunnableModel:
    """The model in ``path``; InputError where it is no ONNX file."""
    data = read_bytes(path)
    try:
        model = parse(data)
    except InputError as error:
        raise error.within(f"file {path}") from error
    tensors = tuple(name for node in model.graph.node for name in node.output if name)
    return RunnableModel(path, model, tensors, tuple(v.name for v in model.graph.output))


def operator_differences(
    first: RunnableModel, second: RunnableModel, names: tuple[str, str]
) -> tuple[str, ...]:
    """How the operators that give a tensor of each model differ: kind, attributes, constants.

    Nothing where one of ``names`` comes from no operator.
    """
    nodes = [_producer(m, name) for m, name in zip((first, second), names, strict=True)]
    a, b = nodes
    if a is None or b is None:
        return ()
    if a.op_type != b.op_type:
        return (f"{a.op_type}, not {b.op_type}",)
    texts = [_attributes(node) for node in (a, b)]
    keys = sorted(texts[0].keys() | texts[1].keys())
    found = [
        f"{texts[0].get(key, f'no {key}')}, not {texts[1].get(key, f'no {key}')}"
        for key in keys
        if texts[0].get(key) != texts[1].get(key)
    ]
    for inputs in zip(a.input, b.input, strict=False):
        mine, other = _constant(first, inputs[0]), _constant(second, inputs[1])
        if mine is not None and other is not None and not np.array_equal(mine, other):
            found.append(f"constant {inputs[0]} differs")
    return tuple(found)


def _attributes(node: onnx.NodeProto) -> dict[str, str]:
    return {x.name: str(onnx.helper.printable_attribute(x)) for x in node.attribute}


def _producer(runnable: RunnableModel, name: str) -> onnx.NodeProto | None:
    return next((node for node in runnable.model.graph.node if name in node.output), None)


def _constant(runnable: RunnableModel, name: str) -> Values | None:
    tensors = runnable.model.graph.initializer
    found = next((tensor for tensor in tensors if tensor.name == name), None)
    return None if found is None else decode_tensor(found)


def run_tensors(
    runnable: RunnableModel, values: Values, names: Sequence[str], *, optimized: bool
) -> dict[str, Values]:
    """The tensors of ``names`` that numpy has a type for, on ``values`` (N, …).

    Raises UnsupportedError where ONNX Runtime does not run the model, UsageError where it takes
    other values.
    """
    exposed = onnx.ModelProto()
    exposed.CopyFrom(runnable.model)
    present = set(runnable.outputs)
    exposed.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    level: Level = "all" if optimized else "off"
    session = open_session(exposed.SerializeToString(), level=level, threads=1)
    plain = {output.name for output in session.get_outputs() if output.type in PLAIN_TYPES}
    wanted = [name for name in names if name in plain]
    feeds = session.get_inputs()
    if len(feeds) != 1:
        raise UnsupportedError(
            f"it has {len(feeds)} inputs", where=f"file {runnable.path}", todo="One is compared."
        )
    fed = _fitted(values, feeds[0].type, feeds[0].shape, runnable.path)
    step = feeds[0].shape[0] if isinstance(feeds[0].shape[0], int) else len(fed)
    parts = []
    for start in range(0, len(fed), max(1, step)):
        try:
            parts.append(session.run(wanted, {feeds[0].name: fed[start : start + step]}))
        # ONNX Runtime's exceptions share no base below Exception.
        except Exception as error:
            raise UnsupportedError(
                f"ONNX Runtime does not run the model: {error}", where=f"file {runnable.path}"
            ) from error
    joined = [_joined(columns) for columns in zip(*parts, strict=True)]
    return dict(zip(wanted, joined, strict=True))


def _joined(parts: tuple[Values, ...]) -> Values:
    """What one tensor was over all runs; a constant has no batch to join along."""
    return parts[0] if len(parts) == 1 or parts[0].ndim == 0 else np.concatenate(parts)


def _fitted(values: Values, kind: str, dims: Sequence[object], path: Path) -> Values:
    """``values`` as the model takes them; NHWC is turned to NCHW where only that fits."""
    orders = [tuple(range(values.ndim))] + ([(0, 3, 1, 2)] if values.ndim == 4 else [])
    for order in orders:
        turned = values.transpose(order)
        pairs = list(zip(turned.shape[1:], list(dims)[1:], strict=False))
        fits = len(dims) == turned.ndim and all(d == n or not isinstance(d, int) for n, d in pairs)
        if fits and DTYPES.get(kind) == values.dtype:
            return np.ascontiguousarray(turned)
    raise UsageError(
        f"it takes {kind} {list(dims)}, the values are {values.dtype} {list(values.shape)}",
        where=f"file {path}",
        todo="Give --data X.npy in the form that both models take.",
    )
