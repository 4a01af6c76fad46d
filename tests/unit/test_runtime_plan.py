from dataclasses import replace

import numpy as np
import pytest

from bitfold.errors import UnsupportedError
from bitfold.ir import (
    Add,
    Concat,
    Conv2d,
    Dequantize,
    Grid,
    IntGraph,
    Linear,
    Quantize,
    Rescale,
    Reshape,
    Slice,
    Thresholds,
    run_oracle,
)  # fmt: skip
from bitfold.kernels import ToAccumulators, ToIndices, ToWide
from bitfold.runtime import Session, plan_graph
from tests.property.strategies import every_op_graph

GRID, WEIGHTS = Grid.unsigned(2), Grid.narrow(2)
IMAGE = Quantize("image", (4, 4, 2), Grid.pixels(100), 0.01)
TABLE = np.array([[-9, 0, 9]] * 2)
ONES = np.ones(2, np.int64)


def conv(name, x="image"):
    return Conv2d(name, x, np.ones((2, 1, 1, 2), np.int64), WEIGHTS, (0.5,), ONES)


def thresholds(name, x, table=TABLE):
    return Thresholds(name, x, table, ONES, GRID, 0.5)


def rescale(name, x):
    return Rescale(name, x, ONES, ONES, 1, 0.25)


def linear(name, x, size):
    return Linear(name, x, np.ones((3, size), np.int64), WEIGHTS, (0.5,), np.zeros(3, np.int64))


def tail(x):
    return [Reshape("flat", x, (32,)), linear("fc", "flat", 32), Dequantize("logits", "fc")]


def wide_tail(x):
    return [thresholds("p", x), *tail("p")]


def kinds(graph):
    return [(type(s).__name__, s.name) for s in plan_graph(graph).steps]


def is_right(graph):
    images = np.random.default_rng(0).integers(0, 256, (3, *graph.input.shape)).astype(np.uint8)
    return np.array_equal(Session(graph, "numba").run(images), run_oracle(graph, images))


def digits(factors=(1, 255, 65025)):
    """Σ_k factor_k · (product k of the image), as folding writes wide weights."""
    nodes, total = [IMAGE], None
    for k, factor in enumerate(factors):
        layer, weighted = conv(f"c{k}"), rescale(f"w{k}", f"c{k}")
        nodes += [
            replace(layer, weight=layer.weight - k, weight_grid=Grid.narrow(4)),
            replace(weighted, multiplier=factor * ONES, offset=0 * ONES, shift=0),
        ]
        if k:
            nodes.append(Add(f"s{k}", total, f"w{k}"))
        total = nodes[-1].name
    return nodes, total


@pytest.mark.parametrize("factors", [(1, 255), (1, 255, 65025), (3, -7, 1, 99)])
def test_digits_of_wide_weights_are_one_product(factors):
    nodes, total = digits(factors)
    graph = IntGraph.of([*nodes, rescale("r", total), *wide_tail("r")])
    steps = plan_graph(graph).steps
    assert [s.name for s in steps[:2]] == [total, "p"]
    assert steps[0].is_wide
    assert steps[0].weight[0, 0, 0, 0] == sum(f * (1 - k) for k, f in enumerate(factors))
    assert steps[0].bias[0] == sum(factors)
    assert isinstance(steps[0].epilogue, ToWide)
    assert is_right(graph)


def test_thresholds_are_fused_behind_digits():
    nodes, total = digits()
    graph = IntGraph.of([*nodes, *wide_tail(total)])
    assert [s.name for s in plan_graph(graph).steps] == [total, "fc", "logits"]
    assert is_right(graph)


def test_what_somebody_else_reads_is_no_digit():
    nodes, total = digits((1, 255))
    more = [rescale("again", "w1"), Add("sum", total, "again")]
    graph = IntGraph.of([*nodes, *more, *wide_tail("sum")])
    assert [s.name for s in plan_graph(graph).steps][:2] == ["c0", "c1"]
    assert is_right(graph)


