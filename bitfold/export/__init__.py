"""From a checkpoint to an integer graph, and from there to ONNX and back.

Attributes are resolved when first used: reading ONNX needs no torch, folding needs no ONNX.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold.export.fake_quant import LayerFlips, compare_codes, merge_flips, quantizer_names
    from bitfold.export.from_checkpoint import from_checkpoint
    from bitfold.export.int8_peer import int8_peer
    from bitfold.export.lowering import LayerReport
    from bitfold.export.onnx_check import (
        require_onnxruntime,
        run_onnxruntime,
        trace_onnxruntime,
    )
    from bitfold.export.onnx_qdq import OnnxExport, onnx_model, to_onnx
    from bitfold.export.onnx_reader import read_onnx
    from bitfold.export.pipeline import Folded, fold_network

_HOMES = {
    # folding
    "from_checkpoint": "from_checkpoint",
    "fold_network": "pipeline",
    "Folded": "pipeline",
    "LayerReport": "lowering",
    # the trained network beside its graph
    "LayerFlips": "fake_quant",
    "compare_codes": "fake_quant",
    "merge_flips": "fake_quant",
    "quantizer_names": "fake_quant",
    # ONNX
    "OnnxExport": "onnx_qdq",
    "onnx_model": "onnx_qdq",
    "to_onnx": "onnx_qdq",
    "read_onnx": "onnx_reader",
    "require_onnxruntime": "onnx_check",
    "run_onnxruntime": "onnx_check",
    "trace_onnxruntime": "onnx_check",
    "int8_peer": "int8_peer",
}

__all__ = [
    "Folded",
    "LayerFlips",
    "LayerReport",
    "OnnxExport",
    "compare_codes",
    "fold_network",
    "from_checkpoint",
    "int8_peer",
    "merge_flips",
    "onnx_model",
    "quantizer_names",
    "read_onnx",
    "require_onnxruntime",
    "run_onnxruntime",
    "to_onnx",
    "trace_onnxruntime",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
