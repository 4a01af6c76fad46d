r"""Points a minute of ``bitfold explore``, and seconds of one closed-form simulation.

    python benchmarks/explore_speed.py MODEL.onnx... --points 300 --whole 10000 --jobs 2 \
        -o results/explore.json

Each model: its simulation once (nothing known yet), then a seeded sample of a grid of 18 000 points
over array, lanes, drain, buffers and clock, and one of the default grid of 900 (array, lanes,
dataflow, drain), where no two points have a plan or an estimate in common, in one process. CPU
seconds are this process's, reading the model included. ``--whole`` is a sweep of so many points of
the first grid on several processes with the first model.
"""

import argparse
import json
import os
import platform
import tempfile
import time
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


def swept(path: Path, sweep: Sweep, jobs: int) -> dict[str, object]:
    """Times of one sweep on ``zu3eg``; CPU seconds where it is in this process."""
    with tempfile.TemporaryDirectory() as folder:
        request = ExploreRequest(
            (Variant(path),), "zu3eg", read_onnx, Path(folder) / "results", sweep, jobs=jobs
        )
        wall, cpu = time.perf_counter(), time.process_time()
        found = explore(request)
        took = time.perf_counter() - wall, time.process_time() - cpu
    points = len(found.points) + len(found.refused)
    of_process = {"cpu_s": took[1], "cpu_ms_a_point": 1000 * took[1] / points} if jobs == 1 else {}
    return {
        "model": path.stem,
        "axes": list(sweep.axes),
        "jobs": jobs,
        "points": points,
        "refused": len(found.refused),
        "fitting": sum(bool(point["fits"]) for point in found.points),
        "front": len(found.front),
        "wall_s": took[0],
        "points_a_minute": 60 * points / took[0],
        **of_process,
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
    content = {
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "simulations": [simulated(path) for path in options.models],
        "sweeps": [
            swept(path, Sweep(axes, options.points), 1)
            for path in options.models
            for axes in (AXES, DEFAULT)
        ],
    }
    if options.whole:
        sweep = Sweep(AXES, options.whole)
        content["whole"] = swept(options.models[0], sweep, options.jobs)
    options.output.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
