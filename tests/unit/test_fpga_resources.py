"""Resources: the shipped table, the laws and the fit against committed runs of Yosys."""

import json
import shutil
from pathlib import Path

import pytest

from bitfold.errors import MissingDependencyError, UsageError
from bitfold.fpga_sim import ArrayConfig, array_cost, map_graph, pe_cost, simulate
from bitfold.fpga_sim.block_memory import memory_cells, ultra_cells
from bitfold.fpga_sim.calibration import calibration
from bitfold.fpga_sim.live import WHOLE_LUTS, pe_unit
from bitfold.fpga_sim.parts import threshold_cost
from bitfold.fpga_sim.report import with_synthesis
from bitfold.fpga_sim.rtl import Design, Operand, ThresholdUnit
from bitfold.fpga_sim.rtl.design import ODD, SIGNED, UNSIGNED
from bitfold.fpga_sim.rtl.mapped import mapped_design
from bitfold.fpga_sim.synthesis import PINNED, Cells, Unit, parse_stat, synthesise, yosys_version
from bitfold.ir import Grid
from tests.unit.test_fpga_report import small_graph

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "benchmarks/results/fpga_calibration.json").read_text("utf-8"))
BY_GROUP: dict[str, list[dict]] = {}
for run in RESULTS["runs"]:
    BY_GROUP.setdefault(run["group"], []).append(run)
needs_yosys = pytest.mark.skipif(
    shutil.which("yosys") is None, reason="yosys is not installed (apt-get install yosys)"
)


def design_of(key: str) -> Design:
    return Design.from_parameters(Unit.parse(key).design_parameters)


def errors_of(group: str, what: str) -> list[float]:
    found = [row["error"] for row in RESULTS["errors"]
             if row["group"] == group and row["what"] == what]  # fmt: skip
    assert found
    return found


def test_the_table_is_that_of_the_runs_and_names_its_tool():
    table = calibration()
    assert table.tool == RESULTS["tool"] == PINNED
    shipped = {key: cells.to_dict() for key, cells in table.units.items()}
    assert shipped == {run["key"]: run["cells"] for group in ("control", "product", "packed")
                       for run in BY_GROUP[group]}  # fmt: skip


def test_what_the_model_says_today_is_what_was_committed():
    committed = {(row["key"], row["what"]): row["model"] for row in RESULTS["errors"]}
    for group in ("array", "held-out array"):
        for run in BY_GROUP[group]:
            cost = array_cost(design_of(run["key"]))
            found = {"lut": cost.lut, "lc": cost.lc, "ff": cost.ff, "dsp": cost.dsp}
            assert found == {what: committed[run["key"], what] for what in found}, run["key"]


@pytest.mark.parametrize("group", ["pe", "held-out pe", "array", "held-out array"])
def test_luts_flip_flops_and_dsps_of_every_pe_and_array_are_exact(group):
    assert len(BY_GROUP[group]) >= 16
    assert not {run["key"] for run in BY_GROUP[group]} & set(calibration().units)
    for what in ("lut", "ff", "dsp"):
        assert max(errors_of(group, what)) == 0


def test_flip_flops_of_every_part_are_exact():
    for group in ("threshold", "held-out threshold", "control", "memory"):
        assert max(errors_of(group, "ff")) == 0


@pytest.mark.parametrize("run", BY_GROUP["memory"], ids=lambda run: run["key"])
def test_a_buffer_becomes_the_blocks_that_yosys_maps_it_to(run):
    values, cells = Unit.parse(run["key"]).parameters, run["cells"]
    found = memory_cells(values["WIDTH"], values["DEPTH"])
    assert (found.ramb18, found.ramb36) == (cells["ramb18"], cells["ramb36"])


@pytest.mark.parametrize("run", BY_GROUP["ultra memory"], ids=lambda run: run["key"])
def test_a_buffer_in_ultraram_takes_the_blocks_that_yosys_maps_it_to(run):
    values, cells = Unit.parse(run["key"]).parameters, run["cells"]
    found = ultra_cells(values["WIDTH"], values["DEPTH"])
    assert (found.blocks, found.ff) == (cells["uram"], cells["ff"])


@pytest.mark.parametrize("run", BY_GROUP["threshold"] + BY_GROUP["held-out threshold"],
                         ids=lambda run: run["key"])  # fmt: skip
def test_a_threshold_unit_is_within_its_error_bar(run):
    design, cells = design_of(run["key"]), run["cells"]
    assert design.thresholds is not None
    cost = threshold_cost(design.thresholds, design.acc_bits)
    assert abs(cost.lut - cells["lut"] - cells["lutram"]) <= cost.lut_error + 1
    assert cost.ramb18 == cells["ramb18"]


def test_a_whole_design_is_within_what_is_stated():
    for group in ("top", "held-out top"):
        assert max(errors_of(group, "lut")) <= 0.05
        assert max(errors_of(group, "ff")) <= 0.02
        assert max(errors_of(group, "dsp")) == max(errors_of(group, "ramb18")) == 0


def test_a_pe_between_and_beyond_the_table_costs_more_with_every_lane():
    luts = []
    for lanes in (1, 2, 4, 8, 16, 32, 64, 128):
        design = Design(ArrayConfig(rows=1, cols=1, pe="parallel", lanes=lanes),
                        Operand(2, ODD), Operand(2, UNSIGNED), 20)  # fmt: skip
        luts.append(pe_cost(design).lut)
    assert luts == sorted(set(luts))


