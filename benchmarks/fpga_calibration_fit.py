"""The shipped table, its fit and its residuals, from the runs of ``fpga_calibration.py``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from bitfold.fpga_sim import calibration as shipped
from bitfold.fpga_sim import pe_model
from bitfold.fpga_sim.block_memory import memory_cells, ultra_cells
from bitfold.fpga_sim.parts import (
    accumulator_memory,
    array_cost,
    array_standing,
    control_cost,
    design_parts,
    pe_cost,
    threshold_cost,
)
from bitfold.fpga_sim.pe_model import Dot, PeModel, Products, features, is_fitted, table_dots
from bitfold.fpga_sim.rtl import Design
from bitfold.fpga_sim.synthesis import Cells, Unit

TABLE = Path("bitfold/fpga_sim/calibration.toml")
IN_TABLE = ("pe", "control")
WHATS = ("lut", "lc", "carry4")
STANDINGS = (
    "table",
    "moving",
    "lanes",
    "fitted",
    "fitted wide",
    "fitted unsigned",
    "array",
    "wide array",
    "unpacked dsp array",
    "popcount array",
    "moving array",
    "control",
    "threshold",
    "memory",
    "design",
)
HEADER = """\
# Yosys on units of the emitted Verilog; written by benchmarks/fpga_calibration.py.
# Tool: {tool}. Commands: {commands}.
# units: {fields}. terms: of the fit, bitfold/fpga_sim/pe_model.py.
# residuals: |model - Yosys| / Yosys: worst, median, configurations.

tool = "{tool}"
"""
Row = dict[str, object]


def terms_of(rows: Sequence[Dot], products: Products, what: str) -> tuple[float, ...]:
    """Least squares of relative errors over the rows that the terms describe."""
    fit = [row for row in rows if is_fitted(row.operands, row.lanes)]
    x = np.array([features(products, row.operands, row.lanes, what) for row in fit])
    y = np.array([row.value(what) for row in fit])
    full = y + np.array([row.operands.per_bit(row.lanes, what) * row.acc for row in fit])
    found = np.linalg.lstsq(x / full[:, None], y / full, rcond=None)[0]
    return tuple(round(float(value), 4) for value in found)


def left_out(rows: tuple[Dot, ...], what: str) -> list[Row]:
    """Every fitted row, predicted from a fit without it and without its other accumulators."""
    found, products = [], Products(rows)
    for row in rows:
        if not is_fitted(row.operands, row.lanes):
            continue
        same = row.operands, row.lanes
        rest = [other for other in rows if (other.operands, other.lanes) != same]
        found += other_sums(row, rows, what)
        model = PeModel(rest, {what: terms_of(rest, products, what)}, products)
        dot = model.fitted(row.operands, row.lanes, what)
        share = row.operands.per_bit(row.lanes, what) * row.acc
        found.append(error_row("leave one out", described(row), what,
                               round(row.value(what) + share), round(dot + share),
                               standing=row.operands.fitted_class))  # fmt: skip
    return found


def other_sums(row: Dot, rows: tuple[Dot, ...], what: str) -> list[Row]:
    """The same PE with another accumulator in the table, if there is one."""
    others = [x for x in rows if (x.operands, x.lanes) == (row.operands, row.lanes)
              and x.acc != row.acc]  # fmt: skip
    if not others:
        return []
    nearest = min(others, key=lambda x: abs(x.acc - row.acc))
    share = row.operands.per_bit(row.lanes, what) * row.acc
    return [error_row("another accumulator", described(row), what, round(row.value(what) + share),
                      round(nearest.value(what) + share), standing="table")]  # fmt: skip


def described(row: Dot) -> str:
    """A PE in words."""
    form, kind = ("unsigned", "signed", "odd")[row.operands.w_fmt], row.operands.kind
    name = ("binary", "ternary", form, "serial", f"dsp {form}")[kind]
    return f"{name} {row.operands.wb}x{row.operands.ab}, {row.lanes} lanes, ACC {row.acc}"


def error_row(
    group: str, key: str, what: str, yosys: int, model: int, *, standing: str = ""
) -> Row:
    """One comparison; the error is a fraction of Yosys' count, or of one cell where that is 0."""
    error = abs(model - yosys) / max(1, yosys)
    return {"group": group, "key": key, "what": what, "yosys": yosys, "model": model,
            "error": round(error, 5), "standing": standing}  # fmt: skip


def write_table(
    runs: list[dict], head: Mapping[str, str], residuals: Mapping[str, tuple[float, float, int]]
) -> None:
    """``calibration.toml``."""
    units = [(run["key"], run["cells"]) for run in runs if run["group"] in IN_TABLE]
    lines = [HEADER.format(fields=", ".join(shipped.FIELDS), **head), "[units]"]
    lines += [
        f'"{key}" = {[cells.get(name, 0) for name in shipped.FIELDS]}' for key, cells in units
    ]
    rows = table_rows(runs)
    products = Products(rows)
    lines += ["", "[terms]"]
    lines += [f"{what} = {list(terms_of(rows, products, what))}" for what in WHATS]
    lines += ["", "[residuals]", *(f'"{key}" = {list(row)}' for key, row in residuals.items())]
    TABLE.write_text("\n".join(lines) + "\n", "utf-8")
    shipped.calibration.cache_clear()
    for cached in (pe_model.shipped_model, pe_model.measured_sums, pe_model.pe_counts):
        cached.cache_clear()


