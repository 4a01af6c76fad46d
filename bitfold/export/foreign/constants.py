"""Operations on constants alone, evaluated while reading: small, bounded, numpy."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from bitfold.export.foreign.reading import Operand, Reading
from bitfold.export.foreign.source import MAX_ELEMENTS, Op
from bitfold.export.foreign.values import Codes
from bitfold.export.onnx.file import Array

HOW = "a constant"
DTYPES: Mapping[int, type[np.generic]] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64,
}  # fmt: skip
ELEMENTWISE: Mapping[str, Callable[..., Array]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Pow": np.power, "Sqrt": np.sqrt,
    "Neg": np.negative, "Floor": np.floor, "Ceil": np.ceil, "Exp": np.exp, "Abs": np.abs,
    "Reciprocal": np.reciprocal, "Relu": lambda x: np.maximum(x, 0),
}  # fmt: skip


def constant(reading: Reading, op: Op) -> tuple[Operand, str]:
    """A Constant node."""
    for key in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if key in op.attributes:
            value = op.attributes[key]
            kind = np.float32 if "float" in key else np.int64
            return value if isinstance(value, np.ndarray) else np.array(value, kind), HOW
    raise op.refused("a constant without numbers", "Use a tensor, floats or integers.")


def constant_of_shape(reading: Reading, op: Op) -> tuple[Operand, str]:
    """ConstantOfShape of at most 2^16 elements."""
    shape = [int(v) for v in reading.constant(op, 0).ravel()[:8]]
    if min(shape, default=1) < 0 or np.prod([float(s) for s in shape]) > 2**16:
        raise op.refused(f"a constant of shape {shape}", "Store it as an initializer.")
    value = op.attributes.get("value")
    fill = value.reshape(-1)[0] if isinstance(value, np.ndarray) else np.float32(0)
    return np.full(shape, fill), HOW


def elementwise(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Arithmetic on constants, in their own types."""
    arrays = [reading.constant(op, i) for i in range(len(op.inputs))]
    _check(op, np.broadcast_shapes(*(a.shape for a in arrays)))
    with np.errstate(all="ignore"):
        if op.kind == "Div":
            divide = np.divide if arrays[0].dtype.kind == "f" else np.floor_divide
            made = np.asarray(divide(*arrays))
        else:
            made = ELEMENTWISE[op.kind](*arrays)
    made = np.asarray(made).astype(arrays[0].dtype)
    if made.dtype.kind == "f" and not np.isfinite(made).all():
        raise op.refused("a constant that is not finite", "Check its operands.")
    return made, HOW


def _check(op: Op, shape: tuple[int, ...]) -> None:
    if np.prod([float(s) for s in shape]) > MAX_ELEMENTS:
        raise op.refused(f"a constant of shape {list(shape)}", f"At most {MAX_ELEMENTS} elements.")


