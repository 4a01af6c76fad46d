"""Each operator of another tool's model, against ONNX Runtime on the same model."""

import numpy as np
import pytest

from bitfold.export.foreign import read_model
from bitfold.export.foreign.compare import compare_runtime, runtime_codes
from bitfold.ir import Conv2d, run_oracle
from bitfold.ir.own_input import own_input
from tests.foreign_models import FLOAT, INT8, UINT8, Maker

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.ort

IMAGE = ["n", 3, 9, 8]
# What float32 expressions of codes below 256 can miss, in steps of the result.
ROUNDING = 2e-4


def values_for(shape, input_type=FLOAT, count=5, seed=1):
    random = np.random.default_rng(seed)
    dims = (count, *shape[1:])
    if input_type == FLOAT:
        return random.normal(0, 1, dims).astype(np.float32)
    low, kind = (0, np.uint8) if input_type == UINT8 else (-128, np.int8)
    return random.integers(low, low + 256, dims).astype(kind)


def start(make, x="x"):
    return make.qdq(x, 0.021, 119)


def conv_of(make, x, *, outs=5, ins=3, kind="INT8", zero=0, per_channel=False, side=3, **more):
    scale = 2.0 / (np.ptp([0, 255]) if "8" in kind else 3)
    w = make.weight((outs, ins, side, side), kind, zero=zero, scale=scale, per_channel=per_channel)
    return make.op("Conv", x, w, **more)


def end(make, x, scale=0.09, zero=101):
    return make.qdq(x, scale, zero)


def conv_plain(make):
    return end(make, conv_of(make, start(make), pads=[1, 1, 1, 1]))


def conv_bias(make):
    x, w = start(make), make.weight((5, 3, 3, 3), scale=0.013)
    return end(make, make.op("Conv", x, w, make.bias([np.float32(0.021) * np.float32(0.013)] * 5)))


def conv_per_channel(make):
    return end(make, conv_of(make, start(make), per_channel=True, strides=[2, 1]))


def conv_unsigned(make):
    return end(make, conv_of(make, start(make), kind="UINT8", zero=131, pads=[2, 1, 0, 1]))


def conv_depthwise(make):
    return end(make, conv_of(make, start(make), outs=6, ins=1, group=3, pads=[1, 1, 1, 1]))


def conv_dilated(make):
    return end(make, conv_of(make, start(make), dilations=[2, 3], pads=[2, 3, 2, 3]))


def conv_same(make):
    return end(make, conv_of(make, start(make), strides=[2, 2], auto_pad="SAME_UPPER"))


def conv_relu6(make):
    x = conv_of(make, start(make), pads=[1, 1, 1, 1])
    x = make.op("Clip", x, make.scale(0.0), make.scale(6.0))
    return end(make, x, scale=0.05, zero=7)


def batch_norm(make):
    x = conv_of(make, start(make))
    vectors = [make.random.uniform(0.5, 1.5, 5).astype(np.float32) for _ in range(4)]
    vectors[0] *= np.array([1, -1, 1, 1, -1], np.float32)
    return end(make, make.op("BatchNormalization", x, *map(make.const, vectors)))


def constant_nodes(make):
    x = start(make)
    codes = make.random.integers(-127, 128, (5, 3, 1, 1)).astype(np.int8)
    from onnx import numpy_helper

    w = make.op("Constant", value=numpy_helper.from_array(codes))
    return end(make, make.op("Conv", x, make.dq(w, 0.02, 0, "INT8")))


def padded(make):
    x = start(make)
    pads = make.const(np.array([0, 0, 2, 1, 0, 0, 1, 2]))
    x = make.op("Pad", x, pads, make.scale(0.0))
    return end(make, conv_of(make, x))


def residual(make):
    x = start(make)
    a = make.qdq(conv_of(make, x, outs=3, pads=[1, 1, 1, 1]), 0.07, 120)
    return end(make, make.op("Relu", make.op("Add", a, x)), 0.04, 0)


def joined(make):
    x = start(make)
    a = make.qdq(conv_of(make, x, outs=4, pads=[1, 1, 1, 1]), 0.07, 120)
    return end(make, conv_of(make, end(make, make.op("Concat", a, x, axis=1)), ins=7))


def pooled(make):
    x = make.op("MaxPool", start(make), kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1])
    x = make.qdq(x, 0.021, 119)
    return end(make, make.op("AveragePool", x, kernel_shape=[2, 2]), 0.017, 119)


def averaged_with_padding(make):
    pool = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    return end(make, make.op("AveragePool", start(make), **pool), 0.017, 119)


