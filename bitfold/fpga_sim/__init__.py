"""The FPGA array: cycles, values and resources from one description (docs/fpga_model.md).

``simulate`` is the closed form, ``step_graph`` and ``step_gemm`` the machine that proves it.
"""

from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import (
    Gemm,
    compute_cycles,
    num_tiles,
    scalesim_cycles,
    scalesim_output_size,
    shadow_cycles,
    shared_cycles,
    tile_steps,
)
from bitfold.fpga_sim.device import Device, Quantity, devices, find_device
from bitfold.fpga_sim.functional import step_graph, step_graph_cycles
from bitfold.fpga_sim.mapping import MappedLayer, Mapping, map_graph
from bitfold.fpga_sim.parts import array_cost, pe_cost
from bitfold.fpga_sim.report import LayerReport, ModelError, Report, simulate
from bitfold.fpga_sim.resources import Estimate
from bitfold.fpga_sim.stepper import Stepped, count_cycles, step_gemm, step_layer_cycles

__all__ = [
    "ArrayConfig",
    "Device",
    "Estimate",
    "Gemm",
    "LayerReport",
    "MappedLayer",
    "Mapping",
    "ModelError",
    "Quantity",
    "Report",
    "Stepped",
    "array_cost",
    "compute_cycles",
    "count_cycles",
    "devices",
    "find_device",
    "map_graph",
    "num_tiles",
    "pe_cost",
    "scalesim_cycles",
    "scalesim_output_size",
    "shadow_cycles",
    "shared_cycles",
    "simulate",
    "step_gemm",
    "step_graph",
    "step_graph_cycles",
    "step_layer_cycles",
    "tile_steps",
]
