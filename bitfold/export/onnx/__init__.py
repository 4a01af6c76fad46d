"""The integer graph as ONNX, written and read in every profile, and the runtimes that run it."""

from bitfold.export.onnx.check import (
    Exposed,
    exposed,
    node_integers,
    profile_in,
    require_onnxruntime,
    run_onnxruntime,
    trace_onnxruntime,
)
from bitfold.export.onnx.openvino import is_openvino_available, run_openvino, trace_openvino
from bitfold.export.onnx.qdq import OnnxExport, onnx_model, to_onnx
from bitfold.export.onnx.reader import own_graph
from bitfold.export.onnx.records import ExactLayer, FusedLayer, check_forms
from bitfold.export.onnx.tensors import (
    RunnableModel,
    operator_differences,
    run_tensors,
    runnable_model,
)

__all__ = [
    "ExactLayer",
    "Exposed",
    "FusedLayer",
    "OnnxExport",
    "RunnableModel",
    "check_forms",
    "exposed",
    "node_integers",
    "is_openvino_available",
    "onnx_model",
    "operator_differences",
    "own_graph",
    "profile_in",
    "require_onnxruntime",
    "run_onnxruntime",
    "run_openvino",
    "run_tensors",
    "runnable_model",
    "to_onnx",
    "trace_onnxruntime",
    "trace_openvino",
]