def mean(make):
    axes = make.const(np.array([2, 3]))
    x = make.op("ReduceMean", start(make), axes, keepdims=0)
    return end(make, x, 0.0031, 119)


def classifier(make):
    """Flatten in torch's order, Gemm with alpha, transposed weights and an int32 bias."""
    x = make.qdq(make.op("GlobalMaxPool", start(make)), 0.021, 119)
    flat = make.op("Flatten", make.op("Concat", x, x, axis=1))
    w = make.weight((7, 6), per_channel=True)
    return end(make, make.op("Gemm", flat, w, transB=1), 0.05, 128)


def flattened_image(make):
    flat = make.op("Flatten", make.op("MaxPool", start(make), kernel_shape=[4, 4]))
    w = make.weight((3 * 6 * 5, 7), per_channel=True, axis=1)
    x = make.op("Add", make.op("MatMul", flat, w), make.const(np.ones(7, np.float32)))
    return end(make, x, 0.1, 128)


def shape_arithmetic(make):
    x = start(make)
    batch = make.op("Gather", make.op("Shape", x), make.const(np.array(0)), axis=0)
    batch = make.op("Unsqueeze", batch, make.const(np.array([0])))
    shape = make.op("Concat", batch, make.const(np.array([-1])), axis=0)
    return end(make, make.op("Gemm", make.op("Reshape", x, shape), make.weight((216, 4))), 0.3, 128)


def leaky(make):
    return end(make, make.op("LeakyRelu", conv_of(make, start(make)), alpha=0.125), 0.11, 30)


def channels_last(make):
    x = make.op("Transpose", make.qdq("x", 0.021, 119), perm=[0, 3, 1, 2])
    x = make.qdq(conv_of(make, x, ins=8, pads=[1, 1, 1, 1]), 0.3, 101)
    x = make.op(
        "Reshape", make.op("Transpose", x, perm=[0, 2, 3, 1]), make.const(np.array([-1, 135]))
    )
    return end(make, make.op("Gemm", x, make.weight((135, 4))), 0.3, 128)


def normalized_input(make):
    means = make.const(np.array([0.48, 0.45, 0.4], np.float32).reshape(1, 3, 1, 1))
    stds = make.const(np.array([0.22, 0.23, 0.24], np.float32).reshape(3, 1, 1))
    x = make.op("Div", make.op("Sub", make.op("Mul", "x", make.scale(1 / 255)), means), stds)
    return end(make, conv_of(make, start(make, x)))


def pixel_input(make):
    x = make.op("Cast", "x", to=1)
    means = make.const(np.array([123.675, 116.28, 103.53], np.float32).reshape(1, 3, 1, 1))
    stds = make.const(np.array([58.395, 57.12, 57.375], np.float32).reshape(1, 3, 1, 1))
    x = make.op("Div", make.op("Sub", x, means), stds)
    return end(make, conv_of(make, start(make, x), pads=[1, 1, 1, 1]))


def coded_input(make):
    return end(make, conv_of(make, make.dq("x", 0.02, 93), pads=[1, 1, 1, 1]))


def signed_input(make):
    return end(make, conv_of(make, make.dq("x", 0.02, -7, "INT8"), pads=[1, 1, 1, 1]))


def vector_input(make):
    return end(make, make.op("Gemm", start(make), make.weight((9, 4))), 0.05, 128)


def qlinear_conv(make):
    parts = [make.q("x", 0.021, 119), make.scale(0.021), make.const(np.array(119), "UINT8")]
    # ONNX Runtime's unoptimized kernel adds pairs of 8-bit products in saturating 16 bits.
    codes = make.const(make.random.integers(-63, 64, (5, 3, 3, 3)), "INT8")
    parts += [codes, make.scale(0.013), make.const(np.array(0), "INT8")]
    parts += [make.scale(0.09), make.const(np.array(101), "UINT8")]
    bias = make.const(make.random.integers(-999, 999, 5).astype(np.int32))
    return make.dq(make.op("QLinearConv", *parts, bias, pads=[1, 1, 1, 1]), 0.09, 101)


CASES = [
    *((case, IMAGE, FLOAT) for case in (
        conv_plain, conv_bias, conv_per_channel, conv_unsigned, conv_depthwise, conv_dilated,
        conv_same, conv_relu6, batch_norm, constant_nodes, padded, residual, joined, pooled,
        averaged_with_padding, mean, classifier, flattened_image, shape_arithmetic, leaky,
        normalized_input, qlinear_conv,
    )),
    (channels_last, ["n", 9, 3, 8], FLOAT), (vector_input, ["n", 9], FLOAT),
    (pixel_input, IMAGE, UINT8), (coded_input, IMAGE, UINT8), (signed_input, IMAGE, INT8),
]  # fmt: skip


