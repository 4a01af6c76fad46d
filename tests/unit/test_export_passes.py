"""Each fold pass on the smallest graph that shows its rule."""

import math
from fractions import Fraction

import numpy as np
import pytest

from bitfold.errors import UnsupportedError
from bitfold.export.passes import commute_max_pool, fold_batchnorm
from bitfold.export.qgraph import (
    Activation,
    Affine,
    BatchNorm,
    Conv,
    MaxPool,
    Pixels,
    QGraph,
    Sum,
)
from bitfold.ir import Grid

ONE, ZERO = Fraction(1), Fraction(0)
PIXELS = Pixels("image", (4, 4, 1), (ZERO,), (ONE,))


def conv(name, x):
    weight = np.ones((1, 1, 1, 1), np.int64)
    return Conv(name, x, weight, Grid.narrow(2), (ONE,), (1, 1), (0, 0, 0, 0), 1)


CODES = Grid.unsigned(2)


def activation(name, x, grid=CODES):
    return Activation(name, x, grid, (ONE,))


def kinds(graph):
    return [(type(node).__name__, node.name) for node in graph.nodes]


def test_batch_norm_becomes_its_affine_map():
    norm = BatchNorm("bn", "c", (3.0,), (0.5,), (2.0,), (4.0,), 0.0)
    graph = fold_batchnorm(QGraph((PIXELS, conv("c", "image"), norm)))
    likely = (0.5 + 64 * 3.0,)
    assert graph["bn"] == Affine("bn", "c", (Fraction(3, 2),), (Fraction(1, 2) - 3,), likely)


def test_batch_norm_gain_is_the_float64_value_taken_exactly():
    norm = BatchNorm("bn", "c", (0.7,), (0.0,), (0.0,), (0.3,), 1e-5)
    graph = fold_batchnorm(QGraph((PIXELS, conv("c", "image"), norm)))
    assert graph["bn"].gain == (Fraction(0.7 / math.sqrt(0.3 + 1e-5)),)


def test_a_variance_that_is_not_positive_is_refused():
    norm = BatchNorm("bn", "c", (1.0,), (0.0,), (0.0,), (-1.0,), 1e-5)
    with pytest.raises(UnsupportedError, match=r"variance -1.0 \+ eps 1e-05 is not positive"):
        fold_batchnorm(QGraph((PIXELS, conv("c", "image"), norm)))


def test_a_quantizer_moves_in_front_of_a_max_pool_that_only_it_reads():
    pool = MaxPool("p", "c", (2, 2), (2, 2), (0, 0, 0, 0))
    graph = commute_max_pool(QGraph((PIXELS, conv("c", "image"), pool, activation("a", "p"))))
    assert kinds(graph)[2:] == [("Activation", "a.before_pool"), ("MaxPool", "a")]
    assert (graph["a.before_pool"].x, graph["a"].x) == ("c", "a.before_pool")
    assert graph["a.before_pool"].layer == "a"


def test_a_max_pool_that_something_else_reads_stays_in_front():
    pool = MaxPool("p", "c", (2, 2), (2, 2), (0, 0, 0, 0))
    nodes = (PIXELS, conv("c", "image"), pool, activation("a", "p"), Sum("s", "p", "p"))
    assert commute_max_pool(QGraph(nodes)) == QGraph(nodes)