@pytest.mark.parametrize("shift", [0, 1])
def test_a_sum_of_other_products_is_left_alone(shift):
    nodes = [
        IMAGE, conv("a"), replace(rescale("r", "a"), shift=shift), conv("b"), rescale("s", "b"),
        Add("sum", "r", "s"),
    ]  # fmt: skip
    graph = IntGraph.of([*nodes, *wide_tail("sum")])
    assert [s.name for s in plan_graph(graph).steps][:2] == ["a", "b"]
    assert is_right(graph)


def test_thresholds_are_fused_into_their_convolution():
    graph = IntGraph.of([IMAGE, conv("a"), thresholds("p", "a"), *tail("p")])
    plan = plan_graph(graph)
    assert [type(s.epilogue) for s in plan.steps[:2]] == [ToIndices, ToAccumulators]
    assert [s.name for s in plan.steps] == ["a", "fc", "logits"]
    assert set(plan.tensors) == {"image", "p", "flat", "fc", "logits"}


def test_rescale_and_addition_are_fused_where_the_other_operand_exists():
    nodes = [
        IMAGE,
        conv("a"),
        rescale("r", "a"),
        conv("b"),
        rescale("s", "b"),
        Add("sum", "s", "r"),
    ]
    plan = plan_graph(IntGraph.of([*nodes, *wide_tail("sum")]))
    assert [s.name for s in plan.steps] == ["a", "b", "p", "fc", "logits"]
    rule = plan.steps[1].epilogue
    assert isinstance(rule, ToWide)
    assert rule.add is not None
    assert rule.add.offset == plan.tensors["r"].buffer.offset
    assert is_right(IntGraph.of([*nodes, *wide_tail("sum")]))


def test_the_later_of_two_convolutions_adds_whatever_the_order_of_rescales():
    nodes = [
        IMAGE,
        conv("a"),
        conv("b"),
        rescale("s", "b"),
        rescale("r", "a"),
        Add("sum", "s", "r"),
    ]
    graph = IntGraph.of([*nodes, *wide_tail("sum")])
    assert [name for _, name in kinds(graph)] == ["a", "b", "p", "fc", "logits"]
    assert is_right(graph)


def test_the_other_side_of_an_addition_is_lowered_before():
    nodes = [
        IMAGE, conv("a"), rescale("r", "a"), conv("b"), rescale("s", "b"),
        Slice("left", "r", 0, 1), Slice("right", "r", 1, 2), Add("both", "left", "right"),
        Concat("twice", ("both", "both")), Add("sum", "s", "twice"),
    ]  # fmt: skip
    graph = IntGraph.of([*nodes, *wide_tail("sum")])
    assert kinds(graph)[:4] == [
        ("ConvStep", "a"), ("AddStep", "both"), ("CopyStep", "twice"), ("ConvStep", "b"),
    ]  # fmt: skip
    added, copied = plan_graph(graph).steps[1:3]
    assert (added.a_start, added.b_start, added.a) == (0, 1, added.b)
    assert copied.repeats == 2
    assert is_right(graph)


def test_a_slice_that_is_added_behind_a_convolution_is_copied():
    nodes = [
        IMAGE, conv("a"), rescale("r", "a"), conv("b"), rescale("s", "b"),
        Concat("two", ("r", "r")), Slice("part", "two", 1, 3), Add("sum", "part", "s"),
    ]  # fmt: skip
    graph = IntGraph.of([*nodes, *wide_tail("sum")])
    assert ("CopyStep", "part") in kinds(graph)
    assert not any(kind == "AddStep" for kind, _ in kinds(graph))
    assert is_right(graph)


def test_a_rescale_of_the_stream_is_fused_with_its_addition():
    nodes = [
        IMAGE, conv("a"), rescale("r", "a"), rescale("t", "r"), Add("sum", "t", "r"),
    ]  # fmt: skip
    graph = IntGraph.of([*nodes, *wide_tail("sum")])
    assert kinds(graph)[:3] == [("ConvStep", "a"), ("RescaleStep", "t"), ("ThresholdStep", "p")]
    assert is_right(graph)


