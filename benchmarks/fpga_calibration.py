"""Yosys on the emitted Verilog, part by part and as whole small arrays, and the table made of it.

    python benchmarks/fpga_calibration.py [-o benchmarks/results/fpga_calibration.json]
    python benchmarks/fpga_calibration.py --page docs/fpga_model.md

Needs Debian's yosys 0.23. What is in the output file is not run again while the Verilog that it is
made of stays as it was, so that a broken run goes on.
"""

import argparse
import json
import re
import time
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from statistics import median

from fpga_calibration_fit import fit
from fpga_calibration_plan import plan

from bitfold.files import write_atomically
from bitfold.fpga_sim.synthesis import PINNED, Unit, synthesise, yosys_version

OUTPUT = Path("benchmarks/results/fpga_calibration.json")
BATCH = 40
LARGE, LARGE_BATCH = ("array", "top", "held-out array", "held-out top"), 8
OPEN = "<!-- benchmarks/fpga_calibration.py --page writes what follows -->"
CLOSE = "<!-- up to here -->"
# Smaller errors are in the output file alone.
LEAST = 0.02
SCHEMA = "bitfold/fpga-calibration/1"


def batches(units: list[Unit], most: int) -> Iterator[list[Unit]]:
    """Runs that one call of Yosys makes: those of one command, ``most`` at a time."""
    for command in sorted({unit.command for unit in units}):
        group = [unit for unit in units if unit.command == command]
        yield from (group[i : i + most] for i in range(0, len(group), most))


def read(path: Path) -> dict[str, dict]:
    """Runs in the output file, by key; none where another version made them."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {row["key"]: row for row in found["runs"]}


def module_of(key: str) -> str:
    """The module that a run synthesised."""
    return key.split()[0]


def is_current(row: dict | None) -> bool:
    """Whether a run was made, and of the Verilog as it is now."""
    return row is not None and row.get("verilog") == digest(module_of(row["key"]))


@cache
def digest(module: str) -> str:
    """Of the Verilog that ``module`` is made of, whatever it instantiates included."""
    folder, names, wanted = files("bitfold.fpga_sim.rtl") / "verilog", {}, [module]
    while wanted:
        name = wanted.pop()
        source = folder / f"{name}.v"
        if name not in names and source.is_file():
            names[name] = source.read_text("utf-8")
            wanted += re.findall(r"\bbf_\w+", names[name])
    return sha256("".join(names[name] for name in sorted(names)).encode()).hexdigest()[:16]


def measure(path: Path) -> None:
    """Run what is missing; the file is whole after every batch."""
    version = yosys_version()
    if not version.startswith(PINNED):
        raise SystemExit(f"the table is pinned to {PINNED}, found {version}")
    known = read(path)
    for group, units in plan().items():
        missing = [unit for unit in units if not is_current(known.get(unit.key))]
        for batch in batches(missing, LARGE_BATCH if group in LARGE else BATCH):
            started = time.monotonic()
            for unit, cells in zip(batch, synthesise(batch), strict=True):
                row = {"group": group, "key": unit.key, "verilog": digest(module_of(unit.key))}
                known[unit.key] = row | {"cells": cells.to_dict()}
            print(f"{group}: {len(batch)} runs in {time.monotonic() - started:.0f} s", flush=True)
            save(path, known, version)


def save(path: Path, known: dict[str, dict], version: str) -> None:
    """All runs of the plan, in its order."""
    planned = [(group, unit.key) for group, units in plan().items() for unit in units]
    runs = [known[key] | {"group": group} for group, key in planned if key in known]
    commands = sorted({unit.command for units in plan().values() for unit in units})
    write(path, {"schema": SCHEMA, "tool": version, "commands": commands, "runs": runs})


def write(path: Path, found: dict) -> None:
    """One JSON file, a run and an error a line."""
    lists = [name for name in ("runs", "errors") if name in found]
    head = json.dumps({k: v for k, v in found.items() if k not in lists}, indent=1)[:-2]
    for name in lists:
        rows = ",\n".join(f"  {json.dumps(row)}" for row in found[name])
        head += f',\n "{name}": [\n{rows}\n ]'
    write_atomically(path, (head + "\n}\n").encode())


def calibrate(path: Path) -> None:
    """The shipped table from all runs, and every error of the model in the output file.

    Raises SystemExit where the Verilog has changed since a run.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    stale = [row["key"] for row in found["runs"] if not is_current(row)]
    if stale:
        raise SystemExit(f"{len(stale)} runs are of other Verilog, {stale[0]}: run without --fit")
    commands = "; ".join(found["commands"])
    found["errors"] = fit(found["runs"], {"tool": found["tool"], "commands": commands})
    write(path, found)


def write_page(page: Path, path: Path) -> None:
    """Replace what stands between the marks in ``page``."""
    errors = json.loads(path.read_text(encoding="utf-8"))["errors"]
    head, _, rest = page.read_text(encoding="utf-8").partition(OPEN)
    _, _, tail = rest.partition(CLOSE)
    page.write_text(f"{head}{OPEN}\n\n{summary(errors)}\n{worst(errors)}\n{CLOSE}{tail}", "utf-8")


def summary(errors: list[dict]) -> str:
    """Worst and median error by group, standing and resource, worst first."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in errors:
        if row["what"] != "carry4":
            key = row["group"], row["standing"], row["what"]
            groups.setdefault(key, []).append(row["error"])
    lines = [
        "| group | standing | what | runs | exact | median | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    exact: dict[str, list[str]] = {}
    for (group, standing, what), many in sorted(groups.items(), key=lambda item: -max(item[1])):
        if max(many) == 0:
            exact.setdefault(f"{group} ({standing}, {len(many)})", []).append(what.upper())
            continue
        equal = sum(error == 0 for error in many)
        lines.append(f"| {group} | {standing} | {what.upper()} | {len(many)} | {equal} | "
                     f"{median(many):.1%} | {max(many):.1%} |")  # fmt: skip
    rest = "; ".join(f"{name}: {', '.join(whats)}" for name, whats in exact.items())
    return "\n".join(lines) + f"\n\nExact on every run: {rest}.\n"


def worst(errors: list[dict]) -> str:
    """Every error of LUT, FF, DSP and block RAM from 2 % on, worst first."""
    lines = [f"Every LUT, FF, DSP and block RAM error from {LEAST:.0%} on:", ""]
    lines += ["| error | what | Yosys | model | group | unit |", "|---|---|---|---|---|---|"]
    for row in errors:
        if row["error"] >= LEAST and row["what"] not in ("carry4", "lc"):
            lines.append(f"| {row['error']:.1%} | {row['what'].upper()} | {row['yosys']} | "
                         f"{row['model']} | {row['group']} | `{short(row['key'])}` |")  # fmt: skip
    return "\n".join(lines) + "\n"


def short(key: str) -> str:
    """A key without what every key has."""
    return key.replace("bf_", "").replace("_FMT", "F")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    parser.add_argument("--fit", action="store_true", help="fit the runs there are, run nothing")
    parser.add_argument("--page", type=Path, help="write the tables there and run nothing")
    options = parser.parse_args()
    if options.page is not None:
        write_page(options.page, options.output)
        return
    if not options.fit:
        measure(options.output)
    calibrate(options.output)


if __name__ == "__main__":
    main()
