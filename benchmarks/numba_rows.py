"""Times numba's rows beside the C rows on whole networks: CPU time of one thread, one image.

    python benchmarks/numba_rows.py model.onnx … [--rounds 30] [--out numba_rows.json]

All take turns in one process; printed are the median and the minimum in milliseconds, and the
minimum over that of the AVX2 rows. CPU time says less than a clock on a quiet machine, but holds on
a busy one. Every network's logits are compared first.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Literal

import numpy as np

from bitfold.runtime import Session

SPECS: tuple[tuple[Literal["c", "numba"], str | None], ...] = (
    ("c", "avx2"),
    ("c", "scalar"),
    ("numba", None),
    ("numba", "direct"),
    ("numba", "bitserial"),
)


def seconds(session: Session, images: np.ndarray) -> float:
    """CPU time of one inference in this thread."""
    start = time.thread_time()
    session.run(images)
    return time.thread_time() - start


def measure(model: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round, by backend and forced kernel."""
    sessions = {
        f"{backend} {force or 'unforced'}": Session(model, backend, force=force)
        for backend, force in SPECS
    }
    shape = next(iter(sessions.values())).graph.input.shape
    images = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
    results = [session.run(images) for session in sessions.values()]
    assert all(np.array_equal(results[0], result) for result in results)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            times[name].append(seconds(session, images))
    return times


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    for model in options.models:
        times = measure(model, options.rounds)
        first = min(times["c avx2"])
        for name, values in times.items():
            median, least = statistics.median(values), min(values)
            print(
                f"{model.stem:20} {name:16} {median * 1e3:9.2f} {least * 1e3:9.2f} ms"
                f"{least / first:8.2f}"
            )
            results.append(
                {
                    "model": model.stem,
                    "rows": name,
                    "median_ms": median * 1e3,
                    "min_ms": least * 1e3,
                }
            )
    if options.out:
        machine = {"processor": platform.processor(), "system": platform.platform()}
        record = {"machine": machine, "rounds": options.rounds, "results": results}
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
