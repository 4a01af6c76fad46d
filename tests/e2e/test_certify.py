"""The certificate: all forms of a small network agree, and a planted difference is named."""

import dataclasses

import numpy as np
import pytest

from bitfold.certify import certify, compare_traces
from bitfold.export import fold_network
from bitfold.ir import IntGraph, Thresholds, trace_oracle
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
