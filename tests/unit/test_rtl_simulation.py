"""The emitted Verilog in simulation: cycles of the closed form, every result, every code.

Small arrays under Icarus Verilog, which compiles at once; one under Verilator. The long comparison
is benchmarks/rtl_cycles.py.
"""

import itertools
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from bitfold.errors import MismatchError, MissingDependencyError
from bitfold.fpga_sim import ArrayConfig, Gemm, compute_cycles, step_gemm
from bitfold.fpga_sim.rtl import (
    Design,
    Operand,
    ThresholdUnit,
    check_run,
    compile_bench,
    input_codes,
    layer_run,
    require_simulator,
    results,
    run_network,
    stimulus,
    write_folder,
)
from bitfold.fpga_sim.rtl.sources import write_sources
from bitfold.ir import Conv2d, Dequantize, Grid, IntGraph, Quantize, Thresholds, run_oracle

icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus Verilog (iverilog) is not installed"
)
verilator = pytest.mark.skipif(
    shutil.which("verilator") is None, reason="Verilator is not installed"
)
KINDS = {
    "binary 1x1": ("binary", Grid.odd(1), Grid.odd(1), 3),
    "binary 1x2": ("binary", Grid.odd(1), Grid.unsigned(2), 1),
    "ternary": ("ternary", Grid.narrow(2), Grid.narrow(2), 2),
    "parallel": ("parallel", Grid.odd(2), Grid.unsigned(3), 1),
    "serial": ("serial", Grid.narrow(3), Grid.unsigned(2), 2),
    "dsp": ("dsp", Grid.narrow(4), Grid.unsigned(4), 4),
}
SHAPES = ((1, 1, 1, 1), (2, 9, 11, 5), (1, 7, 20, 4))
# Every kind in every dataflow and drain, array sizes in turn.
ARRAYS = [
    (kind, size, dataflow, drain)
    for (kind, dataflow, drain), size in zip(
        itertools.product(KINDS, ("os", "ws", "is"), ("shared", "shadow")),
        itertools.cycle(((2, 3), (1, 1), (4, 2), (3, 1), (1, 4))),
        strict=False,
    )
]


def design_of(kind, size, dataflow, drain):
    pe, weight, activation, lanes = KINDS[kind]
    array = ArrayConfig(
        rows=size[0], cols=size[1], dataflow=dataflow, drain=drain, lanes=lanes, pe=pe, acc_words=4
    )
    serial = pe == "serial"
    return Design(
        array, Operand.of(weight, serial=serial), Operand.of(activation, serial=serial), 14
    )


def codes(rng, grid, shape):
    return grid.lo + grid.step * rng.integers(0, grid.levels, shape)


def compare(bench, kind, shape):
    """The bench's cycles and results against closed form, stepped array and numpy."""
    _, weight, activation, _ = KINDS[kind]
    groups, pixels, depth, filters = shape
    rng = np.random.default_rng(0)
    a = codes(rng, activation, (groups, pixels, depth))
    w = codes(rng, weight, (groups, depth, filters))
    run = bench.run(stimulus(a, w, bench.design))
    gemm = Gemm(pixels, depth, filters, groups, serial=bench.design.serial)
    assert run.cycles == compute_cycles(gemm, bench.design.array)
    assert run.wrong == 0
    assert np.array_equal(results(run.words, (groups, pixels, filters), bench.design), a @ w)
    if groups == bench.design.serial == 1:
        assert step_gemm(a[0], w[0], bench.design.array).cycles == run.cycles


@icarus
@pytest.mark.parametrize("case", ARRAYS, ids=lambda case: "-".join(map(str, case)))
def test_the_verilog_takes_the_cycles_of_the_closed_form_and_multiplies(case, tmp_path):
    bench = compile_bench(design_of(*case), tmp_path, simulator="iverilog", words=1024)
    for shape in SHAPES:
        compare(bench, case[0], shape)


@verilator
def test_verilator_agrees(tmp_path):
    design = design_of("ternary", (2, 2), "ws", "shadow")
    bench = compile_bench(design, tmp_path, simulator="verilator", words=1024, level="-O0")
    for shape in SHAPES:
        compare(bench, "ternary", shape)


