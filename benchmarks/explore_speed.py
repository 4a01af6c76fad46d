r"""Points a minute of ``bitfold explore``, and seconds of one closed-form simulation.

    python benchmarks/explore_speed.py MODEL.onnx... --points 300 --whole 10000 --jobs 2 \
        -o results/explore.json

Each model: its simulation once (nothing known yet), then a seeded sample of a grid of 18 000 points
over array, lanes, drain, buffers and clock, and one of the default grid of 900 (array, lanes,
dataflow, drain), where no two points have a plan or an estimate in common, in one process. CPU
seconds are this process's, without reading the model. ``--whole`` is the command itself with the
first model and so many points of the first grid, on several processes, from its start to its
picture.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bitfold.export import read_onnx
from bitfold.fpga_sim import ArrayConfig, simulate
from bitfold.fpga_sim.explore import ExploreRequest, Sweep, Variant, explore
from bitfold.fpga_sim.explore.sweep import DEFAULT

ARRAYS = tuple(f"{rows}x{cols}" for rows in (4, 8, 16, 32, 64) for cols in (4, 8, 16, 32, 64))
AXES = {
    "array": ARRAYS,
    "lanes": (1, 2, 4, 8, 16, 32),
    "drain": ("shared", "shadow"),
    "weight_words": (16384, 32768, 65536),
    "map_words": (16384, 65536, 262144, 524288),
    "clock_mhz": (100, 150, 200, 250, 300),
}


def cpu_model() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def swept(path: Path, sweep: Sweep) -> dict[str, object]:
    """Times of one sweep on ``zu3eg`` in this process, which has read the model before."""
    with tempfile.TemporaryDirectory() as folder:
        request = ExploreRequest(
            (Variant(path),), "zu3eg", read_onnx, Path(folder) / "results", sweep, jobs=1
        )
        first = Sweep({"array": ("2x2",)})
        explore(replace(request, results=Path(folder) / "first", sweep=first))
        wall, cpu = time.perf_counter(), time.process_time()
        found = explore(request)
        took = time.perf_counter() - wall, time.process_time() - cpu
    points = len(found.points) + len(found.refused)
    return {
        "model": path.stem,
        "axes": list(sweep.axes),
        "points": points,
        "refused": len(found.refused),
        "wall_s": took[0],
        "cpu_s": took[1],
        "cpu_ms_a_point": 1000 * took[1] / points,
    }


def commanded(path: Path, points: int, jobs: int) -> dict[str, object]:
    """Times of the whole command: start, sweep on ``jobs`` processes, CSV file and picture."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "bitfold.cli", "explore", str(path), "--device", "zu3eg"]
        line += ["--points", str(points), "--jobs", str(jobs), "--json"]
        line += ["-o", f"{folder}/points.csv", "--plot", f"{folder}/front.png"]
        for key, values in {"dataflow": ("os",), **AXES}.items():
            line += ["--vary", f"{key}={','.join(map(str, values))}"]
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(line, capture_output=True, check=True, text=True)
        wall = time.perf_counter() - wall
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(done.stdout)
    simulated = found["points"]
    return {
        "model": path.stem,
        "jobs": jobs,
        "cores": len(os.sched_getaffinity(0)),
        "points": len(simulated) + len(found["refused"]),
        "refused": len(found["refused"]),
        "fitting": sum(point["fits"] for point in simulated),
        "front": sum(point["pareto"] for point in simulated),
        "wall_s": wall,
        "cpu_s": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
        "points_a_minute": 60 * points / wall,
        "load_average": os.getloadavg()[0],
    }


def simulated(path: Path) -> dict[str, object]:
    """Times of reading one model and of one closed-form simulation."""
    started = time.process_time()
    graph = read_onnx(path)
    read = time.process_time() - started
    wall, cpu = time.perf_counter(), time.process_time()
    report = simulate(graph, config=ArrayConfig(rows=32, cols=32, lanes=4))
    return {
        "model": path.stem,
        "layers": len(report.layers),
        "read_cpu_s": read,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
    }


def main() -> None:
    """Measure every model and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--whole", type=int, help="points of a sweep on several processes")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    content: dict[str, object] = {
        "cpu": cpu_model(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "simulations": [simulated(path) for path in options.models],
        "sweeps": [
            swept(path, Sweep(axes, options.points))
            for path in options.models
            for axes in (AXES, DEFAULT)
        ],
    }
    if options.whole:
        content["whole"] = commanded(options.models[0], options.whole, options.jobs)
    options.output.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
