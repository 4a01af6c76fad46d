"""Products beyond one product of bytes: wide weights, offsets, channel scales, wide inputs."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from bitfold.errors import RangeError, UnsupportedError
from bitfold.export.lowering.products import BASE, INPUT_DIGITS, digits_of, largest_input
from bitfold.export.qgraph import (
    Activation,
    Affine,
    AppendOne,
    Conv,
    Flatten,
    FullyConnected,
    Pixels,
    QGraph,
    Relu,
)
from bitfold.ir import Add, Conv2d, Grid, Thresholds, trace_oracle, verify
from tests.property.qgraph_reference import (
    assert_within_bounds,
    exact_values,
    lowered,
    lowered_at,
    meaning,
)

ZERO, ONE, THIRD = Fraction(0), Fraction(1), Fraction(1, 3)
NO_PADDING, ONE_AROUND = (0,) * 4, (1,) * 4
WIDE = Grid(-32512, 32512)


def image_of(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def raw(shape):
    return Pixels("image", shape, (ZERO,) * shape[2], (ONE,) * shape[2])


def conv(x, weight, grid, *, scales=(ONE,), stride=1, padding=NO_PADDING, groups=1, bias=None):
    return Conv("c", x, weight, grid, scales, (stride, stride), padding, groups, bias)


def random_codes(grid, shape, seed=1):
    indices = np.random.default_rng(seed).integers(0, grid.levels, shape)
    return grid.lo + grid.step * indices


def assert_exact(nodes, images):
    """Every tensor of the network has bound 0 up to the last one, and means the exact value."""
    graph = QGraph(tuple(nodes))
    low = lowered(graph)
    assert not any(low.build.known["c"].error)
    assert_within_bounds(graph, low, images)
    return low


@pytest.mark.parametrize(
    "value", [0, 127, -127, 128, -128, 255, 127 * 256, 127 * 256 + 1, -(10**12), 8290687]
)
def test_digits_of_base_255_give_the_number_back(value):
    digits = digits_of(np.array([value]))
    assert sum(int(d[0]) * BASE**k for k, d in enumerate(digits)) == value
    assert all(-127 <= int(d[0]) <= 127 for d in digits)


def test_three_digits_hold_the_largest_input_and_no_more():
    for count in (2, INPUT_DIGITS):
        assert len(digits_of(np.array([largest_input(count)]))) == count
        assert len(digits_of(np.array([largest_input(count) + 1]))) == count + 1
    assert len(digits_of(np.array([largest_input(4)]))) == 4


def test_a_convolution_with_wide_weights_is_the_wide_product():
    weight = random_codes(WIDE, (3, 1, 1, 4))
    nodes = (raw((5, 4, 4)), conv("image", weight, WIDE))
    image = image_of((5, 4, 4))
    low = assert_exact(nodes, [image])
    pending = low.build.known["c"]
    got = trace_oracle(low.graph, image[None])[pending.name][0]
    assert np.array_equal(got, image.astype(np.int64) @ weight[:, 0, 0].T)
    kinds = [type(node) for node in low.graph.nodes]
    assert (kinds.count(Conv2d), kinds.count(Add)) == (2, 1)


def test_a_fully_connected_layer_with_wide_weights_is_the_wide_product():
    weight = random_codes(WIDE, (2, 6))
    image = image_of((1, 1, 6))
    fc = FullyConnected("c", "flat", weight, WIDE, (ONE,), (ZERO, ZERO))
    low = assert_exact((raw((1, 1, 6)), Flatten("flat", "image"), fc), [image])
    got = trace_oracle(low.graph, image[None])[low.build.known["c"].name][0]
    assert np.array_equal(got, weight @ image.astype(np.int64).ravel())


def test_wide_weights_that_overflow_are_refused():
    weight = np.full((1, 1, 1, 300), 32512)
    with pytest.raises(RangeError, match="leaves int32"):
        lowered_at(QGraph((raw((1, 1, 300)), conv("image", weight, WIDE))))


def test_the_last_layers_bias_is_rounded_to_its_accumulator_and_reported():
    fc = FullyConnected("c", "flat", np.array([[3]]), Grid.narrow(3), (THIRD,), (Fraction(1, 2),))
    graph = QGraph((raw((1, 1, 1)), Flatten("flat", "image"), fc))
    low = lowered_at(graph)
    [report] = [r for r in low.build.reports if r.name == "c" and r.kind == "bias"]
    assert report.error == pytest.approx(1 / 6)  # 1/2 is 3/2 units, two are taken
    assert_within_bounds(graph, low, [image_of((1, 1, 1))])


SIZES = [(1, 1, 1), (1, 1, 3), (2, 5, 2), (4, 4, 3)]
GEOMETRIES = [(1, NO_PADDING), (1, ONE_AROUND), (2, ONE_AROUND), (2, (1, 2, 2, 0))]


@pytest.mark.parametrize(("shape", "geometry"), list(product(SIZES, GEOMETRIES)))
def test_a_mid_rise_input_is_exact_at_every_pixel(shape, geometry):
    """UniQ's input has no code 0, and what pads it is 0."""
    stride, padding = geometry
    kernel = 3 if any(padding) else 1
    means = tuple(Fraction(100 + c, 3) for c in range(shape[2]))
    stds = tuple(Fraction(60 + c) for c in range(shape[2]))
    nodes = (
        Pixels("image", shape, means, stds),
        Activation("act", "image", Grid.odd(8), (Fraction(1, 77),)),
        conv(
            "act", random_codes(Grid.odd(3), (2, kernel, kernel, shape[2])), Grid.odd(3),
            scales=(THIRD, ONE), stride=stride, padding=padding,
        ),
    )  # fmt: skip
    extremes = [np.full(shape, fill, np.uint8) for fill in (0, 255)]
    assert_exact(nodes, [image_of(shape), *extremes])


