"""How long a fresh process takes to its first answer, and how much memory, for docs/benchmarks.md.

    python benchmarks/cold_start.py -o benchmarks/results/cold_start.json

Each process imports bitfold, opens a session on an ONNX file and runs one image. *Kept* processes
find the plan that an earlier one kept; *anew* ones know how fast kernels are, and read, prove and
pack the model. Wall-clock time and CPU time are given: on a busy machine only the second repeats.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from engines import GRIDS, NETWORKS, write_model

import bitfold
from bitfold.benchmark import cpu_name
from bitfold.files import write_atomically

NETS = ("resnet18", "resnet20")
GRID = GRIDS[0]
MS_PER_S = 1e3

PROBE = """
import json, sys, time
def clocks():
    return time.perf_counter(), time.process_time()
at = [clocks()]
import numpy as np
at.append(clocks())
from bitfold import Session
at.append(clocks())
session = Session(sys.argv[1])
at.append(clocks())
shape = session.get_inputs()[0].shape[1:]
image = np.arange(np.prod(shape)).astype(np.uint8).reshape(1, *shape)
session.run(image)
at.append(clocks())
from bitfold.benchmark.worker import peak_rss_mb
print(json.dumps([at, peak_rss_mb()]))
"""
STAGES = ("numpy", "bitfold", "session", "first")


def measure(model: Path, environment: dict[str, str]) -> dict[str, float]:
    """Milliseconds of every stage of one process, by the clock and on the CPU; its peak RSS."""
    command = [sys.executable, "-c", PROBE, str(model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    at, rss = json.loads(done.stdout)
    found: dict[str, float] = {"peak_rss_mb": rss}
    for i, kind in enumerate(("wall", "cpu")):
        marks = [mark[i] * MS_PER_S for mark in at]
        found |= {
            f"{name}_{kind}_ms": b - a
            for name, a, b in zip(STAGES, marks[:-1], marks[1:], strict=True)
        }
        found[f"cold_start_{kind}_ms"] = marks[-1] - marks[2]
    return found


def medians(model: Path, folder: Path, count: int, *, is_kept: bool) -> dict[str, float]:
    """Medians over ``count`` processes; one more goes before them and times kernels."""
    environment = os.environ | {"BITFOLD_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    measure(model, environment)
    runs = []
    for _ in range(count):
        if not is_kept:
            for plan in folder.glob("plan-*"):
                plan.unlink()
        runs.append(measure(model, environment))
    return {key: round(statistics.median(run[key] for run in runs), 1) for key in runs[0]}


def read_rows(path: Path) -> dict[str, dict[str, float]]:
    """Rows of an earlier run."""
    rows: dict[str, dict[str, float]] = (
        json.loads(path.read_text())["rows"] if path.exists() else {}
    )
    return rows


def main() -> None:
    """Measure both networks and write the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=9)
    parser.add_argument("--networks", nargs="+", default=NETS, choices=NETS)
    options = parser.parse_args()
    rows = read_rows(options.output)
    for net in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            model, cache = Path(folder) / "model.onnx", Path(folder) / "cache"
            write_model(net, GRID, model)
            for is_kept in (True, False):
                found = medians(model, cache, options.processes, is_kept=is_kept)
                name = "kept" if is_kept else "anew"
                shape = "x".join(map(str, NETWORKS[net][0]))
                label = f"{net} {shape} {GRID.label}, {name}"
                load = round(os.getloadavg()[1], 1)
                rows[label] = {"processes": options.processes, "load_average": load, **found}
                print(label, rows[label])
                document = {"cpu": cpu_name(), "version": bitfold.__version__, "rows": rows}
                write_atomically(options.output, (json.dumps(document, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