def cast(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Cast to one of the usual types."""
    kind = DTYPES.get(op.integer("to", 1))
    if kind is None:
        raise op.refused(f"a cast to type {op.integer('to', 1)}", "Cast to float32 or int8.")
    return reading.constant(op, 0).astype(kind), HOW


def _shape(x: Operand) -> tuple[int, ...]:
    assert isinstance(x, np.ndarray | Codes)
    return x.codes.shape if isinstance(x, Codes) else x.shape


def _moved(op: Op, x: Operand, move: Callable[[Array], Array]) -> Operand:
    """An array, or stored codes with the axis of their scales, moved alike."""
    if not isinstance(x, Codes):
        assert isinstance(x, np.ndarray)
        return move(x)
    if x.axis is None:
        return replace(x, codes=move(x.codes).astype(np.int64))
    marks = np.zeros([size if i == x.axis else 1 for i, size in enumerate(x.codes.shape)], np.int64)
    channels = np.broadcast_to(np.arange(marks.size).reshape(marks.shape), x.codes.shape)
    moved, codes = move(np.array(channels)), move(x.codes)
    counting = np.arange(len(x.scales))
    for axis in range(codes.ndim):
        first = moved[tuple(slice(None) if i == axis else slice(0, 1) for i in range(codes.ndim))]
        if (moved == first).all() and np.array_equal(first.ravel(), counting):
            return replace(x, codes=codes.astype(np.int64), axis=axis)
    raise op.refused("it mixes channels that have scales of their own", "Fold constants first.")


def transpose(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Transpose."""
    x = reading.operand(op, 0)
    rank = len(_shape(x))
    order = op.integers("perm", tuple(reversed(range(rank))))
    if sorted(order) != list(range(rank)):
        raise op.refused(f"a transpose by {list(order)}", "Export the model again.")
    return _moved(op, x, lambda a: a.transpose(order)), HOW


def reshape(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Reshape, Flatten."""
    x = reading.operand(op, 0)
    shape = _shape(x)
    if op.kind == "Flatten":
        axis = op.integer("axis", 1)
        wanted = [int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))]
    else:
        given = reading.constant(op, 1) if op.has(1) else np.array(op.integers("shape", ()))
        wanted = [int(v) for v in given.ravel()[:16]]
        wanted = [shape[i] if v == 0 and i < len(shape) else v for i, v in enumerate(wanted)]
    try:
        return _moved(op, x, lambda a: a.reshape(wanted)), HOW
    except ValueError as error:
        raise op.refused(f"it turns {list(shape)} into {wanted}", "Export it again.") from error


def squeeze(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Squeeze and Unsqueeze."""
    x = reading.operand(op, 0)
    given = reading.optional(op, 1)
    axes = op.integers("axes", ()) if given is None else tuple(int(v) for v in given.ravel()[:16])
    try:
        if op.kind == "Unsqueeze":
            return _moved(op, x, lambda a: np.expand_dims(a, axes)), HOW
        return _moved(op, x, lambda a: np.squeeze(a, axes or None)), HOW
    except ValueError as error:
        raise op.refused(f"axes {list(axes)} do not fit", "Export it again.") from error


def concat(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Concat."""
    arrays = [reading.constant(op, i) for i in range(len(op.inputs))]
    try:
        return np.concatenate(arrays, axis=op.integer("axis", 0)), HOW
    except ValueError as error:
        raise op.refused("parts that do not fit", "Export it again.") from error


def gather(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Gather, of shapes as a rule."""
    x, indices = reading.constant(op, 0), reading.constant(op, 1).astype(np.int64)
    try:
        return np.take(x, indices, axis=op.integer("axis", 0)), HOW
    except (ValueError, IndexError) as error:
        raise op.refused("indices outside its input", "Export it again.") from error


def slice_of(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Slice along one axis or several."""
    x = reading.constant(op, 0)
    starts, ends = (reading.constant(op, i).ravel().tolist() for i in (1, 2))
    axes = reading.optional(op, 3)
    steps = reading.optional(op, 4)
    chosen = range(len(starts)) if axes is None else [int(a) for a in axes.ravel()]
    strides = [1] * len(starts) if steps is None else [int(s) for s in steps.ravel()]
    cuts = [slice(None)] * x.ndim
    for axis, start, end, stride in zip(chosen, starts, ends, strides, strict=False):
        if not -x.ndim <= axis < x.ndim or not stride:
            raise op.refused(f"a slice along axis {axis}", "Export it again.")
        cuts[axis] = slice(int(start), None if end < -(2**31) else int(end), stride)
    return x[tuple(cuts)], HOW


def clip(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Clip between constants."""
    x, least, most = reading.constant(op, 0), reading.optional(op, 1), reading.optional(op, 2)
    if least is not None:
        x = np.maximum(x, least.reshape(-1)[:1].astype(x.dtype))
    if most is not None:
        x = np.minimum(x, most.reshape(-1)[:1].astype(x.dtype))
    return x, HOW


def identity(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Identity."""
    return reading.operand(op, 0), HOW


FOLDED: Mapping[str, Callable[[Reading, Op], tuple[Operand, str]]] = {
    **dict.fromkeys((*ELEMENTWISE, "Div"), elementwise),
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Cast": cast,
    "Clip": clip,
    "Transpose": transpose,
    "Reshape": reshape,
    "Flatten": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": squeeze,
    "Concat": concat,
    "Gather": gather,
    "Slice": slice_of,
    "Identity": identity,
    "Dropout": identity,
}
