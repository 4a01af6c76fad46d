"""Each fold pass on the smallest graph that shows its rule."""

import math
from fractions import Fraction

import numpy as np
import pytest

from bitfold.errors import UnsupportedError
from bitfold.export.passes import absorb_relu, fold_batchnorm, widen_residuals
from bitfold.export.qgraph import (
    Activation,
    Affine,
    BatchNorm,
    Conv,
    Flatten,
    FullyConnected,
    MeanPool,
    Pixels,
    QGraph,
    Relu,
    Sum,
    Widen,
)
from bitfold.ir import Grid

ONE, ZERO = Fraction(1), Fraction(0)
PIXELS = Pixels("image", (4, 4, 1), 0, 1)


def conv(name, x):
    weight = np.ones((1, 1, 1, 1), np.int64)
    return Conv(name, x, weight, Grid.narrow(2), (ONE,), (1, 1), (0, 0, 0, 0), 1)


CODES = Grid.unsigned(2)


def activation(name, x, grid=CODES):
    return Activation(name, x, grid, ONE)


def kinds(graph):
    return [(type(node).__name__, node.name) for node in graph.nodes]


def test_batch_norm_becomes_its_affine_map():
    norm = BatchNorm("bn", "c", (3.0,), (0.5,), (2.0,), (4.0,), 0.0)
    graph = fold_batchnorm(QGraph((PIXELS, conv("c", "image"), norm)))
    assert graph["bn"] == Affine("bn", "c", (Fraction(3, 2),), (Fraction(1, 2) - 3,))


def test_batch_norm_gain_is_the_float64_value_taken_exactly():
    norm = BatchNorm("bn", "c", (0.7,), (0.0,), (0.0,), (0.3,), 1e-5)
    graph = fold_batchnorm(QGraph((PIXELS, conv("c", "image"), norm)))
    assert graph["bn"].gain == (Fraction(0.7 / math.sqrt(0.3 + 1e-5)),)


def test_a_variance_that_is_not_positive_is_refused():
    norm = BatchNorm("bn", "c", (1.0,), (0.0,), (0.0,), (-1.0,), 1e-5)
    with pytest.raises(UnsupportedError, match=r"variance -1.0 \+ eps 1e-05 is not positive"):
        fold_batchnorm(QGraph((PIXELS, conv("c", "image"), norm)))


def test_a_relu_in_front_of_an_unsigned_quantizer_goes():
    nodes = (PIXELS, conv("c", "image"), Relu("r", "c"), activation("a", "r"))
    graph = absorb_relu(QGraph(nodes))
    assert kinds(graph) == [("Pixels", "image"), ("Conv", "c"), ("Activation", "a")]
    assert graph["a"].x == "c"


def test_a_relu_in_front_of_a_signed_quantizer_stays():
    nodes = (PIXELS, conv("c", "image"), Relu("r", "c"), activation("a", "r", Grid.narrow(2)))
    assert absorb_relu(QGraph(nodes)) == QGraph(nodes)


def test_a_relu_that_something_else_reads_stays():
    nodes = (PIXELS, conv("c", "image"), Relu("r", "c"), activation("a", "r"), Sum("s", "r", "r"))
    assert absorb_relu(QGraph(nodes)) == QGraph(nodes)


def test_convolutions_that_are_added_are_widened():
    nodes = (PIXELS, conv("c", "image"), conv("d", "image"), Sum("s", "c", "d"))
    graph = widen_residuals(QGraph(nodes))
    assert ("Widen", "c.wide") in kinds(graph)
    assert (graph["s"].a, graph["s"].b) == ("c.wide", "d.wide")
    assert graph["c.wide"].x == "c"


def test_a_convolution_that_only_a_quantizer_reads_is_left_alone():
    affine = Affine("bn", "c", (ONE,), (ZERO,))
    nodes = (PIXELS, conv("c", "image"), affine, activation("a", "bn"))
    assert widen_residuals(QGraph(nodes)) == QGraph(nodes)


def test_a_pooled_relu_takes_its_affine_map_along():
    affine = Affine("bn", "s", (Fraction(2),), (Fraction(3),))
    nodes = (
        PIXELS, conv("c", "image"), Sum("s", "c", "c"), affine, Relu("r", "bn"),
        MeanPool("p", "r", None, None),
    )  # fmt: skip
    graph = widen_residuals(QGraph(nodes))
    assert graph["r"] == Widen("r", "s", (Fraction(2),), (Fraction(3),), relu=True, headroom=0)
    assert "bn" not in [node.name for node in graph.nodes]


def test_an_affine_map_between_convolution_and_sum_is_rescaled_once():
    affine = Affine("bn", "c", (Fraction(2),), (ZERO,))
    nodes = (PIXELS, conv("c", "image"), affine, Sum("s", "bn", "bn"))
    graph = widen_residuals(QGraph(nodes))
    assert kinds(graph)[1:] == [("Conv", "c"), ("Widen", "bn"), ("Sum", "s")]
    assert graph["bn"].x == "c"


def test_an_unquantized_classifier_input_is_refused():
    classifier = FullyConnected(
        "fc", "f", np.ones((2, 1), np.int64), Grid.narrow(8), (ONE,), (ZERO, ZERO)
    )
    nodes = (PIXELS, conv("c", "image"), Flatten("f", "c"), classifier)
    with pytest.raises(UnsupportedError, match="without a quantizer between them"):
        widen_residuals(QGraph(nodes))
