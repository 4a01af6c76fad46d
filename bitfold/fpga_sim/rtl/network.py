"""A whole network through the Verilog, layer by layer: what the simulation gives goes on.

Every Conv2d and Linear runs on the emitted array, one compiled test bench for each pair of
operands; other operations are the oracle's. The result can be compared with ``Session``'s.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import compute_cycles
from bitfold.fpga_sim.mapping import MacNode, input_grid, mac_nodes
from bitfold.fpga_sim.rtl.design import Design, Operand
from bitfold.fpga_sim.rtl.layer import accumulators, layer_design, layer_run
from bitfold.fpga_sim.rtl.simulators import Bench, compile_bench
from bitfold.fpga_sim.rtl.stimulus import results
from bitfold.ir import oracle
from bitfold.ir.graph import IntGraph
from bitfold.ir.ops import inputs_of
from bitfold.ir.ranges import scales_of
from bitfold.ir.types import IntArray


@dataclass(frozen=True, slots=True)
class LayerCycles:
    """Cycles of one layer, counted by the test bench and by the closed form."""

    name: str
    rtl: int
    closed: int


@dataclass(frozen=True, slots=True)
class NetworkRun:
    """Logits (1, classes) float32 and every layer's cycles; ``benches`` were compiled."""

    logits: NDArray[np.float32]
    layers: tuple[LayerCycles, ...]
    benches: int


def _shared_designs(graph: IntGraph, array: ArrayConfig) -> dict[str, Design]:
    """A design for every layer, equal for equal operands: accumulators as the widest sum needs."""
    designs = {node.name: layer_design(graph, node, array) for node in mac_nodes(graph)}
    widest: dict[tuple[Operand, Operand], int] = {}
    for design in designs.values():
        key = (design.weight, design.activation)
        widest[key] = max(widest.get(key, 0), design.acc_bits)
    return {
        name: replace(design, acc_bits=widest[design.weight, design.activation], thresholds=None)
        for name, design in designs.items()
    }


def run_layer(
    graph: IntGraph, node: MacNode, x: IntArray, bench: Bench
) -> tuple[IntArray, LayerCycles]:
    """The accumulators of ``node`` on codes x (1, …) as simulated, and the cycles."""
    array = replace(bench.design.array, acc_bits=bench.design.acc_bits)
    run = layer_run(graph, node, x, array)
    found = bench.run(run.product)
    shape = (run.gemm.groups, run.gemm.pixels, run.gemm.filters)
    sums = results(found.words, shape, bench.design)
    acc = accumulators(sums, node, input_grid(graph, node), bench.design)
    cycles = LayerCycles(node.name, found.cycles, compute_cycles(run.gemm, array))
    return acc.reshape(len(x), *graph.types[node.name].shape), cycles


def run_network(
    graph: IntGraph, image: NDArray[np.uint8], array: ArrayConfig, place: Path, *, simulator: str
) -> NetworkRun:
    """Run one image (1, H, W, C); ``place`` is an empty folder for sources and executables."""
    designs = _shared_designs(graph, array)
    benches: dict[Design, Bench] = {}
    values = {graph.input.name: oracle.quantize(graph.input, image)}
    layers = []
    for node in graph.nodes[1:-1]:
        xs = [values[x] for x in inputs_of(node)]
        if not isinstance(node, MacNode):
            values[node.name] = oracle.apply(node, xs)
            continue
        design = designs[node.name]
        if design not in benches:
            folder = place / str(len(benches))
            folder.mkdir()
            benches[design] = compile_bench(
                design, folder, simulator=simulator, words=2**17, library=place / "library"
            )
        values[node.name], cycles = run_layer(graph, node, xs[0], benches[design])
        layers.append(cycles)
    (last,) = inputs_of(graph.nodes[-1])
    logits = oracle.dequantize(values[last], scales_of(graph.types[last]))
    return NetworkRun(logits, tuple(layers), len(benches))
