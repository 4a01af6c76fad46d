"""Kernels: lowered steps, the table of rows that run them, and the choice between rows.

Names are resolved when first used: a program that is packed already needs no packing code. numba
and the C library are loaded when a program is compiled, not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold.kernels.buffer import Buffer
    from bitfold.kernels.peak import PeakLoop, peak_loops
    from bitfold.kernels.program import Program, Workers
    from bitfold.kernels.registry import (
        Choice,
        Remembered,
        choose_backend,
        compile_program,
        explain_choice,
        forced_choices,
        host_features,
        kernel_rows,
        remembered,
    )
    from bitfold.kernels.rows import Row
    from bitfold.kernels.steps import (
        AddStep,
        ConvStep,
        CopyStep,
        DequantizeStep,
        Epilogue,
        MaxPoolStep,
        RescaleStep,
        Step,
        SumPoolStep,
        ThresholdStep,
        ToAccumulators,
        ToIndices,
        ToWide,
    )
    from bitfold.kernels.weight_bytes import packed_weight_bytes

_NAMES = {
    "buffer": "Buffer",
    "peak": "PeakLoop peak_loops",
    "program": "Program Workers",
    "registry": "Choice Remembered choose_backend compile_program explain_choice forced_choices"
    " host_features kernel_rows remembered",
    "rows": "Row",
    "steps": "AddStep ConvStep CopyStep DequantizeStep Epilogue MaxPoolStep RescaleStep Step"
    " SumPoolStep ThresholdStep ToAccumulators ToIndices ToWide",
    "weight_bytes": "packed_weight_bytes",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = [
    "AddStep",
    "Buffer",
    "Choice",
    "ConvStep",
    "CopyStep",
    "DequantizeStep",
    "Epilogue",
    "MaxPoolStep",
    "PeakLoop",
    "Program",
    "Remembered",
    "RescaleStep",
    "Row",
    "Step",
    "SumPoolStep",
    "ThresholdStep",
    "ToAccumulators",
    "ToIndices",
    "ToWide",
    "Workers",
    "choose_backend",
    "compile_program",
    "explain_choice",
    "forced_choices",
    "host_features",
    "kernel_rows",
    "packed_weight_bytes",
    "peak_loops",
    "remembered",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
