"""The profiles lowbit, integer and qonnx: equal to the oracle, readable, or refused by name."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from bitfold.errors import UnsupportedError
from bitfold.export import to_onnx
from bitfold.export.model_files import graph_of, read_onnx
from bitfold.export.onnx.check import LEVELS, compare_onnxruntime, is_available, profile_in
from bitfold.export.onnx.digits import digits_of, plan_product, value_of
from bitfold.export.onnx.openvino import is_openvino_available, run_openvino, trace_openvino
from bitfold.export.onnx.qdq import onnx_model
from bitfold.ir import (
    Conv2d,
    Dequantize,
    Grid,
    IntGraph,
    Linear,
    MaxPool2d,
    Node,
    Quantize,
    Rescale,
    Reshape,
    SumPool2d,
    Thresholds,
    run_oracle,
    to_text,
    trace_oracle,
    verify,
)
from tests.property.strategies import every_op_graph

PROFILES = ("integer", "lowbit", "qonnx")
needs_ort = pytest.mark.skipif(not is_available(), reason="needs ONNX Runtime")
DOMAIN = "qonnx.custom_op.general"


class Quant(OpRun):
    """QONNX's Quant with zero point 0 and the default rounding."""

    op_domain = DOMAIN

    def _run(self, x, scale, zero, bits, signed=1, narrow=0, rounding_mode="ROUND"):
        assert rounding_mode == "ROUND"
        most = 2 ** (int(bits) - signed) - 1
        least = -most - 1 + narrow if signed else 0
        return (np.round(np.clip(x / scale + zero, least, most)).astype(x.dtype) * scale,)


class BipolarQuant(OpRun):
    """QONNX's BipolarQuant."""

    op_domain = DOMAIN

    def _run(self, x, scale):
        return (np.where(x >= 0, scale, -scale).astype(x.dtype),)


class MultiThreshold(OpRun):
    """QONNX's MultiThreshold on NCHW and NC."""

    op_domain = DOMAIN

    def _run(self, x, table, out_dtype="", out_scale=1.0, out_bias=0.0):
        count = (np.moveaxis(x, 1, -1)[..., None] >= table).sum(-1)
        return ((out_scale * np.moveaxis(count, -1, 1) + out_bias).astype(x.dtype),)


def pictures(graph: IntGraph, count: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *graph.input.shape), dtype=np.uint8)


def evaluated(data: bytes, images: np.ndarray) -> np.ndarray:
    """Logits by ONNX's reference evaluator; QONNX files take one image of floats a run."""
    new_ops = [Quant, BipolarQuant, MultiThreshold]
    evaluator = ReferenceEvaluator(onnx.load_from_string(data), new_ops=new_ops)
    if profile_in(data) != "qonnx":
        # The evaluator pads uint8 maps with NaN, which numpy casts to 0 and warns about.
        with np.errstate(invalid="ignore"):
            return evaluator.run(["logits"], {"image": images})[0]
    rows = [evaluator.run(["logits"], {"image": x[None].astype(np.float32)})[0] for x in images]
    return np.concatenate(rows)


def check(graph: IntGraph, profile: str, images: np.ndarray | None = None) -> bytes:
    """Write, read back, and compare with the oracle in everything installed that runs the file."""
    verify(graph)
    images = pictures(graph) if images is None else images
    data = onnx_model(graph, profile=profile)
    assert to_text(graph_of(data)) == to_text(graph)
    assert (evaluated(data, images) == run_oracle(graph, images)).all()
    if profile != "qonnx" and is_available():
        for level in LEVELS:
            assert compare_onnxruntime(graph, data, images, level=level).differences == ()
    if profile == "integer" and is_openvino_available():
        want, got = trace_oracle(graph, images), trace_openvino(data, images)
        assert [name for name in want if (got[name] != want[name]).any()] == []
        assert (run_openvino(data, images) == want[graph.output.name]).all()
    return data


def operators(data: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(data).graph.node}


