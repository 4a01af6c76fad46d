"""Verilog-2001 of the array, its test bench, and what a real layer sends through it."""

from bitfold.fpga_sim.rtl.design import Design, Operand, ThresholdUnit, natural_kind
from bitfold.fpga_sim.rtl.simulators import Bench, RtlRun, compile_bench, require_simulator
from bitfold.fpga_sim.rtl.stimulus import Stimulus, results, stimulus

__all__ = [
    "Bench",
    "Design",
    "Operand",
    "RtlRun",
    "Stimulus",
    "ThresholdUnit",
    "compile_bench",
    "natural_kind",
    "require_simulator",
    "results",
    "stimulus",
]
