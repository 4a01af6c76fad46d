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
VERILATOR = ("--cc", "--exe", "--main", "--timing", "-Wno-fatal", "--Mdir", "obj", "-o", "bench")


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


def _checked(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MismatchError(
            f"{Path(command[0]).name} rejects the Verilog: "
            f"{(done.stdout + done.stderr).strip()[-600:]}",
            where=str(folder),
        )


def _verilate(
    path: str, names: list[str], folder: Path, *, top: str, library: Path | None, level: str
) -> None:
    """Compile with Verilator; ``library`` keeps the objects of its run-time library."""
    _checked([path, *VERILATOR, "--top-module", top, *names], folder)
    objects = folder / "obj"
    kept = [] if library is None else list(library.glob("verilated*.o"))
    for entry in kept:
        # Without their times: they have to be newer than the sources just written.
        shutil.copyfile(entry, objects / entry.name)
    flags = [f"OPT_FAST={level}", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1"]
    _checked(["make", "-C", str(objects), "-f", f"V{top}.mk", *flags], folder)
    if library is not None and not kept:
        library.mkdir(parents=True, exist_ok=True)
        for entry in objects.glob("verilated*.o"):
            shutil.copyfile(entry, library / entry.name)


def compile_bench(
    design: Design,
    folder: Path,
    *,
    simulator: str,
    words: int = 2**16,
    library: Path | None = None,
    level: str = "-O1",
) -> Bench:
    """Write the Verilog of ``design`` into ``folder`` and compile its test bench.

    ``words`` is the depth of the test bench's memories; ``library`` a folder in which Verilator's
    run-time library stays compiled from one call to the next; ``level`` how far the compiler
    optimises Verilator's model: for short runs compiling takes longer than running. Raises
    MissingDependencyError without the simulator, MismatchError where it rejects the sources.
    """
    names = write_sources(design, folder, words=words)
    command = compile_sources(
        names, folder, top=TOP_BENCH, simulator=simulator, library=library, level=level
    )
    return Bench(design, folder, command)


def compile_sources(
    names: list[str],
    folder: Path,
    *,
    top: str,
    simulator: str,
    library: Path | None = None,
    level: str = "-O1",
) -> tuple[str, ...]:
    """Compile the files ``names`` of ``folder``; the command that runs their test bench ``top``.

    ``library`` and ``level`` as in ``compile_bench``. Raises MissingDependencyError without the
    simulator, MismatchError where it rejects the sources.
    """
    path = require_simulator(simulator)
    if simulator == "verilator":
        _verilate(path, names, folder, top=top, library=library, level=level)
        return (str(folder / "obj" / "bench"),)
    _checked([path, "-g2001", "-s", top, "-o", "bench.vvp", *names], folder)
    return (require_simulator("vvp"), "-n", "bench.vvp")
