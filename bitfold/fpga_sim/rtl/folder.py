"""The folder that ``bitfold emit rtl`` writes: Verilog, test bench, stimulus, golden words.

Everything is written into a folder beside it and renamed: it is whole or absent.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bitfold.errors import MismatchError, OutputError
from bitfold.fpga_sim.cycles import compute_cycles
from bitfold.fpga_sim.rtl.layer import LayerRun
from bitfold.fpga_sim.rtl.simulators import RtlRun, compile_bench
from bitfold.fpga_sim.rtl.sources import TOP_BENCH, TOP_MODULE, design_sources
from bitfold.fpga_sim.rtl.stimulus import hex_text

MAKEFILE = """\
# make check: run the layer on the array and compare every word; make lint: Verilator's lint.
# SIM=iverilog or SIM=verilator chooses the simulator.

SIM ?= $(if $(shell command -v verilator),verilator,iverilog)
RTL := {rtl}
ARGS := {arguments}

.PHONY: check lint clean

check: bench.$(SIM)
\t./run_$(SIM).sh $(ARGS) > check.log; cat check.log; grep -qx PASS check.log
\tgrep -qx 'cycles {cycles}' check.log

bench.verilator: $(RTL) {bench}.v
\t@command -v verilator >/dev/null || {{ \\
\t  echo "error: verilator was not found; install it or use make check SIM=iverilog" >&2; exit 2; }}
\tverilator --cc --exe --main --timing -Wno-fatal --Mdir obj -o bench --top-module {bench} $^
\t$(MAKE) -C obj -f V{bench}.mk OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1
\tcp obj/bench $@

bench.iverilog: $(RTL) {bench}.v
\t@command -v iverilog >/dev/null || {{ \\
\t  echo "error: neither verilator nor iverilog was found; install one of them" >&2; exit 2; }}
\tiverilog -g2001 -s {bench} -o $@ $^

lint:
\tverilator --lint-only -Wall --top-module {top} $(RTL)

clean:
\trm -rf obj bench.verilator bench.iverilog check.log
"""
README = """\
# {name} on a {rows} x {cols} array

Verilog-2001 of a systolic array ({dataflow}, drain {drain}, {kind} PEs, {lanes} lanes,
accumulators of {acc} bits) and one real layer to check it with: P = {pixels} pixels, K = {depth}
products a sum, M = {filters} filters, {groups} groups.

    make check                 # needs verilator or iverilog
    make check SIM=iverilog
    make lint                  # needs verilator

`make check` runs the layer, compares all {words} words of results{codes_too} with the golden
ones, and expects exactly {cycles} cycles from the first operand read to the last result.

| file | holds |
|---|---|
| `{top}.v` | the design: instantiate this; its header says what the counters mean |
| `bf_*.v` | its modules; `bf_memory.v` infers block RAM |
| `{bench}.v` | self-checking test bench |
| `left.hex`, `top.hex` | operand words, one a line, as the controller reads them |
| `golden.hex` | sums, {cols} a word, {acc} bits each |
{extra}
Weights are sent as {weight}, activations as {activation}. Sums leave the array without bias.
Buffers, DRAM and the unrolling of windows are outside: the test bench holds operands unrolled.
"""
RUNNERS = {
    "run_verilator.sh": '#!/bin/sh\nexec ./bench.verilator "$@"\n',
    "run_iverilog.sh": '#!/bin/sh\nexec vvp -n bench.iverilog "$@"\n',
}
FORMS = ("unsigned numbers", "two's complement", "indices of odd codes")


@dataclass(frozen=True, slots=True)
class Emitted:
    """What was written: files by name, cycles that the test bench must count."""

    folder: Path
    files: tuple[str, ...]
    cycles: int


def memory_words(run: LayerRun) -> int:
    """Depth of the test bench's memories: a power of two that holds every file."""
    parts = (run.product.left, run.product.top, run.product.golden, run.loads)
    longest = max(len(part) for part in parts if part is not None)
    return 1 << max(1, (longest - 1).bit_length())


def run_arguments(run: LayerRun) -> list[str]:
    """Plusargs of the test bench for the files of ``layer_files``."""
    arguments = [f"+{name}={name}.hex" for name in ("left", "top", "golden")]
    arguments += [f"+{name}={count}" for name, count in run.product.counts.items()]
    return arguments + threshold_arguments(run)


