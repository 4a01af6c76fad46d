"""How much faster the low-bit network is than our own rows on the same network at 8 bits.

    python benchmarks/against_own_int8.py -o benchmarks/results/against_own_int8.json

All networks are open at once and take turns, one run each a round, so that what disturbs one
disturbs all; ``--force`` names the rows, ``avx2`` for those that most x86 cores have. Then the same
for one and two threads. Weights are random: no kernel's time depends on values.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from engines import GRIDS, Grid, random_graph

from bitfold import Session
from bitfold.benchmark import cpu_name
from bitfold.files import write_atomically
from bitfold.kernels import host_features

EIGHT = "8,8"
LOW = ("T,2", "odd2,2", "3,3", "4,4")
CHOSEN = (Grid(EIGHT, "uniq", (8, 8)), *(grid for grid in GRIDS if grid.label in LOW))
Row = dict[str, object]


def race(sessions: Mapping[str, Session], image: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every run, by the session's name."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for session in sessions.values():
        session.run(image)
    for _ in range(rounds):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(image)
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def summary(times: Mapping[str, list[float]], first: str) -> dict[str, Row]:
    """Median and minimum of each, and how often it goes into those of ``first``."""
    median, least = statistics.median(times[first]), min(times[first])
    return {
        name: {
            "p50_ms": statistics.median(ms), "min_ms": min(ms),
            "ratio": median / statistics.median(ms), "ratio_of_minima": least / min(ms),
        }
        for name, ms in times.items()
    }  # fmt: skip


def main() -> None:
    """Parse, race, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--net", default="resnet18")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--force", default="avx2", help="rows, as BITFOLD_FORCE_KERNEL")
    parser.add_argument("--rounds", type=int, default=25)
    words = parser.parse_args()
    shape = (words.size, words.size, 3)
    graphs = {
        grid.label: random_graph(words.net, grid, shape=shape, classes=words.classes)
        for grid in CHOSEN
    }
    image = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
    with ExitStack() as stack:
        forced = {
            name: stack.enter_context(Session(graph, force=words.force))
            for name, graph in graphs.items()
        }
        grids = summary(race(forced, image, words.rounds), EIGHT)
        threaded = {
            f"{name}, {n} threads": stack.enter_context(
                Session(graphs[name], force=words.force, threads=n)
            )
            for name in ("T,2", EIGHT)
            for n in (1, 2)
        }
        threads = summary(race(threaded, image, words.rounds), "T,2, 1 threads")
    document = {
        "cpu": cpu_name(), "features": sorted(host_features()), "python": platform.python_version(),
        "network": words.net, "input": list(shape), "force": words.force, "rounds": words.rounds,
        "grids": grids, "threads": threads,
    }  # fmt: skip
    print(json.dumps({"grids": grids, "threads": threads}, indent=1))
    write_atomically(words.output, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