def table_rows(runs: list[dict]) -> tuple[Dot, ...]:
    """The PEs of the table."""
    cells = {run["key"]: Cells(**run["cells"]) for run in runs if run["group"] == "pe"}
    return table_dots(cells)


def halves(cells: Mapping[str, int]) -> int:
    """Block RAM in 18-kbit halves."""
    return cells["ramb18"] + 2 * cells["ramb36"]


def compare_pe(run: dict) -> list[Row]:
    """LUT, LC, FF and DSP of a PE."""
    unit = Unit.parse(run["key"])
    pe, cells = pe_cost(Design.from_parameters(unit.design_parameters)), run["cells"]
    standing = pe.standing
    counts = {"lut": pe.lut, "lc": pe.lc, "ff": pe.ff, "dsp": pe.dsp, "carry4": pe.carry4}
    return [error_row(run["group"], run["key"], what, cells[what], value, standing=standing)
            for what, value in counts.items()]  # fmt: skip


def compare_cost(run: dict) -> list[Row]:
    """A whole array, controller or threshold unit."""
    unit = Unit.parse(run["key"])
    design = Design.from_parameters(unit.design_parameters)
    standing = array_standing(design) if "array" in unit.module else unit.module.split("_")[1]
    if design.thresholds is not None:
        cost = threshold_cost(design.thresholds, design.acc_bits)
    else:
        cost = array_cost(design) if "array" in standing else control_cost(design, itself=False)
    cells = run["cells"]
    found = {"lut": (cells["lut"] + cells["lutram"], cost.lut),
             "lc": (cells["lc"] + cells["lutram"], cost.lc), "ff": (cells["ff"], cost.ff),
             "dsp": (cells["dsp"], cost.dsp), "carry4": (cells["carry4"], cost.carry4),
             "ramb18": (halves(cells), cost.ramb18 + 2 * cost.ramb36)}  # fmt: skip
    return [error_row(run["group"], run["key"], what, *pair, standing=standing)
            for what, pair in found.items()]  # fmt: skip


def compare_memory(run: dict) -> list[Row]:
    """A buffer: blocks, LUT sites, FF."""
    values, cells = Unit.parse(run["key"]).parameters, run["cells"]
    found = memory_cells(values["WIDTH"], values["DEPTH"])
    pairs = {"ramb18": (cells["ramb18"], found.ramb18), "ramb36": (cells["ramb36"], found.ramb36),
             "lut": (cells["lut"] + cells["lutram"], found.lut + found.lutram),
             "ff": (cells["ff"], found.ff)}  # fmt: skip
    return [error_row("memory", run["key"], what, *pair, standing="memory")
            for what, pair in pairs.items()]  # fmt: skip


def compare_ultra(run: dict) -> list[Row]:
    """A buffer in UltraRAM."""
    values, cells = Unit.parse(run["key"]).parameters, run["cells"]
    found = ultra_cells(values["WIDTH"], values["DEPTH"])
    pairs = {"uram": (cells["uram"], found.blocks), "lut": (cells["lut"], found.lut),
             "ff": (cells["ff"], found.ff)}  # fmt: skip
    return [error_row("ultra memory", run["key"], what, *pair, standing="memory")
            for what, pair in pairs.items()]  # fmt: skip


def compare_top(run: dict) -> list[Row]:
    """A whole design, as the sum of its parts."""
    design = Design.from_parameters(Unit.parse(run["key"]).parameters)
    parts = (*design_parts(design), accumulator_memory(design))
    cells = run["cells"]
    pairs = {"lut": (cells["lut"] + cells["lutram"], sum(x.lut for x in parts)),
             "lc": (cells["lc"] + cells["lutram"], sum(x.lc for x in parts)),
             "ff": (cells["ff"], sum(x.ff for x in parts)),
             "dsp": (cells["dsp"], sum(x.dsp for x in parts)),
             "carry4": (cells["carry4"], sum(x.carry4 for x in parts)),
             "ramb18": (halves(cells), sum(x.ramb18 + 2 * x.ramb36 for x in parts))}  # fmt: skip
    return [error_row("top", run["key"], what, *pair, standing="design")
            for what, pair in pairs.items()]  # fmt: skip


COMPARE: Mapping[str, Callable[[dict], list[Row]]] = {
    "held-out pe": compare_pe, "array": compare_cost, "threshold": compare_cost,
    "held-out threshold": compare_cost, "control": compare_cost, "memory": compare_memory,
    "top": compare_top, "ultra memory": compare_ultra,
}  # fmt: skip


def compare(runs: list[dict]) -> list[Row]:
    """Every run that is not itself the model, and every fitted one left out once."""
    found = [row for run in runs if run["group"] in COMPARE for row in COMPARE[run["group"]](run)]
    rows = table_rows(runs)
    for what in WHATS:
        found += left_out(rows, what)
    return found


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
