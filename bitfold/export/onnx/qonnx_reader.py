"""How the nodes of a file of profile ``qonnx`` are read (docs/onnx.md)."""

import numpy as np

from bitfold.export.onnx.build import tensor_name
from bitfold.export.onnx.file import Facts, OnnxFile, damaged
from bitfold.export.onnx.reading import (
    Readers,
    Reading,
    channels_of,
    four_of,
    grid_of,
    one_of,
    pair_of,
)
from bitfold.export.onnx.single import SingleLine, single_table
from bitfold.ir import Conv2d, FloatTensor, IntArray, Linear, Thresholds


def _bias(file: OnnxFile, name: str, count: int) -> IntArray:
    if f"{name}.bias" not in file.constants:
        return np.zeros(count, dtype=np.int64)
    bias = channels_of(file.integers(f"{name}.bias"), name)
    if len(bias) != count:
        raise damaged(f"{len(bias)} biases for {count} channels", where=f"node {name}")
    return np.asarray(bias, dtype=np.int64)


def _weight(file: OnnxFile, name: str, rank: int) -> IntArray:
    weight = file.integers(f"{name}.weight")
    if weight.ndim != rank:
        raise damaged(f"weight of shape {weight.shape}", where=f"node {name}")
    return weight


def _conv(reading: Reading, name: str, facts: Facts) -> Conv2d:
    file, where = reading.file, f"node {name}"
    weight = _weight(file, name, 4).transpose(0, 2, 3, 1)
    products = f"{name}/products"
    node = products if products in file.nodes else tensor_name(name)
    return Conv2d(
        name,
        reading.source(name),
        weight,
        grid_of(facts, "weight_grid"),
        facts.numbers("weight_scales"),
        _bias(file, name, len(weight)),
        pair_of(file.attribute(node, "strides"), where),
        four_of(file.attribute(node, "pads"), where),
        one_of(file.attribute(node, "group"), where),
    )


def _linear(reading: Reading, name: str, facts: Facts) -> Linear:
    weight = _weight(reading.file, name, 2).transpose()
    return Linear(
        name,
        reading.source(name),
        weight,
        grid_of(facts, "weight_grid"),
        facts.numbers("weight_scales"),
        _bias(reading.file, name, len(weight)),
    )


def _thresholds(reading: Reading, name: str, facts: Facts) -> Thresholds:
    file, x, grid = reading.file, reading.source(name), grid_of(facts, "grid")
    kind = reading.types[x]
    if isinstance(kind, FloatTensor):
        raise damaged(f"it reads {x}, which is float", where=f"node {name}")
    channels = kind.shape[-1]
    if f"{name}.gain" in file.constants:
        gain, offset = (
            channels_of(file.constant(f"{name}.{key}"), name) for key in ("gain", "offset")
        )
        if not len(gain) == len(offset) == channels or gain.dtype != np.float32:
            raise damaged(f"{len(gain)} gains, {len(offset)} offsets", where=f"node {name}")
        line = SingleLine(gain.astype(np.float32), offset.astype(np.float32))
        reading.singles[name] = line
        table, sign = single_table(line, grid, (kind.lo, kind.hi)), line.sign
    else:
        table, sign = file.integers(f"{name}.thresholds"), np.ones(channels, dtype=np.int64)
        if f"{name}.sign" in file.constants:
            sign = channels_of(file.integers(f"{name}.sign"), name).astype(np.int64)
    return Thresholds(name, x, table, sign, grid, facts.number("scale"))


QONNX_READERS: Readers = {"Conv2d": _conv, "Linear": _linear, "Thresholds": _thresholds}
