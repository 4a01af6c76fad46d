"""Threshold tables against their definitions on every reachable integer; what export records."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx
import pytest

from bitfold.export import check_decisions, check_forms, to_onnx
from bitfold.export import requantization as module
from bitfold.export.lowering import Decision
from bitfold.export.onnx.check import compare_onnxruntime
from bitfold.export.onnx.fused import Fitted, fit_fused
from bitfold.export.onnx.qdq import GRAPH_KEY, onnx_model
from bitfold.export.requantization import check_table, exact_indices
from bitfold.export.thresholds import Staircase, oriented_thresholds
from bitfold.ir import (
    Conv2d,
    Dequantize,
    Grid,
    IntGraph,
    Quantize,
    Rescale,
    Thresholds,
)

THIRD, HALF = Fraction(1, 3), Fraction(1, 2)


@pytest.mark.parametrize("ties", ["even", "up"])
@pytest.mark.parametrize("grid", [Grid.unsigned(2), Grid.narrow(3), Grid.odd(2), Grid.unsigned(1)])
@pytest.mark.parametrize(
    ("gain", "bias"),
    [(HALF, Fraction(0)), (-HALF, Fraction(1, 4)), (THIRD, -HALF), (Fraction(0), THIRD),
     (Fraction(1, 10), Fraction(1, 20)), (Fraction(3), Fraction(10**9, 7))],
)  # fmt: skip
def test_indices_are_exact_at_ties_and_everywhere(gain, bias, grid, ties):
    x = np.arange(-60, 61)
    for floor, ceiling in ((None, None), (Fraction(0), None), (Fraction(0), THIRD)):
        stairs = Staircase(grid, THIRD, ties, floor, ceiling)
        want = [stairs.index(gain * int(n) + bias) for n in x]
        assert exact_indices(gain, bias, stairs, x).tolist() == want


def test_float64_alone_would_miss_ties():
    """x/d + 1/(2d) meets every crossing of 1/d exactly: the rationals must be asked."""
    x, missed = np.arange(16), 0
    for d in range(2, 60):
        unit = Fraction(1, d)
        exact = exact_indices(unit, unit / 2, Staircase(Grid.unsigned(4), unit, "up"), x)
        assert exact.tolist() == [min(int(n) + 1, 15) for n in x]
        rounded = np.floor((float(unit) * x + float(unit / 2)) / float(unit) + 0.5).clip(0, 15)
        missed += int((rounded != exact).sum())
    assert missed > 0


def network(thresholds, sign=None, channels=2):
    """2-bit codes → ternary 1×1 convolution with accumulators −24 … 24 → ``thresholds``."""
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((channels, 1, 1, 8)) < 0.5, -1, 1)
    first = np.tile([60, 120, 180], (8, 1))
    codes, ones = Grid.unsigned(2), np.ones(channels, np.int64)
    return IntGraph.of(
        [
            Quantize("pixels", (3, 3, 8), Grid.pixels(0), 1.0),
            Thresholds("p", "pixels", first, np.ones(8, np.int64), codes, 1.0),
            Conv2d("conv", "p", weight, Grid.narrow(2), (1.0,), 0 * ones),
            Thresholds(
                "q", "conv", np.array(thresholds), ones if sign is None else np.array(sign), codes,
                1.0,
            ),
            Rescale("wide", "q", ones, 0 * ones, 0, 1.0),
            Dequantize("logits", "wide"),
        ]
    )  # fmt: skip


def decided(sign=(1, -1)):
    """A network and the decisions that its tables stand for."""
    stairs = (Staircase(Grid.unsigned(2), Fraction(4)),) * 2
    gain, bias = (Fraction(sign[0]), Fraction(sign[1])), (Fraction(0), Fraction(2))
    shape = network([[0, 0, 0], [0, 0, 0]]).types["conv"]
    rows = [
        oriented_thresholds(g, b, s, lo=shape.lo, hi=shape.hi)
        for g, b, s in zip(gain, bias, stairs, strict=True)
    ]
    graph = network([row for row, _ in rows], [sign for _, sign in rows])
    return graph, Decision("q", gain, bias, stairs)


@pytest.mark.parametrize("most", [1 << 22, 1])
def test_tables_equal_their_decisions_and_a_planted_step_is_found(monkeypatch, most):
    monkeypatch.setattr(module, "MOST_PAIRS", most)
    graph, decision = decided()
    (check,) = check_decisions(graph, (decision,))
    ends = graph.types["conv"]
    assert (check.mismatches, check.first) == (0, None)
    assert check.pairs == (ends.hi - ends.lo + 1) * 2
    assert (check.method == "enumerated") == (most > 1)
    assert (check.evaluated == check.pairs) == (most > 1)
    moved = replace(decision, bias=(decision.bias[0], decision.bias[1] + 1))
    (check,) = check_decisions(graph, (moved,))
    assert check.mismatches > 0
    assert check.max_abs_diff == 1
    assert check.first.channel == 1
    assert check.first.got == check.first.want + 1
    value = moved.gain[1] * check.first.integer + moved.bias[1]
    assert moved.stairs[1].index(value) == check.first.got


def test_every_written_form_is_compared():
    graph = network([[-3, 1, 5], [0, 4, 8]])
    checks = {check.name: check for check in check_forms(graph)}
    assert set(checks) == {"p", "q"}
    assert "line" in checks["p"].against
    assert "float32" in checks["q"].against
    assert all(check.mismatches == 0 for check in checks.values())


def test_a_form_of_another_table_is_found():
    graph = network([[-3, 1, 5], [0, 4, 8]])
    node = next(n for n in graph.nodes if n.name == "q")
    other = replace(node, table=node.table + 1)
    fitted = fit_fused(graph, node)
    from bitfold.export.onnx.proof import fused_indices

    check = check_table(graph, other, "another table", fused_indices(fitted.form, node))
    assert check.mismatches == 6
    assert (check.first.channel, check.first.integer) == (0, -3)


# ---------------------------------------------------------------- what the writer records

# Thresholds 2 apart: their slope is 1/2, and an integer bias puts accumulators on the tie.
TIED = [[1, 3, 5], [0, 2, 4]]


def test_a_scale_that_leaves_a_tie_is_replaced_and_both_are_recorded(tmp_path):
    graph = network(TIED)
    node = next(n for n in graph.nodes if n.name == "q")
    fitted = fit_fused(graph, node)
    assert isinstance(fitted, Fitted)
    assert [channel for channel, _ in fitted.tied] == [0, 1]
    export = to_onnx(graph, tmp_path / "net.onnx")
    (layer,) = export.fused
    assert layer.natural_scales == (0.5, 0.5)
    assert len(layer.exported_scales) == 2
    ends = graph.types["conv"]
    assert (layer.method, layer.pairs) == ("enumerated", 2 * (ends.hi - ends.lo + 1))
    assert layer.tied == fitted.tied
    model = onnx.load(tmp_path / "net.onnx")
    facts = json.loads({e.key: e.value for e in model.metadata_props}[GRAPH_KEY])
    entry = next(e for e in facts["nodes"] if e["name"] == "conv")
    assert entry["natural_scales"] == [0.5, 0.5]
    assert entry["tied"] == [list(pair) for pair in fitted.tied]
    scale = next(t for t in model.graph.initializer if t.name == "conv.weight.scale")
    stored = onnx.numpy_helper.to_array(scale).astype(np.float64) * np.abs(entry["factors"])
    assert tuple(stored.tolist()) == layer.exported_scales


def test_the_accumulator_named_as_tied_is_one():
    """The natural expression gives it another code, or stands on the crossing."""
    graph = network(TIED)
    node = next(n for n in graph.nodes if n.name == "q")
    fitted = fit_fused(graph, node)
    for channel, accumulator in fitted.tied:
        table = node.table[channel]
        assert accumulator in table or accumulator + 1 in table
        scale = np.float32(fitted.natural[channel])
        biases = np.arange(-8, 9)
        values = np.float32(accumulator + biases) * scale
        assert (np.abs(values - np.floor(values) - 0.5) == 0).any()


@pytest.mark.ort
@pytest.mark.parametrize("level", ["off", "all"])
def test_onnx_runtime_gives_the_thresholds_codes_on_and_beside_ties(level):
    graph = network(TIED)
    pixels = np.random.default_rng(1).integers(0, 256, (40, 3, 3, 8), dtype=np.uint8)
    assert compare_onnxruntime(graph, onnx_model(graph), pixels, level=level).differences == ()


def test_a_layer_without_a_fused_form_says_which_pair_stands_against_it(tmp_path):
    graph = network([[-6, -5, 6], [0, 4, 8]])
    export = to_onnx(graph, tmp_path / "net.onnx")
    (layer,) = export.exact
    assert export.fused == ()
    assert (layer.name, layer.channel) == ("conv", 0)
    assert layer.accumulator in {-7, -6, -5, 5, 6}
    assert "float32 rounding" in layer.why


def test_a_layer_that_is_never_fused_says_why(tmp_path):
    graph = network(TIED)
    nodes = [replace(n, bias=np.array([1, 0])) if isinstance(n, Conv2d) else n for n in graph.nodes]
    (layer,) = to_onnx(IntGraph.of(nodes), tmp_path / "net.onnx").exact
    assert (layer.channel, layer.accumulator) == (None, None)
    assert "bias" in layer.why