@verilator
@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_verilog_has_no_lint(kind, dataflow, tmp_path):
    drain = "shadow" if kind in ("ternary", "serial", "dsp") else "shared"
    units = {"ternary": ThresholdUnit(2, 2, -1, 3), "dsp": ThresholdUnit(4, 15, 0, 9, search=True)}
    design = design_of(kind, (3, 2), dataflow, drain)
    write_sources(replace(design, thresholds=units.get(kind)), tmp_path, words=16)
    done = subprocess.run(
        ["verilator", "--lint-only", "-Wall", "-y", ".", "--top-module", "bf_top", "bf_top.v"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@icarus
def test_a_wrong_result_is_seen(tmp_path):
    design = design_of("parallel", (2, 2), "os", "shared")
    bench = compile_bench(design, tmp_path, simulator="iverilog", words=64)
    product = stimulus(
        np.ones((1, 2, 3), dtype=np.int64), np.ones((1, 3, 2), dtype=np.int64), design
    )
    product.golden[0] ^= 1
    assert bench.run(product).wrong == 1


@icarus
def test_verilog_that_does_not_compile_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("bitfold.fpga_sim.rtl.sources.verilog", lambda name: f"module {name} (")
    with pytest.raises(MismatchError, match="iverilog rejects the Verilog"):
        compile_bench(
            design_of("dsp", (1, 1), "os", "shared"), tmp_path, simulator="iverilog", words=4
        )


@pytest.mark.parametrize("name", ["verilator", "iverilog"])
def test_a_missing_simulator_is_one_clear_error(name, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(MissingDependencyError) as caught:
        require_simulator(name)
    assert caught.value.what == f"the program '{name}' was not found, and running Verilog needs it"
    assert f"apt-get install {name}" in caught.value.todo


def small_graph(*, out, weight_grid=None, pixels=None, groups=1):
    """x → conv 3×3 → thresholds with gains of both signs → conv 1×1."""
    rng = np.random.default_rng(4)
    weights = weight_grid or Grid.odd(2)
    pixels = pixels or Grid.pixels(73)
    conv = codes(rng, weights, (6, 3, 3, 2 // groups))
    table = np.sort(rng.integers(-1500, 1500, (6, out.levels - 1)), axis=1)
    signs = np.array([1, -1, -1, 1, 1, -1])
    head = codes(rng, Grid.narrow(4), (3, 1, 1, 6))
    return IntGraph.of(
        [
            Quantize("x", (4, 5, 2), pixels, 1.0),
            Conv2d("conv", "x", conv, weights, (1.0,), rng.integers(-99, 99, 6), (1, 1),
                   (1, 1, 1, 1), groups),
            Thresholds("act", "conv", table, signs, out, 1.0),
            Conv2d("head", "act", head, Grid.narrow(4), (1.0,), rng.integers(-9, 9, 3), (2, 1)),
            Dequantize("y", "head"),
        ]
    )  # fmt: skip


@icarus
@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize(
    ("out", "thresholds"),
    [(Grid.unsigned(1), "search"), (Grid.narrow(2), "auto"), (Grid.unsigned(3), "auto"),
     (Grid.unsigned(4), "auto"), (Grid.unsigned(4), "parallel")],
    ids=str,
)  # fmt: skip
def test_threshold_units_give_the_next_layers_codes(out, thresholds, dataflow):
    graph = small_graph(out=out, groups=2 if out.bits == 3 else 1)
    image = np.random.default_rng(5).integers(0, 256, (1, 4, 5, 2), dtype=np.uint8)
    node = graph.nodes[1]
    array = ArrayConfig(rows=3, cols=4, dataflow=dataflow, acc_words=8, thresholds=thresholds)
    run = layer_run(graph, node, input_codes(graph, node, image), array)
    assert run.design.thresholds is not None
    by_search = out.bits == 4 if thresholds == "auto" else thresholds == "search"
    assert run.design.thresholds.search == by_search
    assert check_run(run, simulator="iverilog").wrong_codes == 0
    run.codes[1] ^= 1
    with pytest.raises(MismatchError, match="0 words of results and 1 of codes differ"):
        check_run(run, simulator="iverilog")


@icarus
@pytest.mark.parametrize("drain", ["shared", "shadow"])
def test_a_network_through_the_verilog_has_the_oracles_logits(drain, tmp_path):
    graph = small_graph(out=Grid.unsigned(2))
    image = np.random.default_rng(6).integers(0, 256, (1, 4, 5, 2), dtype=np.uint8)
    array = ArrayConfig(rows=4, cols=3, lanes=2, drain=drain)
    found = run_network(graph, image, array, tmp_path, simulator="iverilog")
    assert np.array_equal(found.logits, run_oracle(graph, image))
    assert [layer.name for layer in found.layers] == ["conv", "head"]
    assert all(layer.rtl == layer.closed for layer in found.layers)


@icarus
def test_make_check_in_the_emitted_folder(tmp_path):
    graph = small_graph(out=Grid.unsigned(2))
    image = np.zeros((1, 4, 5, 2), dtype=np.uint8)
    node = graph.nodes[1]
    run = layer_run(graph, node, input_codes(graph, node, image), ArrayConfig(rows=2, cols=3))
    folder = tmp_path / "array"
    written = write_folder(run, folder)
    assert {path.name for path in folder.iterdir()} == set(written.files)
    make = ["make", "-C", str(folder), "check", "SIM=iverilog"]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"cycles {written.cycles}\n" in done.stdout
    golden = folder / "golden.hex"
    first, rest = golden.read_text().split("\n", 1)
    golden.write_text(f"{first[:-1]}{'1' if first[-1] == '0' else '0'}\n{rest}")
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "FAIL" in done.stdout