def test_pixels_without_a_whole_mean_are_exact_without_padding():
    nodes = (
        Pixels("image", (3, 3, 2), (Fraction(200, 3),) * 2, (Fraction(61),) * 2),
        conv("image", random_codes(Grid.narrow(4), (2, 2, 2, 2)), Grid.narrow(4)),
    )
    assert_exact(nodes, [image_of((3, 3, 2))])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_channel_of_ones_marks_the_inside_of_the_image(size):
    """The form of ``PixelConv2d``: raw pixels and a channel of 255."""
    nodes = (
        raw((size, size, 2)),
        AppendOne("with_one", "image", 255),
        conv(
            "with_one", random_codes(Grid.narrow(8), (3, 3, 3, 3)), Grid.narrow(8),
            scales=(ONE, THIRD, ONE), padding=ONE_AROUND, bias=(ONE, ZERO, -THIRD),
        ),
    )  # fmt: skip
    assert_exact(nodes, [image_of((size, size, 2)), np.zeros((size, size, 2), np.uint8)])


def test_an_offset_in_front_of_a_grouped_convolution_is_refused():
    nodes = (
        raw((2, 2, 2)),
        Activation("act", "image", Grid.odd(2), (ONE,)),
        conv("act", np.ones((2, 1, 1, 1), np.int64), Grid.narrow(2), groups=2),
    )
    with pytest.raises(UnsupportedError, match="a grouped convolution of an input with an offset"):
        lowered_at(QGraph(nodes))


def test_a_padded_offset_that_is_no_simple_fraction_is_refused():
    nodes = (
        Pixels("image", (3, 3, 1), (Fraction(1001, 10007),), (ONE,)),
        conv("image", np.ones((1, 3, 3, 1), np.int64), Grid.narrow(2), padding=ONE_AROUND),
    )
    with pytest.raises(UnsupportedError, match="no simple fraction of the scale\nlayer c"):
        lowered_at(QGraph(nodes))


SCALES = (Fraction(1), THIRD, Fraction(2, 7), Fraction(1, 10**9))


def scaled_channels(node):
    return QGraph(
        (
            raw((3, 3, 4)),
            Activation("act", "image", Grid.unsigned(4), tuple(20 * s for s in SCALES)),
            node,
        )
    )


def test_channel_multipliers_stay_within_the_bound_that_is_reported():
    graph = scaled_channels(
        conv("act", random_codes(Grid.narrow(3), (3, 3, 3, 4)), Grid.narrow(3), padding=ONE_AROUND)
    )
    low = lowered_at(graph)
    assert all(0 < error < 1e-2 for error in low.build.known["c"].error)
    assert_within_bounds(graph, low, [image_of((3, 3, 4)), np.full((3, 3, 4), 255, np.uint8)])


def test_the_bound_of_channel_multipliers_is_attained():
    """It is Σ |w|·|s − m·unit|·15: here the greatest codes err in one direction."""
    weight = np.array([[[[1, 1, -1, 1]]]])
    graph = scaled_channels(conv("act", weight, Grid.narrow(2)))
    low = lowered_at(graph)
    image = np.full((3, 3, 4), 255, np.uint8)
    pending = low.build.known["c"]
    traced = {name: values[0] for name, values in trace_oracle(low.graph, image[None]).items()}
    got = meaning(pending, traced[pending.name])
    want = exact_values(graph, image, {"act": traced["act"]})["c"]
    assert float(abs(got - want).max()) == pytest.approx(pending.error[0])
    assert 0 < pending.error[0] < 20 * 4 * 2**-20


def test_channel_scales_of_a_depthwise_convolution_are_exact():
    weight = random_codes(Grid.odd(2), (8, 3, 3, 1))
    graph = scaled_channels(conv("act", weight, Grid.odd(2), padding=ONE_AROUND, groups=4))
    assert_exact(graph.nodes, [image_of((3, 3, 4))])


def test_channel_scales_in_front_of_other_groups_are_refused():
    weight = np.ones((2, 1, 1, 2), np.int64)
    graph = scaled_channels(conv("act", weight, Grid.narrow(2), groups=2))
    with pytest.raises(UnsupportedError, match="an input with a scale a channel\nlayer c"):
        lowered_at(graph)


