"""Kernels: lowered steps, the table of rows that run them, and the choice between rows.

numba and the C library are loaded when a program is compiled, not before.
"""

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
    Buffer,
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
