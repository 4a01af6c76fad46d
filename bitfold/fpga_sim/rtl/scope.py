"""Which settings of an ``ArrayConfig`` the emitted Verilog has, and which it is refused with.

Every key belongs to one of the tables below. What would make the array, or its cycles, another one
than the simulator's is refused; what lies around the array is named as absent.
"""

from dataclasses import replace

from bitfold.errors import UnsupportedError, UsageError
from bitfold.fpga_sim.array import PE_BITS, ArrayConfig
from bitfold.fpga_sim.mapping import MacNode, MappedLayer, input_grid, map_graph
from bitfold.ir.graph import IntGraph

# Parameters of bf_top, or counters of its controller.
BUILT = frozenset(
    ("rows", "cols", "dataflow", "lanes", "drain", "acc_words", "pe", "acc_bits", "thresholds")
)
# The PE is built for the layer: allowed where the simulator's PE is the same, or as fast.
SETTLED = frozenset(("edge", "w_bits", "a_bits"))
# Key → its only value in Verilog, and why. The keys after each one mean nothing without it.
REFUSED = {
    "mode": ("native", "the Verilog has its own cycles, not SCALE-Sim's"),
    "subarray": ("full", "the Verilog has no drain after row r and uses the whole array"),
    "depthwise": ("array", "the Verilog has no vector unit; its array runs depthwise layers"),
}
DEPENDENT = {
    "mode": ("scalesim_minus_one", "scalesim_ceil"),
    "depthwise": ("vector_channels", "vector_taps"),
}
# Around the array: they change neither the Verilog nor its cycles on chip.
OUTSIDE = (
    "weight_words", "tile_words", "map_words", "output_words", "weight_ram", "tile_ram", "map_ram",
    "output_ram", "clock_mhz", "dram_bytes_per_cycle", "dram_bits", "dram_latency", "dram_burst",
)  # fmt: skip


def require_emittable(graph: IntGraph, node: MacNode, array: ArrayConfig) -> None:
    """Raise UnsupportedError or UsageError where the Verilog would not be what ``array`` says.

    Settings that the Verilog lacks are refused, and operand widths or accumulators that are not
    those of the PE that ``node`` gets.
    """
    for key, (only, why) in REFUSED.items():
        if getattr(array, key) != only:
            raise UnsupportedError(
                f"{key} {getattr(array, key)} is not emitted: {why}",
                where=key,
                todo=f"Use {key} {only}.",
            )
    # Another layer's sums do not matter here: ``layer_design`` checks those of this one.
    mapping = map_graph(graph, replace(array, acc_bits=None))
    mapped = next(layer for layer in mapping.layers if layer.name == node.name)
    if mapped.gemm.passes > 1:
        raise _digits(mapped, mapping.array, given=array)
    _require_widths(graph, node, array)


def _digits(mapped: MappedLayer, settled: ArrayConfig, *, given: ArrayConfig) -> UnsupportedError:
    """The layer is wider than a PE of the simulator, which then multiplies it digit by digit."""
    weights, codes = mapped.weight_grid.bits, mapped.activation_grid.bits
    todo = "Use edge wide."
    if given.pe in PE_BITS:
        todo = "Use pe auto, or emit another layer."
    elif given.w_bits is not None or given.a_bits is not None:
        todo = "Leave w_bits and a_bits out and use edge wide, or emit another layer."
    return UnsupportedError(
        f"{weights} x {codes} bits take {mapped.gemm.passes} passes on PEs of {settled.w_bits} x "
        f"{settled.a_bits} bits, and the Verilog does not combine digits",
        where=f"edge, layer {mapped.name}",
        todo=todo,
    )


def _require_widths(graph: IntGraph, node: MacNode, array: ArrayConfig) -> None:
    """Widths that are given must be the layer's, for which the PE is built."""
    own = {"w_bits": node.weight_grid.bits, "a_bits": input_grid(graph, node).bits}
    for key, bits in own.items():
        given = getattr(array, key)
        if array.pe not in PE_BITS and given not in (None, bits):
            raise UsageError(
                f"{key} is {given}, and the PE is built for the {bits} bits of layer {node.name}",
                where=key,
                todo=f"Leave {key} out, or use {bits}.",
            )


def outside(array: ArrayConfig) -> tuple[str, ...]:
    """The keys of ``array`` that differ from their default and describe nothing in the Verilog."""
    plain = ArrayConfig()
    return tuple(key for key in OUTSIDE if getattr(array, key) != getattr(plain, key))
