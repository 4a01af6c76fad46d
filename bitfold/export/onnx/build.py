"""Collects ONNX nodes and constants under the names of the integer graph (docs/onnx.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bitfold.errors import UnsupportedError
from bitfold.ir import CodeTensor, FloatTensor, IntGraph, TensorType

FLOAT, DOUBLE, UINT8 = ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.UINT8
OPSET, IR_VERSION = 21, 10
QONNX_DOMAIN = "qonnx.custom_op.general"
DOMAIN_OF = dict.fromkeys(("Quant", "BipolarQuant", "MultiThreshold"), QONNX_DOMAIN)
EXACT_FLOAT, EXACT_DOUBLE = 2**24, 2**53
INPUT, OUTPUT = "image", "logits"
INT4: np.dtype[np.generic] = np.dtype(ml_dtypes.int4)

Attribute = int | float | str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """A form of the ONNX file: its name, versions and operator sets, and what it takes."""

    name: str
    opset: int = OPSET
    ir_version: int = IR_VERSION
    domains: tuple[str, ...] = ()
    input_type: ir.DataType = UINT8
    batch: int | str = "N"

    @property
    def opsets(self) -> dict[str, int]:
        """Version of every operator set that the file imports."""
        return {"": self.opset} | dict.fromkeys(self.domains, 1)


QCDQ = Profile("qcdq")
INTEGER = Profile("integer")
LOWBIT = Profile("lowbit", opset=25, ir_version=13)
QONNX = Profile("qonnx", domains=(QONNX_DOMAIN,), input_type=FLOAT, batch=1)
PROFILES: Mapping[str, Profile] = {p.name: p for p in (QCDQ, LOWBIT, INTEGER, QONNX)}


def tensor_name(name: str) -> str:
    """ONNX tensor that holds node ``name``'s integers; the two reserved names step aside."""
    return f"{name}/integers" if name in (INPUT, OUTPUT) else name


class Builder:
    """The nodes and initializers of one model; names are checked to be unique."""

    profile = QCDQ

    def __init__(self, graph: IntGraph) -> None:
        """An empty model that takes ``graph``'s images."""
        self._types: Mapping[str, TensorType] = graph.types
        self._values: dict[str, ir.Value] = {}
        self._initializers: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        shape = (self.profile.batch, *graph.input.shape)
        self._input = self._value(INPUT, self.profile.input_type, shape)

    def model(self, metadata: Mapping[str, str]) -> ir.Model:
        """The finished model."""
        graph = ir.Graph(
            [self._input],
            [self._values[OUTPUT]],
            nodes=self._nodes,
            initializers=self._initializers,
            opset_imports=self.profile.opsets,
            name="bitfold",
        )
        return ir.Model(
            graph,
            ir_version=self.profile.ir_version,
            producer_name="bitfold",
            metadata_props=dict(metadata),
        )

    def _value(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        if not name or name in self._values:
            raise UnsupportedError(
                f"two ONNX tensors would be called {name!r}",
                where=f"tensor {name}",
                todo="Rename the node: a name must not extend another's by /codes, .weight, ….",
            )
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self._values[name] = value
        return value

    def _constant(self, name: str, values: NDArray[np.generic] | np.generic) -> ir.Value:
        array = np.asarray(values, order="C")
        tensor = ir.Tensor(array, name=name)
        value = self._value(name, tensor.dtype, array.shape)
        value.const_value = tensor
        self._initializers.append(value)
        return value

    def _op(
        self,
        op: str,
        inputs: Sequence[ir.Value],
        *,
        out: str,
        like: tuple[ir.DataType, Sequence[int | str]],
        **attributes: Attribute,
    ) -> ir.Value:
        value = self._value(out, *like)
        pairs = {key: list(v) if isinstance(v, tuple) else v for key, v in attributes.items()}
        self._nodes.append(
            ir.node(op, inputs, pairs, domain=DOMAIN_OF.get(op, ""), outputs=[value], name=out)
        )
        return value

    def _shape(self, name: str) -> tuple[int | str, ...]:
        """NCHW (or (N, C)) shape of integer-graph tensor ``name``."""
        shape = self._types[name].shape
        places = (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape
        return (self.profile.batch, *places)

    def _per_channel(self, values: NDArray[np.generic], name: str) -> NDArray[np.generic]:
        """(C,) values shaped to broadcast over tensor ``name``."""
        return values.reshape(-1, 1, 1) if len(self._types[name].shape) == 3 else values.reshape(-1)

    def _integers(self, name: str) -> ir.Value:
        return self._values[tensor_name(name)]

    def _movable(self, name: str) -> ir.Value:
        """The form of tensor ``name`` that slices, joins and maxima act on."""
        return self._integers(name)

    def _codes(self, name: str) -> ir.Value:
        """``name`` as numbers: float32 codes of a code tensor, else the tensor itself."""
        kind = self._types[name]
        if not isinstance(kind, CodeTensor):
            return self._integers(name)
        out = f"{name}/codes"
        if out in self._values:
            return self._values[out]
        lo, step = kind.grid.lo, kind.grid.step
        like = (FLOAT, self._shape(name))
        scale = self._constant(f"{out}.scale", np.float32(step))
        if lo % step == 0 and 0 <= -lo // step <= 255:
            index = self._integers(name)
            assert index.dtype is not None
            zero_point = np.array(-lo // step, dtype=index.dtype.numpy())
            zero = self._constant(f"{out}.zero_point", zero_point)
            inputs = [index, scale, zero]
            return self._op("DequantizeLinear", inputs, out=out, like=like)
        inputs = [self._integers(name), scale]
        steps = self._op("DequantizeLinear", inputs, out=f"{name}/steps", like=like)
        shift = self._constant(f"{out}.lo", np.float32(lo))
        return self._op("Add", [steps, shift], out=out, like=like)

    def _cast(self, value: ir.Value, dtype: ir.DataType, *, out: str) -> ir.Value:
        if value.dtype == dtype:
            return value
        assert value.shape is not None
        like = (dtype, tuple(_dims(value)))
        return self._op("Cast", [value], out=out, like=like, to=int(dtype))

    def _wide(self, x: str, node: str) -> ir.Value:
        """Tensor ``x`` as float64, cast for ``node`` where it is float32."""
        return self._cast(self._codes(x), DOUBLE, out=f"{node}/double")

    def _range(self, name: str) -> tuple[int, int]:
        """Proven range of integer tensor ``name``."""
        kind = self._types[name]
        if isinstance(kind, FloatTensor):
            raise UnsupportedError("floats are read after Dequantize", where=f"tensor {name}")
        return kind.lo, kind.hi


def _dims(value: ir.Value) -> list[int | str]:
    """Dimensions of ``value``, symbolic ones by name."""
    assert value.shape is not None
    return [d if isinstance(d, int) else str(d.value) for d in value.shape]
