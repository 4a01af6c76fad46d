"""Yosys on the emitted Verilog: one module with its parameters in, its cells out.

The command is that of the calibration: ``synth_xilinx -family xc7 -flatten -noiopad``, with
``-nodsp`` except for DSP-packed PEs. Counts of LUT cells depend on the version of Yosys, estimated
logic cells hardly.
"""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from bitfold.errors import MismatchError, MissingDependencyError
from bitfold.fpga_sim.rtl.sources import COMMON, TOP_MODULE, verilog, with_parameters

PINNED = "Yosys 0.23"
COMMAND = "synth_xilinx -family xc7 -flatten -noiopad"
# UltraScale+ parts have UltraRAM, for memories that ask for it.
ULTRA = 'setattr -set ram_style "ultra" unit*/m:words'
STAT = "stat -tech xilinx -json"
# LUT sites of one memory cell in LUT RAM or of one shift register.
LUT_MEMORIES = {
    "RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM32X1S": 1,
    "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "SRL16E": 1, "SRLC32E": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cells:
    """What ``stat`` counts. ``lut1`` … ``lut6``: tables of so many inputs.

    ``lutram``: LUT sites of memories and shift registers.
    """

    lut1: int = 0
    lut2: int = 0
    lut3: int = 0
    lut4: int = 0
    lut5: int = 0
    lut6: int = 0
    lutram: int = 0
    ff: int = 0
    carry4: int = 0
    dsp: int = 0
    ramb18: int = 0
    ramb36: int = 0
    muxf: int = 0
    uram: int = 0

    def __add__(self, other: "Cells") -> "Cells":
        """Both together."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Cells(*(a + b for a, b in pairs))

    def times(self, count: int) -> "Cells":
        """``count`` of them."""
        return Cells(*(count * value for value in astuple(self)))

    @property
    def lut(self) -> int:
        """LUT that are logic."""
        return self.lut1 + self.lut2 + self.lut3 + self.lut4 + self.lut5 + self.lut6

    @property
    def lc(self) -> int:
        """LUT6 left after a small table has joined another one, as Yosys' ``stat`` estimates."""
        one, two, three = self.lut1, self.lut2, self.lut3
        cells = self.lut6 + self.lut5 + self.lut4 + three
        one -= min(one, self.lut5)
        alone = self.lut4 - min(self.lut4, one)
        one -= self.lut4 - alone
        two -= min(two, alone)
        free = three - min(three, one)
        one -= three - free
        left = free - min(free, two)
        two -= free - left
        return cells - left // 2 + (one + two + 1) // 2

    @property
    def luts(self) -> int:
        """All LUT sites."""
        return self.lut + self.lutram

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return {"lut": self.lut, "lc": self.lc} | asdict(self)

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "Cells":
        """The reverse of ``to_dict``."""
        return cls(**{field.name: counts.get(field.name, 0) for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Unit:
    """A module of the emitted Verilog with some of its parameters, as synthesised on its own."""

    module: str
    parameters: Mapping[str, int]
    dsp: bool = False
    ultra: bool = False

    @property
    def key(self) -> str:
        """Module and parameters in one line, in alphabetical order."""
        texts = [f"{name}={value}" for name, value in sorted(self.parameters.items())]
        flags = [f"+{flag}" for flag in ("dsp", "ultra") if getattr(self, flag)]
        return " ".join((self.module, *texts, *flags))

    @property
    def command(self) -> str:
        """How it is synthesised."""
        if self.ultra:
            return f"{ULTRA}; {COMMAND.replace('xc7', 'xcup')}"
        return COMMAND if self.dsp else f"{COMMAND} -nodsp"

    @classmethod
    def parse(cls, key: str) -> "Unit":
        """The unit of a ``key``."""
        module, *texts = key.split()
        pairs = (text.split("=") for text in texts if "=" in text)
        values = {name: int(value) for name, value in pairs}
        return cls(module, values, dsp="+dsp" in texts, ultra="+ultra" in texts)

    @property
    def design_parameters(self) -> dict[str, int]:
        """``parameters`` under the names that ``bf_top`` has for them."""
        found = dict(self.parameters)
        if self.module.endswith("_ws"):
            found["DATAFLOW"] = 1 + found.pop("ROLE", 0)
        if "PA" in found:
            found |= {"AB": found.pop("PA"), "WB": found.pop("PW"), "KIND": 3}
        if self.module == "bf_threshold":
            found["TABLES"] = found.pop("DEPTH")
        return found


def parse_stat(text: str) -> dict[str, Cells]:
    """Module → counts, of ``stat -tech xilinx -json``, with those of what it instantiates.

    Only the modules are read: behind them Yosys 0.23 has lines that are no JSON.
    """
    modules, _, _ = text.partition("\n   },\n")
    read = json.loads(modules + "}}")["modules"]
    rows = {name.lstrip("\\"): row["num_cells_by_type"] for name, row in read.items()}
    found: dict[str, Cells] = {}

    def total(name: str) -> Cells:
        if name not in found:
            inner = {kind.lstrip("\\"): count for kind, count in rows[name].items()}
            found[name] = sum(
                (total(kind).times(count) for kind, count in inner.items() if kind in rows),
                _cells(rows[name]),
            )
        return found[name]

    return {name: total(name) for name in rows}


def _cells(by_type: Mapping[str, int]) -> Cells:
    """Counts of one module's own cells."""

    def of(pattern: str) -> int:
        return sum(count for name, count in by_type.items() if re.fullmatch(pattern, name))

    return Cells(
        **{f"lut{inputs}": by_type.get(f"LUT{inputs}", 0) for inputs in range(1, 7)},
        lutram=sum(by_type.get(name, 0) * sites for name, sites in LUT_MEMORIES.items()),
        ff=of("FD[RSCP]E(_1)?"),
        carry4=by_type.get("CARRY4", 0),
        dsp=of("DSP48E[12]"),
        ramb18=of("RAMB18E[12]"),
        ramb36=of("RAMB36E[12]"),
        muxf=of("MUXF[78]"),
        uram=of("URAM288"),
    )


def require_yosys() -> str:
    """The path of ``yosys``; raises MissingDependencyError."""
    path = shutil.which("yosys")
    if path is None:
        raise MissingDependencyError(
            "the program 'yosys' was not found, and synthesis needs it",
            where="option --synth",
            todo="Install it, on Debian and Ubuntu: apt-get install yosys; or leave --synth out.",
        )
    return path


def yosys_version() -> str:
    """What ``yosys -V`` says, as in ``Yosys 0.23``."""
    done = subprocess.run([require_yosys(), "-V"], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split()[:2])


def batch_verilog(units: Sequence[Unit]) -> str:
    """The library, a copy of each unit's module under a name of its own, and a top that holds them.

    Copies keep their hierarchy, so that each is flattened and mapped on its own.
    """
    texts = [verilog(name) for name in (*COMMON, TOP_MODULE)]
    for i, unit in enumerate(units):
        own = with_parameters(verilog(unit.module), dict(unit.parameters))
        texts.append(
            re.sub(rf"^(\(\* keep_hierarchy \*\)\n)?module {unit.module}\b",
                   f"(* keep_hierarchy *)\nmodule unit{i}", own, flags=re.M)
        )  # fmt: skip
    ports = [".clk(clk)" if "clk," in verilog(unit.module) else "" for unit in units]
    instances = "\n".join(f"    (* keep *) unit{i} u{i} ({port});" for i, port in enumerate(ports))
    texts.append(f"module batch (input wire clk);\n{instances}\nendmodule\n")
    return "\n".join(texts)


def synthesise(units: Sequence[Unit]) -> list[Cells]:
    """Run Yosys once on ``units``, each for itself; all with or all without DSP blocks or UltraRAM.

    Raises MissingDependencyError without Yosys, MismatchError where it rejects the Verilog.
    """
    path = require_yosys()
    (command,) = {unit.command for unit in units}
    steps = f"read_verilog batch.v; {command} -top batch; tee -q -o stat.json {STAT}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "batch.v").write_text(batch_verilog(units), "utf-8")
        done = subprocess.run(
            [path, "-q", "-p", steps], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise MismatchError(
                f"yosys rejects the Verilog: {done.stderr.strip()[-400:]}",
                where=", ".join(unit.key for unit in units),
            )
        found = parse_stat((folder / "stat.json").read_text("utf-8"))
    return [found[f"unit{i}"] for i in range(len(units))]
