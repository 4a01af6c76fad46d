"""Seconds of one image through the stepped array, every PE and value, and whether all are right.

    python benchmarks/stepped_speed.py MODEL.onnx... --array 32x32 -o results/stepped.json

The image is random. Every node's integers are compared with ``trace_float64``. CPU seconds are this
process's; the comparison is not timed.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
from explore_speed import cpu_model

from bitfold.export import read_onnx
from bitfold.fpga_sim import ArrayConfig, step_graph
from bitfold.ir.float64 import trace_float64


def measured(path: Path, array: ArrayConfig) -> dict[str, object]:
    """Times of one model, and how many integers were compared and differ."""
    graph = read_onnx(path)
    image = np.random.default_rng(0).integers(0, 256, (1, *graph.input.shape), dtype=np.uint8)
    wall, cpu = time.perf_counter(), time.process_time()
    stepped = step_graph(graph, image, array)
    took = time.perf_counter() - wall, time.process_time() - cpu
    right = trace_float64(graph, image)
    return {
        "model": path.stem,
        "input": list(graph.input.shape),
        "array": f"{array.rows}x{array.cols}",
        "dataflow": array.dataflow,
        "lanes": array.lanes,
        "wall_s": took[0],
        "cpu_s": took[1],
        "compared": sum(values.size for values in stepped.values()),
        "wrong": sum(int((values != right[name]).sum()) for name, values in stepped.items()),
    }


def main() -> None:
    """Measure every model with every dataflow and number of lanes and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--array", default="32x32")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--dataflow", nargs="+", default=["os", "ws", "is"])
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    rows, cols = map(int, options.array.split("x"))
    found = []
    for path in options.models:
        for dataflow in options.dataflow:
            for lanes in options.lanes:
                array = ArrayConfig(rows=rows, cols=cols, lanes=lanes, dataflow=dataflow)
                found.append(measured(path, array))
                print(json.dumps(found[-1]), flush=True)
    content = {
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "load_average": os.getloadavg()[0],
        "rows": found,
    }
    options.output.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
