"""Every invariant of docs/ir.md: the error class, its numbers and its hint."""

from dataclasses import replace

import numpy as np
import pytest

from bitfold.errors import (
    DomainError,
    GraphError,
    OffGridError,
    OrderError,
    PaddingError,
    RangeError,
    ScaleError,
    ShapeError,
    ThresholdError,
)
from bitfold.ir import (
    Add,
    Concat,
    Conv2d,
    Dequantize,
    Grid,
    IntGraph,
    Linear,
    MaxPool2d,
    Quantize,
    Rescale,
    Reshape,
    Slice,
    SumPool2d,
    Thresholds,
    verify,
)
from tests.property.strategies import every_op_graph

IMAGE = Quantize("image", (4, 4, 2), Grid.pixels(100), 0.5)
ONE = np.ones(2, np.int64)
ZERO = np.zeros(2, np.int64)


def conv(name="conv", x="image", *, weight=None, **changes):
    weight = np.ones((2, 1, 1, 2), np.int64) if weight is None else np.array(weight)
    node = Conv2d(name, x, weight, Grid.narrow(2), (0.5,), np.zeros(len(weight), np.int64))
    return replace(node, **changes)


def wide(name="wide", x="conv", **changes):
    return replace(Rescale(name, x, ONE, ZERO, 0, 0.25), **changes)


def quantizer(name="codes", x="conv", **changes):
    table = np.array([[1, 2, 3], [-3, 0, 3]])
    return replace(Thresholds(name, x, table, ONE, Grid.unsigned(2), 0.5), **changes)


def graph_of(*nodes):
    return IntGraph.of([IMAGE, *nodes, Dequantize("logits", nodes[-1].name)])


def assert_refused(error, text, *nodes):
    """Inference or ``verify`` raises exactly ``error``, and its message holds ``text``."""
    with pytest.raises(error) as caught:
        verify(graph_of(*nodes))
    assert type(caught.value) is error
    assert text in str(caught.value)
    assert caught.value.where
    assert caught.value.todo


def test_graph_of_every_operation_is_accepted():
    verify(every_op_graph())


def test_small_graph_is_accepted():
    verify(graph_of(conv(), quantizer(), conv("conv2", "codes"), wide(x="conv2")))


# Invariant 1: order, names, types


def test_reading_a_later_tensor_is_refused():
    assert_refused(
        OrderError, "it reads wide before it is defined\nnode conv", conv(x="wide"), wide()
    )


def test_a_name_is_taken_once():
    assert_refused(OrderError, "its name is taken\nnode conv", conv(), conv())


def test_a_name_without_spaces_is_needed():
    assert_refused(OrderError, "the name 'my conv' is empty or holds spaces", conv("my conv"))


def test_a_dead_node_is_refused():
    assert_refused(OrderError, "nothing reads it\nnode codes", conv(), quantizer(), wide())


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([], "Quantize stands at [] of 0 nodes"),
        ([IMAGE], "Dequantize stands at [] of 1 nodes"),
        ([IMAGE, replace(IMAGE, name="second")], "Quantize stands at [0, 1] of 2 nodes"),
        (
            [IMAGE, conv(), Dequantize("a", "conv"), Dequantize("b", "conv")],
            "Dequantize stands at [2, 3] of 4 nodes",
        ),
    ],
)
def test_one_input_first_and_one_output_last(nodes, text):
    with pytest.raises(OrderError) as caught:
        IntGraph.of(nodes)
    assert text in str(caught.value)
    with pytest.raises(OrderError):
        verify(IntGraph(tuple(nodes)))


def test_a_graph_without_its_types_is_refused():
    graph = graph_of(conv())
    with pytest.raises(OrderError, match="its types are not those of its nodes"):
        verify(IntGraph(graph.nodes))


