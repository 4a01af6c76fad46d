"""Batch norms become per-channel affine maps.

    BatchNorm(x)  →  Affine(x): gain = gamma/sqrt(var + eps), bias = beta − gain·mean

Requires: var + eps > 0. Ensures: no ``BatchNorm`` is left. gain is evaluated in float64 (a root is
irrational) and from there on taken as that exact rational; bias is exact given gain.
Batch norms are never folded into weights: their quantizer's scale is defined on the raw weights.
"""

import math
from fractions import Fraction

from bitfold.errors import UnsupportedError
from bitfold.export.qgraph import Affine, BatchNorm, QGraph, QNode

# A batch norm's results have mean beta and standard deviation |gamma| on its training data.
DEVIATIONS = 64


def affine_of(node: BatchNorm) -> Affine:
    """The affine map that ``node`` computes in eval mode (arithmetic.md, eq. 6)."""
    if min(node.var) + node.eps <= 0:
        raise UnsupportedError(
            f"variance {min(node.var)} + eps {node.eps} is not positive", where=f"layer {node.name}"
        )
    gains = tuple(
        Fraction(gamma / math.sqrt(var + node.eps))
        for gamma, var in zip(node.gamma, node.var, strict=True)
    )
    biases = tuple(
        Fraction(beta) - gain * Fraction(mean)
        for beta, gain, mean in zip(node.beta, gains, node.mean, strict=True)
    )
    likely = tuple(
        abs(beta) + DEVIATIONS * abs(gamma)
        for beta, gamma in zip(node.beta, node.gamma, strict=True)
    )
    return Affine(node.name, node.x, gains, biases, likely)


def fold_batchnorm(graph: QGraph) -> QGraph:
    """Replace every ``BatchNorm`` by its ``Affine``."""

    def rule(node: QNode) -> tuple[QNode]:
        return (affine_of(node) if isinstance(node, BatchNorm) else node,)

    return graph.rewrite(rule)
