"""Points a minute of ``bitfold explore``, and seconds of one closed-form simulation.

    python benchmarks/explore_speed.py MODEL.onnx... --points 1000 -o results/explore.json

Each model: its simulation once (schedules not yet known), then a seeded sample of a grid of 18 000
points over array, lanes, drain, buffers and clock in one process. CPU seconds are this process's.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

from bitfold.export import read_onnx
from bitfold.fpga_sim import ArrayConfig, simulate
from bitfold.fpga_sim.explore import ExploreRequest, Sweep, Variant, explore

AXES = {
    "array": tuple(f"{rows}x{cols}" for rows in (4, 8, 16, 32, 64) for cols in (4, 8, 16, 32, 64)),
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


def measured(path: Path, points: int) -> dict[str, object]:
    """Both times of one model."""
    graph = read_onnx(path)
    wall, cpu = time.perf_counter(), time.process_time()
    report = simulate(graph, config=ArrayConfig(rows=32, cols=32, lanes=4))
    once = time.perf_counter() - wall, time.process_time() - cpu
    with tempfile.TemporaryDirectory() as folder:
        request = ExploreRequest(
            (Variant(path),),
            "zu3eg",
            read_onnx,
            Path(folder) / "results",
            Sweep(AXES, points),
            jobs=1,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        found = explore(request)
        took = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "model": path.stem,
        "layers": len(report.layers),
        "simulate_wall_s": once[0],
        "simulate_cpu_s": once[1],
        "points": len(found.points),
        "refused": len(found.refused),
        "sweep_wall_s": took[0],
        "sweep_cpu_s": took[1],
        "cpu_ms_a_point": 1000 * took[1] / points,
    }


def main() -> None:
    """Measure every model and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    rows = [measured(path, options.points) for path in options.models]
    content = {
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "rows": rows,
    }
    options.output.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
