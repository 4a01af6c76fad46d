"""Grids, nodes and graphs: values that cannot change."""

import numpy as np
import pytest

from bitfold.errors import InputError
from bitfold.ir import (
    Accumulator,
    CodeTensor,
    Dequantize,
    Grid,
    IntGraph,
    Quantize,
    Rescale,
    Thresholds,
    WideTensor,
    inputs_of,
    rescale_interval,
    run_oracle,
    signed_bits,
    to_text,
    trace_oracle,
)
from bitfold.ir.oracle import rescale, thresholds
from tests.property.strategies import every_op_graph


def test_odd_grids_have_no_zero():
    assert [Grid.odd(b).levels for b in (1, 2, 3)] == [2, 4, 8]
    assert not any(Grid.odd(b).has_zero for b in (1, 2, 3))
    with pytest.raises(ValueError, match="-3:3:2 has no code 0"):
        _ = Grid.odd(2).zero_index


def test_zero_index_is_the_index_of_code_0():
    assert Grid.narrow(4).zero_index == 7
    assert Grid.unsigned(4).zero_index == 0
    assert Grid.pixels(73).zero_index == 73
    assert Grid(-4, 4, 2).zero_index == 2


def test_bits_hold_every_index():
    assert [Grid(0, n - 1).bits for n in (1, 2, 3, 4, 5, 255, 256)] == [1, 1, 2, 2, 3, 8, 8]


@pytest.mark.parametrize("ends", [(0, -1, 1), (0, 3, 2), (0, 3, 0)])
def test_ends_of_a_grid_are_whole_steps_apart(ends):
    with pytest.raises(ValueError, match="not a grid"):
        Grid(*ends)


def test_signed_bits_count_the_sign():
    cases = {(0, 0): 1, (0, 1): 2, (-1, 0): 1, (-128, 127): 8, (-129, 0): 9, (0, 2**31 - 1): 32}
    assert {ends: signed_bits(*ends) for ends in cases} == cases


def test_constants_are_copied_and_read_only():
    mine = np.array([1, 2])
    node = Rescale("r", "x", mine, mine, 1, 0.5)
    mine[0] = 9
    assert node.multiplier.tolist() == [1, 2]
    assert node.multiplier.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        node.multiplier[0] = 3


def test_nodes_compare_by_value():
    one, two = np.array([1]), np.array([2])
    node = Rescale("r", "x", one, one, 1, 0.5)
    assert node == Rescale("r", "x", one, one, 1, 0.5)
    assert node != Rescale("r", "x", two, one, 1, 0.5)
    assert node != Rescale("r", "x", one, one, 1, 0.5, one)
    assert Rescale("r", "x", one, one, 1, 0.5, one) != node
    assert node != Dequantize("r", "x")
    with pytest.raises(TypeError, match="unhashable"):
        hash(node)


def test_types_are_derived_from_the_nodes():
    graph = every_op_graph()
    types = graph.types
    assert types["p"] == CodeTensor((6, 6, 4), Grid.unsigned(2), 0.25)
    (conv,) = (node for node in graph.nodes if node.name == "conv")
    filters = conv.weight.reshape(4, -1).tolist()  # codes 0 … 3, bias 1
    lo = 1 + min(sum(3 * w for w in row if w < 0) for row in filters)
    hi = 1 + max(sum(3 * w for w in row if w > 0) for row in filters)
    assert types["conv"] == Accumulator((6, 6, 4), lo, hi, (0.125,))
    assert isinstance(types["sum"], WideTensor)
    assert types["mean"].lo == 36 * types["sum"].lo
    with pytest.raises(TypeError):
        types["p"] = types["conv"]


def test_meta_travels_sorted():
    assert every_op_graph().meta == (("bits", "2,2"), ("net", "every-op"))


def test_consumers_are_listed_in_order():
    graph = every_op_graph()
    assert [node.name for node in graph.consumers("peak")] == ["upper", "lower"]
    assert [x for node in graph.nodes for x in inputs_of(node)].count("stream") == 2


def test_text_says_every_float_exactly():
    graph = IntGraph.of([Quantize("x", (1, 1, 1), Grid.pixels(0), 0.1), Dequantize("y", "x")])
    assert "scale = 0x1.999999999999ap-4\n" in to_text(graph)


# The oracle's rules where they are easy to get wrong


def test_a_threshold_is_taken_at_equality():
    node = Thresholds("t", "x", np.array([[5, 9]]), np.array([1]), Grid(-1, 1), 1.0)
    assert thresholds(node, np.array([[4], [5], [8], [9]])).ravel().tolist() == [-1, 0, 0, 1]


def test_a_turned_channel_counts_the_negated_integer():
    node = Thresholds("t", "x", np.array([[-5]]), np.array([-1]), Grid(0, 2, 2), 1.0)
    assert thresholds(node, np.array([[4], [5], [6]])).ravel().tolist() == [2, 2, 0]


def test_a_shift_rounds_half_up_on_both_sides_of_zero():
    node = Rescale("r", "x", np.array([1]), np.array([0]), 2, 1.0)
    x = np.array([[-6], [-5], [-2], [-1], [1], [2], [6]])
    assert rescale(node, x).ravel().tolist() == [-1, -1, 0, 0, 0, 1, 2]


def test_zero_slopes_make_a_relu():
    zero = np.array([0])
    node = Rescale("r", "x", np.array([1]), zero, 0, 1.0, zero)
    assert rescale(node, np.array([[-7], [0], [7]])).ravel().tolist() == [0, 0, 7]


def test_only_negative_results_are_bent_in_the_interval():
    one, zero = np.array([1]), np.array([0])
    node = Rescale("r", "x", one, zero, 0, 1.0, -one)
    assert rescale_interval(node, lo=-2, hi=5) == (0, 5)
    assert rescale_interval(node, lo=-4, hi=-2) == (2, 4)


def test_the_output_is_one_float32_product():
    nodes = [Quantize("x", (1, 1, 1), Grid.pixels(0), 0.1), Dequantize("y", "x")]
    logits = run_oracle(IntGraph.of(nodes), np.full((1, 1, 1, 1), 3, np.uint8))
    assert logits.dtype == np.float32
    assert logits.ravel()[0] == np.float32(3) * np.float32(0.1)


def test_no_images_give_no_logits():
    graph = every_op_graph()
    assert run_oracle(graph, np.zeros((0, 6, 6, 1), np.uint8)).shape == (0, 3)


def test_every_node_is_traced_in_order():
    graph = every_op_graph()
    trace = trace_oracle(graph, np.zeros((2, 6, 6, 1), np.uint8))
    assert list(trace) == [node.name for node in graph.nodes]


@pytest.mark.parametrize(
    "images", [np.zeros((1, 6, 6), np.uint8), np.zeros((1, 6, 6, 1)), np.uint8(3)]
)
def test_images_of_another_shape_or_dtype_are_refused(images):
    with pytest.raises(InputError) as caught:
        run_oracle(every_op_graph(), images)
    assert f"images are {images.dtype} {images.shape}" in str(caught.value)
    assert "Pass uint8 images of shape (N, 6, 6, 1)." in str(caught.value)
