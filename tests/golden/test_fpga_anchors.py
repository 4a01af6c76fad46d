"""The array model against numbers that others produced: RTL under Verilator, SCALE-Sim, Yosys."""

import csv
from pathlib import Path

import pytest

from bitfold.fpga_sim import (
    ArrayConfig,
    Gemm,
    array_cost,
    compute_cycles,
    pe_cost,
    scalesim_output_size,
)
from bitfold.fpga_sim.rtl import Design, Operand
from bitfold.fpga_sim.rtl.design import ODD, SIGNED, UNSIGNED
from bitfold.fpga_sim.scalesim_access import accesses

SCALESIM = Path(__file__).parent / "scalesim"
# (rows, cols, lanes, drain, P, K, M, cycles): bit-exact RTL runs under Verilator 5.006.
RTL_RUNS = [
    (8, 8, 1, "shared", 64, 147, 64, 10881),
    (8, 8, 1, "shared", 49, 576, 64, 33545),
    (8, 8, 1, "shared", 64, 64, 128, 11137),
    (8, 8, 1, "shared", 7, 1152, 16, 2351),
    (8, 8, 1, "shared", 100, 10, 10, 859),
    (8, 8, 1, "shared", 33, 17, 9, 401),
    (8, 8, 1, "shadow", 64, 147, 64, 9432),
    (8, 8, 1, "shadow", 49, 576, 64, 32280),
    (8, 8, 1, "shadow", 64, 64, 128, 8216),
    (8, 8, 1, "shadow", 7, 1152, 16, 2328),
    (8, 8, 1, "shadow", 100, 25, 10, 674),
    (8, 8, 1, "shadow", 33, 27, 9, 294),
    (4, 8, 4, "shadow", 64, 576, 32, 9232),
    (4, 8, 4, "shadow", 33, 1152, 20, 7792),
    (4, 8, 4, "shadow", 50, 100, 30, 1316),
    (8, 4, 8, "shared", 64, 576, 64, 11649),
    (8, 4, 8, "shared", 30, 100, 10, 385),
    (4, 4, 1, "shared", 64, 147, 64, 40449),
    (4, 4, 1, "shared", 49, 576, 24, 45787),
]
# ResNet-18 at 224 x 224: size -> (shadow, shared). At 32 x 32 one shortcut has K' = 64 < 96; its
# last tile needs no padding, 32 cycles less than T * max(K', 2R + C) + 2R + C.
RESNET18_RTL = {
    8: (29_449_976, 30_353_232),
    16: (7_707_312, 8_175_150),
    32: (1_981_072 - 32, 2_217_177),
}
# SCALE-Sim without its -1 a layer: size -> cycles of OS, WS, IS.
RESNET18_SCALESIM = {
    8: (29_999_574, 32_422_352, 34_635_200),
    16: (8_005_554, 9_226_448, 10_478_848),
    32: (2_133_336, 2_855_052, 3_400_176),
}
# Bits of K = 4608 products.
YOSYS_ACC = {("1", "1"): 14, ("T", "T"): 14, ("1", "2"): 15, ("T", "2"): 15, ("2", "2"): 16,
             ("3", "3"): 18, ("4", "4"): 21, ("8", "8"): 29}  # fmt: skip
# Yosys 0.23, flattened, shared drain: (size, W, A, LUT, FF). Another array than the emitted one.
YOSYS_ARRAYS = [
    (8, "1", "1", 1744, 1120),
    (8, "T", "T", 2576, 1232),
    (8, "T", "2", 2888, 1296),
    (8, "1", "2", 2760, 1240),
    (8, "2", "2", 3200, 1360),
    (8, "3", "3", 3760, 1600),
    (8, "4", "4", 5473, 1904),
    (8, "8", "8", 13652, 2864),
    (16, "2", "2", 13056, 5536),
    (16, "1", "1", 7200, 4544),
    (16, "4", "4", 22159, 7776),
]
# Yosys 0.23, one PE: (W, A, FF with a shared drain, FF with a shadow drain).
YOSYS_PES = [
    ("1", "1", 19, 33),
    ("T", "T", 21, 35),
    ("1", "2", 21, 36),
    ("T", "2", 22, 37),
    ("2", "2", 23, 39),
    ("3", "3", 27, 45),
    ("4", "4", 32, 53),
    ("8", "8", 48, 77),
]


def rows_of(file: str) -> list[dict[str, str]]:
    with (SCALESIM / file).open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def gemm_of(row: dict[str, str]) -> Gemm:
    return Gemm(int(row["P"]), int(row["K"]), int(row["M"]))


def resnet18() -> list[tuple[int, Gemm]]:
    return [(int(row["mult"]), gemm_of(row)) for row in rows_of("scalesim_resnet18_os_32x32.csv")]


