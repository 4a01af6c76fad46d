"""The integer graph as ONNX, written and read in every profile, and the runtimes that run it."""

from bitfold.export.onnx.check import (
    profile_in,
    require_onnxruntime,
    run_onnxruntime,
    trace_onnxruntime,
)
from bitfold.export.onnx.openvino import is_openvino_available, run_openvino, trace_openvino
from bitfold.export.onnx.qdq import OnnxExport, onnx_model, to_onnx
from bitfold.export.onnx.reader import own_graph
from bitfold.export.onnx.tensors import RunnableModel, run_tensors, runnable_model

__all__ = [
    "OnnxExport",
    "RunnableModel",
    "is_openvino_available",
    "onnx_model",
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
