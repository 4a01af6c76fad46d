"""From a checkpoint to an integer graph, and from there to ONNX and back.

Attributes are resolved when first used: reading ONNX needs no torch, folding needs no ONNX.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold.export.fake_quant import LayerFlips, compare_codes, merge_flips, quantizer_names
    from bitfold.export.foreign.compare import RuntimeFlips, compare_file
    from bitfold.export.from_checkpoint import from_checkpoint
    from bitfold.export.int8 import int8_peer, peer_onnx, peer_tflite
    from bitfold.export.lowering import Decision, Folded, LayerReport
    from bitfold.export.model_files import read_onnx, survey_onnx
    from bitfold.export.onnx import (
        ExactLayer,
        Exposed,
        FusedLayer,
        OnnxExport,
        RunnableModel,
        check_forms,
        exposed,
        is_openvino_available,
        node_integers,
        onnx_model,
        operator_differences,
        profile_in,
        require_onnxruntime,
        run_onnxruntime,
        run_openvino,
        run_tensors,
        runnable_model,
        to_onnx,
        trace_onnxruntime,
        trace_openvino,
    )
    from bitfold.export.pipeline import fold_network
    from bitfold.export.requantization import RequantCheck, check_decisions

_HOMES = {
    # folding
    "from_checkpoint": "from_checkpoint",
    "fold_network": "pipeline",
    "Decision": "lowering",
    "Folded": "lowering",
    "LayerReport": "lowering",
    # threshold tables against what they stand for
    "RequantCheck": "requantization",
    "check_decisions": "requantization",
    # the trained network beside its graph
    "LayerFlips": "fake_quant",
    "compare_codes": "fake_quant",
    "merge_flips": "fake_quant",
    "quantizer_names": "fake_quant",
    # ONNX
    "ExactLayer": "onnx",
    "Exposed": "onnx",
    "exposed": "onnx",
    "node_integers": "onnx",
    "operator_differences": "onnx",
    "FusedLayer": "onnx",
    "OnnxExport": "onnx",
    "check_forms": "onnx",
    "onnx_model": "onnx",
    "to_onnx": "onnx",
    "read_onnx": "model_files",
    "survey_onnx": "model_files",
    "RuntimeFlips": "foreign.compare",
    "compare_file": "foreign.compare",
    "require_onnxruntime": "onnx",
    "profile_in": "onnx",
    "run_onnxruntime": "onnx",
    "trace_onnxruntime": "onnx",
    "is_openvino_available": "onnx",
    "run_openvino": "onnx",
    "RunnableModel": "onnx",
    "run_tensors": "onnx",
    "runnable_model": "onnx",
    "trace_openvino": "onnx",
    # the same network for other engines
    "int8_peer": "int8",
    "peer_onnx": "int8",
    "peer_tflite": "int8",
}

__all__ = [
    "Decision",
    "ExactLayer",
    "Exposed",
    "Folded",
    "FusedLayer",
    "LayerFlips",
    "LayerReport",
    "OnnxExport",
    "RequantCheck",
    "RunnableModel",
    "RuntimeFlips",
    "check_decisions",
    "check_forms",
    "compare_codes",
    "compare_file",
    "exposed",
    "fold_network",
    "from_checkpoint",
    "int8_peer",
    "is_openvino_available",
    "merge_flips",
    "node_integers",
    "onnx_model",
    "operator_differences",
    "peer_onnx",
    "peer_tflite",
    "profile_in",
    "quantizer_names",
    "read_onnx",
    "require_onnxruntime",
    "run_onnxruntime",
    "run_openvino",
    "run_tensors",
    "runnable_model",
    "survey_onnx",
    "to_onnx",
    "trace_onnxruntime",
    "trace_openvino",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
