"""The written file itself: forms, proofs, refusals."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from bitfold.errors import OutputError, UnsupportedError, UsageError
from bitfold.export.model_files import graph_of, read_onnx
from bitfold.export.onnx.affine import fit_line, line_table
from bitfold.export.onnx.check import LEVELS, Level, compare_onnxruntime, run_onnxruntime
from bitfold.export.onnx.qdq import onnx_model, to_onnx
from bitfold.files import write_atomically
from bitfold.ir import (
    Conv2d,
    Dequantize,
    Grid,
    IntArray,
    IntGraph,
    Node,
    Quantize,
    Rescale,
    Thresholds,
    run_oracle,
    to_text,
)
from tests.property.strategies import every_op_graph


def pictures(graph: IntGraph, count: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *graph.input.shape), dtype=np.uint8)


def wide_graph(weight: IntArray, *, multiplier: int = 1, shift: int = 40) -> IntGraph:
    """Pixels → 1x1 convolution → stream."""
    channels = len(weight)
    return IntGraph.of(
        [
            Quantize("pixels", (2, 2, weight.shape[3]), Grid.pixels(0), 1.0),
            Conv2d("conv", "pixels", weight, Grid.narrow(8), (1.0,), np.zeros(channels, np.int64)),
            Rescale(
                "wide", "conv", np.full(channels, multiplier), np.zeros(channels, int), shift, 1.0
            ),
            Dequantize("logits", "wide"),
        ]
    )


@pytest.mark.parametrize("level", LEVELS)
def test_every_operation_equals_the_oracle_at_every_level(level: Level) -> None:
    graph = every_op_graph()
    found = compare_onnxruntime(graph, onnx_model(graph), pictures(graph), level=level)
    assert found.differences == ()
    assert set(found.nodes) == {node.name for node in graph.nodes}


def test_the_reference_evaluator_equals_the_oracle() -> None:
    graph = every_op_graph()
    model = onnx.load_from_string(onnx_model(graph))
    # The evaluator pads uint8 maps with NaN, which numpy casts to 0 and warns about.
    with np.errstate(invalid="ignore"):
        got = ReferenceEvaluator(model).run(["logits"], {"image": pictures(graph)})[0]
    assert (got == run_oracle(graph, pictures(graph))).all()


def test_an_answer_does_not_depend_on_its_batch() -> None:
    graph = every_op_graph()
    data, images = onnx_model(graph), pictures(graph, 67)
    alone = np.concatenate([run_onnxruntime(data, images[i : i + 1]) for i in range(0, 67, 22)])
    assert (run_onnxruntime(data, images)[::22] == alone).all()


def test_full_range_pixels_and_weights_do_not_saturate() -> None:
    # Pairs of 255·127 overflow 16 bits: an integer kernel without VNNI would saturate here.
    graph = wide_graph(np.full((2, 1, 1, 64), 127), multiplier=2**20)
    images = np.full((1, 2, 2, 64), 255, dtype=np.uint8)
    for level in LEVELS:
        assert compare_onnxruntime(graph, onnx_model(graph), images, level=level).ok


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert onnx_model(every_op_graph()) == onnx_model(every_op_graph())


def test_versions_are_stamped() -> None:
    model = onnx.load_from_string(onnx_model(every_op_graph()))
    assert (model.ir_version, model.opset_import[0].version) == (10, 21)


def test_partial_sums_beyond_float32_are_refused() -> None:
    weight = np.full((1, 1, 1, 9000), 127)
    with pytest.raises(
        UnsupportedError, match=r"291465000, float32 is exact below 16777216\nnode co"
    ):
        onnx_model(wide_graph(weight))


@pytest.mark.parametrize("profile", ["qcdq", "integer", "lowbit"])
def test_larger_sums_are_added_in_halves(profile: str) -> None:
    weight = np.random.default_rng(0).integers(100, 128, (3, 1, 1, 700))
    weight[1:] *= np.int64(-1)
    weight[2, :, :, ::2] = 1
    graph = wide_graph(weight, multiplier=1, shift=0)
    images = pictures(graph, 5)
    images[0] = 255
    data = onnx_model(graph, profile=profile)
    assert run_oracle(graph, images).max() > 2**24
    for level in LEVELS:
        assert compare_onnxruntime(graph, data, images, level=level).ok
    assert to_text(graph_of(data)) == to_text(graph)


def test_products_beyond_float64_are_taken_in_int64() -> None:
    graph = wide_graph(np.full((1, 1, 1, 256), 127), multiplier=2**31 - 1, shift=31)
    images = pictures(graph, 5)
    data = onnx_model(graph)
    assert "Mod" in {node.op_type for node in onnx.load_from_string(data).graph.node}
    for level in LEVELS:
        assert compare_onnxruntime(graph, data, images, level=level).ok


def test_clashing_names_are_refused() -> None:
    nodes: list[Node] = [
        Quantize("a", (1, 1, 1), Grid.pixels(0), 1.0),
        Rescale("a/codes", "a", np.ones(1, int), np.zeros(1, int), 0, 1.0),
        Dequantize("logits", "a/codes"),
    ]
    with pytest.raises(UnsupportedError, match="two ONNX tensors would be called"):
        onnx_model(IntGraph.of(nodes))


def test_a_profile_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown profile 'tflite'"):
        to_onnx(every_op_graph(), tmp_path / "m.onnx", profile="tflite")


def test_a_table_that_is_no_line_is_reported(tmp_path: Path) -> None:
    export = to_onnx(every_op_graph(), tmp_path / "m.onnx")
    assert export.exact_layers == ("stem", "conv", "fc")
    assert len(export.warnings) == 2


def test_a_folder_that_does_not_exist_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        to_onnx(every_op_graph(), tmp_path / "none" / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rename_keeps_the_old_target(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(OutputError):
        write_atomically(tmp_path / "target", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_device_is_never_replaced() -> None:
    with pytest.raises(OutputError, match="not a regular file\nfile /dev/null\nName a file"):
        write_atomically("/dev/null", b"lost")
    assert not Path("/dev/null").is_file()


def stairs(gain: float, offset: float, *, lo: int, hi: int, levels: int) -> IntArray:
    steps = np.arange(1, levels)
    return np.clip(np.ceil((steps - offset) / gain), lo, hi + 1).astype(np.int64)[None]


@pytest.mark.parametrize("gain", [3e-7, 0.01, 0.37, 1.0, 4.5])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_rounded_line_is_fitted_and_read_back(gain: float, sign: int) -> None:
    lo, hi = (-(10**8), 10**8) if gain < 1e-3 else (-1000, 1500)
    low, high = (lo, hi) if sign > 0 else (-hi, -lo)
    table = stairs(gain, 0.3, lo=low, hi=high, levels=16)
    line = fit_line(table, np.array([sign]), lo=lo, hi=hi)
    assert line is not None
    assert (line_table(line, 16, lo=lo, hi=hi) == table).all()
    assert line.sign.tolist() == [sign]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_constant_channel_is_a_line_and_keeps_its_sign(taken: int, sign: int) -> None:
    low = -50 if sign > 0 else -70
    high = 70 if sign > 0 else 50
    table = np.array([[low] * taken + [high + 1] * (3 - taken)])
    line = fit_line(table, np.array([sign]), lo=-50, hi=70)
    assert line is not None
    assert (line_table(line, 4, lo=-50, hi=70) == table).all()
    assert line.sign.tolist() == [sign]


def test_uneven_steps_are_no_line() -> None:
    table = np.array([[0, 10, 11]])
    assert fit_line(table, np.array([1]), lo=-50, hi=50) is None


def fusable_graph() -> IntGraph:
    """Pixels → 2-bit codes → ternary 3x3 convolution → 2-bit codes → stream."""
    rng = np.random.default_rng(3)
    one, zero = np.ones(4, np.int64), np.zeros(4, np.int64)
    sign = np.array([1, -1, 1, -1])
    first = np.tile([-40, 10, 60], (4, 1))
    second = np.stack([stairs(g, 1.7, lo=-108, hi=108, levels=4)[0] for g in (0.1, 0.3, 0.07, 2)])
    codes, narrow = Grid.unsigned(2), Grid.narrow(2)
    return IntGraph.of(
        [
            Quantize("pixels", (6, 6, 4), Grid.pixels(100), 1.0),
            Thresholds("p", "pixels", first, sign, codes, 1.0),
            Conv2d(
                "conv", "p", np.where(rng.random((4, 3, 3, 4)) < 0.5, -1, 1), narrow, (1.0,), zero,
                (1, 1), (1, 1, 1, 1),
            ),
            Thresholds("q", "conv", second, sign, Grid.unsigned(2), 1.0),
            Rescale("wide", "q", one, zero, 0, 1.0),
            Dequantize("logits", "wide"),
        ]
    )  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
def test_a_fused_layer_equals_the_oracle_at_every_level(level: Level) -> None:
    graph = fusable_graph()
    found = compare_onnxruntime(graph, onnx_model(graph), pictures(graph, 16), level=level)
    assert found.differences == ()
    assert "conv" not in found.nodes


def test_a_fused_layer_is_reported_and_reads_back(tmp_path: Path) -> None:
    export = to_onnx(fusable_graph(), tmp_path / "m.onnx")
    assert export.fused_layers == ("conv",)
    assert to_text(read_onnx(tmp_path / "m.onnx")) == to_text(fusable_graph())


def test_an_edited_fused_bias_is_refused_or_shows_up() -> None:
    model = onnx.load_from_string(onnx_model(fusable_graph()))
    bias = next(t for t in model.graph.initializer if t.name == "conv.bias")
    moved = onnx.numpy_helper.to_array(bias) + 2**24
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, "conv.bias"))
    with pytest.raises(UnsupportedError, match="float32 roundings"):
        graph_of(model.SerializeToString())
