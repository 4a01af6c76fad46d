"""The fixed-point stream: bends, channel moves, pools, sums, resolution, saturation."""

from fractions import Fraction

import numpy as np
import pytest

from bitfold.errors import RangeError, UnsupportedError
from bitfold.export.fixed_point import fixed_point
from bitfold.export.lowering import lower
from bitfold.export.lowering.stream import resolution
from bitfold.export.passes import commute_max_pool
from bitfold.export.qgraph import (
    Activation,
    Affine,
    Conv,
    Flatten,
    Flex,
    FullyConnected,
    MaxPool,
    MeanPool,
    PadChannels,
    Pixels,
    Prelu,
    QGraph,
    Relu,
    Sum,
)
from bitfold.ir import Add, Concat, Grid, MaxPool2d, Rescale, WideTensor, trace_oracle
from tests.property.qgraph_reference import assert_within_bounds, lowered_at, meaning

ZERO, ONE, HALF, THIRD = Fraction(0), Fraction(1), Fraction(1, 2), Fraction(1, 3)
MEAN = Fraction(100)


def pixels(shape=(2, 2, 3)):
    return Pixels("image", shape, (MEAN,) * shape[2], (ONE,) * shape[2])


def affine(gains, x="image", name="bn", biases=None, likely=None):
    return Affine(name, x, gains, biases or (THIRD,) * len(gains), likely)


def images_of(graph, count=2):
    shape = graph.nodes[0].shape
    ends = [np.full(shape, fill, np.uint8) for fill in (0, 255)]
    return [*np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8), *ends]


def value_of(low, name, image):
    """Real values of a node's tensor."""
    pending = low.pending(name)
    return meaning(pending, trace_oracle(low.graph, image[None])[pending.name][0])


def checked(*nodes, **options):
    """The network lowered; every tensor lies within its bound."""
    graph = QGraph(nodes)
    low = lowered_at(graph, **options)
    assert_within_bounds(graph, low, images_of(graph))
    return low


GAINS = (Fraction(2, 7), Fraction(-1, 3), ZERO)
BENDS = [
    Relu("bend", "bn"),
    Relu("bend", "bn", Fraction(6)),
    Prelu("bend", "bn", (Fraction(1, 4),)),
    Prelu("bend", "bn", (ZERO, ONE, Fraction(-1, 3))),
    Prelu("bend", "bn", (Fraction(7, 3), Fraction(-5, 2), ONE)),
    Prelu("bend", "bn", (Fraction(128), Fraction(300), Fraction(-1000, 7))),
]


@pytest.mark.parametrize("bend", BENDS, ids=str)
def test_bends_behind_gains_of_every_sign_stay_within_their_bound(bend):
    skip = Sum("sum", "bend", "image")
    checked(pixels(), affine(GAINS), bend, skip, Activation("act", "sum", Grid.narrow(3), (ONE,)))


@pytest.mark.parametrize("ties", ["even", "up"])
@pytest.mark.parametrize("bend", BENDS[:2], ids=str)
def test_a_rectified_value_is_quantized_exactly(bend, ties):
    """Thresholds take in a ReLU or a ReLU6, at ties as well: gains are multiples of halves."""
    gains = (HALF, -HALF, ZERO)
    act = Activation("act", "bend", Grid.narrow(3), (ONE, Fraction(3), HALF), ties)
    low = checked(pixels(), affine(gains, biases=(ZERO, HALF, Fraction(7))), bend, act)
    [report] = [r for r in low.build.reports if r.name == "act"]
    assert (report.kind, report.exact, report.error) == ("thresholds", True, 0.0)


@pytest.mark.parametrize(("ties", "codes"), [("even", [0, 0, 2]), ("up", [0, 1, 2])])
def test_ties_go_to_the_even_code_or_up(ties, codes):
    act = Activation("act", "image", Grid.unsigned(2), (Fraction(2),), ties)
    graph = QGraph((pixels((1, 3, 1)), act))
    image = np.array([[[99], [101], [103]]], np.uint8)  # −1/2, 1/2 and 3/2 in units of the scale
    traced = trace_oracle(lowered_at(graph).graph, image[None])
    assert traced["act"].ravel().tolist() == codes


def test_a_bend_behind_a_bend_is_carried_out_first():
    checked(
        pixels(), affine(GAINS), Relu("six", "bn", Fraction(6)), affine(GAINS, "six", "bn2"),
        Prelu("prelu", "bn2", (HALF,)), affine((ONE,) * 3, "prelu", "bn3"),
    )  # fmt: skip


