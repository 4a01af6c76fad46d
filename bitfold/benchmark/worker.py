"""The process of one engine: ``python -m bitfold.benchmark.worker``, JSON lines in and out.

The first line in says what to load; the first out how that went. Every further line in asks for a
turn and is answered by its times; the end of input ends the process. The engine's own output goes
to stderr.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from bitfold.benchmark.engines import ENGINES, import_engine, random_images
from bitfold.benchmark.report import BenchOptions

WARM_UP_S = 0.3
MS_PER_S = 1e3


def peak_rss_mb() -> float:
    """Largest resident set of this process so far, in MiB.

    Linux carries ``ru_maxrss`` over from the parent through ``exec``; VmHWM starts afresh there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_for(infer: Callable[[], object], seconds: float) -> list[float]:
    """Wall-clock milliseconds of each inference, for about ``seconds`` (at least one)."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        infer()
        times.append((time.perf_counter() - start) * MS_PER_S)
    return times


def serve(requests: TextIO, answers: TextIO) -> None:
    """Load the engine that the first request names, then give it turns."""

    def answer(**fields: object) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    request = json.loads(requests.readline())
    options = BenchOptions(**request["options"])
    images = random_images(tuple(request["shape"]), options)
    try:
        start = time.perf_counter()
        version = import_engine(request["engine"])
        imported = time.perf_counter()
        run = ENGINES[request["engine"]].load(Path(request["model"]), options)
        run(images)
        first = time.perf_counter()
    except Exception as error:  # the parent says it to the user
        answer(error=f"{type(error).__name__}: {error}")
        return
    answer(
        version=version,
        import_ms=(imported - start) * MS_PER_S,
        cold_start_ms=(first - imported) * MS_PER_S,
    )
    warm = False
    for _ in requests:
        if not warm:
            run_for(lambda: run(images), WARM_UP_S)
            warm = True
        times = run_for(lambda: run(images), options.turn_s)
        answer(times=times, peak_rss_mb=peak_rss_mb())


def main() -> None:
    """Serve on the two standard streams; what an engine prints goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
