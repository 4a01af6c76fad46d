"""Integer graph → ONNX, profile ``qonnx``: for FINN, hls4ml and the qonnx package (docs/onnx.md).

Codes are float32 numbers, as in all QONNX models; one image a run. Weights are Quant (of scale 1)
or BipolarQuant, thresholds MultiThreshold, or Mul, Add and Quant where float32 is proven to give
the same codes. Every integer tensor carries its data type as an annotation.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from bitfold.export.onnx.build import FLOAT, QONNX, tensor_name
from bitfold.export.onnx.emit import Emitter, Json
from bitfold.export.onnx.single import SingleLine, fit_single
from bitfold.ir.graph import IntGraph
from bitfold.ir.grid import Grid
from bitfold.ir.ops import Conv2d, Linear, Node, Quantize, Rescale, Thresholds
from bitfold.ir.types import CodeTensor, FloatTensor, IntArray, signed_bits

ANNOTATION = "quant_parameter_tensor_names"
DATATYPE = "finn_datatype"


def datatype_of(lo: int, hi: int) -> str:
    """QONNX's name of the least integer type that holds lo … hi."""
    return f"INT{signed_bits(lo, hi)}" if lo < 0 else f"UINT{max(1, hi.bit_length())}"


def grid_datatype(grid: Grid) -> str:
    """The same for codes; ±1 is a type of its own."""
    return (
        "BIPOLAR" if (grid.lo, grid.hi, grid.step) == (-1, 1, 2) else datatype_of(grid.lo, grid.hi)
    )


def quant_attributes(grid: Grid) -> dict[str, int] | None:
    """``bits``, ``signed`` and ``narrow`` of the Quant that clips to this very grid, if any."""
    if grid.step != 1 or grid.hi == grid.lo:
        return None
    bits = (grid.hi + 1).bit_length() - 1 + (grid.lo < 0)
    for signed, narrow, lo in ((0, 0, 0), (1, 1, -grid.hi), (1, 0, -grid.hi - 1)):
        if lo == grid.lo and grid.hi == 2 ** (bits - signed) - 1:
            return {"bits": bits, "signed": signed, "narrow": narrow}
    return None


def fit_singles(graph: IntGraph) -> dict[str, SingleLine]:
    """The Thresholds that a Quant computes, each with its line."""
    found: dict[str, SingleLine] = {}
    for node in graph.nodes:
        if not isinstance(node, Thresholds) or quant_attributes(node.grid) is None:
            continue
        x = graph.types[node.x]
        assert not isinstance(x, FloatTensor)
        line = fit_single(node.table, node.sign, node.grid, (x.lo, x.hi))
        if line is not None:
            found[node.name] = line
    return found