def design_of(size: int, weight: str, activation: str, *, drain: str = "shared") -> Design:
    """The emitted array of the same operands."""
    weights = {"1": ("binary", Operand(1, ODD)), "T": ("ternary", Operand(2, SIGNED))}
    signs = {"1": Operand(1, ODD), "T": Operand(2, SIGNED)}
    pe, w = weights.get(weight) or ("parallel", Operand(int(weight), SIGNED))
    a = signs.get(activation) or Operand(int(activation), UNSIGNED)
    array = ArrayConfig(rows=size, cols=size, drain=drain, pe=pe)
    return Design(array, w, a, YOSYS_ACC[weight, activation])


@pytest.mark.parametrize("run", RTL_RUNS, ids=str)
def test_cycles_equal_the_rtl(run):
    rows, cols, lanes, drain, p, k, m, cycles = run
    array = ArrayConfig(rows=rows, cols=cols, lanes=lanes, drain=drain)
    assert compute_cycles(Gemm(p, k, m), array) == cycles


@pytest.mark.parametrize("size", RESNET18_RTL)
def test_resnet18_takes_the_cycles_of_the_rtl_formulas(size):
    totals = tuple(
        sum(
            times * compute_cycles(gemm, ArrayConfig(rows=size, cols=size, drain=drain))
            for times, gemm in resnet18()
        )
        for drain in ("shadow", "shared")
    )
    assert totals == RESNET18_RTL[size]


@pytest.mark.parametrize("size", RESNET18_SCALESIM)
def test_resnet18_takes_the_cycles_of_scalesim(size):
    totals = tuple(
        sum(
            times
            * compute_cycles(
                gemm,
                ArrayConfig(
                    rows=size, cols=size, dataflow=flow, mode="scalesim", scalesim_minus_one=False
                ),
            )
            for times, gemm in resnet18()
        )
        for flow in ("os", "ws", "is")
    )
    assert totals == RESNET18_SCALESIM[size]


@pytest.mark.parametrize("path", sorted(SCALESIM.glob("*.csv")), ids=lambda p: p.stem)
def test_every_layer_equals_scalesims_total_cycles(path):
    flow, size = path.stem.split("_")[-2:]
    side = int(size.split("x")[0])
    array = ArrayConfig(rows=side, cols=side, dataflow=flow, mode="scalesim")
    for row in rows_of(path.name):
        assert compute_cycles(gemm_of(row), array) == int(row["scalesim_total_cycles"])


def test_scalesim_rounds_padded_stride_two_outputs_up():
    padded = {230: (7, 113), 58: (3, 29), 30: (3, 15), 16: (3, 8)}
    assert {
        size: scalesim_output_size(size, kernel=kernel, stride=2)
        for size, (kernel, _) in padded.items()
    } == {size: output for size, (_, output) in padded.items()}


@pytest.mark.parametrize("row", YOSYS_ARRAYS, ids=str)
def test_flip_flops_of_an_array_equal_synthesis(row):
    size, weight, activation, _, ff = row
    assert array_cost(design_of(size, weight, activation)).ff == ff


@pytest.mark.parametrize(
    "row", [r for r in YOSYS_ARRAYS if r[1:3] not in (("T", "2"), ("4", "4"), ("8", "8"))], ids=str
)
def test_luts_of_an_array_up_to_three_bits_equal_synthesis(row):
    size, weight, activation, lut, _ = row
    # A negation keeps its boundary, where the anchor's was merged with the accumulator.
    selected = {("T", "T"): 3, ("1", "2"): 3}.get((weight, activation), 0)
    assert array_cost(design_of(size, weight, activation)).lut == lut + selected * size**2


@pytest.mark.parametrize("row", YOSYS_PES, ids=str)
def test_flip_flops_of_a_pe_equal_synthesis(row):
    weight, activation, *ffs = row
    found = [pe_cost(design_of(8, weight, activation, drain=d)).ff for d in ("shared", "shadow")]
    # The last step's flag goes on only where a shadow register reads it.
    assert found == [ffs[0] - 1, ffs[1]]


@pytest.mark.parametrize("path", sorted(SCALESIM.glob("*.csv")), ids=lambda path: path.stem)
def test_accesses_on_chip_equal_scalesims(path):
    flow, size = path.stem.split("_")[-2:]
    rows, cols = map(int, size.split("x"))
    array = ArrayConfig(rows=rows, cols=cols, dataflow=flow, mode="scalesim")
    for row in rows_of(path.name):
        found = accesses(gemm_of(row), array)
        counted = (found.inputs, found.filters, found.outputs)
        names = ("ifmap_sram_reads", "filter_sram_reads", "ofmap_sram_writes")
        assert counted == tuple(int(row[name]) for name in names), row["layer"]