# Invariant 1: shapes


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (
            conv(weight=np.ones((2, 1, 1, 3), np.int64)),
            "weight (2, 1, 1, 3) in 1 groups does not fit input",
        ),
        (
            conv(weight=np.ones((2, 1, 2), np.int64)),
            "weight (2, 1, 2) in 1 groups does not fit input",
        ),
        (conv(weight=np.ones((0, 1, 1, 2), np.int64)), "weight (0, 1, 1, 2) in 1 groups"),
        (conv(groups=0), "weight (2, 1, 1, 2) in 0 groups does not fit input (4, 4, 2)"),
        (
            conv(weight=np.ones((3, 1, 1, 1), np.int64), groups=2),
            "in 2 groups does not fit input (4, 4, 2)",
        ),
        (conv(bias=np.zeros(3, int)), "with bias (3,) does not fit input (4, 4, 2)"),
        (conv(stride=(0, 1)), "kernel (1, 1), stride (0, 1), padding (0, 0, 0, 0)"),
        (conv(padding=(0, -1, 0, 0)), "padding (0, -1, 0, 0)"),
        (
            conv(weight=np.ones((2, 5, 5, 2), np.int64)),
            "a (5, 5) window does not fit (4, 4, 2) padded by",
        ),
        (MaxPool2d("m", "image", (0, 1), (1, 1)), "kernel (0, 1), stride (1, 1)"),
        (SumPool2d("s", "image", (5, 1), (1, 1)), "a (5, 1) window does not fit (4, 4, 2)"),
        (
            Linear("l", "image", np.ones((2, 32), int), Grid.narrow(2), (1.0,), ZERO),
            "weight (2, 32",
        ),
        (Slice("s", "image", 1, 1), "channels 1:1 of (4, 4, 2)"),
        (Slice("s", "image", 0, 3), "channels 0:3 of (4, 4, 2)"),
        (Reshape("r", "image", (31,)), "(4, 4, 2) does not reshape to (31,)"),
        (Reshape("r", "image", (-1, -32)), "(4, 4, 2) does not reshape to (-1, -32)"),
        (Reshape("r", "image", ()), "(4, 4, 2) does not reshape to ()"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(node, text):
    assert_refused(ShapeError, text, node)


def test_the_input_is_one_image():
    with pytest.raises(ShapeError, match=r"input shape \(32,\)"):
        IntGraph.of([replace(IMAGE, shape=(32,)), Dequantize("logits", "image")])


@pytest.mark.parametrize("name", ["multiplier", "offset", "negative_multiplier"])
def test_multipliers_are_one_a_channel(name):
    bad = np.ones(3, np.int64)
    assert_refused(
        ShapeError, "of shape (3,) does not fit input (4, 4, 2)", conv(), wide(**{name: bad})
    )


def test_add_does_not_broadcast():
    nodes = conv(), wide("a"), SumPool2d("b", "a", (1, 1), (2, 2)), Add("sum", "a", "b")
    assert_refused(ShapeError, "operands of shape (4, 4, 2) and (2, 2, 2)", *nodes)


def test_joined_images_are_of_one_size():
    nodes = MaxPool2d("half", "image", (2, 2), (2, 2)), Concat("all", ("image", "half"))
    assert_refused(ShapeError, "cannot join [(4, 4, 2), (2, 2, 2)] along channels", *nodes)


def test_joining_nothing_is_refused():
    assert_refused(ShapeError, "cannot join [] along channels", Concat("all", ()))


def test_windows_need_an_image():
    nodes = Reshape("flat", "image", (32,)), MaxPool2d("m", "flat", (1, 1), (1, 1))
    assert_refused(ShapeError, "an (H, W, C) image is needed, got shape (32,)", *nodes)


# Invariant 1: kinds


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (conv("c", "conv"), "Conv2d takes codes, got Accumulator"),
        (Add("sum", "conv", "conv"), "Add takes two wide tensors, got Accumulator"),
        (MaxPool2d("m", "conv", (1, 1), (1, 1)), "MaxPool2d takes codes or a wide tensor, got Acc"),
        (SumPool2d("s", "conv", (1, 1), (1, 1)), "SumPool2d takes codes or a wide tensor, got Acc"),
        (
            Concat("all", ("conv", "conv")),
            "Concat takes codes or wide tensors, never both, got Acc",
        ),
        (Concat("all", ("image", "conv")), "got Accumulator"),
    ],
)
def test_a_tensor_of_another_kind_is_refused(node, text):
    assert_refused(DomainError, text, conv(), node)


