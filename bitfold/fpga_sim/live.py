"""``simulate --synth``: Yosys on the design that a report is about, beside the model's numbers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitfold.fpga_sim.mapping import Mapping
from bitfold.fpga_sim.parts import (
    PartCost,
    accumulate_cost,
    array_cost,
    control_module,
    control_values,
    result_cost,
    skew_cost,
    synthesised,
    thresholds_cost,
)
from bitfold.fpga_sim.resources import FORMULA, Estimate
from bitfold.fpga_sim.rtl.design import Design
from bitfold.fpga_sim.rtl.mapped import mapped_design
from bitfold.fpga_sim.synthesis import COMMAND, Unit, synthesise, yosys_version

# Estimated LUT up to which the whole design is synthesised; beyond, one PE and what is around it.
WHOLE_LUTS = 20_000
COUNTS = ("lut", "lc", "ff", "dsp", "bram18")


@dataclass(frozen=True, slots=True)
class LiveSynthesis:
    """Yosys' and the model's counts of the same parts, by COUNTS; ``scope`` says which way.

    ``left_out`` names what no Verilog exists of.
    """

    tool: str
    command: str
    scope: str
    seconds: float
    found: dict[str, int]
    model: dict[str, int]
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """The field ``synthesis`` of the report."""
        return {
            "tool": self.tool,
            "command": self.command,
            "scope": self.scope,
            "seconds": round(self.seconds, 1),
            "resources": self.found,
            "model": self.model,
            "left_out": list(self.left_out),
        }

    def to_lines(self) -> list[str]:
        """A table for people."""
        lines = [f"{self.tool}, {self.scope}, {self.seconds:.0f} s", f"{'':<7} {'Yosys':>9} model"]
        lines += [
            f"{key:<7} {self.found[key]:>9} {self.model[key]} "
            f"({(self.model[key] - self.found[key]) / max(1, self.found[key]):+.1%})"
            for key in COUNTS
        ]
        return lines + [f"not in the Verilog, not synthesised: {name}" for name in self.left_out]


def synthesise_estimate(
    mapping: Mapping, estimate: Estimate, *, step: Callable[[str], None]
) -> LiveSynthesis:
    """Run Yosys on the design of ``mapping`` and its buffers; ``step`` hears what is running.

    Raises MissingDependencyError where Yosys is not installed.
    """
    version, started = yosys_version(), time.monotonic()
    design = mapped_design(mapping)
    kept = [part for part in estimate.parts if part.standing != FORMULA]
    whole = sum(part.lut for part in kept) <= WHOLE_LUTS
    step("buffers")
    buffers = _buffers(estimate)
    parts = _whole(design, step) if whole else _by_parts(design, step)
    rows, cols = design.array.rows, design.array.cols
    scope = "the whole design" if whole else f"one PE times {rows} x {cols}, and what is around it"
    return LiveSynthesis(
        tool=version,
        command=_command(design),
        scope=f"{scope}, and its buffers",
        seconds=time.monotonic() - started,
        found=_sums([*parts, *buffers]),
        model=_sums(kept),
        left_out=tuple(part.name for part in estimate.parts if part.standing == FORMULA),
    )


def _command(design: Design) -> str:
    return COMMAND if design.array.pe == "dsp" else f"{COMMAND} -nodsp"


def _sums(parts: Sequence[PartCost]) -> dict[str, int]:
    """Totals by COUNTS."""
    halves = sum(part.ramb18 + 2 * part.ramb36 for part in parts)
    counts = {key: sum(getattr(part, key) for part in parts) for key in COUNTS[:-1]}
    return counts | {"bram18": halves}


def _buffers(estimate: Estimate) -> list[PartCost]:
    """Every buffer in block RAM: 7-series parts, which are synthesised for, have no UltraRAM."""
    units = [memory_unit(memory.width, memory.depth) for memory in estimate.memories
             if memory.ram == "bram" and memory.name != "sums"]  # fmt: skip
    return [synthesised("buffer", cells) for cells in synthesise(units)] if units else []


def memory_unit(width: int, depth: int) -> Unit:
    """``bf_memory`` of that size."""
    address = max(1, (depth - 1).bit_length())
    return Unit("bf_memory", {"WIDTH": width, "DEPTH": depth, "AW": address})


def _whole(design: Design, step: Callable[[str], None]) -> list[PartCost]:
    step(f"the whole design, {design.array.rows} x {design.array.cols} PEs")
    (cells,) = synthesise([Unit("bf_top", design.parameters(), design.array.pe == "dsp")])
    return [synthesised("design", cells)]


def pe_unit(design: Design) -> Unit:
    """The PE of ``design`` on its own."""
    values = design.parameters()
    names = ["KIND", "WB", "AB", "W_FMT", "A_FMT", "LANES", "ACC", "SHADOW"]
    parameters = {name: values[name] for name in names}
    if design.array.pe == "serial":
        parameters |= {"WB": 1, "AB": 1, "W_FMT": 0, "A_FMT": 0}
    if design.array.dataflow == "os":
        return Unit("bf_pe", parameters, design.array.pe == "dsp")
    role = {"ROLE": int(design.array.dataflow == "is")}
    return Unit("bf_pe_ws", parameters | role, design.array.pe == "dsp")


def control_unit(design: Design) -> Unit:
    """The controller of ``design``."""
    return Unit(control_module(design), control_values(design))


def threshold_unit(design: Design) -> Unit:
    """One threshold unit of ``design``."""
    values = design.parameters()
    names = ["ACC", "OB", "COUNT", "OFFSET", "SEARCH", "TW"]
    parameters = {name: values[name] for name in names} | {"DEPTH": values["TABLES"]}
    return Unit("bf_threshold", parameters)


def _by_parts(design: Design, step: Callable[[str], None]) -> list[PartCost]:
    """The array by its law from one synthesised PE; skew and registers by theirs."""
    step("one PE")
    (pe,) = synthesise([pe_unit(design)])
    step("controller and threshold unit")
    control, threshold = synthesise([control_unit(design), threshold_unit(design)])
    parts = [array_cost(design, pe), skew_cost(design), result_cost(design)]
    parts += [accumulate_cost(design), synthesised("controller", control)]
    if design.array.dataflow != "os":
        memory = memory_unit(design.array.cols * design.acc_bits, design.array.acc_words)
        step("accumulator memory")
        parts.append(synthesised("sums", synthesise([memory])[0]))
    unit = synthesised("thresholds", threshold)
    return [*parts, thresholds_cost(design, unit)]
