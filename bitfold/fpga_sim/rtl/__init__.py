"""Verilog-2001 of the array, its test bench, and what a real layer sends through it."""

from bitfold.fpga_sim.rtl.design import Design, Operand, ThresholdUnit, natural_kind
from bitfold.fpga_sim.rtl.folder import (
    Emitted,
    check_run,
    layer_files,
    memory_words,
    require_new_folder,
    threshold_arguments,
    write_folder,
)
from bitfold.fpga_sim.rtl.layer import (
    LayerRun,
    accumulators,
    find_layer,
    input_codes,
    layer_design,
    layer_run,
)
from bitfold.fpga_sim.rtl.network import LayerCycles, NetworkRun, run_network
from bitfold.fpga_sim.rtl.scope import outside, require_emittable
from bitfold.fpga_sim.rtl.simulators import Bench, RtlRun, compile_bench, require_simulator
from bitfold.fpga_sim.rtl.stimulus import Stimulus, results, stimulus

__all__ = [
    # one array
    "Design",
    "Operand",
    "ThresholdUnit",
    "natural_kind",
    # what is emitted
    "outside",
    "require_emittable",
    # products and layers
    "LayerRun",
    "Stimulus",
    "accumulators",
    "find_layer",
    "input_codes",
    "layer_design",
    "layer_run",
    "results",
    "stimulus",
    # whole networks
    "LayerCycles",
    "NetworkRun",
    "run_network",
    # simulation
    "Bench",
    "RtlRun",
    "check_run",
    "compile_bench",
    "require_simulator",
    # the folder
    "Emitted",
    "layer_files",
    "memory_words",
    "require_new_folder",
    "threshold_arguments",
    "write_folder",
]
