"""How the nodes of a file of profile ``integer`` are read (docs/onnx.md)."""

import numpy as np

from bitfold.export.onnx.build import tensor_name
from bitfold.export.onnx.compare import Clip
from bitfold.export.onnx.digits import value_of
from bitfold.export.onnx.emit import half_of
from bitfold.export.onnx.file import Facts, OnnxFile, damaged
from bitfold.export.onnx.integer import reads_as
from bitfold.export.onnx.reading import (
    Readers,
    Reading,
    channels_of,
    four_of,
    grid_of,
    one_of,
    pair_of,
)
from bitfold.export.onnx.single import oriented_ends
from bitfold.ir import (
    CodeTensor,
    Conv2d,
    FloatTensor,
    IntArray,
    Linear,
    MaxPool2d,
    Rescale,
    SumPool2d,
    Thresholds,
)

MAX_SHIFT = 62
MAX_BASE = 16
MOST_PARTS = 2**16


def _numbered(file: OnnxFile, prefix: str) -> list[IntArray]:
    """The initializers ``prefix``0, ``prefix``1, … as int64."""
    found: list[IntArray] = []
    while f"{prefix}{len(found)}" in file.constants and len(found) < MOST_PARTS:
        found.append(file.integers(f"{prefix}{len(found)}"))
    return found


def _weight(file: OnnxFile, name: str, *, axis: int, rank: int) -> IntArray:
    """Weights of all parts side by side, without their zero point."""
    parts = _numbered(file, f"{name}.weight") or [file.integers(f"{name}.weight")]
    if any(part.ndim != rank or part.shape[:axis] != parts[0].shape[:axis] for part in parts):
        raise damaged(f"weights of shapes {[part.shape for part in parts]}", where=f"node {name}")
    keys = (f"{name}.weight.zero_point", f"{name}.weight0.zero_point")
    zeros = [file.integers(key) for key in keys if key in file.constants]
    if any(zero.size != 1 for zero in zeros):
        raise damaged("one weight zero point is expected", where=f"node {name}")
    try:
        joined = np.concatenate(parts, axis=axis)
    except ValueError as error:
        raise damaged("its parts do not fit each other", where=f"node {name}") from error
    return joined - (int(zeros[0].ravel()[0]) if zeros else 0)


def _bias(reading: Reading, name: str, x: str, weight: IntArray) -> IntArray:
    """The bias of codes from what is added to the sum of indices."""
    kind = reading.types[x]
    stored = channels_of(reading.file.integers(f"{name}.bias"), name)
    if not isinstance(kind, CodeTensor) or len(stored) != len(weight):
        raise damaged(f"{len(stored)} biases, reading {x}", where=f"node {name}")
    _, _, base = reads_as(kind)
    return np.asarray(stored - base * weight.reshape(len(weight), -1).sum(1), dtype=np.int64)


def _conv(reading: Reading, name: str, facts: Facts) -> Conv2d:
    file, where, x = reading.file, f"node {name}", reading.source(name)
    weight = _weight(file, name, axis=1, rank=4).transpose(0, 2, 3, 1)
    node = f"{name}/products"
    node = node if node in file.nodes else f"{node}0"
    return Conv2d(
        name,
        x,
        weight,
        grid_of(facts, "weight_grid"),
        facts.numbers("weight_scales"),
        _bias(reading, name, x, weight),
        pair_of(file.attribute(node, "strides"), where),
        _pads(file, name, node),
        one_of(file.attribute(node, "group"), where),
    )


def _pads(file: OnnxFile, name: str, node: str) -> tuple[int, int, int, int]:
    """Padding of a convolution: an attribute, or the constant of a Pad in front of it."""
    if f"{name}.pads" not in file.constants:
        return four_of(file.attribute(node, "pads"), f"node {name}")
    ends = file.integers(f"{name}.pads").ravel().tolist()
    if len(ends) != 8:
        raise damaged(f"pads {ends}", where=f"node {name}")
    return ends[2], ends[3], ends[6], ends[7]


