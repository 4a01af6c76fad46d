"""Quantized ONNX models as other tools write them, made node by node with onnx.helper."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, UINT8, INT8 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8
RANGES = {
    "UINT8": (0, 255), "INT8": (-128, 127), "UINT4": (0, 15), "INT4": (-8, 7),
    "UINT2": (0, 3), "INT2": (-2, 1),
}  # fmt: skip


class Maker:
    """Collects nodes and constants; methods return the name of the tensor they make."""

    def __init__(self, seed=0, opset=21):
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.nodes = []
        self.constants = {}

    def op(self, kind, *inputs, domain="", **attributes):
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, list(inputs), [f"{name}_out"], name, domain=domain, **attributes)
        )
        return f"{name}_out"

    def const(self, values, kind=None):
        name = f"c{len(self.constants)}"
        array = np.asarray(values)
        if kind is None:
            self.constants[name] = numpy_helper.from_array(array, name)
        else:
            number = getattr(TensorProto, kind)
            self.constants[name] = helper.make_tensor(
                name, number, array.shape, array.ravel().tolist()
            )
        return name

    def scale(self, value):
        return self.const(np.array(value, np.float32))

    def q(self, x, scale, zero=0, kind="UINT8", **attributes):
        return self.op(
            "QuantizeLinear", x, self.scale(scale), self.const(np.array(zero), kind), **attributes
        )

    def dq(self, x, scale, zero=0, kind="UINT8", **attributes):
        zeros = self.const(np.broadcast_to(zero, np.shape(scale)), kind)
        return self.op("DequantizeLinear", x, self.scale(scale), zeros, **attributes)

    def qdq(self, x, scale, zero=0, kind="UINT8"):
        return self.dq(self.q(x, scale, zero, kind), scale, zero, kind)

    def weight(self, shape, kind="INT8", *, zero=0, scale=0.01, per_channel=False, axis=0):
        low, high = RANGES[kind]
        codes = self.random.integers(low, high + 1, shape)
        if per_channel:
            scale = self.random.uniform(0.5, 2, shape[axis]) * scale
            return self.dq(self.const(codes, kind), scale, zero, kind, axis=axis)
        return self.dq(self.const(codes, kind), scale, zero, kind)

    def bias(self, units):
        """int32 in units of the accumulator."""
        codes = self.random.integers(-3000, 3000, np.shape(units)).astype(np.int32)
        return self.op("DequantizeLinear", self.const(codes), self.scale(units), axis=0)

    def model(self, output, shape, *, input_type=FLOAT, inputs=("x",), domains=()):
        values = [helper.make_tensor_value_info(name, input_type, shape) for name in inputs]
        result = onnx.ValueInfoProto(name=output)
        graph = helper.make_graph(
            self.nodes, "made", values, [result], list(self.constants.values())
        )
        opsets = [
            helper.make_opsetid("", self.opset),
            *(helper.make_opsetid(d, 1) for d in domains),
        ]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def residual_cnn(*, classes=10, seed=0):
    """A float CNN for a quantizer: batch norm unfolded, residual adds, Concat, pools, Gemm."""
    make = Maker(seed, opset=17)
    random = make.random

    def conv(x, outs, ins, side=3, **attributes):
        weight = random.normal(0, (2 / (ins * side * side)) ** 0.5, (outs, ins, side, side))
        bias = make.const(random.normal(0, 0.1, outs).astype(np.float32))
        return make.op("Conv", x, make.const(weight.astype(np.float32)), bias, **attributes)

    def norm(x, channels):
        vectors = [
            random.uniform(0.5, 1.5, channels), random.normal(0, 0.2, channels),
            random.normal(0, 0.2, channels), random.uniform(0.5, 1.5, channels),
        ]  # fmt: skip
        return make.op(
            "BatchNormalization", x, *(make.const(v.astype(np.float32)) for v in vectors)
        )

    same = {"pads": [1, 1, 1, 1]}
    x = make.op("Relu", norm(conv("x", 8, 3, **same), 8))
    x = make.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = make.op("Relu", conv(x, 8, 8, **same))
    x = make.op("Relu", make.op("Add", norm(conv(y, 8, 8, **same), 8), x))
    y = make.op("Relu", conv(x, 12, 8, strides=[2, 2], **same))
    short = conv(x, 12, 8, side=1, strides=[2, 2])
    x = make.op("Relu", make.op("Add", conv(y, 12, 12, **same), short))
    six = make.const(np.array(6, np.float32))
    zero = make.const(np.array(0, np.float32))
    y = make.op("Clip", conv(x, 12, 1, group=12, **same), zero, six)
    x = make.op("Concat", x, y, axis=1)
    x = make.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = make.op("Flatten", make.op("GlobalAveragePool", x))
    weight = random.normal(0, 0.2, (classes, 24)).astype(np.float32)
    bias = make.const(random.normal(0, 0.1, classes).astype(np.float32))
    out = make.op("Gemm", x, make.const(weight), bias, transB=1)
    model = make.model(out, ["n", 3, 16, 16])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(out, FLOAT, ["n", classes]))
    return model