# Invariant 2: grids


def test_a_weight_off_its_grid_is_named():
    weight = np.ones((2, 1, 1, 2), np.int64)
    weight[1, 0, 0, 0] = 2
    text = "weight 2 at (1, 0, 0, 0) is not on grid -1:1 (1 of 4 are not)\nnode conv"
    assert_refused(OffGridError, text, conv(weight=weight))


def test_an_even_weight_is_not_on_an_odd_grid():
    even = conv(weight=np.zeros((2, 1, 1, 2), np.int64), weight_grid=Grid.odd(2))
    assert_refused(OffGridError, "weight 0 at (0, 0, 0, 0) is not on grid -3:3:2", even)


def test_pixels_need_256_codes():
    with pytest.raises(OffGridError, match="grid 0:127 does not hold one code for each of 256"):
        verify(IntGraph.of([replace(IMAGE, grid=Grid.unsigned(7)), Dequantize("y", "image")]))


def test_codes_fit_one_byte():
    grid, table = Grid.unsigned(9), np.zeros((2, 511), np.int64)
    text = "grid 0:511 has 512 codes, an index of one byte at most 256"
    assert_refused(OffGridError, text, conv(), quantizer(grid=grid, table=table))
    assert_refused(OffGridError, text, conv(weight_grid=grid))


def test_constants_are_never_truncated_to_integers():
    with pytest.raises(OffGridError, match="a constant array has dtype float64"):
        wide(offset=np.array([0.5, 1.0]))


# Invariant 2: ranges


def test_an_accumulator_fits_int32():
    bias = np.array([2**31 - 311, 0])
    text = "its proven range -200 … 2147483648 leaves int32\nnode conv"
    verify(graph_of(conv(bias=bias)))
    assert_refused(RangeError, text, conv(bias=bias + np.array([1, 0])))


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**63 - 1])
def test_a_bias_fits_int32(value):
    assert_refused(RangeError, "its bias", conv(bias=np.array([value, value])))


def test_a_wide_tensor_fits_int32():
    assert_refused(RangeError, "its proven range -2147483648000 …", conv(bias=ONE * -(2**31) + 200),
                   wide(multiplier=ONE * 1000))  # fmt: skip


def test_a_multiplier_fits_int32():
    text = "its multiplier 2147483648 … 2147483648 leaves int32"
    assert_refused(RangeError, text, conv(), wide(multiplier=ONE * 2**31, shift=40))


def test_products_of_a_rescale_fit_int64():
    text = "past int64\nnode wide"
    assert_refused(RangeError, text, conv(), wide(offset=ONE * (2**63 - 1), shift=62))
    nodes = conv(), wide(negative_multiplier=ONE, negative_shift=62, offset=ONE * 2**62, shift=40)
    verify(graph_of(*nodes))


@pytest.mark.parametrize("shift", [-1, 63, 10**9])
def test_a_shift_lies_in_0_to_62(shift):
    assert_refused(RangeError, f"shifts {shift} and 0", conv(), wide(shift=shift))
    assert_refused(RangeError, f"shifts 0 and {shift}", conv(), wide(negative_shift=shift))


# Invariants 3 and 6: scales


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_is_finite_and_positive(scale):
    text = f"scale {scale} is not finite and positive"
    assert_refused(ScaleError, text, conv(), wide(scale=scale))
    assert_refused(ScaleError, text, conv(), quantizer(scale=scale))
    assert_refused(ScaleError, "is not finite and positive", conv(weight_scales=(scale,)))


def test_a_scale_that_vanishes_in_float32_is_refused():
    assert_refused(ScaleError, "scale 0.0 is not finite and positive\nnode logits",
                   conv(weight_scales=(1e-60,)))  # fmt: skip