def _linear(reading: Reading, name: str, facts: Facts) -> Linear:
    x = reading.source(name)
    weight = _weight(reading.file, name, axis=0, rank=2).transpose()
    return Linear(
        name,
        x,
        weight,
        grid_of(facts, "weight_grid"),
        facts.numbers("weight_scales"),
        _bias(reading, name, x, weight),
    )


def _clip(file: OnnxFile, name: str) -> Clip | None:
    """The end that the node's input is clipped to, if it is."""
    for key in ("most", "least"):
        if f"{name}.{key}" in file.constants:
            end = file.integers(f"{name}.{key}").ravel()
            if len(end) != 1:
                raise damaged("it is clipped to one number", where=f"node {name}")
            return Clip(int(end[0]), is_upper=key == "most")
    return None


def _thresholds(reading: Reading, name: str, facts: Facts) -> Thresholds:
    file, x, grid = reading.file, reading.source(name), grid_of(facts, "grid")
    kind = reading.types[x]
    if isinstance(kind, FloatTensor):
        raise damaged(f"it reads {x}, which is float", where=f"node {name}")
    channels, stored = kind.shape[-1], file.integers(f"{name}.thresholds")
    if not stored.size or stored.size % channels:
        raise damaged(f"{stored.size} thresholds for {channels} channels", where=f"node {name}")
    table = stored.reshape(channels, -1)[:, : grid.levels - 1]
    sign = np.ones(channels, dtype=np.int64)
    if f"{name}.sign" in file.constants:
        sign = channels_of(file.integers(f"{name}.sign"), name).astype(np.int64)
    if len(sign) != channels:
        raise damaged(f"{len(sign)} signs for {channels} channels", where=f"node {name}")
    clip = _clip(file, name)
    if clip is not None:
        table = clip.restored(table, oriented_ends(sign, (kind.lo, kind.hi)))
    return Thresholds(name, x, table, sign, grid, facts.number("scale"))


def _from_digits(reading: Reading, prefix: str, key: str, bits: int, count: int) -> IntArray:
    parts = _numbered(reading.file, f"{prefix}.{key}")
    digits = [channels_of(part, prefix).astype(np.int64) for part in parts]
    if not digits or {len(digit) for digit in digits} != {count} or bits * (len(digits) - 1) > 62:
        raise damaged(f"the digits of its {key} do not fit", where=f"node {prefix}")
    return value_of(digits, bits=bits)


def _rescale(reading: Reading, name: str, facts: Facts) -> Rescale:
    x = reading.source(name)
    count = reading.types[x].shape[-1]
    shift = facts.integer("shift", most=MAX_SHIFT)
    bits = facts.integer("digit_bits", most=MAX_BASE)
    negative: IntArray | None = None
    if f"{name}/negative.multiplier0" in reading.file.constants:
        base = facts.integer("negative_digit_bits", most=MAX_BASE)
        negative = _from_digits(reading, f"{name}/negative", "multiplier", base, count)
    elif f"{name}.zero" in reading.file.constants:
        negative = np.zeros(count, dtype=np.int64)
    return Rescale(
        name,
        x,
        _from_digits(reading, name, "multiplier", bits, count),
        _from_digits(reading, name, "offset", bits, count) - half_of(shift),
        shift,
        facts.number("scale"),
        negative,
        facts.integer("negative_shift", most=MAX_SHIFT),
    )


def _max_pool(reading: Reading, name: str, facts: Facts) -> MaxPool2d:
    return MaxPool2d(
        name,
        reading.source(name),
        pair_of(facts.integers("kernel", count=2), facts.where),
        pair_of(facts.integers("stride", count=2), facts.where),
        four_of(facts.integers("padding", count=4), facts.where),
    )


def _sum_pool(reading: Reading, name: str, facts: Facts) -> SumPool2d:
    kernel, stride = (pair_of(facts.integers(k, count=2), name) for k in ("kernel", "stride"))
    return SumPool2d(name, reading.source(name, tensor=tensor_name(name)), kernel, stride)


INTEGER_READERS: Readers = {
    "Conv2d": _conv,
    "Linear": _linear,
    "Thresholds": _thresholds,
    "Rescale": _rescale,
    "MaxPool2d": _max_pool,
    "SumPool2d": _sum_pool,
}