def test_a_relu_on_the_stream_is_exact_and_a_ceiling_is_one_too():
    low = checked(pixels(), affine(GAINS), Relu("relu", "bn", Fraction(6)), Sum("s", "relu", "bn"))
    plain = checked(pixels(), affine(GAINS), Sum("s", "bn", "bn"))
    assert low.pending("relu").error.max() == plain.pending("bn").error.max()


def test_five_channels_become_the_sums_of_two_groups():
    """METHODS' golden vector: [1, 2, 3, 4, 5] → [1+3+5, 2+4] = [9, 6]."""
    low = checked(pixels((1, 1, 5)), affine((ONE,) * 5, biases=(ZERO,) * 5), Flex("flex", "bn", 2))
    image = np.arange(101, 106, dtype=np.uint8).reshape(1, 1, 5)
    assert value_of(low, "flex", image).ravel().tolist() == [9, 6]


def test_two_channels_are_repeated_in_turn():
    low = checked(pixels((1, 1, 2)), Flex("flex", "image", 6))
    image = np.array([[[101, 105]]], np.uint8)
    assert value_of(low, "flex", image).ravel().tolist() == [1, 5] * 3


@pytest.mark.parametrize(("have", "want"), [(4, 2), (6, 2), (5, 4), (7, 3), (3, 1), (3, 3), (2, 4)])
def test_flex_stays_within_its_bound(have, want):
    gains = tuple(Fraction(c + 1, 3) for c in range(have))
    low = checked(pixels((2, 1, have)), affine(gains), Flex("flex", "bn", want))
    one = low.pending("bn").error.max()
    assert low.pending("flex").error.max() <= one * -(-have // want) * (1 + 1e-9)


@pytest.mark.parametrize(("have", "want"), [(3, 3), (3, 5), (3, 6), (3, 8), (2, 7)])
def test_zero_channels_are_appended_in_any_number(have, want):
    graph = QGraph((pixels((2, 1, have)), affine((THIRD,) * have), PadChannels("pad", "bn", want)))
    low = lowered_at(graph)
    assert_within_bounds(graph, low, images_of(graph))
    assert low.build.types[low.pending("pad").name].shape == (2, 1, want)
    assert not low.pending("pad").error[have:].any()


def test_as_many_channels_as_there_are_need_no_operation():
    graph = QGraph((pixels(), affine(GAINS), PadChannels("pad", "bn", 3)))
    integers, _ = lower(graph)
    assert not [node for node in integers.nodes if isinstance(node, Concat)]


@pytest.mark.parametrize("kernel", [(2, 2), (3, 1), (4, 4), None])
def test_a_mean_on_the_skip_path_stays_within_its_bound(kernel):
    node = MeanPool("mean", "bn", kernel, kernel)
    act = Activation("act", "mean", Grid.unsigned(4), (Fraction(5),))
    checked(pixels((4, 4, 3)), affine(GAINS), node, act)


def test_a_mean_of_codes_is_exact():
    codes = Activation("codes", "image", Grid.unsigned(2), (Fraction(40),))
    act = Activation("act", "mean", Grid.unsigned(4), (Fraction(7),))
    low = checked(pixels((3, 3, 2)), codes, MeanPool("mean", "codes", None, None), act)
    assert all(report.exact for report in low.build.reports if report.name == "act")


def test_a_mean_over_a_power_of_two_only_refines_the_stream():
    low = checked(pixels((2, 2, 3)), affine(GAINS), MeanPool("mean", "bn", (2, 2), None))
    assert resolution(low.build, low.build.known["mean"]) == 18
    assert low.build.known["mean"].error.max() == low.pending("bn").error.max()


def test_sums_of_one_tensor_with_itself_and_of_two_resolutions_are_bounded():
    checked(pixels((2, 2, 3)), affine(GAINS), Sum("twice", "bn", "bn"))
    low = checked(
        pixels((2, 2, 3)), affine(GAINS), MeanPool("mean", "bn", (2, 2), None),
        affine(GAINS, "image", "bn2"), MeanPool("sub", "bn2", (1, 1), (2, 2)),
        Sum("sum", "mean", "sub"),
    )  # fmt: skip
    assert low.build.types["sum"].scale == 2.0**-16


def test_one_resolution_serves_the_whole_stream_where_it_fits():
    graph = QGraph((pixels(), affine((Fraction(300),) * 3), Sum("sum", "bn", "image")))
    with pytest.raises(RangeError, match="leaves int32"):
        lowered_at(graph, 16)
    integers, _ = lower(graph)
    scales = {t.scale for t in integers.types.values() if isinstance(t, WideTensor)}
    assert scales == {2.0**-14}


def test_an_adaptive_stream_gives_each_part_what_its_range_leaves():
    """A gain of a million leaves 5 bits with room for four; the rest of the stream keeps 16."""
    steep = affine((Fraction(10**5),) * 3, "image", "steep")
    flat = affine((Fraction(1, 100),) * 3, "image", "flat")
    nodes = pixels(), flat, Sum("fine", "flat", "flat"), steep, Sum("sum", "fine", "steep")
    low = checked(*nodes, adaptive=True)
    assert resolution(low.build, low.pending("fine")) == 16
    assert resolution(low.build, low.pending("sum")) == 5
    lower(QGraph(nodes))


def saturating(bend=None, gain=3000, likely=(50.0, 80.5, 200.0)):
    """A batch norm too steep for its proven range, of which statistics say it stays small."""
    gains = (Fraction(gain), Fraction(-gain, 2), Fraction(gain, 100))
    bn = affine(gains, likely=likely)
    nodes = (pixels((1, 16, 3)), bn) if bend is None else (pixels((1, 16, 3)), bn, bend)
    last = nodes[-1].name
    return QGraph((*nodes, Sum("sum", last, last))), gains


def near_the_mean():
    """Pixels whose values are small, and a few that are not."""
    ramp = np.array([0, 90, *range(94, 106), 110, 255], np.uint8)
    return np.repeat(ramp[:, None], 3, 1)[None]


@pytest.mark.parametrize(
    ("bend", "bent"),
    [
        (None, lambda x: x),
        (Relu("bend", "bn"), lambda x: max(x, ZERO)),
        (Relu("bend", "bn", Fraction(6)), lambda x: min(max(x, ZERO), Fraction(6))),
        (Prelu("bend", "bn", (Fraction(-1, 3),)), lambda x: x if x > 0 else x / -3),
    ],
    ids=["straight", "relu", "relu6", "prelu"],
)
def test_a_batch_norm_without_a_useful_proof_saturates_beyond_what_is_likely(bend, bent):
    graph, gains = saturating(bend)
    low = lowered_at(graph, 16, adaptive=True)
    name = graph.nodes[-2].name
    assert "saturating stream" in low.kinds(name)
    pending = low.pending(name)
    likely = low.build.known["bn"].likely
    image = near_the_mean()
    got = value_of(low, name, image)
    for c, gain in enumerate(gains):
        top = Fraction(likely[c]) + Fraction(1, 2**8)
        exact = [gain * (int(p) - MEAN) + THIRD for p in image[0, :, c]]
        want = [bent(min(max(x, -Fraction(likely[c])), Fraction(likely[c]))) for x in exact]
        inside = [bent(x) for x in exact]
        slack = Fraction(pending.error[c]) * 2 + Fraction(1, 2 ** bits_of(low, pending))
        assert any(abs(x) > top for x in exact)
        for x, y, clipped, free in zip(exact, got[0, :, c], want, inside, strict=True):
            assert abs(y - clipped) <= slack
            if abs(x) <= likely[c]:
                assert abs(y - free) <= Fraction(pending.error[c]) * (1 + Fraction(1, 10**9))


def bits_of(low, pending):
    return resolution(low.build, pending)


def test_the_saturating_report_states_the_bound_inside():
    graph, _ = saturating()
    low = lowered_at(graph, 16, adaptive=True)
    last = [report for report in low.build.reports if report.name == "bn"][-1]
    assert (last.kind, last.exact) == ("saturating stream", False)
    assert last.error == low.pending("bn").error.max()


def test_a_stream_that_fits_never_saturates():
    low = lowered_at(
        QGraph((pixels(), affine(GAINS, likely=(1.0, 1.0, 1.0)), Sum("s", "bn", "bn")))
    )
    assert low.kinds("bn") == ["stream"]


def test_a_sum_of_batch_norms_does_not_saturate_at_the_first_ones_limit():
    """A gain of 1 on the stream needs no operation; what it says of itself ends at the sum."""
    same = Affine("same", "sum0", (ONE,) * 3, (ZERO,) * 3, (1.0,) * 3)
    big = affine((Fraction(3),) * 3, "image", "big")
    nodes = (
        pixels(), big, Sum("sum0", "big", "big"), same, Sum("sum", "same", "big"),
        Relu("relu", "sum"), affine((Fraction(10**4),) * 3, "image", "steep"),
        Sum("end", "relu", "steep"),
    )  # fmt: skip
    low = checked(*nodes, adaptive=True)
    assert "saturating stream" not in low.kinds("relu")


def test_a_max_pool_behind_codes_of_several_scales_is_right():
    act = Activation("act", "image", Grid.narrow(3), (Fraction(30), Fraction(70)))
    checked(pixels((4, 4, 2)), act, MaxPool("pool", "act", (3, 3), (2, 2), (1, 1, 1, 1)))


def pooled(*readers, scales=(Fraction(40),)):
    bn = affine((Fraction(-1, 2), THIRD), "image", "bn")
    pool = MaxPool("pool", "bn", (3, 3), (2, 2), (1, 1, 1, 1))
    act = Activation("act", "pool", Grid.narrow(3), scales)
    return QGraph((pixels((5, 5, 2)), bn, pool, act, *readers))


def test_quantizing_before_a_pool_gives_the_codes_of_quantizing_behind_it():
    graph = pooled()
    moved = commute_max_pool(graph)
    images = np.stack(images_of(graph))
    before, after = (trace_oracle(lowered_at(g).graph, images)["act"] for g in (graph, moved))
    assert np.array_equal(before, after)
    assert lowered_at(moved).build.reports[0].exact
    assert not lowered_at(graph).build.reports[-1].exact


def test_a_pool_with_two_readers_is_pooled_once_on_the_stream():
    graph = pooled(Activation("act2", "pool", Grid.unsigned(2), (THIRD,)), Sum("s", "act", "act2"))
    assert commute_max_pool(graph) == graph
    low = lowered_at(graph)
    assert_within_bounds(graph, low, images_of(graph))
    assert sum(isinstance(node, MaxPool2d) for node in low.graph.nodes) == 1


def test_a_pool_in_front_of_a_scale_a_channel_stays_where_it_is():
    graph = pooled(scales=(Fraction(40), THIRD))
    assert commute_max_pool(graph) == graph
    assert_within_bounds(graph, lowered_at(graph), images_of(graph))


def test_a_value_that_is_used_twice_enters_the_stream_once():
    low = checked(pixels(), affine(GAINS), Sum("a", "bn", "image"), Sum("b", "a", "bn"))
    assert sum(isinstance(node, Rescale) for node in low.graph.nodes) == 2
    assert sum(isinstance(node, Add) for node in low.graph.nodes) == 2


@pytest.mark.parametrize(
    "node",
    [
        Affine("late", "flat", (ONE,) * 12, (ZERO,) * 12),
        Prelu("late", "flat", (HALF,)),
        Activation("late", "flat", Grid.unsigned(2), (ONE,)),
    ],
    ids=["affine", "prelu", "quantizer"],
)
def test_what_treats_channels_apart_may_not_follow_a_flattened_image(node):
    """Torch's order is (C, H, W), the integers' (H, W, C): the numbers would be mixed up."""
    with pytest.raises(
        UnsupportedError, match=r"the flattening of an image \(2, 2, 3\)\nlayer late"
    ):
        lowered_at(QGraph((pixels(), Flatten("flat", "image"), node)))


def test_a_flattened_pixel_may_be_mapped_and_quantized():
    checked(
        pixels((1, 1, 3)), Flatten("flat", "image"), affine(GAINS, "flat"),
        Prelu("p", "bn", (HALF,)),
        Activation("act", "p", Grid.unsigned(2), (ONE,)),
        FullyConnected("fc", "act", np.array([[1, -1, 1]]), Grid.narrow(2), (ONE,), (THIRD,)),
    )  # fmt: skip


def test_a_bias_too_large_for_its_shift_gets_a_smaller_one():
    form = fixed_point((ONE,), (Fraction(10**9),), fraction_bits=16, largest=2**30)
    assert abs(int(form.offset[0])) <= 2**61
    got = (
        int(form.multiplier[0]) * 2**30 + int(form.offset[0]) + (1 << form.shift >> 1)
    ) >> form.shift
    assert abs(got - (2**30 + 10**9) * 2**16) <= form.error
    with pytest.raises(RangeError, match=r"a bias of 1e\+15 do not fit"):
        fixed_point((ONE,), (Fraction(10**15),), fraction_bits=16, largest=1)


def test_a_convolution_that_is_added_up_is_brought_to_the_stream_at_once():
    one = Conv(
        "c", "image", np.ones((3, 1, 1, 3), int), Grid.narrow(2), (ONE,), (1, 1), (0,) * 4, 1
    )
    graph = QGraph((pixels(), one, Sum("s", "c", "image")))
    integers, _ = lower(graph)
    assert [node.name for node in integers.nodes][1:3] == ["c", "c.wide"]