def test_weight_scales_are_one_or_one_a_channel():
    verify(graph_of(conv(weight_scales=(0.5, 0.25))))
    assert_refused(
        ScaleError, "3 weight scales for 2 output channels", conv(weight_scales=(1.0,) * 3)
    )
    assert_refused(ScaleError, "0 weight scales for 2 output channels", conv(weight_scales=()))


def test_operands_of_add_share_one_scale():
    nodes = conv(), wide("a"), wide("b", scale=0.5), Add("sum", "a", "b")
    assert_refused(ScaleError, "operands of scale 0.25 and 0.5\nnode sum", *nodes)


@pytest.mark.parametrize("change", [{"scale": 0.25}, {"grid": Grid(1, 4)}])
def test_joined_codes_share_grid_and_scale(change):
    nodes = conv(), quantizer("a"), quantizer("b", **change), Concat("all", ("a", "b"))
    assert_refused(ScaleError, "joined tensors differ in grid or scale\nnode all", *nodes)


def test_channel_scales_stay_with_their_channels():
    nodes = conv(weight_scales=(0.5, 0.25)), Reshape("flat", "conv", (2, 16))
    assert_refused(ScaleError, "2 channel scales do not fit (2, 16)", *nodes)


# Invariant 4: padding


def test_only_code_0_pads():
    nodes = conv(), quantizer(grid=Grid.odd(2)), conv("c2", "codes", padding=(0, 1, 0, 0))
    assert_refused(
        PaddingError, "padding (0, 1, 0, 0) of codes on -3:3:2, which has no code 0", *nodes
    )
    verify(graph_of(conv(), quantizer(grid=Grid.odd(2)), conv("c2", "codes")))


def test_a_pool_window_sees_more_than_padding():
    node = MaxPool2d("m", "image", (2, 2), (1, 1), (2, 0, 0, 0))
    assert_refused(PaddingError, "padding (2, 0, 0, 0) of a (2, 2) window", node)


# Invariant 5: thresholds


def test_thresholds_ascend():
    table = np.array([[1, 2, 3], [3, 0, 3]])
    text = "thresholds of channel 1 fall from 3 to 0 at 1\nnode codes"
    assert_refused(ThresholdError, text, conv(), quantizer(table=table))


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (6,)])
def test_thresholds_are_levels_minus_one(shape):
    text = f"table {shape} and sign (2,) for 2 channels and 4 levels"
    assert_refused(ThresholdError, text, conv(), quantizer(table=np.zeros(shape, np.int64)))


def test_a_sign_is_one_a_channel():
    assert_refused(ThresholdError, "and sign (1,) for 2 channels", conv(), quantizer(sign=ONE[:1]))


def test_a_sign_is_plus_or_minus_one():
    assert_refused(ThresholdError, "sign holds [0]", conv(), quantizer(sign=ZERO))


def test_thresholds_lie_in_the_oriented_range_and_one_more():
    # The convolution's range is -200 … 310; turned it is -310 … 200.
    ends = np.array([[-200, 0, 311], [-310, 0, 201]])
    turned = np.array([1, -1])
    verify(graph_of(conv(), quantizer(table=ends, sign=turned)))
    assert_refused(ThresholdError, "of channel 1 leave -310 … 201", conv(),
                   quantizer(table=ends + np.array([[0] * 3, [0, 0, 1]]), sign=turned))  # fmt: skip
    assert_refused(ThresholdError, "thresholds -201 … 3 of channel 0 leave -200 … 311", conv(),
                   quantizer(table=np.array([[-201, 2, 3], [0, 0, 0]])))  # fmt: skip


def test_thresholds_themselves_fit_int32():
    bias = np.array([2**31 - 311, 0])
    text = "compares integers up to 2147483647 with thresholds up to 2147483648, past int32"
    assert_refused(RangeError, text, conv(bias=bias), quantizer())


def test_a_broken_invariant_is_a_graph_error_that_exits_with_3():
    for error in (OrderError, ShapeError, DomainError, OffGridError, RangeError, ScaleError,
                  PaddingError, ThresholdError):  # fmt: skip
        assert issubclass(error, GraphError)
        assert error.exit_code == 3
