"""The certificate: all forms of a small network agree, and a planted difference is named."""

import dataclasses

import numpy as np
import pytest

from bitfold.certify import certify, compare_traces
from bitfold.certify.proofs import (
    accumulator_stage,
    requantization_checks,
    requantization_stages,
)
from bitfold.export import fold_network
from bitfold.ir import (
    Accumulator,
    Dequantize,
    Grid,
    IntGraph,
    Quantize,
    Thresholds,
    trace_oracle,
)
from bitfold.models import NetSpec, Preprocessing, new_network, save_checkpoint

pytestmark = [pytest.mark.torch, pytest.mark.ort]


@pytest.fixture(scope="module")
def network():
    spec = NetSpec.with_default_grid(
        net="resnet8",
        method="pact-sawb",
        bits=(2, 2),
        input_shape=(10, 10, 1),
        class_names=("a", "b", "c"),
        preprocessing=Preprocessing(73, 90),
        width=0.5,
    )
    return new_network(spec, seed=3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).integers(0, 256, (5, 10, 10, 1), dtype=np.uint8)


def test_every_form_of_a_network_agrees(network, images, tmp_path):
    checkpoint = tmp_path / "net.pt"
    save_checkpoint(checkpoint, network, record={})
    graph = fold_network(network).graph
    certificate = certify(graph, images, labels=np.zeros(5, np.int64), checkpoint=checkpoint)
    assert certificate.ok
    names = [stage.name for stage in certificate.stages]
    runtime = {"onnxruntime", "onnxruntime unoptimized"}
    assert runtime | {f"{name}, whole plan" for name in runtime} | {"fpga array"} <= set(names)
    assert any(name.startswith("numba") for name in names)
    integer = {"onnxruntime integer", "onnxruntime integer unoptimized", "openvino integer"}
    assert integer <= set(names)
    assert all(stage.compared > 0 or stage.detail for stage in certificate.stages)
    assert all(stage.mismatches == 0 for stage in certificate.stages if stage.exact)
    assert certificate.accumulators_proved == sum(
        node.name in graph.types
        for node in graph.nodes
        if type(node).__name__ in ("Conv2d", "Linear")
    )
    assert certificate.to_dict()["ok"] is True
    ranges = {proof.name: (proof.lo, proof.hi) for proof in certificate.accumulators}
    assert ranges == {name: (graph.types[name].lo, graph.types[name].hi) for name in ranges}
    assert len(ranges) == certificate.accumulators_proved
    checked = {check.name for check in certificate.requantization}
    assert checked == {node.name for node in graph.nodes if isinstance(node, Thresholds)}
    assert certificate.requant_pairs_checked == sum(
        (graph.types[node.x].hi - graph.types[node.x].lo + 1) * len(node.table)
        for node in graph.nodes
        if isinstance(node, Thresholds) and isinstance(graph.types[node.x], Accumulator)
    )
    floats = [stage for stage in certificate.stages if stage.name.startswith("fake-quant float32")]
    assert [stage.exact for stage in floats] == [False, False]
    assert all(stage.compared > 0 and "of the codes flip" in stage.detail for stage in floats)
    assert [layer.flips_float32 for layer in certificate.layers] == [0] * len(certificate.layers)


def test_a_table_that_is_not_the_trained_networks_breaks_the_certificate(network, images, tmp_path):
    checkpoint = tmp_path / "net.pt"
    save_checkpoint(checkpoint, network, record={})
    graph = fold_network(network).graph
    victim = next(n for n in graph.nodes if n.name.endswith("layer2.0.act2"))
    table = victim.table.copy()
    table[3, 1] += 1
    nodes = [dataclasses.replace(n, table=table) if n is victim else n for n in graph.nodes]
    broken = IntGraph.of(nodes, meta=dict(graph.meta))
    decisions = fold_network(network).decisions
    stages = list(requantization_stages(requantization_checks(broken, decisions)))
    wrong = [stage for stage in stages if stage.mismatches]
    assert [stage.name for stage in wrong] == [
        "requantization, exact rationals of the trained network"
    ]
    assert wrong[0].first.layer == victim.name
    channel, accumulator = wrong[0].first.index
    assert channel == 3
    assert victim.sign[3] * accumulator == victim.table[3, 1]


def test_a_range_that_is_too_small_is_found(network):
    graph = fold_network(network).graph
    assert accumulator_stage(graph).mismatches == 0
    kind = graph.types["layer1.0.conv1"]
    types = dict(graph.types) | {"layer1.0.conv1": dataclasses.replace(kind, hi=kind.hi - 1)}
    stage = accumulator_stage(dataclasses.replace(graph, types=types))
    assert (stage.mismatches, stage.first.layer) == (1, "layer1.0.conv1")
    assert stage.first.got == kind.hi - 1


def test_a_graph_without_products_is_certified_without_the_array():
    nodes = [
        Quantize("image", (4, 4, 1), Grid.pixels(0), 1.0),
        Thresholds(
            "act", "image", np.array([[50, 90, 200]]), np.ones(1, int), Grid.unsigned(2), 1.0
        ),
        Dequantize("logits", "act"),
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 1), dtype=np.uint8)
    certificate = certify(IntGraph.of(nodes), pixels)
    assert certificate.ok
    array = next(stage for stage in certificate.stages if stage.name == "fpga array")
    assert array.compared == 0
    assert "no Conv2d" in array.detail
    assert certificate.accumulators == ()


def test_a_wrong_threshold_in_the_file_is_found_and_named(network, images):
    graph = fold_network(network).graph
    victim = next(n for n in graph.nodes if isinstance(n, Thresholds) and n.name.endswith("act2"))
    table = victim.table.copy()
    source = graph.types[victim.x]
    table[:, 0] = source.lo
    nodes = [dataclasses.replace(n, table=table) if n is victim else n for n in graph.nodes]
    broken = IntGraph.of(nodes, meta=dict(graph.meta))
    stage = compare_traces("broken", trace_oracle(broken, images), trace_oracle(graph, images))
    assert stage.mismatches > 0
    assert stage.first is not None
    assert stage.first.layer == victim.name
    assert stage.first.got != stage.first.want
