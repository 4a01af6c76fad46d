"""LUT, FF, DSP and block RAM of the array and its surroundings (docs/fpga_model.md, section 5).

What the emitted Verilog has is calibrated on Yosys (``calibration.toml``) and carries the worst
error measured. What it does not have yet goes by formula, with its whole size as the error.
"""

from dataclasses import dataclass, replace

from bitfold.fpga_sim.calibration import calibration
from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.mapping import Mapping
from bitfold.fpga_sim.memory import Buffer, buffers
from bitfold.fpga_sim.parts import (
    PartCost,
    design_parts,
    memory_cost,
    pe_cost,
    threshold_cost,
    thresholds_cost,
)
from bitfold.fpga_sim.rtl.design import Design
from bitfold.fpga_sim.rtl.mapped import mapped_design
from bitfold.ir.graph import IntGraph
from bitfold.ir.ops import Rescale
from bitfold.ir.types import FloatTensor, signed_bits

# Signed operand widths of DSP48E1, the narrowest multiplier of the families in devices.toml.
DSP_WIDE, DSP_NARROW = 25, 18
FORMULA = "formula"


def by_formula(name: str, *, lut: int, ff: int, dsp: int = 0) -> PartCost:
    """A part without Verilog: uncertain by its whole size."""
    return PartCost(name, lut, lut, ff, dsp=dsp, lut_error=lut, lc_error=lut, ff_error=ff,
                    standing=FORMULA)  # fmt: skip


def passes_cost(design: Design, *, out_bits: int) -> PartCost:
    """What digit passes need beside the PEs.

    Per row an adder of S operands for Σ i_a; per column a shifter-adder and R words of LUT RAM.
    """
    array = design.array
    row_lut = out_bits + array.lanes * design.activation.bits
    column_lut = 2 * out_bits + ceil_div(array.rows, 64) * out_bits
    lut = array.rows * row_lut + array.cols * column_lut
    return by_formula("digit passes", lut=lut, ff=(array.rows + array.cols) * out_bits)


def vector_cost(design: Design) -> PartCost:
    """The unit for depthwise layers: a channel is a PE of ``vector_taps`` lanes."""
    array = design.array
    pe_kind = "parallel" if array.pe == "dsp" else array.pe
    unit = replace(array, lanes=array.vector_taps, drain="shared", dataflow="os", pe=pe_kind)
    pe = pe_cost(replace(design, array=unit))
    channels = array.vector_channels or array.cols
    return by_formula(
        "vector unit",
        lut=channels * pe.lut,
        ff=channels * pe.ff,
    )


