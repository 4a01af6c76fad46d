"""The shipped table and its errors, from the runs of ``fpga_calibration.py``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from bitfold.fpga_sim import calibration as shipped
from bitfold.fpga_sim import pe_model
from bitfold.fpga_sim.block_memory import memory_cells, ultra_cells
from bitfold.fpga_sim.parts import (
    PartCost,
    accumulator_memory,
    array_cost,
    control_cost,
    design_parts,
    synthesised,
    threshold_cost,
)
from bitfold.fpga_sim.pe_model import (
    COUNTERS,
    Operands,
    Place,
    add_cells,
    packed_cells,
    pe_cells,
    product_cells,
)
from bitfold.fpga_sim.rtl import Design
from bitfold.fpga_sim.rtl.design import KINDS
from bitfold.fpga_sim.synthesis import Unit

TABLE = Path("bitfold/fpga_sim/calibration.toml")
IN_TABLE = ("product", "packed", "control")
STANDINGS = ("pe", "array", "control", "threshold", "memory", "design")
PLACES = ("TOP", "RIGHT", "BOTTOM")
OPERANDS = ("KIND", "WB", "AB", "W_FMT", "A_FMT")
HEADER = """\
# Yosys on units of the emitted Verilog; written by benchmarks/fpga_calibration.py.
# Tool: {tool}. Commands: {commands}.
# units: {fields}; zeros at the end are left out.
# residuals: |model - Yosys| / Yosys: worst, median, configurations.

tool = "{tool}"
"""
Row = dict[str, object]


def error_row(group: str, key: str, what: str, yosys: int, model: int, standing: str) -> Row:
    """One comparison; the error is a fraction of Yosys' count, or of one cell where that is 0."""
    error = abs(model - yosys) / max(1, yosys)
    return {"group": group, "key": key, "what": what, "yosys": yosys, "model": model,
            "error": round(error, 5), "standing": standing}  # fmt: skip


def table_row(cells: Mapping[str, int]) -> list[int]:
    """Counts in the order of the table, without zeros at the end."""
    values = [cells.get(name, 0) for name in shipped.FIELDS]
    while values and values[-1] == 0:
        values.pop()
    return values


def write_table(
    runs: list[dict], head: Mapping[str, str], residuals: Mapping[str, tuple[float, float, int]]
) -> None:
    """``calibration.toml``."""
    units = [(run["key"], run["cells"]) for run in runs if run["group"] in IN_TABLE]
    lines = [HEADER.format(fields=", ".join(shipped.FIELDS), **head), "[units]"]
    lines += [f'"{key}" = {table_row(cells)}' for key, cells in units]
    lines += ["", "[residuals]", *(f'"{key}" = {list(row)}' for key, row in residuals.items())]
    TABLE.write_text("\n".join(lines) + "\n", "utf-8")
    shipped.calibration.cache_clear()
    for cached in (pe_model.product_cells, pe_model.packed_cells, pe_model.dot_cells,
                   pe_model.os_cells, pe_model.moving_cells):  # fmt: skip
        cached.cache_clear()


def halves(cells: Mapping[str, int]) -> int:
    """Block RAM in 18-kbit halves."""
    return cells["ramb18"] + 2 * cells["ramb36"]


def against(run: dict, cost: PartCost, standing: str) -> list[Row]:
    """A part against a run, count by count."""
    cells = run["cells"]
    found = {"lut": (cells["lut"] + cells["lutram"], cost.lut),
             "lc": (cells["lc"] + cells["lutram"], cost.lc), "ff": (cells["ff"], cost.ff),
             "dsp": (cells["dsp"], cost.dsp), "carry4": (cells["carry4"], cost.carry4),
             "ramb18": (halves(cells), cost.ramb18 + 2 * cost.ramb36)}  # fmt: skip
    return [error_row(run["group"], run["key"], what, *pair, standing)
            for what, pair in found.items()]  # fmt: skip


def compare_pe(run: dict) -> list[Row]:
    """A PE, in its place."""
    unit = Unit.parse(run["key"])
    values = unit.design_parameters
    place = Place(*(bool(values.get(name)) for name in PLACES))
    cells = pe_cells(Design.from_parameters(values), place)
    return against(run, synthesised("pe", cells), "pe")


def compare_node(run: dict) -> list[Row]:
    """An adder of the tree or a counter of lanes."""
    values = Unit.parse(run["key"]).parameters
    cells = COUNTERS[values["LANES"]] if "LANES" in values else add_cells(
        values["IN"], values["OUT"]
    )  # fmt: skip
    return against(run, synthesised("node", cells), "pe")