def threshold_arguments(run: LayerRun) -> list[str]:
    """Those of the threshold units, if the layer has any."""
    if run.loads is None:
        return []
    return ["+tables=tables.hex", f"+loads={len(run.loads)}", "+codes=codes.hex"]


def layer_files(run: LayerRun) -> dict[str, str]:
    """Stimulus and golden words by file name."""
    product = run.product
    found = {"left": product.left, "top": product.top, "golden": product.golden}
    if run.loads is not None and run.codes is not None:
        found |= {"tables": run.loads, "codes": run.codes}
    return {f"{name}.hex": hex_text(words) for name, words in found.items()}


def _readme(run: LayerRun, cycles: int) -> str:
    design, array = run.design, run.design.array
    extra = codes_too = ""
    if design.thresholds is not None:
        codes_too = " and all of codes"
        extra = (
            "| `tables.hex` | entries of the threshold units: column, table, entry, value |\n"
            f"| `codes.hex` | operands of the next layer, {array.cols} a word, "
            f"{design.thresholds.bits} bits each |\n"
        )
    return README.format(
        name=run.name, rows=array.rows, cols=array.cols, dataflow=array.dataflow, kind=array.pe,
        drain=array.drain, lanes=array.lanes, acc=design.acc_bits, pixels=run.gemm.pixels,
        depth=run.gemm.depth, filters=run.gemm.filters, groups=run.gemm.groups,
        words=len(run.product.golden), codes_too=codes_too, cycles=cycles, extra=extra,
        top=TOP_MODULE, bench=TOP_BENCH,
        weight=f"{FORMS[design.weight.form]} of {design.weight.bits} bits",
        activation=f"{FORMS[design.activation.form]} of {design.activation.bits} bits",
    )  # fmt: skip


def folder_texts(run: LayerRun) -> dict[str, str]:
    """File name → text of the whole folder."""
    cycles = compute_cycles(run.gemm, run.design.array)
    sources = design_sources(run.design, words=memory_words(run))
    makefile = MAKEFILE.format(
        rtl=" ".join(name for name in sources if name != f"{TOP_BENCH}.v"),
        arguments=" ".join(run_arguments(run)),
        cycles=cycles,
        bench=TOP_BENCH,
        top=TOP_MODULE,
    )
    own = {"Makefile": makefile, "README.md": _readme(run, cycles)}
    return sources | layer_files(run) | RUNNERS | own


def require_new_folder(folder: Path) -> None:
    """Raise OutputError unless ``folder`` is absent or empty and can be made."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            "there is something else in the place of the folder to write",
            where=f"folder {folder}",
            todo="Name a new or an empty folder.",
        )
    if not folder.absolute().parent.is_dir():
        raise OutputError(
            f"there is no folder {folder.parent}",
            where="option -o",
            todo="Name a folder in one that exists.",
        )


def write_folder(run: LayerRun, folder: Path) -> Emitted:
    """Write everything into ``folder``, which must be absent or empty; OutputError otherwise."""
    require_new_folder(folder)
    texts = folder_texts(run)
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    try:
        for name, text in texts.items():
            (place / name).write_text(text, "utf-8")
            (place / name).chmod(0o755 if name.endswith(".sh") else 0o644)
        place.chmod(0o755)
        place.replace(folder)
    except OSError as error:
        raise OutputError(f"cannot write: {error}", where=f"folder {folder}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return Emitted(folder, tuple(sorted(texts)), compute_cycles(run.gemm, run.design.array))


def check_run(run: LayerRun, *, simulator: str) -> RtlRun:
    """Simulate the layer; raises MismatchError where a word or the cycles are not as expected."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        bench = compile_bench(run.design, place, simulator=simulator, words=memory_words(run))
        for name, text in layer_files(run).items():
            (place / name).write_text(text, "ascii")
        found = bench.run(run.product, extra=threshold_arguments(run))
    want = compute_cycles(run.gemm, run.design.array)
    if found.wrong or found.wrong_codes or found.cycles != want:
        raise MismatchError(
            f"{found.wrong} words of results and {found.wrong_codes} of codes differ; "
            f"{found.cycles} cycles instead of {want}",
            where=f"layer {run.name}, {simulator}",
        )
    return found
