"""Closed form = stepped simulator = Verilog under Verilator: cycles and every result.

    python benchmarks/rtl_cycles.py [--out benchmarks/results/rtl_cycles.json] [--limit N]

Three array sizes × three dataflows × six PE kinds (both drains on the first size, in turn on the
others), each on 60 layer shapes: dense, grouped, depthwise, 1×1 and fully connected, ragged in
every dimension. Needs `verilator`. What is
in the output file is not run again, so that a broken run goes on.
"""

import argparse
import itertools
import json
import platform
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bitfold.files import write_atomically
from bitfold.fpga_sim import ArrayConfig, Gemm, compute_cycles, step_gemm, step_layer_cycles
from bitfold.fpga_sim.rtl import Bench, Design, Operand, compile_bench, results, stimulus
from bitfold.ir import Grid
from bitfold.ir.types import signed_bits

SIZES = ((4, 4), (3, 5), (6, 2))
DATAFLOWS = ("os", "ws", "is")
NUM_SHAPES = 60
ACC_WORDS = 16  # few, so that long streams are cut into chunks


@dataclass(frozen=True)
class Kind:
    """A PE kind with its operands."""

    pe: str
    weight: Grid
    activation: Grid
    lanes: int


KINDS = {
    "binary 1x1": Kind("binary", Grid.odd(1), Grid.odd(1), 8),
    "ternary TxT": Kind("ternary", Grid.narrow(2), Grid.narrow(2), 4),
    "parallel 2x2": Kind("parallel", Grid.narrow(2), Grid.unsigned(2), 1),
    "parallel odd 4x4": Kind("parallel", Grid.odd(4), Grid.unsigned(4), 2),
    "serial 3x2": Kind("serial", Grid.narrow(3), Grid.unsigned(2), 4),
    "dsp 4x4": Kind("dsp", Grid.narrow(4), Grid.unsigned(4), 4),
}


def shapes() -> list[tuple[int, int, int, int]]:
    """(groups, P, K, M): smallest, depthwise, fully connected, grouped, then random ones."""
    found = [(1, 1, 1, 1), (6, 16, 9, 1), (5, 9, 25, 1), (1, 1, 64, 10), (1, 1, 27, 33)]
    found += [(2, 9, 18, 6), (4, 4, 9, 3), (1, 49, 27, 8), (1, 36, 8, 5), (1, 25, 72, 4)]
    rng = np.random.default_rng(2026)
    while len(found) < NUM_SHAPES:
        shape = (1, *(int(rng.integers(1, most)) for most in (37, 81, 18)))
        found += [shape] if shape not in found else []
    return found


def draw(rng: np.random.Generator, grid: Grid, shape: tuple[int, ...]) -> np.ndarray:
    """Random codes of ``grid``."""
    return grid.lo + grid.step * rng.integers(0, grid.levels, shape)


def compare(bench: Bench, kind: Kind, shape: tuple[int, int, int, int], *, seed: int) -> dict:
    """One shape: three cycle counts, and results that differ from a @ w."""
    groups, pixels, depth, filters = shape
    rng = np.random.default_rng(seed)
    a = draw(rng, kind.activation, (groups, pixels, depth))
    w = draw(rng, kind.weight, (groups, depth, filters))
    design = bench.design
    run = bench.run(stimulus(a, w, design))
    gemm = Gemm(pixels, depth, filters, groups, serial=design.serial)
    stepped = step_layer(a, w, design)
    want = a @ w
    return {
        "shape": shape,
        "closed": compute_cycles(gemm, design.array),
        "stepped": stepped[1],
        "rtl": run.cycles,
        "results": int(want.size),
        "wrong_rtl": int((results(run.words, (groups, pixels, filters), design) != want).sum()),
        "wrong_words": run.wrong,
        "wrong_stepped": int((stepped[0] != want).sum()),
    }


def step_layer(a: np.ndarray, w: np.ndarray, design: Design) -> tuple[np.ndarray, int]:
    """Values of each group on the stepped array; cycles of all groups in one run."""
    stepped = [step_gemm(x, y, design.array) for x, y in zip(a, w, strict=True)]
    values = np.stack([one.acc for one in stepped])
    if len(stepped) == design.serial == 1:
        return values, stepped[0].cycles
    gemm = Gemm(a.shape[1], a.shape[2], w.shape[2], len(a), serial=design.serial)
    return values, step_layer_cycles(gemm, design.array)


def design_of(kind: Kind, array: ArrayConfig) -> Design:
    """The array for operands of ``kind`` and the longest sum among the shapes."""
    serial = kind.pe == "serial"
    most = max(depth for _, _, depth, _ in shapes())
    worst = most * max(abs(kind.weight.lo), kind.weight.hi)
    worst *= max(abs(kind.activation.lo), kind.activation.hi)
    return Design(
        array,
        Operand.of(kind.weight, serial=serial),
        Operand.of(kind.activation, serial=serial),
        signed_bits(-worst, worst),
    )


