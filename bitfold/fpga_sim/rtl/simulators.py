"""Compile the emitted test bench with Verilator or Icarus Verilog, and run products through it."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bitfold.errors import MismatchError, MissingDependencyError
from bitfold.fpga_sim.rtl.design import Design
from bitfold.fpga_sim.rtl.sources import TOP_BENCH, write_sources
from bitfold.fpga_sim.rtl.stimulus import Stimulus, Words, hex_text, parse_hex

SIMULATORS = ("verilator", "iverilog")
# Optimised where the model spends its time; the run-time library is compiled as fast as possible.
VERILATOR_FLAGS = ("--binary", "-j", "1", "-Wno-fatal", "-MAKEFLAGS", "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1")


def require_simulator(name: str) -> str:
    """The path of ``verilator`` or ``iverilog``; raises MissingDependencyError."""
    path = shutil.which(name)
    if path is None:
        raise MissingDependencyError(
            f"the program '{name}' was not found, and running Verilog needs it",
            todo=f"Install it, on Debian and Ubuntu: apt-get install {name}",
        )
    return path


@dataclass(frozen=True, slots=True)
class RtlRun:
    """Cycles counted by the test bench, result words as they came out, and its verdict."""

    cycles: int
    words: Words
    wrong: int
    wrong_codes: int


@dataclass(frozen=True, slots=True)
class Bench:
    """A compiled test bench; ``command`` starts it, in ``folder``."""

    design: Design
    folder: Path
    command: tuple[str, ...]

    def run(self, product: Stimulus, *, extra: Sequence[str] = ()) -> RtlRun:
        """Run one product; raises MismatchError where the simulation breaks off."""
        files = {"left": product.left, "top": product.top, "golden": product.golden}
        for name, words in files.items():
            (self.folder / f"{name}.hex").write_text(hex_text(words), "ascii")
        arguments = [f"+{name}={name}.hex" for name in files]
        arguments += [f"+{name}={count}" for name, count in product.counts.items()]
        dump = self.folder / "results.hex"
        done = subprocess.run(
            [*self.command, *arguments, "+dump=results.hex", *extra],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        found = {key: int(n) for key, n in re.findall(r"^(cycles) (\d+)", done.stdout, re.M)}
        wrong = dict(re.findall(r"^(results|codes) \d+ words, (\d+) wrong", done.stdout, re.M))
        if "cycles" not in found or "results" not in wrong:
            raise MismatchError(
                f"the simulation broke off: {(done.stdout + done.stderr).strip()[-400:]}",
                where=str(self.folder),
            )
        bits = self.design.array.cols * self.design.acc_bits
        return RtlRun(
            cycles=found["cycles"],
            words=parse_hex(dump.read_text("ascii"), bits=bits),
            wrong=int(wrong["results"]),
            wrong_codes=int(wrong.get("codes", 0)),
        )


def compile_bench(design: Design, folder: Path, *, simulator: str, words: int = 2**16) -> Bench:
    """Write the Verilog of ``design`` into ``folder`` and compile its test bench.

    ``words`` is the depth of the test bench's memories. Raises MissingDependencyError without the
    simulator, MismatchError where it rejects the sources.
    """
    path = require_simulator(simulator)
    names = write_sources(design, folder, words=words)
    if simulator == "verilator":
        flags = [*VERILATOR_FLAGS, "--top-module", TOP_BENCH, "--Mdir", "obj", "-o", "bench"]
        command: tuple[str, ...] = (str(folder / "obj" / "bench"),)
    else:
        flags = ["-g2001", "-s", TOP_BENCH, "-o", "bench.vvp"]
        command = (require_simulator("vvp"), "-n", "bench.vvp")
    built = subprocess.run(
        [path, *flags, *names], cwd=folder, capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise MismatchError(
            f"{simulator} rejects the Verilog: {(built.stdout + built.stderr).strip()[-600:]}",
            where=str(folder),
        )
    return Bench(design, folder, command)