def stream_graph(
    *middle: Node, channels: int = 2, side: int = 4, reach: int = 1, shift: int = 0
) -> IntGraph:
    """Pixels → stream "wide" (multiplied by ``reach``) → ``middle`` → logits."""
    one = np.ones(channels, np.int64)
    gain = one * reach * np.where(np.arange(channels) % 2, -1, 1)
    nodes = [
        Quantize("pixels", (side, side, channels), Grid.pixels(100), 1.0),
        Rescale("wide", "pixels", gain, 7 * one, shift, 1.0),
        *middle,
    ]
    return IntGraph.of([*nodes, Dequantize("logits", nodes[-1].name)])


@pytest.mark.parametrize("profile", PROFILES)
def test_every_operation_equals_the_oracle(profile: str) -> None:
    check(every_op_graph(), profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_same_graph_gives_the_same_bytes(profile: str) -> None:
    first = onnx_model(every_op_graph(), profile=profile)
    assert first == onnx_model(every_op_graph(), profile=profile)


@pytest.mark.parametrize(
    ("profile", "versions"),
    [("integer", (10, 21)), ("lowbit", (13, 25)), ("qonnx", (10, 21)), ("qcdq", (10, 21))],
)
def test_versions_and_profile_are_stamped(profile, versions, tmp_path: Path) -> None:
    export = to_onnx(every_op_graph(), tmp_path / "m.onnx", profile=profile)
    model = onnx.load(tmp_path / "m.onnx")
    assert (model.ir_version, model.opset_import[0].version) == versions
    assert export.opset == versions[1]
    assert profile_in((tmp_path / "m.onnx").read_bytes()) == profile
    assert to_text(read_onnx(tmp_path / "m.onnx")) == to_text(every_op_graph())


@pytest.mark.parametrize("profile", ["qcdq", *PROFILES])
def test_the_last_node_of_a_layer_says_what_is_proven(profile: str) -> None:
    model = onnx.load_from_string(onnx_model(every_op_graph(), profile=profile))
    notes = {node.name: node.doc_string for node in model.graph.node if node.doc_string}
    assert notes["conv"].startswith("Conv2d conv: accumulators in -")
    assert "weights -3:3:2, 2 bits, scale 0.5" in notes["conv"]
    assert notes["p"] == "Thresholds p: codes 0:3, 2 bits, scale 0.25"


def test_the_integer_profile_holds_no_float_but_exact_quotients() -> None:
    model = onnx.load_from_string(onnx_model(every_op_graph(), profile="integer"))
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert {onnx.numpy_helper.to_array(t).size for t in floats} == {1}
    assert {"ConvInteger", "MatMulInteger", "GreaterOrEqual"} <= operators(
        model.SerializeToString()
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    gain_bits=st.integers(0, 31),
    offset_bits=st.integers(0, 60),
    x_bits=st.integers(1, 31),
)
def test_a_plan_computes_the_product_in_32_bits(seed, gain_bits, offset_bits, x_bits) -> None:
    rng = np.random.default_rng(seed)
    gain = rng.integers(-(2**gain_bits) + 1, 2**gain_bits, 3)
    offset = rng.integers(-(2**offset_bits), 2**offset_bits, 3)
    x = rng.integers(-(2**x_bits) + 1, 2**x_bits, (64, 1))
    exact = gain.astype(object) * x.astype(object) + offset.astype(object)
    shift = max(0, int(max(abs(v) for v in exact.ravel())).bit_length() - 30)
    ends = int(-(2**x_bits) + 1), int(2**x_bits - 1)
    plan = plan_product(gain, offset, shift=shift, ends=ends, most=2**30)
    if plan is None:
        return
    digits = [d.astype(object) for d in digits_of(x, bits=plan.bits, count=plan.num_digits)]
    carry, kept = 0, []
    for p, size in enumerate(plan.sizes):
        pairs = [(i, p - i) for i in range(len(digits)) if 0 <= p - i < len(plan.gains)]
        total = carry + sum(digits[i] * plan.gains[j].astype(object) for i, j in pairs)
        total = total + plan.offsets[p].astype(object)
        assert max(abs(v) for v in np.ravel(total)) <= size < 2**31
        kept.append(total if p == len(plan.sizes) - 1 else total % (1 << plan.bits))
        carry = total >> plan.bits
    value = sum(d << plan.bits * i for i, d in enumerate(kept[plan.first :])) >> plan.rest
    assert (value == exact >> shift).all()


def test_practical_products_always_have_a_plan() -> None:
    gain, offset = np.array([2**31 - 1, -(2**31) + 1]), np.array([2**61, -(2**61)])
    assert plan_product(gain, offset, shift=40, ends=(-(2**31), 2**31 - 1), most=2**23) is not None


def test_digits_come_back() -> None:
    values = np.array([-(2**45) + 3, -1, 0, 1, 2**40 + 12345])
    assert (value_of(digits_of(values, bits=14, count=4), bits=14) == values).all()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("shift", [0, 1, 5, 21, 40])
def test_products_of_rescales_round_as_the_oracle_does(profile: str, shift: int) -> None:
    rng = np.random.default_rng(shift)
    top = min(2**31 - 1, 2 ** min(31, shift + 16))
    gain, offset = rng.integers(-top, top, 5), rng.integers(-(2**20), 2**20, 5)
    slope = rng.integers(-3000, 3000, 5)
    nodes = [
        Quantize("pixels", (4, 4, 5), Grid.pixels(100), 1.0),
        Rescale("first", "pixels", gain, offset, shift, 1.0),
        Rescale("bent", "first", np.full(5, 77), offset, 7, 1.0, slope, 11),
        Rescale("relu", "bent", np.full(5, -5), offset, 3, 1.0, np.zeros(5, np.int64), 0),
        Dequantize("logits", "relu"),
    ]
    check(IntGraph.of(nodes), profile)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("levels", [4, 16, 17, 256])
@pytest.mark.parametrize("reach", [1, 2**22])
def test_thresholds_near_and_far_from_zero(profile: str, levels: int, reach: int) -> None:
    steps = np.sort(np.random.default_rng(levels).integers(-100, 155, (2, levels - 1))) * reach
    steps[:, 0], steps[0, -1] = -155 * reach, 156 * reach
    ends = (-155 * reach + 7, 155 * reach + 7)
    table = np.clip(steps, ends[0], ends[1])
    graph = stream_graph(
        Thresholds("codes", "wide", table, np.array([1, 1]), Grid(0, levels - 1), 1.0),
        Rescale("back", "codes", np.array([3, 5]), np.array([1, 2]), 1, 1.0),
        reach=reach,
    )
    check(graph, profile)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("reach", [2**22, 2**23 + 2**22])
def test_entries_that_always_or_never_hold_come_back(profile: str, reach: int, sign: int) -> None:
    wide = stream_graph(reach=reach)
    kind = wide.types["wide"]
    ends = (kind.lo, kind.hi) if sign > 0 else (-kind.hi, -kind.lo)
    table = np.array([[ends[0], 5, ends[1] + 1], [-9, 2**24 + 1, 2**24 + 3]])
    signs = np.array([sign, sign])
    graph = stream_graph(
        Thresholds("codes", "wide", table, signs, Grid.unsigned(2), 1.0),
        Rescale("back", "codes", np.array([3, 5]), np.array([1, 2]), 1, 1.0),
        reach=reach,
    )
    check(graph, profile)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("reach", [3, 2**17])
def test_windows_of_a_stream(profile: str, reach: int) -> None:
    check(
        stream_graph(
            MaxPool2d("most", "wide", (3, 2), (2, 1), (1, 1, 0, 0)),
            SumPool2d("some", "most", (2, 3), (1, 2)),
            SumPool2d("whole", "some", (1, 1), (1, 1)),
            reach=reach,
            side=5,
        ),
        profile,
    )
    whole = SumPool2d("whole", "wide", (5, 5), (1, 1))
    check(stream_graph(whole, reach=reach * 4, side=5), profile)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("grid", [Grid.odd(2), Grid.odd(1), Grid.narrow(2), Grid(-6, 9, 3)])
def test_codes_on_other_grids_are_pooled_sliced_and_multiplied(profile: str, grid: Grid) -> None:
    steps = np.linspace(-80, 100, grid.levels - 1).astype(np.int64)
    weight = np.array([[[[1, -1]]], [[[1, 1]]], [[[-1, 1]]]])
    nodes = [
        Quantize("pixels", (4, 4, 2), Grid.pixels(100), 1.0),
        Thresholds("x", "pixels", np.tile(steps, (2, 1)), np.array([1, -1]), grid, 0.5),
        MaxPool2d("most", "x", (2, 2), (2, 2)),
        Conv2d("conv", "most", weight, Grid.odd(1), (1.0,), np.array([1, -2, 0])),
        SumPool2d("mean", "x", (4, 4), (4, 4)),
        Reshape("flat", "most", (8,)),
        Linear("fc", "flat", np.ones((3, 8), int), Grid.odd(1), (1.0,), np.arange(3)),
        Rescale("a", "fc", np.ones(3, int), np.zeros(3, int), 0, 1.0),
        Dequantize("logits", "a"),
    ]
    used = [node for node in nodes if node.name not in ("conv", "mean")]
    check(IntGraph.of(used), profile)
    tail: list[Node] = [
        Rescale("a", "conv", np.ones(3, int), np.zeros(3, int), 0, 1.0),
        Dequantize("logits", "a"),
    ]
    check(IntGraph.of([*nodes[:4], *tail]), profile)
    sums: list[Node] = [Dequantize("logits", "mean")]
    check(IntGraph.of([*nodes[:2], nodes[4], *sums]), profile)


def edge_graph(weight: np.ndarray, channels: int) -> IntGraph:
    """Pixels → 1x1 convolution → logits of the largest integers."""
    return IntGraph.of(
        [
            Quantize("pixels", (1, 1, channels), Grid.pixels(0), 1.0),
            Conv2d("conv", "pixels", weight, Grid.narrow(8), (1.0,), np.array([3, -3])),
            Dequantize("logits", "conv"),
        ]
    )


def test_full_range_pixels_and_weights_do_not_saturate() -> None:
    # Pairs of 255·127 overflow 16 bits: such weights are stored unsigned.
    graph = edge_graph(np.full((2, 1, 1, 64), 127), 64)
    data = check(graph, "integer", np.full((2, 1, 1, 64), 255, np.uint8))
    types = {t.name: t.data_type for t in onnx.load_from_string(data).graph.initializer}
    assert types["conv.weight"] == onnx.TensorProto.UINT8


def test_sums_beyond_24_bits_are_added_in_parts() -> None:
    weight = np.random.default_rng(1).integers(-127, 128, (2, 1, 1, 1500))
    weight[0] = 127
    data = check(edge_graph(weight, 1500), "integer")
    assert "conv.weight2" in {t.name for t in onnx.load_from_string(data).graph.initializer}
    flat = [
        Quantize("pixels", (1, 1, 1500), Grid.pixels(0), 1.0),
        Reshape("flat", "pixels", (1500,)),
        Linear("fc", "flat", weight[:, 0, 0], Grid.narrow(8), (1.0,), np.array([3, -3])),
        Dequantize("logits", "fc"),
    ]
    check(IntGraph.of(flat), "integer")


@pytest.mark.parametrize("profile", ["qcdq", *PROFILES])
def test_weights_beyond_int8_are_refused_by_name(profile: str) -> None:
    nodes = [
        Quantize("pixels", (1, 1, 1), Grid.pixels(0), 1.0),
        Conv2d("conv", "pixels", np.full((2, 1, 1, 1), 201), Grid.odd(8), (1.0,), np.zeros(2, int)),
        Dequantize("logits", "conv"),
    ]
    if profile == "lowbit":
        with pytest.raises(UnsupportedError, match="node conv"):
            onnx_model(IntGraph.of(nodes), profile=profile)
        return
    if profile == "qonnx":
        check(IntGraph.of(nodes), profile)
        return
    with pytest.raises(UnsupportedError, match=r"weights lie on -255:255:2.*\nnode conv\n"):
        onnx_model(IntGraph.of(nodes), profile=profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_partial_sums_that_no_part_holds_are_refused_by_name(profile: str) -> None:
    weight = np.full((2, 257, 257, 1), 127)
    nodes = [
        Quantize("pixels", (257, 257, 1), Grid.pixels(0), 1.0),
        Conv2d("conv", "pixels", weight, Grid.narrow(8), (1.0,), np.zeros(2, int)),
        Dequantize("logits", "conv"),
    ]
    with pytest.raises(UnsupportedError, match=r"exact below\s16777216\nnode conv\nUse fewer"):
        onnx_model(IntGraph.of(nodes), profile=profile)


def test_sub_byte_types_are_as_narrow_as_the_grids() -> None:
    model = onnx.load_from_string(onnx_model(every_op_graph(), profile="lowbit"))
    types = {t.name: onnx.TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer}
    assert types["stem.weight"] == "INT2"
    assert types["conv.weight"] == "UINT2"
    elements = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    assert elements["p"] == onnx.TensorProto.UINT2


def test_qonnx_forms_are_those_that_finn_takes() -> None:
    model = onnx.load_from_string(onnx_model(every_op_graph(), profile="qonnx"))
    quants = [node for node in model.graph.node if node.op_type == "Quant"]
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert quants
    assert all(constants[node.input[2]] == 0 and constants[node.input[3]] <= 8 for node in quants)
    annotated = {
        a.tensor_name: a.quant_parameter_tensor_names[0]
        for a in model.graph.quantization_annotation
    }
    assert (annotated["p"].key, annotated["p"].value) == ("finn_datatype", "UINT2")
    assert annotated["image"].value == "UINT8"


@pytest.mark.skipif(importlib.util.find_spec("qonnx") is None, reason="needs the qonnx package")
def test_the_qonnx_package_computes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The executor wraps each node in a model of onnx's newest IR, which ONNX Runtime may not know.
    monkeypatch.setattr("onnx.IR_VERSION", 10)
    import qonnx.core.onnx_exec as executor
    from qonnx.core.modelwrapper import ModelWrapper

    graph = every_op_graph()
    to_onnx(graph, tmp_path / "m.onnx", profile="qonnx")
    model, images = ModelWrapper(str(tmp_path / "m.onnx")), pictures(graph)
    for image, want in zip(images, run_oracle(graph, images), strict=True):
        got = executor.execute_onnx(model, {"image": image[None].astype(np.float32)})["logits"]
        assert (got[0] == want).all()


@pytest.mark.parametrize("profile", PROFILES)
def test_an_edited_constant_shows_up_or_is_refused(profile: str) -> None:
    model = onnx.load_from_string(onnx_model(every_op_graph(), profile=profile))
    weight = next(t for t in model.graph.initializer if t.name == "fc.weight")
    values = onnx.numpy_helper.to_array(weight).astype(np.float32)
    values[0, 0] = 1 - values[0, 0] ** 2
    weight.CopyFrom(
        onnx.helper.make_tensor("fc.weight", weight.data_type, values.shape, values.ravel())
    )
    changed = next(n for n in graph_of(model.SerializeToString()).nodes if n.name == "fc")
    original = next(n for n in every_op_graph().nodes if n.name == "fc")
    assert isinstance(changed, Linear)
    assert isinstance(original, Linear)
    assert (changed.weight != original.weight).sum() == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_a_removed_node_is_refused(profile: str) -> None:
    model = onnx.load_from_string(onnx_model(every_op_graph(), profile=profile))
    node = next(n for n in model.graph.node if n.name == "sum")
    node.op_type = "Sub"
    with pytest.raises(UnsupportedError, match="operator Sub"):
        graph_of(model.SerializeToString())