def taps_cost(design: Design) -> PartCost:
    """The drain's taps of a sub-array.

    A tap after each row is a multiplexer of R inputs a column and accumulator bit, two inputs a
    LUT after the first.
    """
    array = design.array
    return by_formula("taps", lut=array.cols * design.acc_bits * (array.rows // 2), ff=0)


def rescale_dsps(graph: IntGraph, *, cols: int) -> int:
    """One multiplier a column, as wide as the widest Rescale needs, in 25 × 18-bit blocks."""
    most = 0
    for node in graph.nodes:
        if not isinstance(node, Rescale):
            continue
        x = graph.types[node.x]
        assert not isinstance(x, FloatTensor)
        values = node.multiplier
        most = max(
            most,
            dsp_blocks(
                signed_bits(min(x.lo, 0), max(x.hi, 0)),
                signed_bits(min(int(values.min()), 0), max(int(values.max()), 0)),
            ),
        )
    return cols * most


def dsp_blocks(x_bits: int, multiplier_bits: int) -> int:
    """Blocks of one signed product; each further block adds an unsigned part, one bit less wide."""
    straight = _parts(x_bits, DSP_WIDE) * _parts(multiplier_bits, DSP_NARROW)
    crossed = _parts(x_bits, DSP_NARROW) * _parts(multiplier_bits, DSP_WIDE)
    return min(straight, crossed)


def _parts(bits: int, width: int) -> int:
    return ceil_div(max(bits - 1, 1), width - 1)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Resources of the whole design, part by part; ``rescale_dsp`` multiplies behind the drain."""

    parts: tuple[PartCost, ...]
    memories: tuple[Buffer, ...]
    rescale_dsp: int

    @property
    def lut(self) -> int:
        """LUT sites: logic, LUT RAM and shift registers."""
        return sum(part.lut for part in self.parts)

    @property
    def lc(self) -> int:
        """The same after pairing two small functions into one LUT6."""
        return sum(part.lc for part in self.parts)

    @property
    def ff(self) -> int:
        """Flip-flops."""
        return sum(part.ff for part in self.parts)

    @property
    def carry4(self) -> int:
        """Carry chains of four bits, of the array and its columns."""
        return sum(part.carry4 for part in self.parts)

    @property
    def dsp(self) -> int:
        """DSP blocks of the PEs and of the widest Rescale a column."""
        return sum(part.dsp for part in self.parts) + self.rescale_dsp

    @property
    def bram36(self) -> int:
        """36-kbit blocks; two halves of one may serve two memories."""
        return ceil_div(sum(part.ramb18 + 2 * part.ramb36 for part in self.parts), 2)

    @property
    def uram(self) -> int:
        """UltraRAM blocks."""
        return sum(memory.uram for memory in self.memories)

    @property
    def lut_error(self) -> float:
        """Error bar of ``lut``, as a fraction of it."""
        return self.errors()["lut"]

    def counts(self) -> dict[str, int]:
        """The five kinds that a device counts."""
        return {
            "lut": self.lut,
            "ff": self.ff,
            "dsp": self.dsp,
            "bram36": self.bram36,
            "uram": self.uram,
        }

    def errors(self) -> dict[str, float]:
        """Error bars as fractions of the counts.

        The bounds of the parts added up, at least the worst error of a whole design. Block RAM and
        UltraRAM follow the mapping law, exact on every memory synthesised. What no Verilog exists
        of is uncertain by its whole size.
        """
        loose = [part for part in self.parts if part.standing == FORMULA]
        counts = self.counts() | {"lc": self.lc, "carry4": self.carry4}
        bounds = {"dsp": float(sum(part.dsp for part in loose) + self.rescale_dsp)}
        for what in ("lut", "ff", "lc", "carry4"):
            unmeasured = sum(getattr(part, what) for part in loose)
            added = sum(getattr(part, f"{what}_error") for part in self.parts)
            design = calibration().residuals[f"design {what}"].bar
            bounds[what] = max(added, design * (counts[what] - unmeasured) + unmeasured)
        order = ("lut", "ff", "dsp", "bram36", "uram", "lc", "carry4")
        return {key: round(bounds.get(key, 0.0) / max(1, counts[key]), 4) for key in order}


def estimate(graph: IntGraph, mapping: Mapping) -> Estimate:
    """Array, skew, thresholds, controller, digit passes, buffers. No DMA, no processor shell."""
    array, design = mapping.array, mapped_design(mapping)
    memories = buffers(graph, mapping)
    parts = list(design_parts(design))
    if mapping.has_passes:
        out_bits = max(design.acc_bits, *(layer.out_bits for layer in mapping.layers))
        parts[-1] = thresholds_cost(replace(design, acc_bits=out_bits))
        parts.append(passes_cost(design, out_bits=out_bits))
    if array.depthwise == "vector":
        parts.append(vector_cost(design))
    if array.subarray == "best":
        parts.append(taps_cost(design))
    parts += [memory_cost(f"buffer {memory.name}", memory.cells) for memory in memories]
    return Estimate(
        parts=tuple(parts),
        memories=memories,
        rescale_dsp=rescale_dsps(graph, cols=array.cols),
    )


__all__ = [
    "Estimate",
    "PartCost",
    "calibration",
    "dsp_blocks",
    "estimate",
    "passes_cost",
    "rescale_dsps",
    "taps_cost",
    "threshold_cost",
    "vector_cost",
]