class QonnxEmitter(Emitter):
    """Writes every node of a graph with QONNX's operators."""

    profile = QONNX

    def __init__(self, graph: IntGraph, lines: Mapping[str, SingleLine]) -> None:
        """``lines``: the Thresholds written as Quant; all others become MultiThreshold."""
        self._lines = lines
        super().__init__(graph, {})
        self._input.meta[ANNOTATION] = {DATATYPE: "UINT8"}
        for node in graph.nodes:
            self._annotate(node)
        wide = [node.name for node in graph.nodes if isinstance(node, Rescale)]
        if wide:
            self.warnings.append(
                f"{len(wide)} rescales of the residual stream (first {wide[0]}) are float64 Mul, "
                "Add and Floor: the qonnx package runs them, FINN and hls4ml have no such hardware"
            )

    def _annotate(self, node: Node) -> None:
        """Name the data type of the node's tensor, as FINN keeps it."""
        kind = self._types[node.name]
        if isinstance(kind, FloatTensor):
            return
        facts: dict[str, Json]
        if isinstance(kind, CodeTensor):
            facts = {"datatype": grid_datatype(kind.grid), "holds": "codes"}
        else:
            facts = {"datatype": datatype_of(kind.lo, kind.hi)}
        self.facts[node.name] = facts
        self._integers(node.name).meta[ANNOTATION] = {DATATYPE: facts["datatype"]}

    def _quant(
        self, value: ir.Value, attributes: Mapping[str, int], *, out: str, key: str
    ) -> ir.Value:
        """Quant of scale 1: round half to even and clip to the attributes' range."""
        assert value.shape is not None
        scale = self._constant(f"{key}.scale", np.float32(1))
        zero = self._constant(f"{key}.zero_point", np.float32(0))
        bits = self._constant(f"{key}.bits", np.float32(attributes["bits"]))
        dims = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)
        return self._op(
            "Quant", [value, scale, zero, bits], out=out, like=(FLOAT, dims),
            signed=attributes["signed"], narrow=attributes["narrow"], rounding_mode="ROUND",
        )  # fmt: skip

    def _quantize(self, node: Quantize) -> None:
        like = (FLOAT, self._shape(node.name))
        if node.grid.lo == 0:
            out = tensor_name(node.name)
            self._op("Transpose", [self._input], out=out, like=like, perm=(0, 3, 1, 2))
            return
        out = f"{node.name}/pixels"
        pixels = self._op("Transpose", [self._input], out=out, like=like, perm=(0, 3, 1, 2))
        low = self._constant(f"{node.name}.lo", np.float32(node.grid.lo))
        self._op("Add", [pixels, low], out=tensor_name(node.name), like=like)

    # sums of products

    def _weight_codes(
        self, node: Conv2d | Linear, weight: IntArray, dtype: ir.DataType
    ) -> ir.Value:
        name, grid = node.name, node.weight_grid
        stored = self._constant(f"{name}.weight", weight.astype(np.float32))
        like, out = (FLOAT, weight.shape), f"{name}.weight/codes"
        to = out if dtype == FLOAT else f"{out}/single"
        if grid_datatype(grid) == "BIPOLAR":
            scale = self._constant(f"{name}.weight.scale", np.float32(1))
            value = self._op("BipolarQuant", [stored, scale], out=to, like=like)
        else:
            bits = max(2, signed_bits(grid.lo, grid.hi))
            narrow = int(grid.lo > -(2 ** (bits - 1)))
            attributes = {"bits": bits, "signed": 1, "narrow": narrow}
            value = self._quant(stored, attributes, out=to, key=f"{name}.weight")
        return self._cast(value, dtype, out=out)

    def _conv(self, node: Conv2d) -> None:
        dtype = self._accumulator_type(node)
        weight = self._weight_codes(node, node.weight.transpose(0, 3, 1, 2), dtype)
        out = f"{node.name}/products" if node.bias.any() else tensor_name(node.name)
        self._biased(node, self._windows(node, [self._codes(node.x), weight], dtype, out=out))

    def _linear(self, node: Linear) -> None:
        dtype, like_name = self._accumulator_type(node), node.name
        weight = self._weight_codes(node, node.weight.transpose(), dtype)
        x = self._cast(self._codes(node.x), dtype, out=f"{node.name}/double")
        out = f"{node.name}/products" if node.bias.any() else tensor_name(node.name)
        self._biased(
            node, self._op("MatMul", [x, weight], out=out, like=(dtype, self._shape(like_name)))
        )

    def _biased(self, node: Conv2d | Linear, products: ir.Value) -> None:
        """An Add of its own: FINN moves it into the thresholds."""
        if not node.bias.any():
            return
        assert products.dtype is not None
        bias = self._per_channel(node.bias, node.name).astype(products.dtype.numpy())
        term = self._constant(f"{node.name}.bias", bias)
        like = (products.dtype, self._shape(node.name))
        self._op("Add", [products, term], out=tensor_name(node.name), like=like)

    # codes

    def _thresholds(self, node: Thresholds) -> None:
        line, attributes = self._lines.get(node.name), quant_attributes(node.grid)
        x = self._codes(node.x)
        if line is not None and attributes is not None and x.dtype == FLOAT:
            self._quantized(node, x, line, attributes)
            return
        dtype = x.dtype
        assert dtype is not None
        name, like = node.name, (dtype, self._shape(node.name))
        if (node.sign < 0).any():
            turn = self._per_channel(node.sign, node.x).astype(dtype.numpy())
            sign = self._constant(f"{name}.sign", turn)
            x = self._op("Mul", [x, sign], out=f"{name}/oriented", like=like)
        table = self._constant(f"{name}.thresholds", node.table.astype(dtype.numpy()))
        out = tensor_name(name) if dtype == FLOAT else f"{name}/wide"
        value = self._op(
            "MultiThreshold", [x, table], out=out, like=like, out_dtype=grid_datatype(node.grid),
            out_scale=float(node.grid.step), out_bias=float(node.grid.lo),
        )  # fmt: skip
        self._cast(value, FLOAT, out=tensor_name(name))

    def _quantized(
        self, node: Thresholds, x: ir.Value, line: SingleLine, attributes: Mapping[str, int]
    ) -> None:
        """Mul, Add, Quant; a Relu before an unsigned one, where FINN looks for it."""
        name, like = node.name, (FLOAT, self._shape(node.name))
        gain = self._constant(f"{name}.gain", self._per_channel(line.gain, node.x))
        offset = self._constant(f"{name}.offset", self._per_channel(line.offset, node.x))
        value = self._op("Mul", [x, gain], out=f"{name}/scaled", like=like)
        value = self._op("Add", [value, offset], out=f"{name}/shifted", like=like)
        if not attributes["signed"]:
            value = self._op("Relu", [value], out=f"{name}/relu", like=like)
        self._quant(value, attributes, out=tensor_name(name), key=name)

    def _codes(self, name: str) -> ir.Value:
        return self._integers(name)
