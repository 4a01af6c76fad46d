"""Kernels: lowered steps, the table of rows that run them, and the choice between rows.

numba and the C library are loaded when a program is compiled, not before.
"""

from bitfold.kernels.program import Program, Workers
from bitfold.kernels.registry import (
    Choice,
    choose_backend,
    compile_program,
    explain_choice,
    forced_choices,
    host_features,
    kernel_rows,
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

__all__ = [
    "AddStep",
    "Buffer",
    "Choice",
    "ConvStep",
    "CopyStep",
    "DequantizeStep",
    "Epilogue",
    "MaxPoolStep",
    "Program",
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
]
