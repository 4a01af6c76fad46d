"""ONNX Runtime and the reader against the oracle, on every graph that hypothesis can find."""

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st

from bitfold.export.model_files import graph_of
from bitfold.export.onnx.check import Level, compare_onnxruntime
from bitfold.export.onnx.qdq import onnx_model
from bitfold.ir import IntGraph, to_text
from tests.property.strategies import int_graphs


@given(graph=int_graphs(), level=st.sampled_from(("off", "all")), seed=st.integers(0, 999))
def test_onnxruntime_equals_the_oracle_in_every_tensor(
    graph: IntGraph, level: Level, seed: int
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (2, *graph.input.shape), dtype=np.uint8)
    found = compare_onnxruntime(graph, onnx_model(graph), images, level=level)
    assert found.differences == ()


@given(graph=int_graphs())
def test_reading_a_written_graph_gives_the_same_graph(graph: IntGraph) -> None:
    data = onnx_model(graph)
    again = graph_of(data)
    assert to_text(again) == to_text(graph)
    assert onnx_model(again) == data


@given(graph=int_graphs())
def test_a_written_model_passes_the_onnx_checker(graph: IntGraph) -> None:
    model = onnx.load_from_string(onnx_model(graph))
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
