"""Whole models that other tools wrote, beside those tools' own executors."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from bitfold.cli import main
from bitfold.export import read_onnx
from bitfold.export.foreign import read_model
from bitfold.export.foreign.compare import compare_runtime
from bitfold.ir import run_oracle, trace_oracle
from bitfold.ir.own_input import own_input
from bitfold.runtime import Session
from tests.foreign_models import residual_cnn

DATA = Path(__file__).parents[1] / "data" / "qonnx"
# What float32 sums of two products of 8-bit codes can miss, in steps of the result.
ROUNDING = 2e-4
SHAPE = (3, 16, 16)

QUANTIZED = {
    "U8S8": {"activation_type": "QUInt8", "weight_type": "QInt8"},
    "U8S8 per channel": {
        "activation_type": "QUInt8", "weight_type": "QInt8", "per_channel": True,
    },
    "S8S8 per channel": {"activation_type": "QInt8", "weight_type": "QInt8", "per_channel": True},
    "S8S8 symmetric": {
        "activation_type": "QInt8", "weight_type": "QInt8",
        "extra_options": {"ActivationSymmetric": True},
    },
    "U8U8": {"activation_type": "QUInt8", "weight_type": "QUInt8"},
    "reduced range": {
        "activation_type": "QUInt8", "weight_type": "QInt8", "reduce_range": True,
    },
    "QLinear operators": {
        "activation_type": "QUInt8", "weight_type": "QInt8", "quant_format": "QOperator",
    },
}  # fmt: skip


def floats(count, seed=1):
    return np.random.default_rng(seed).normal(0, 1, (count, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A function name → path of the CNN as onnxruntime.quantization quantizes it."""
    pytest.importorskip("onnxruntime")
    tools = pytest.importorskip("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("quantized")
    onnx.save(residual_cnn(), folder / "float.onnx")

    class Reader(tools.CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"x": batch[None]} for batch in floats(8, seed=0)])

        def get_next(self):
            return next(self.batches, None)

    def make(name):
        options = dict(QUANTIZED[name])
        form = getattr(tools.QuantFormat, options.pop("quant_format", "QDQ"))
        for key in ("activation_type", "weight_type"):
            options[key] = getattr(tools.QuantType, options[key])
        path = folder / f"{name.replace(' ', '_')}.onnx"
        if not path.exists():
            tools.quantize_static(
                folder / "float.onnx", path, Reader(), quant_format=form, **options
            )
        return path

    return make


@pytest.mark.ort
@pytest.mark.parametrize("name", QUANTIZED)
def test_a_residual_cnn_of_onnxruntime_quantization_has_its_codes(quantized, name):
    model = onnx.load(quantized(name))
    read = read_model(model)
    # Its unoptimized integer kernels saturate pairs of products in 16 bits: not what QDQ computes.
    for optimized in (True, False) if name != "QLinear operators" else (True,):
        flips = compare_runtime(model, floats(6), read=read, optimized=optimized)
        assert len(flips) >= 9
        assert max(flip.farthest for flip in flips) <= ROUNDING
        convolutions = [flip for flip in flips if "conv" in flip.name]
        assert len(convolutions) >= 2
        if optimized:
            assert sum(flip.flips for flip in convolutions) == 0
        assert sum(flip.flips for flip in flips) <= 0.002 * sum(flip.compared for flip in flips)


@pytest.mark.ort
def test_every_form_of_a_foreign_model_is_certified(quantized, tmp_path, capsys):
    np.save(tmp_path / "x.npy", floats(2))
    path = str(quantized("U8S8 per channel"))
    assert main(["verify", path, "--data", str(tmp_path / "x.npy"), "--limit", "2"]) == 0
    shown = capsys.readouterr().out
    assert "the given model in onnxruntime" in shown
    assert "equal everywhere" in shown


@pytest.mark.ort
@pytest.mark.parametrize("backend", ["c", "numba"])
def test_kernels_run_asymmetric_eight_bit_networks(quantized, backend):
    graph = read_onnx(quantized("U8U8"))
    want = run_oracle(graph, own_input(graph).to_pixels(floats(3)))
    with Session(graph, backend=backend) as session:
        assert (session.run(floats(3)) == want).all()


def golden_codes(name):
    """(codes of the executor by tensor name, its logits, the model's input)."""
    stored = np.load(DATA / name)
    if "images" in stored:
        values = (stored["images"] / np.float32(255)).astype(np.float32)
    else:
        values = stored["values"]
    codes = {k.removeprefix("codes:"): stored[k] for k in stored if k.startswith("codes:")}
    return codes, stored["logits"], values


@pytest.mark.parametrize("name", ["TFC_2W2A", "brevitas_w4a4", "brevitas_w2a2_channels"])
def test_qonnx_models_are_equal_to_qonnx_s_own_executor(name):
    path = DATA / (f"{name}.onnx" if name == "TFC_2W2A" else f"{name}_qonnx.onnx")
    codes, logits, values = golden_codes(f"{name}.npz")
    read = read_model(onnx.load(path))
    traced = trace_oracle(read.graph, own_input(read.graph).to_pixels(values))
    compared = 0
    for item in read.stored:
        want = codes[item.tensor]
        want = want.transpose(0, 2, 3, 1) if want.ndim == 4 else want
        assert (traced[item.node] == want.reshape(traced[item.node].shape)).all(), item.tensor
        compared += want.size
    # All of them but the input's, which is quantized outside the graph.
    assert len(read.stored) == len(codes) - 1
    assert compared > 10_000
    got = traced[read.graph.output.name]
    assert (got.argmax(1) == logits.argmax(1)).all()
    np.testing.assert_allclose(got, logits, atol=1e-5)  # float32 logits of magnitude 1 to 10


@pytest.mark.ort
@pytest.mark.parametrize("name", ["brevitas_w4a4", "brevitas_w2a2_channels"])
@pytest.mark.parametrize("optimized", [True, False])
def test_brevitas_qcdq_models_have_onnx_runtime_s_codes(name, optimized):
    _, _, values = golden_codes(f"{name}.npz")
    flips = compare_runtime(onnx.load(DATA / f"{name}_qcdq.onnx"), values, optimized=optimized)
    assert len(flips) == 9
    assert sum(flip.flips for flip in flips) == 0


@pytest.mark.parametrize("name", ["brevitas_w4a4", "brevitas_w2a2_channels"])
def test_brevitas_qcdq_and_qonnx_exports_are_one_network(name):
    _, _, values = golden_codes(f"{name}.npz")
    logits = []
    for form in ("qcdq", "qonnx"):
        graph = read_onnx(DATA / f"{name}_{form}.onnx")
        logits.append(run_oracle(graph, own_input(graph).to_pixels(values)))
    assert (logits[0] == logits[1]).all()


def test_low_bits_stay_low():
    graph = read_onnx(DATA / "brevitas_w2a2_channels_qcdq.onnx")
    widths = [node.weight_grid.bits for node in graph.nodes if hasattr(node, "weight_grid")]
    # The last layer reads unquantized means, in three digits.
    assert widths == [8, 2, 2, 2, 2, 2, 8, 8, 8]