def compare_dsp(run: dict) -> list[Row]:
    """One product or two where DSP blocks may be used."""
    unit = Unit.parse(run["key"])
    values = {"KIND": KINDS["dsp"]} | dict(unit.parameters)
    operands = Operands(*(values[name] for name in OPERANDS))
    cells = (packed_cells if unit.module == "bf_packed" else product_cells)(operands)
    return against(run, synthesised("product", cells), "pe")


def compare_array(run: dict) -> list[Row]:
    """A whole array."""
    design = Design.from_parameters(Unit.parse(run["key"]).design_parameters)
    return against(run, array_cost(design), "array")


def compare_threshold(run: dict) -> list[Row]:
    """A threshold unit."""
    design = Design.from_parameters(Unit.parse(run["key"]).design_parameters)
    assert design.thresholds is not None
    return against(run, threshold_cost(design.thresholds, design.acc_bits), "threshold")


def compare_control(run: dict) -> list[Row]:
    """A controller, from the rest of the table."""
    unit = Unit.parse(run["key"])
    return against(run, control_cost(unit.module, unit.parameters, itself=False), "control")


def compare_memory(run: dict) -> list[Row]:
    """A buffer: blocks, LUT sites, FF."""
    values, cells = Unit.parse(run["key"]).parameters, run["cells"]
    found = memory_cells(values["WIDTH"], values["DEPTH"])
    pairs = {"ramb18": (cells["ramb18"], found.ramb18), "ramb36": (cells["ramb36"], found.ramb36),
             "lut": (cells["lut"] + cells["lutram"], found.lut + found.lutram),
             "ff": (cells["ff"], found.ff)}  # fmt: skip
    return [error_row("memory", run["key"], what, *pair, "memory")
            for what, pair in pairs.items()]  # fmt: skip


def compare_ultra(run: dict) -> list[Row]:
    """A buffer in UltraRAM."""
    values, cells = Unit.parse(run["key"]).parameters, run["cells"]
    found = ultra_cells(values["WIDTH"], values["DEPTH"])
    pairs = {"uram": (cells["uram"], found.blocks), "lut": (cells["lut"], found.lut),
             "ff": (cells["ff"], found.ff)}  # fmt: skip
    return [error_row("ultra memory", run["key"], what, *pair, "memory")
            for what, pair in pairs.items()]  # fmt: skip


def compare_top(run: dict) -> list[Row]:
    """A whole design, as the sum of its parts."""
    design = Design.from_parameters(Unit.parse(run["key"]).parameters)
    parts = (*design_parts(design), accumulator_memory(design))
    names = ("lut", "lc", "ff", "carry4", "dsp", "ramb18", "ramb36")
    total = {name: sum(getattr(part, name) for part in parts) for name in names}
    return against(run, PartCost("design", **total), "design")


COMPARE: Mapping[str, Callable[[dict], list[Row]]] = {
    "dsp": compare_dsp, "node": compare_node, "pe": compare_pe, "held-out pe": compare_pe,
    "array": compare_array, "held-out array": compare_array, "control": compare_control,
    "threshold": compare_threshold, "held-out threshold": compare_threshold,
    "memory": compare_memory, "ultra memory": compare_ultra,
    "top": compare_top, "held-out top": compare_top,
}  # fmt: skip


def compare(runs: list[dict]) -> list[Row]:
    """Every run that is not itself the model."""
    return [row for run in runs if run["group"] in COMPARE for row in COMPARE[run["group"]](run)]


def residuals_of(errors: list[Row]) -> dict[str, tuple[float, float, int]]:
    """Worst and median by standing and resource."""
    found = {}
    for standing in STANDINGS:
        for what in ("lut", "lc", "ff", "carry4"):
            many = [float(str(row["error"])) for row in errors
                    if row["standing"] == standing and row["what"] == what]  # fmt: skip
            found[f"{standing} {what}"] = (
                (max(many), round(median(many), 5), len(many)) if many else (0.0, 0.0, 0)
            )  # fmt: skip
    return found


def fit(runs: list[dict], head: Mapping[str, str]) -> list[Row]:
    """Write the table; its residuals are those of the table without any."""
    none = dict.fromkeys(
        (f"{x} {y}" for x in STANDINGS for y in ("lut", "lc", "ff", "carry4")), (0.0, 0.0, 0)
    )
    write_table(runs, head, none)
    errors = compare(runs)
    write_table(runs, head, residuals_of(errors))
    return sorted(errors, key=lambda row: -float(str(row["error"])))
