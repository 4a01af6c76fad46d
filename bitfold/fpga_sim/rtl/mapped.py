"""The Verilog design that carries a whole network: one array for all layers of a mapping."""

from dataclasses import replace

from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.mapping import MappedLayer, Mapping
from bitfold.fpga_sim.rtl.design import (
    ODD,
    PARALLEL_BITS,
    SIGNED,
    UNSIGNED,
    Design,
    Operand,
    ThresholdUnit,
)
from bitfold.ir.grid import Grid


def mapped_design(mapping: Mapping) -> Design:
    """The design whose PEs multiply the codes of the layers that enter whole, without digits.

    An operand is written as in the layers of most MACs that have all its bits; where every layer
    enters in digits, as unsigned numbers. Threshold units hold the tables of one layer, the one
    with most; they are loaded again for the next.
    """
    array, layers = mapping.array, mapping.layers
    assert array.w_bits is not None
    assert array.a_bits is not None
    if array.pe == "serial":
        weight = Operand(max(_planes(x.weight_grid) for x in layers), SIGNED)
        activation = Operand(max(_planes(x.activation_grid) for x in layers), UNSIGNED)
        return Design(array, weight, activation, mapping.acc_bits, _thresholds(mapping))
    whole = [x for x in layers if x.w_digits == x.a_digits == 1]
    weight = _operand([(x, x.weight_grid) for x in whole], array.w_bits)
    activation = _operand([(x, x.activation_grid) for x in whole], array.a_bits)
    pe = array.pe if array.pe != "auto" else _kind(mapping.w_kind, weight)
    if pe == "binary":
        weight = Operand(1, ODD)
    elif pe == "ternary":
        weight = Operand(2, SIGNED)
    settled = replace(array, pe=pe, w_bits=None, a_bits=None)
    return Design(settled, weight, activation, mapping.acc_bits, _thresholds(mapping))


def _planes(grid: Grid) -> int:
    return Operand.of(grid, serial=True).bits


def _operand(found: list[tuple[MappedLayer, Grid]], bits: int) -> Operand:
    """Format of the grid of ``bits`` bits in most MACs."""
    macs: dict[Operand, int] = {}
    for layer, grid in found:
        operand = Operand.of(grid)
        if operand.bits == bits:
            macs[operand] = macs.get(operand, 0) + layer.gemm.macs
    return max(macs, key=macs.__getitem__, default=Operand(bits, UNSIGNED))


def _kind(weight_kind: str, weight: Operand) -> str:
    if weight == Operand(1, ODD):
        return "binary"
    return "ternary" if weight_kind == "T" else "parallel"


def _thresholds(mapping: Mapping) -> ThresholdUnit:
    """Codes as wide as activations: of one PE operand, or of all planes of a serial one."""
    array = mapping.array
    bits = array.a_bits
    assert bits is not None
    if array.pe == "serial":
        bits = max(x.activation_grid.bits for x in mapping.layers)
    search = array.thresholds == "search" or (array.thresholds == "auto" and bits > PARALLEL_BITS)
    tables = max(_tables(layer, array) for layer in mapping.layers)
    return ThresholdUnit(bits, 2**bits - 1, 0, tables, search=search)


def _tables(layer: MappedLayer, array: ArrayConfig) -> int:
    gemm = layer.gemm
    each = gemm.filters if array.dataflow == "is" else ceil_div(gemm.filters, array.cols)
    return gemm.groups * each