@pytest.mark.parametrize("optimized", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize(("case", "shape", "kind"), CASES, ids=[c[0].__name__ for c in CASES])
def test_codes_are_onnx_runtime_s_up_to_float32_rounding(case, shape, kind, optimized):
    make = Maker()
    model = make.model(case(make), shape, input_type=kind)
    found = compare_runtime(model, values_for(shape, kind), optimized=optimized)
    assert found
    # Sums of a few 8-bit codes round alike; means of four end on ties, where they need not.
    assert max(flip.farthest for flip in found) <= ROUNDING
    assert sum(flip.flips for flip in found) <= 0.02 * sum(flip.compared for flip in found)


@pytest.mark.parametrize(
    "case", [conv_plain, conv_bias, conv_per_channel, conv_unsigned, qlinear_conv]
)
def test_fused_convolutions_are_equal_to_onnx_runtime_code_for_code(case):
    make = Maker(3)
    model = make.model(case(make), IMAGE)
    found = compare_runtime(model, values_for(IMAGE, count=200), optimized=True)
    assert sum(flip.compared for flip in found) > 10000
    assert sum(flip.flips for flip in found) == 0


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "INT2", "UINT2"])
def test_weights_below_8_bits_are_read_from_their_own_types(kind):
    make = Maker(opset=25)
    zero = {"UINT4": 7, "UINT2": 1}.get(kind, 0)
    model = make.model(end(make, conv_of(make, start(make), kind=kind, zero=zero)), IMAGE)
    model.ir_version = 13
    found = compare_runtime(model, values_for(IMAGE), optimized=False)
    assert max(flip.farthest for flip in found) <= ROUNDING
    conv = next(n for n in read_model(model).graph.nodes if isinstance(n, Conv2d))
    assert conv.weight_grid.bits <= int(kind[-1]) + (zero != 0)


@pytest.mark.parametrize("kind", ["UINT4", "INT4", "UINT2", "INT2"])
def test_activations_below_8_bits_are_read_from_their_own_types(kind):
    make = Maker(opset=25)
    x = make.qdq(conv_of(make, start(make)), 0.7, 1 if kind[0] == "U" else 0, kind)
    model = make.model(end(make, conv_of(make, x, ins=5)), IMAGE)
    model.ir_version = 13
    found = compare_runtime(model, values_for(IMAGE), optimized=False)
    assert len(found) == 2
    assert max(flip.farthest for flip in found) <= ROUNDING


def test_the_result_is_onnx_runtime_s():
    make = Maker()
    x = make.op(
        "Flatten", make.op("GlobalAveragePool", make.qdq(conv_of(make, start(make)), 0.1, 9))
    )
    x = make.qdq(x, 0.05, 9)
    model = make.model(make.op("Gemm", x, make.weight((5, 4)), make.bias([0.0005] * 4)), IMAGE)
    values = values_for(IMAGE, count=20)
    _, want = runtime_codes(model, (), values, optimized=False)
    graph = read_model(model).graph
    got = run_oracle(graph, own_input(graph).to_pixels(values))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)  # float32 products and sums


@pytest.mark.parametrize("with_zero", [True, False])
@pytest.mark.parametrize("kind", ["ConvInteger", "MatMulInteger"])
def test_integer_products_are_exact(kind, with_zero):
    make = Maker()
    is_conv = kind == "ConvInteger"
    shape = IMAGE if is_conv else ["n", 9]
    w = make.const(make.random.integers(0, 256, (4, 3, 2, 2) if is_conv else (9, 4)), "UINT8")
    zeros = [make.const(np.array(z), "UINT8") for z in (77, 130)] if with_zero else []
    model = make.model(make.op(kind, "x", w, *zeros), shape, input_type=UINT8)
    values = values_for(shape, UINT8)
    _, want = runtime_codes(model, (), values, optimized=False)
    graph = read_model(model).graph
    got = run_oracle(graph, own_input(graph).to_pixels(values))
    assert (got == (want.transpose(0, 2, 3, 1) if is_conv else want)).all()


def test_the_last_softmax_is_left_out_and_said_to_be():
    make = Maker()
    logits = make.op("Gemm", start(make), make.weight((9, 4)))
    model = make.model(make.qdq(make.op("Softmax", logits), 1 / 255, 0), ["n", 9])
    read = read_model(model)
    assert [node.status for node in read.nodes] == ["supported"] * len(read.nodes)
    assert "left out" in next(node.how for node in read.nodes if node.op == "Softmax")
