"""How each threshold table is written, and the record of why: scales, proofs, and refusals."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import UnsupportedError
from bitfold.export.onnx.affine import fit_line
from bitfold.export.onnx.emit import Form, Json
from bitfold.export.onnx.fused import Fitted, NotFused, fit_fused
from bitfold.export.onnx.proof import FUSED, check_written, fused_indices, unfused_failures
from bitfold.export.requantization import RequantCheck, check_table
from bitfold.ir import Conv2d, FloatTensor, IntGraph, Linear, Thresholds


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """A convolution written together with its thresholds: scales, and what was proved of them.

    ``natural_scales`` are the thresholds' own slopes in float32, ``exported_scales`` what one
    accumulator counts in the file. ``tied`` lists (channel, accumulator) that the natural scale
    would leave to float32 rounding; ``pairs`` the (accumulator, channel) pairs on which the fused
    float32 expression was compared, by ``method``; unfused, ``unrounded_channels`` have nothing to
    round in float32 and the others keep farther from every boundary than a bound on all roundings.
    """

    name: str
    natural_scales: tuple[float, ...]
    exported_scales: tuple[float, ...]
    nudged_channels: tuple[int, ...]
    tied: tuple[tuple[int, int], ...]
    pairs: int
    method: str
    unrounded_channels: int


@dataclass(frozen=True, slots=True)
class ExactLayer:
    """A layer that is not fused, and why; the pair that stands against it, if there is one."""

    name: str
    why: str
    channel: int | None = None
    accumulator: int | None = None


@dataclass(frozen=True, slots=True)
class Forms:
    """How each Thresholds is written, and what the search for a fused form found, by its name."""

    chosen: Mapping[str, Form]
    fitted: Mapping[str, Fitted]
    refused: Mapping[str, NotFused]


def search_forms(graph: IntGraph) -> Forms:
    """Every Thresholds fused, else as a line, else absent: as comparisons. All proven."""
    chosen, fitted, refused = fit_lines(graph), {}, {}
    for node in graph.nodes:
        if not isinstance(node, Thresholds):
            continue
        found = fit_fused(graph, node)
        if isinstance(found, NotFused):
            refused[node.name] = found
        else:
            fitted[node.name] = found
            chosen[node.name] = found.form
    return Forms(chosen, fitted, refused)


def fit_lines(graph: IntGraph) -> dict[str, Form]:
    """The line of each Thresholds that has one, proven (docs/onnx.md)."""
    lines: dict[str, Form] = {}
    for node in graph.nodes:
        if isinstance(node, Thresholds):
            x = graph.types[node.x]
            assert not isinstance(x, FloatTensor)
            line = fit_line(node.table, node.sign, lo=x.lo, hi=x.hi)
            if line is not None:
                lines[node.name] = line
    return lines


def check_forms(graph: IntGraph) -> tuple[RequantCheck, ...]:
    """Every table against the expression that ``qcdq`` writes for it; comparisons need none."""
    return check_written(graph, search_forms(graph).chosen)


def fused_records(graph: IntGraph, forms: Forms) -> tuple[FusedLayer, ...]:
    """What is known of every fused layer; the float32 expression is compared pair by pair.

    Raises UnsupportedError naming layer, channel and accumulator if one pair differs.
    """
    made = []
    for node in graph.nodes:
        fitted = forms.fitted.get(node.name)
        if fitted is None or not isinstance(node, Thresholds):
            continue
        check = check_table(graph, node, FUSED, fused_indices(fitted.form, node))
        if check.first is not None or len(unfused_failures(graph, node, fitted.form)):
            raise UnsupportedError(
                f"the fused expression differs from the thresholds: {check.first}",
                where=f"node {node.x}",
                todo="This is an error in bitfold: report it with the model.",
            )
        made.append(
            FusedLayer(
                node.x, shortest(fitted.natural), tuple(fitted.exported.tolist()),
                tuple(fitted.nudged.tolist()), fitted.tied, check.pairs, check.method,
                int((fitted.bound == 0).sum()),
            )
        )  # fmt: skip
    return tuple(made)


def shortest(scales: NDArray[np.float32]) -> tuple[float, ...]:
    """float32 numbers as the decimals of fewest digits that give them back."""
    return tuple(float(str(scale)) for scale in scales)


def exact_records(graph: IntGraph, forms: Forms) -> tuple[ExactLayer, ...]:
    """Why each other layer takes the exact form."""
    readers = {n.x: forms.refused[n.name] for n in graph.nodes if n.name in forms.refused
               and isinstance(n, Thresholds)}  # fmt: skip
    fused = {n.x for n in graph.nodes if n.name in forms.fitted and isinstance(n, Thresholds)}
    made = []
    for node in graph.nodes:
        if not isinstance(node, Conv2d | Linear) or node.name in fused:
            continue
        if isinstance(node, Linear):
            made.append(ExactLayer(node.name, "fused products of 8 bits may saturate"))
        elif node.name in readers:
            found = readers[node.name]
            made.append(ExactLayer(node.name, found.why, found.channel, found.accumulator))
        else:
            made.append(ExactLayer(node.name, "its sums themselves are needed"))
    return tuple(made)


def fused_facts(layers: tuple[FusedLayer, ...]) -> dict[str, dict[str, Json]]:
    """For the metadata of a fused convolution: its natural scales, where the file has others.

    The exported ones are its constants times its factors.
    """
    return {
        layer.name: {
            "natural_scales": list(layer.natural_scales),
            "nudged": list(layer.nudged_channels),
            "tied": [list(pair) for pair in layer.tied],
            "pairs": layer.pairs,
            "proof": layer.method,
        }
        for layer in layers
    }
