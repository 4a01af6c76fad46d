"""What moves values without computing: views, pads, joins; shapes are constants."""

from dataclasses import replace

import numpy as np

from bitfold.export.foreign.reading import Operand, Reading
from bitfold.export.foreign.settling import unpadded
from bitfold.export.foreign.source import Op
from bitfold.export.foreign.values import NO_PADS, Coding, Value
from bitfold.export.onnx.file import Array

SOFTMAX_HOW = "left out: the result is the logits in front of it, top-1 is the same"


def same(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Identity, and Dropout as it is in inference."""
    return reading.operand(op, 0), "the same tensor"


def softmax(reading: Reading, op: Op) -> tuple[Operand, str]:
    """The last Softmax of a classifier is left out."""
    x = reading.value(op, 0)
    if len(x.dims) != 1 and max(x.sizes["H"], x.sizes["W"]) > 1:
        raise op.refused("a Softmax inside the network", "Only the last one can be left out.")
    return replace(x, left_out=True), SOFTMAX_HOW


def _found(reading: Reading, op: Op) -> Value:
    """The value that a view looks at, also behind the final Softmax."""
    found = reading.operand(op, 0)
    assert isinstance(found, Value)
    return found


def _unpadded_if(reading: Reading, op: Op, x: Value) -> Value:
    return x if x.pads == NO_PADS else unpadded(reading, op, x, name=op.inputs[0])


def _viewed(reading: Reading, op: Op, x: Value, dims: list[int]) -> tuple[Operand, str]:
    made = x.reshaped(dims)
    if made is None:
        raise op.refused(
            f"it turns {['N', *x.dims]} into {['N', *dims]}, which takes dimensions apart",
            "Only reshapes that merge dimensions, or add and drop those of size 1, are read.",
        )
    return made, "a view"


def reshape(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Reshape to a constant shape; the batch stays."""
    x = _found(reading, op)
    if "shape" in op.attributes:
        wanted = list(op.integers("shape", ()))
    else:
        wanted = [int(v) for v in reading.constant(op, 1).ravel()[:16]]
    whole = [reading.source.batch, *x.dims]
    if not op.integer("allowzero", 0):
        wanted = [
            whole[i] if size == 0 and i < len(whole) else size for i, size in enumerate(wanted)
        ]
    total = int(np.prod([float(v) for v in x.dims]))
    if wanted and wanted[0] in (-1, reading.source.batch):
        rest = wanted[1:]
        known = 1
        for size in rest:
            known *= size if size > 0 else 1
        if rest.count(-1) == 1 and known and total % known == 0:
            rest[rest.index(-1)] = total // known
        if min(rest, default=1) > 0:
            return _viewed(reading, op, x, rest)
    raise op.refused(f"it turns {['N', *x.dims]} into {wanted}", "Keep the batch in front.")


def flatten(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Flatten behind the batch."""
    x = _found(reading, op)
    if op.integer("axis", 1) not in (1, -len(x.dims)):
        raise op.refused("it flattens the batch too", "Use axis 1.")
    return _viewed(reading, op, x, [int(np.prod(x.dims))])


def transpose(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Transpose behind the batch."""
    x = _found(reading, op)
    order = op.integers("perm", tuple(reversed(range(len(x.dims) + 1))))
    if sorted(order) != list(range(len(x.dims) + 1)) or order[0] != 0:
        raise op.refused(f"a transpose by {list(order)}", "Keep the batch in front.")
    return replace(x, view=tuple(x.view[i - 1] for i in order[1:])), "a view"


def _axes(reading: Reading, op: Op, rank: int) -> list[int]:
    given = reading.optional(op, 1)
    axes = op.integers("axes", ()) if given is None else tuple(int(v) for v in given.ravel()[:16])
    return [a + rank if a < 0 else a for a in axes]


def squeeze(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Squeeze dimensions of size 1."""
    x = _found(reading, op)
    dims = list(x.dims)
    axes = _axes(reading, op, len(dims) + 1) or [i + 1 for i, d in enumerate(dims) if d == 1]
    if any(not 1 <= a <= len(dims) or dims[a - 1] != 1 for a in axes):
        raise op.refused(f"it squeezes {axes} of {['N', *dims]}", "Keep the batch in front.")
    return _viewed(reading, op, x, [d for i, d in enumerate(dims) if i + 1 not in axes])


def unsqueeze(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Dimensions of size 1 behind the batch."""
    x = _found(reading, op)
    axes = _axes(reading, op, len(x.dims) + 2)
    if len(axes) != 1 or not 1 <= axes[0] <= len(x.dims) + 1:
        raise op.refused(f"it adds dimensions {axes}", "Keep the batch in front.")
    dims = list(x.dims)
    dims.insert(axes[0] - 1, 1)
    return _viewed(reading, op, x, dims)


def shape_of(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Shape: a constant; an open batch counts as 1."""
    x = reading.operand(op, 0)
    dims = (reading.source.batch, *x.dims) if isinstance(x, Value) else np.shape(_plain(op, x))
    start, end = op.integer("start", 0), op.integer("end", len(dims))
    return np.array(dims[start:end], np.int64), "a constant"


def _plain(op: Op, x: Operand) -> Array:
    if not isinstance(x, np.ndarray):
        raise op.refused("the shape of stored codes", "Fold constants first (onnxsim).")
    return x


def pad(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Zeros around an image, taken into the padding of the window that follows."""
    x = reading.value(op, 0)
    given = reading.optional(op, 1)
    pads = op.integers("pads", ()) if given is None else tuple(int(v) for v in given.ravel()[:16])
    if not any(pads):
        return x, "nothing to do"
    if op.text("mode", "constant") != "constant" or op.has(3):
        raise op.refused("a pad with other values than a constant", "Pad with zeros.")
    filled = reading.optional(op, 2)
    fill = op.number("value", 0.0) if filled is None else float(filled.reshape(-1)[0])
    zero = x.coding.zero_point if x.integers and x.coding is not None else 0
    if len(pads) != 8 or min(pads) < 0 or fill != zero or x.is_raw:
        raise op.refused(
            f"pads {list(pads)} with {fill}", "Pad quantized images with zeros, in four dimensions."
        )
    ends = {group: (pads[1 + i], pads[5 + i]) for i, group in enumerate(x.view)}
    if pads[0] or pads[4] or any(ends.get(("C",), (1, 1))) or len(ends) != 3:
        raise op.refused("it pads the batch or the channels", "Pad height and width alone.")
    (top, bottom), (left, right) = ends[("H",)], ends[("W",)]
    added = (top, left, bottom, right)
    if x.clip[0] is not None and x.clip[0] > 0:
        raise op.refused("a pad behind a clip above 0", "Remove the clip.")
    made = replace(x, pads=tuple(a + b for a, b in zip(x.pads, added, strict=True)))  # type: ignore[arg-type]
    reading.check_size(op, *made.dims)
    return made, "padding of the window behind it"


def concat(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Concat of channels; what quantizes the result quantizes its parts."""
    parts = [reading.value(op, i) for i in range(len(op.inputs))]
    if any(part.is_raw for part in parts):
        raise op.refused("it joins the input", "Quantize the input first.")
    first = parts[0]
    axis = op.integer("axis", 1)
    axis += len(first.dims) + 1 if axis < 0 else 0
    if not 1 <= axis <= len(first.dims) or first.view[axis - 1] != ("C",):
        raise op.refused(f"it joins along axis {axis}", "Only channels are joined.")
    if any(p.shape[:2] != first.shape[:2] or p.view != first.view for p in parts):
        raise op.refused("its inputs differ in more than their channels", "Export it again.")
    if any(p.integers != first.integers or p.pads != NO_PADS for p in parts):
        raise op.refused("it joins integers with real values", "Quantize all inputs alike.")
    codings: set[Coding | None] = {part.coding for part in parts}
    if first.integers and len(codings) != 1:
        raise op.refused("it joins integers of different scales", "Dequantize them first.")
    channels = sum(part.channels for part in parts)
    shape = (first.shape[0], first.shape[1], channels)
    reading.check_size(op, *shape)
    coding = codings.pop() if len(codings) == 1 else None
    made = Value("", shape, first.view, first.is_vector, coding, first.integers,
                 parts=tuple(parts), tensor=op.outputs[0])  # fmt: skip
    return made, "Concat of codes on one grid"