def test_a_long_chain_of_additions_is_not_followed_to_its_end():
    count = 400
    nodes = [IMAGE, conv("a"), rescale("r", "a"), *(rescale(f"r{i}", "r") for i in range(count))]
    nodes += [Add(f"s{i}", f"r{i}", f"s{i + 1}" if i + 1 < count else "r")
              for i in reversed(range(count))]  # fmt: skip
    assert is_right(IntGraph.of([*nodes, *wide_tail("s0")]))


def test_two_rescales_that_wait_for_each_other():
    nodes = [
        IMAGE, conv("a"), rescale("r", "a"), thresholds("u", "r"), conv("b", "u"),
        rescale("s", "b"), rescale("v", "r"), Add("sum", "v", "s"),
    ]  # fmt: skip
    graph = IntGraph.of([*nodes, *wide_tail("sum")])
    assert ("AddStep", "sum") not in kinds(graph)
    assert is_right(graph)


def test_a_tensor_added_to_itself_is_not_fused():
    nodes = [IMAGE, conv("a"), rescale("r", "a"), Add("sum", "r", "r"), *wide_tail("sum")]
    graph = IntGraph.of(nodes)
    assert ("AddStep", "sum") in kinds(graph)
    assert is_right(graph)


def test_an_accumulator_with_two_readers_is_stored():
    nodes = [
        IMAGE, conv("a"), thresholds("p", "a"), thresholds("q", "a", TABLE + 3),
        Concat("both", ("p", "q")), Reshape("flat", "both", (64,)), linear("fc", "flat", 64),
        Dequantize("logits", "fc"),
    ]  # fmt: skip
    graph = IntGraph.of(nodes)
    assert kinds(graph)[:5] == [
        ("ConvStep", "a"), ("ThresholdStep", "p"), ("ThresholdStep", "q"),
        ("CopyStep", "both.0"), ("CopyStep", "both.1"),
    ]  # fmt: skip
    assert is_right(graph)


def test_a_rescale_with_two_readers_is_not_fused_into_the_addition():
    nodes = [
        IMAGE, conv("a"), rescale("r", "a"), conv("b"), rescale("s", "b"), Add("sum", "r", "s"),
        Add("again", "sum", "s"), *wide_tail("again"),
    ]  # fmt: skip
    graph = IntGraph.of(nodes)
    assert {"s", "sum", "again"} <= set(plan_graph(graph).tensors)
    assert is_right(graph)


def test_thresholds_and_results_of_codes_unpack_them_first():
    table = np.array([[-99, 0, 99]] * 2)
    nodes = [IMAGE, thresholds("p", "image", table), Reshape("flat", "p", (32,))]
    graph = IntGraph.of([*nodes, Dequantize("logits", "flat")])
    assert [name for _, name in kinds(graph)] == ["p.codes", "p", "logits.codes", "logits"]
    assert is_right(graph)


def test_reshape_shares_its_bytes():
    plan = plan_graph(every_op_graph())
    buffers = plan.tensor_buffers
    assert buffers["flat"].offset == buffers["q"].offset
    assert (buffers["q"].shape, buffers["flat"].shape) == ((1, 1, 4), (4,))


def test_the_arena_is_smaller_than_all_tensors_together():
    plan = plan_graph(every_op_graph())
    assert plan.arena_bytes < sum(b.num_bytes + 64 for b in plan.tensor_buffers.values())
    assert plan.output is plan.steps[-1].out


def test_weights_past_eight_bits_are_refused_by_name():
    wide = replace(conv("a"), weight_grid=Grid(-255, 255, 2))
    graph = IntGraph.of([IMAGE, wide, thresholds("p", "a"), *tail("p")])
    with pytest.raises(UnsupportedError, match="weights on -255:255:2 do not fit 8 bits\nnode a"):
        plan_graph(graph)