def test_channel_scales_follow_the_channels_through_a_flattening():
    graph = QGraph(
        (
            raw((2, 3, 2)),
            Activation("act", "image", Grid.unsigned(8), (ONE, THIRD)),
            Flatten("flat", "act"),
            FullyConnected(
                "c", "flat", random_codes(Grid.narrow(4), (2, 12)), Grid.narrow(4), (ONE,),
                (ZERO, ONE),
            ),
        )
    )  # fmt: skip
    assert_within_bounds(graph, lowered_at(graph), [image_of((2, 3, 2))])


def unquantized(gains, node):
    """A layer behind a batch norm and a ReLU, without a quantizer in between."""
    channels = len(gains)
    return QGraph(
        (
            raw((2, 3, channels)),
            Affine("bn", "image", gains, (THIRD,) * channels),
            Relu("relu", "bn"),
            *node,
        )
    )


def test_a_layer_behind_an_unquantized_tensor_stays_within_its_bound():
    node = conv(
        "relu", random_codes(Grid.narrow(8), (2, 3, 3, 2)), Grid.narrow(8),
        scales=(Fraction(1, 127),), padding=ONE_AROUND, bias=(ONE, -THIRD),
    )  # fmt: skip
    graph = unquantized((Fraction(1, 90), Fraction(-1, 7)), (node,))
    low = lowered_at(graph)
    assert 0 < low.build.known["c"].error.max() < 2**-8
    assert_within_bounds(graph, low, [image_of((2, 3, 2)), np.zeros((2, 3, 2), np.uint8)])


def test_the_error_of_an_unquantized_image_follows_its_channels_through_a_flattening():
    weight = np.zeros((1, 12), np.int64)
    weight[0, :6] = 100  # torch's order: the first six inputs are channel 0
    fc = FullyConnected("c", "flat", weight, Grid.narrow(8), (ONE,), (ZERO,))
    uneven = Affine("uneven", "relu", (Fraction(64), Fraction(1, 64)), (ZERO, ZERO))
    graph = unquantized((Fraction(1, 300),) * 2, (uneven, Flatten("flat", "uneven"), fc))
    low = lowered_at(graph)
    assert_within_bounds(graph, low, [image_of((2, 3, 2))])
    carried = 600 * Fraction(low.build.known["flat"].error.max())
    assert carried <= Fraction(low.build.known["c"].error[0])


@pytest.mark.parametrize(
    ("gain", "digits", "finest"),
    [(1, 3, 2**-13), (40, 4, 2**-14), (300, 4, 2**-10), (2000, 4, 2**-8), (40_000, 4, 2**-4)],
)
def test_large_unquantized_values_take_a_digit_more_before_they_give_up_bits(gain, digits, finest):
    """At 255·gain: on a stream of one resolution where it leaves enough bits, else on its own."""
    node = conv("relu", np.array([[[[1]]]]), Grid.narrow(2))
    graph = unquantized((Fraction(gain),), (node,))
    low = lowered(graph)
    splits = [n for n in low.graph.nodes if isinstance(n, Thresholds)]
    assert len(splits) == digits
    assert low.build.known["c"].error.max() <= finest
    assert_within_bounds(graph, low, [np.full((2, 3, 1), 255, np.uint8), image_of((2, 3, 1))])


def test_a_stream_of_one_resolution_does_not_get_coarse_unnoticed():
    node = conv("relu", np.array([[[[1]]]]), Grid.narrow(2))
    graph = unquantized((Fraction(40_000),), (node,))
    with pytest.raises(RangeError):
        lowered_at(graph, 12)
    assert lowered_at(graph, 16, adaptive=True).build.known["c"].error.max() > 0


def test_values_that_no_fraction_bit_holds_are_a_range_error():
    node = conv("relu", np.array([[[[1]]]]), Grid.narrow(2))
    graph = unquantized((Fraction(2**23),), (node,))
    with pytest.raises(RangeError):
        lowered_at(graph, 16, adaptive=True)


def test_two_layers_share_the_digits_of_their_input():
    one = conv("relu", np.array([[[[1]]]]), Grid.narrow(2))
    two = Conv("d", "relu", np.array([[[[1]]]]), Grid.narrow(2), (ONE,), (1, 1), NO_PADDING, 1)
    graph = unquantized((THIRD,), (one, two))
    low = lowered_at(graph)
    splits = [n.name for n in low.graph.nodes if isinstance(n, Thresholds)]
    assert splits == ["relu.digit2", "relu.digit1", "relu.digit0"]
    assert_within_bounds(graph, low, [image_of((2, 3, 1))])


def test_codes_behind_a_negative_gain_are_multiplied_as_they_are_worth():
    nodes = (
        raw((2, 2, 2)),
        Activation("act", "image", Grid.unsigned(2), (Fraction(80),)),
        Affine("bn", "act", (-THIRD, ZERO), (ZERO, ZERO)),
        conv("bn", random_codes(Grid.narrow(2), (2, 1, 1, 2)), Grid.narrow(2)),
    )
    graph = QGraph(nodes)
    low = lowered_at(graph)
    verify(low.graph)
    assert_within_bounds(graph, low, [image_of((2, 2, 2))])