def run_array(name: str, array: ArrayConfig, library: Path) -> dict:
    """All shapes on one compiled array."""
    kind = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        design = design_of(kind, array)
        bench = compile_bench(
            design, Path(folder), simulator="verilator", words=2**14, library=library, level="-O0"
        )
        rows = [compare(bench, kind, shape, seed=i) for i, shape in enumerate(shapes())]
    differing = [r for r in rows if not r["closed"] == r["stepped"] == r["rtl"]]
    wrong = sum(r["wrong_rtl"] + r["wrong_words"] + r["wrong_stepped"] for r in rows)
    return {
        "pe": name,
        "array": [array.rows, array.cols],
        "lanes": array.lanes,
        "dataflow": array.dataflow,
        "drain": array.drain,
        "acc_bits": design.acc_bits,
        "cycles_differ": len(differing),
        "wrong_results": wrong,
        "results": sum(r["results"] for r in rows),
        "cycles": sum(r["rtl"] for r in rows),
        # closed form, stepped and RTL of every shape, in the order of `shapes`
        "rows": [[r["closed"], r["stepped"], r["rtl"]] for r in rows],
    }


def drains(size: tuple[int, int], kind: str, dataflow: str) -> tuple[str, ...]:
    """Both on the first array size; on the others they take turns."""
    both = ("shared", "shadow")
    turn = (list(KINDS).index(kind) + DATAFLOWS.index(dataflow) + SIZES.index(size)) % 2
    return both if size == SIZES[0] else both[turn : turn + 1]


def plan() -> list[tuple[str, ArrayConfig]]:
    """Every array of the comparison."""
    return [
        (
            name,
            ArrayConfig(
                rows=size[0], cols=size[1], dataflow=dataflow, drain=drain, lanes=kind.lanes,
                pe=kind.pe, acc_words=ACC_WORDS,
            ),
        )
        for size, (name, kind), dataflow in itertools.product(SIZES, KINDS.items(), DATAFLOWS)
        for drain in drains(size, name, dataflow)
    ]  # fmt: skip


def write(path: Path, arrays: list[dict]) -> None:
    """The whole result so far."""
    version = subprocess.run(["verilator", "--version"], capture_output=True, text=True, check=True)
    report = {
        "command": "python benchmarks/rtl_cycles.py",
        "verilator": version.stdout.strip(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "arrays_compared": len(arrays),
        "shapes_each": NUM_SHAPES,
        "cycles_differ": sum(entry["cycles_differ"] for entry in arrays),
        "results_compared": sum(entry["results"] for entry in arrays),
        "wrong_results": sum(entry["wrong_results"] for entry in arrays),
        "rtl_cycles": sum(entry["cycles"] for entry in arrays),
        "kinds": {name: asdict(kind) for name, kind in KINDS.items()},
    }
    head = json.dumps(report, indent=1).removesuffix("\n}")
    lines = ",\n  ".join(json.dumps(entry) for entry in arrays)
    text = f'{head},\n "shapes": {json.dumps(shapes())},\n "arrays": [\n  {lines}\n ]\n}}\n'
    write_atomically(path, text.encode())


def main() -> None:
    """Run what is missing in the output file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rtl_cycles.json"))
    parser.add_argument("--limit", type=int, default=None, help="arrays to run at most")
    options = parser.parse_args()
    found = json.loads(options.out.read_text())["arrays"] if options.out.exists() else []
    done = {(e["pe"], *e["array"], e["dataflow"], e["drain"]): e for e in found}
    wanted = {(name, a.rows, a.cols, a.dataflow, a.drain): (name, a) for name, a in plan()}
    arrays = [entry for key, entry in done.items() if key in wanted]
    missing = [array for key, array in wanted.items() if key not in done]
    # Sizes in turn, so that a run that is broken off has seen all of them.
    missing.sort(key=lambda entry: list(KINDS).index(entry[0]))
    with tempfile.TemporaryDirectory() as library:
        for name, array in missing[: options.limit]:
            entry = run_array(name, array, Path(library))
            arrays.append(entry)
            print(
                f"{name:18} {array.rows}x{array.cols} {array.dataflow} {array.drain:6} "
                f"{entry['cycles']:>9} cycles, {entry['cycles_differ']} shapes differ, "
                f"{entry['wrong_results']} of {entry['results']} results wrong",
                flush=True,
            )
            write(options.out, arrays)


if __name__ == "__main__":
    main()
