"""Run an exported model under OpenVINO, tensor by tensor or as a whole."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import MissingDependencyError, UnsupportedError
from bitfold.export.onnx.check import OUTPUT, Images, Traced, exposed, integers_of, model_bytes

if TYPE_CHECKING:
    import openvino

IMAGES_AT_A_TIME = 16


def is_openvino_available() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def _compiled(data: bytes) -> "openvino.CompiledModel":
    """The model on the CPU in float32: OpenVINO would take bfloat16 where the CPU has it."""
    if not is_openvino_available():
        raise MissingDependencyError(
            "OpenVINO is not installed",
            where="package openvino",
            todo="pip install 'bitfold[bench]'",
        )
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    try:
        core = openvino.Core()
        return core.compile_model(core.read_model(data, b""), "CPU", options)
    # Which of its exceptions OpenVINO raises for a model depends on the operator.
    except Exception as error:
        last = [line.strip() for line in str(error).splitlines() if line.strip()][-1:]
        raise UnsupportedError(
            f"OpenVINO {openvino.__version__} does not load the model: {''.join(last)}",
            where="model",
            todo="Export it with --profile integer, which OpenVINO runs.",
        ) from error


def _run(
    model: "openvino.CompiledModel", images: Images, names: list[str]
) -> list[NDArray[np.generic]]:
    """The outputs called ``names`` for all images, a few at a time."""
    parts = []
    for start in range(0, max(1, len(images)), IMAGES_AT_A_TIME):
        result = model({0: np.ascontiguousarray(images[start : start + IMAGES_AT_A_TIME])})
        parts.append([np.array(result[name]) for name in names])
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def run_openvino(model: bytes | str | Path, images: Images) -> NDArray[np.float32]:
    """float32 logits (N, classes) that OpenVINO gives for uint8 images (N, H, W, C).

    Raises MissingDependencyError without OpenVINO, UnsupportedError where it refuses the model.
    """
    found = _run(_compiled(model_bytes(model)), images, [OUTPUT])[0]
    return found.astype(np.float32, copy=False)


def trace_openvino(model: bytes | str | Path, images: Images) -> dict[str, Traced]:
    """Node name → its integers, as ``trace_onnxruntime`` gives them."""
    copy = exposed(model_bytes(model))
    return integers_of(copy, _run(_compiled(copy.data), images, [*copy.tensors.values(), OUTPUT]))
