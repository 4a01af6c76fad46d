"""``emit rtl`` refuses what the Verilog does not have; no key of ``ArrayConfig`` is forgotten."""

from dataclasses import fields

import numpy as np
import pytest

from bitfold.errors import UnsupportedError, UsageError
from bitfold.fpga_sim import ArrayConfig
from bitfold.fpga_sim.rtl import layer_run, outside, require_emittable, scope
from bitfold.ir import Conv2d, Dequantize, Grid, IntGraph, Quantize, Thresholds


@pytest.fixture(scope="module")
def graph():
    """A layer of 8-bit pixels and 2-bit odd weights, one of ternary weights and 2-bit codes."""
    rng = np.random.default_rng(7)
    table = np.sort(rng.integers(-900, 900, (5, 3)), axis=1)
    edge = Grid.odd(2).lo + 2 * rng.integers(0, 4, (5, 3, 3, 2))
    inner = rng.integers(-1, 2, (4, 1, 1, 5))
    return IntGraph.of(
        [
            Quantize("x", (4, 4, 2), Grid.pixels(0), 1.0),
            Conv2d("edge", "x", edge, Grid.odd(2), (1.0,), np.zeros(5, dtype=np.int64), (1, 1),
                   (1, 1, 1, 1)),
            Thresholds("act", "edge", table, np.ones(5, dtype=np.int64), Grid.unsigned(2), 1.0),
            Conv2d("inner", "act", inner, Grid.narrow(2), (1.0,), np.zeros(4, dtype=np.int64)),
            Dequantize("y", "inner"),
        ]
    )  # fmt: skip


def node_of(graph, name):
    return next(node for node in graph.nodes if node.name == name)


def test_every_key_is_built_settled_refused_or_outside():
    groups = [
        list(scope.BUILT), list(scope.SETTLED), list(scope.REFUSED), list(scope.OUTSIDE),
        *map(list, scope.DEPENDENT.values()),
    ]  # fmt: skip
    keys = [key for group in groups for key in group]
    assert sorted(keys) == sorted(field.name for field in fields(ArrayConfig))
    assert set(scope.DEPENDENT) <= set(scope.REFUSED)


@pytest.mark.parametrize(
    ("given", "sentence", "todo"),
    [
        ({"mode": "scalesim"}, "mode scalesim is not emitted", "Use mode native."),
        ({"subarray": "best"}, "no drain after row r", "Use subarray full."),
        ({"depthwise": "vector"}, "no vector unit", "Use depthwise array."),
    ],
)
def test_settings_without_verilog_are_refused(graph, given, sentence, todo):
    with pytest.raises(UnsupportedError, match=sentence) as caught:
        require_emittable(graph, node_of(graph, "inner"), ArrayConfig(**given))
    assert (caught.value.where, caught.value.todo) == (next(iter(given)), todo)


@pytest.mark.parametrize(
    ("name", "given", "sentence", "todo"),
    [
        ("edge", {}, "2 x 8 bits take 4 passes on PEs of 2 x 2 bits", "Use edge wide."),
        ("inner", {"pe": "binary"}, "2 x 2 bits take 4 passes on PEs of 1 x 1", "pe auto"),
        ("inner", {"pe": "parallel", "w_bits": 1}, "2 x 2 bits take 2 passes", "Leave w_bits"),
    ],
)
def test_layers_that_need_digits_are_refused(graph, name, given, sentence, todo):
    with pytest.raises(UnsupportedError, match=sentence) as caught:
        require_emittable(graph, node_of(graph, name), ArrayConfig(**given))
    assert todo in caught.value.todo


@pytest.mark.parametrize(("key", "bits"), [("w_bits", 4), ("a_bits", 3)])
def test_widths_other_than_the_layers_are_refused(graph, key, bits):
    with pytest.raises(UsageError, match=f"{key} is {bits}, and the PE is built for the 2 bits"):
        require_emittable(graph, node_of(graph, "inner"), ArrayConfig(**{key: bits}))


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize("drain", ["shared", "shadow"])
def test_what_is_built_is_accepted(graph, dataflow, drain):
    array = ArrayConfig(dataflow=dataflow, drain=drain, w_bits=2, a_bits=2, dram_latency=9)
    require_emittable(graph, node_of(graph, "inner"), array)
    require_emittable(graph, node_of(graph, "edge"), ArrayConfig(edge="wide"))
    # The other layer needs more bits, but it is not the one that is emitted.
    require_emittable(graph, node_of(graph, "inner"), ArrayConfig(acc_bits=5))


def test_an_accumulator_or_lanes_that_do_not_fit_the_layer_are_refused(graph):
    node, x = node_of(graph, "inner"), np.zeros((1, 4, 4, 5), dtype=np.int64)
    with pytest.raises(UsageError, match="overflow an accumulator of 2") as caught:
        layer_run(graph, node, x, ArrayConfig(acc_bits=2))
    assert "Use acc_bits" in caught.value.todo
    with pytest.raises(UsageError, match="3 lanes do not divide into DSP blocks of 2"):
        layer_run(graph, node, x, ArrayConfig(pe="dsp", lanes=3))


def test_settings_around_the_array_are_named():
    assert outside(ArrayConfig()) == ()
    array = ArrayConfig(weight_words=512, dram_latency=9, rows=3, clock_mhz=100.0)
    assert outside(array) == ("weight_words", "clock_mhz", "dram_latency")
