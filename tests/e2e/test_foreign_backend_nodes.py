"""ONNX's own node tests of the quantized operators: each passes or is refused with a reason."""

import importlib
import warnings

import numpy as np
import onnx
import pytest

from bitfold.errors import BitfoldError
from bitfold.export.foreign import read_model
from bitfold.export.foreign.reader import OPERATORS
from bitfold.export.foreign.reading import Reading
from bitfold.export.foreign.source import decode_source
from bitfold.export.foreign.values import Codes
from bitfold.ir import run_oracle
from bitfold.ir.own_input import own_input

OPERATOR_TESTS = (
    "quantizelinear", "dequantizelinear", "qlinearconv", "qlinearmatmul", "convinteger",
    "matmulinteger", "dynamicquantizelinear",
)  # fmt: skip


def all_cases():
    """Importing a module of node tests makes its cases, the data of some by overflow."""
    folder = "onnx.backend.test.case.node"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in OPERATOR_TESTS:
            importlib.import_module(f"{folder}.{name}")
    made = importlib.import_module(folder)._NodeTestCases
    return [case for case in made if case.name.removeprefix("test_").startswith(OPERATOR_TESTS)]


CASES = all_cases()


def array_of(value):
    is_tensor = isinstance(value, onnx.TensorProto)
    return onnx.numpy_helper.to_array(value) if is_tensor else np.asarray(value)


def baked(case):
    """The model with every input but the first as an initializer, the first input, the result."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    inputs, outputs = case.data_sets[0]
    names = [info.name for info in model.graph.input]
    del model.graph.input[1:], model.graph.initializer[:]
    for name, array in zip(names[1:], inputs[1:], strict=True):
        is_tensor = isinstance(array, onnx.TensorProto)
        tensor = array if is_tensor else onnx.numpy_helper.from_array(np.asarray(array), name)
        tensor.name = name
        model.graph.initializer.append(tensor)
    x, want = array_of(inputs[0]), array_of(outputs[0])
    shape = model.graph.input[0].type.tensor_type.shape
    if len(shape.dim) == 1:  # a vector becomes a batch of one
        shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=1))
        x = x[None]
    return model, x, want


def stored_form(model, result, want):
    """Our real values as the integers that the model's last QuantizeLinear gives."""
    node = model.graph.node[-1]
    if want.dtype.kind == "f" or "Integer" in node.op_type:
        return result
    names = {"QuantizeLinear": (1, 2)}.get(node.op_type, (6, 7))
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    scale = constants[node.input[names[0]]].astype(np.float64)
    zero = constants[node.input[names[1]]] if len(node.input) > names[1] else np.zeros(1)
    return np.rint(result / scale.ravel()[0]) + zero.astype(np.int64).ravel()[0]


def outcome(case):
    """("passed", …), ("refused", reason) or ("failed", where)."""
    model, x, want = baked(case)
    try:
        graph = read_model(model).graph
        got = run_oracle(graph, own_input(graph).to_pixels(x))
    except BitfoldError as error:
        return as_weight(case, error.what)
    result = stored_form(model, got.transpose(0, 3, 1, 2) if got.ndim == 4 else got, want)
    return judged(result, want)


def judged(result, want):
    """Real values differ from the reference's by float32 rounding of one product."""
    same = np.allclose(result.reshape(want.shape), want.astype(np.float64), rtol=1e-6, atol=0)
    return ("passed", "") if same else ("failed", f"{result.ravel()[:8]} for {want.ravel()[:8]}")


def as_weight(case, reason):
    """The same node on constants, as it stands in front of a weight."""
    model, _, want = baked(case)
    kind = model.graph.node[-1].op_type
    if kind not in ("QuantizeLinear", "DequantizeLinear") or model.graph.input[0].name == "unused":
        return "refused", reason
    first = model.graph.input[0]
    x = array_of(case.data_sets[0][0][0])
    model.graph.initializer.append(onnx.numpy_helper.from_array(x, first.name))
    unused = onnx.helper.make_tensor_value_info("unused", onnx.TensorProto.FLOAT, [1, 1])
    first.CopyFrom(unused)
    try:
        source = decode_source(model)
        reading = Reading(source, channels_last=False)
        made, _ = OPERATORS[kind](reading, source.ops[-1])
    except BitfoldError as error:
        return "refused", error.what
    return judged(made.real() if isinstance(made, Codes) else made, want)


@pytest.fixture(scope="module")
def outcomes():
    return {case.name: outcome(case) for case in CASES}


def test_no_node_test_fails(outcomes):
    assert not {name: why for name, (kind, why) in outcomes.items() if kind == "failed"}


def test_node_tests_within_the_operator_set_pass(outcomes):
    passed = {name for name, (kind, _) in outcomes.items() if kind == "passed"}
    assert passed >= {
        "test_quantizelinear", "test_quantizelinear_axis", "test_quantizelinear_uint4",
        "test_quantizelinear_int4", "test_quantizelinear_uint2", "test_quantizelinear_int2",
        "test_dequantizelinear", "test_dequantizelinear_axis", "test_dequantizelinear_uint4",
        "test_dequantizelinear_int4", "test_dequantizelinear_uint2", "test_dequantizelinear_int2",
        "test_qlinearconv", "test_qlinearmatmul_2D_uint8_float32",
        "test_qlinearmatmul_2D_int8_float32", "test_matmulinteger",
        "test_convinteger_without_padding", "test_convinteger_with_padding",
    }  # fmt: skip


def test_every_refusal_has_a_reason(outcomes):
    assert all(why for kind, why in outcomes.values() if kind == "refused")