@pytest.mark.parametrize(
    ("weight", "changes", "want"),
    [
        (Grid.odd(2), {}, ("parallel", Operand(2, ODD), Operand(2, UNSIGNED))),
        (Grid.narrow(2), {"edge": "wide"}, ("parallel", Operand(8, SIGNED), Operand(8, UNSIGNED))),
        (Grid.odd(1), {"w_bits": 1}, ("binary", Operand(1, ODD), Operand(2, UNSIGNED))),
        (Grid.odd(2), {"pe": "serial"}, ("serial", Operand(8, SIGNED), Operand(8, UNSIGNED))),
    ],
)  # fmt: skip
def test_the_design_of_a_network_has_the_operands_of_its_widest_whole_layers(weight, changes, want):
    mapping = map_graph(small_graph(inner=weight), ArrayConfig(rows=4, cols=4, **changes))
    design = mapped_design(mapping)
    assert (design.array.pe, design.weight, design.activation) == want


def test_a_network_whose_layers_all_enter_in_digits_has_unsigned_operands():
    mapping = map_graph(small_graph(), ArrayConfig(rows=4, cols=4, w_bits=1, a_bits=1))
    design = mapped_design(mapping)
    assert (design.array.pe, design.weight) == ("parallel", Operand(1, UNSIGNED))


def test_parameters_of_a_design_and_back():
    array = ArrayConfig(rows=3, cols=5, lanes=2, dataflow="is", drain="shadow", pe="ternary")
    unit = ThresholdUnit(3, 7, 0, 9, search=True)
    design = Design(array, Operand(2, SIGNED), Operand(2, UNSIGNED), 13, unit)
    assert Design.from_parameters(design.parameters()) == design


def test_a_memory_is_in_flip_flops_luts_or_blocks_whichever_is_cheapest():
    assert memory_cells(12, 1).ff == 24
    assert memory_cells(20, 64).lutram == 28
    assert memory_cells(20, 64, registered=False).ff == 0
    assert (memory_cells(64, 1025).ramb36, memory_cells(64, 1025).lut) == (3, 67)
    assert memory_cells(1, 65536).bram18 == 4


def test_every_number_of_a_report_has_an_error_bar():
    found = simulate(small_graph(), array=(8, 4)).to_dict()
    assert set(found["resource_errors"]) >= {"lut", "ff", "dsp", "bram36", "uram"}
    parts = {part["name"]: part for part in found["parts"]}
    assert sum(part["lut"] for part in found["parts"]) == found["resources"]["lut"]
    passes = parts["digit passes"]
    assert (passes["standing"], passes["lut_error"]) == ("formula", passes["lut"])
    assert parts["array"]["lut_error"] <= 0.1 * parts["array"]["lut"]
    assert "±" in simulate(small_graph(), array=(8, 4)).to_text()


def test_stat_is_read_module_by_module():
    types = {"LUT2": 3, "LUT6": 4, "SRLC32E": 2, "RAM64M": 1, "FDRE": 5, "CARRY4": 1,
             "RAMB36E1": 2, "BUFG": 1}  # fmt: skip
    outer = {"LUT1": 1, "LUT5": 1, "unit0": 2}
    rows = {"\\unit0": {"num_cells_by_type": types}, "\\pair": {"num_cells_by_type": outer}}
    text = json.dumps({"modules": rows}, indent=3)[:-2] + ',\n  unit0   1\n   "design": {}\n}'
    found = parse_stat(text)
    cells = found["unit0"]
    assert (cells.lut, cells.lutram, cells.luts, cells.lc, cells.ff) == (7, 6, 13, 6, 5)
    assert (cells.carry4, cells.ramb36, cells.dsp) == (1, 2, 0)
    assert found["pair"] == cells.times(2) + Cells(lut1=1, lut5=1)
    assert found["pair"].lc == 8 + 3 + 1


@pytest.mark.parametrize(
    ("counts", "want"),
    [
        ((0, 33, 25, 8, 17, 0), 50),
        ((0, 17, 17, 0, 17, 0), 34),
        ((3, 0, 0, 0, 0, 0), 2),
        ((0, 0, 5, 0, 0, 0), 3),
        ((0, 5, 2, 0, 0, 0), 4),
        ((2, 3, 1, 1, 1, 4), 8),
    ],
)
def test_small_tables_join_larger_ones_in_a_logic_cell(counts, want):
    assert Cells(*counts).lc == want


def test_synthesis_without_yosys_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependencyError, match="'yosys' was not found"):
        with_synthesis(simulate(small_graph(), array=(2, 2)), step=lambda _: None)


def test_there_is_nothing_to_synthesise_in_scalesim_mode():
    report = simulate(small_graph(), mode="scalesim")
    with pytest.raises(UsageError, match="no array to synthesise"):
        with_synthesis(report, step=lambda _: None)


@needs_yosys
def test_yosys_counts_a_small_pe_as_the_table_does():
    graph = small_graph()
    design = mapped_design(map_graph(graph, ArrayConfig(rows=2, cols=2, acc_bits=17)))
    unit = pe_unit(design)
    (cells,) = synthesise([unit])
    cost = pe_cost(design)
    assert cells.ff == cost.ff
    if yosys_version() == PINNED:
        assert abs(cells.lut - cost.lut) <= cost.lut_error
        assert cells.carry4 == cost.carry4


def test_larger_designs_are_synthesised_by_parts():
    assert simulate(small_graph(), array=(8, 8)).resources.lut < WHOLE_LUTS
