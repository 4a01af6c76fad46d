"""The parent's side of a race: starts the processes, gives the turns, adds up."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitfold.benchmark.engines import ENGINES, INT8, OURS, require_engines, write_peer
from bitfold.benchmark.layers import layer_times, weight_bytes
from bitfold.benchmark.peak import PeakMeter
from bitfold.benchmark.report import BenchOptions, BenchReport, EngineResult, cpu_name
from bitfold.errors import BitfoldError
from bitfold.ir import IntGraph
from bitfold.kernels import host_features
from bitfold.runtime import Session


@dataclass(frozen=True, slots=True)
class Contestant:
    """An engine with its file; ``precision`` is part of its name in the ratios."""

    engine: str
    precision: str
    model: Path


class Racer:
    """One contestant's process."""

    def __init__(self, contestant: Contestant, shape: Sequence[int], options: BenchOptions) -> None:
        self.contestant = contestant
        self.times: list[float] = []
        self.peak_rss_mb = 0.0
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        command = [sys.executable, "-m", "bitfold.benchmark.worker"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True
        )  # fmt: skip
        hello = self._ask(
            engine=contestant.engine, model=str(contestant.model), shape=list(shape),
            options=asdict(options),
        )  # fmt: skip
        self.version: str = hello["version"]
        self.import_ms: float = hello["import_ms"]
        self.cold_start_ms: float = hello["cold_start_ms"]

    def _ask(self, **fields: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(json.dumps(fields) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass  # no answer says it as well
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            self.stop()
            raise BitfoldError(
                f"{self.contestant.engine} failed: {answer['error']}",
                where=f"file {self.contestant.model.name}",
                todo="Leave it out of --against, or try another version of its package.",
            )
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return lines[-1] if lines else f"its process ended with {self._process.returncode}"

    def turn(self) -> None:
        """Let the engine run for one turn and keep its times."""
        answer = self._ask()
        self.times += answer["times"]
        self.peak_rss_mb = answer["peak_rss_mb"]

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()


@contextmanager
def _racer(contestant: Contestant, shape: Sequence[int], options: BenchOptions) -> Iterator[Racer]:
    racer = Racer(contestant, shape, options)
    try:
        yield racer
    finally:
        racer.stop()


def _result(racer: Racer, batch: int, starts: Sequence[tuple[float, float]]) -> EngineResult:
    """Percentiles over all turns, medians over all starts."""
    p50, p90, p99 = (float(np.percentile(racer.times, q)) for q in (50, 90, 99))
    import_ms, cold_start_ms = (statistics.median(column) for column in zip(*starts, strict=True))
    return EngineResult(
        racer.contestant.engine, racer.version, racer.contestant.precision, p50, p90, p99,
        min(racer.times), batch * 1e3 / p50, racer.peak_rss_mb, import_ms, cold_start_ms,
    )  # fmt: skip


def _race(
    contestants: Sequence[Contestant],
    shape: Sequence[int],
    options: BenchOptions,
    meter: PeakMeter,
    report: Callable[[int], None],
) -> tuple[EngineResult, ...]:
    starts: list[list[tuple[float, float]]] = [[] for _ in contestants]
    for _ in range(options.cold_starts - 1):
        for contestant, seen in zip(contestants, starts, strict=True):
            with _racer(contestant, shape, options) as racer:
                seen.append((racer.import_ms, racer.cold_start_ms))
    with ExitStack() as stack:
        racers = [stack.enter_context(_racer(c, shape, options)) for c in contestants]
        for racer, seen in zip(racers, starts, strict=True):
            seen.append((racer.import_ms, racer.cold_start_ms))
        for number in range(options.rounds):
            report(number)
            first = number % len(racers)  # nobody always follows the same neighbour
            for racer in racers[first:] + racers[:first]:
                racer.turn()
            meter.turn()
        return tuple(
            _result(racer, options.batch, seen) for racer, seen in zip(racers, starts, strict=True)
        )


def _contestants(
    model: Path, graph: IntGraph, against: tuple[str, ...], options: BenchOptions, folder: Path
) -> list[Contestant]:
    """We, and the engines named with the int8 form of ``graph``'s network."""
    contestants = [Contestant(OURS, _precision(graph), model)]
    if not against:
        return contestants
    from bitfold.export import int8_peer

    peer = int8_peer(graph, seed=options.seed)
    for name in against:
        path = write_peer(peer, ENGINES[name].suffix, folder, batch=options.batch)
        contestants.append(Contestant(name, INT8, path))
    return contestants


def _precision(graph: IntGraph) -> str:
    bits = dict(graph.meta).get("bits", "low-bit").split(",")
    return f"W{bits[0]}A{bits[-1]}" if len(bits) == 2 else bits[0]


def run_bench(
    model: Path,
    *,
    against: tuple[str, ...] = (),
    options: BenchOptions | None = None,
    report: Callable[[int], None] = lambda round_number: None,
    topology: Path | None = None,
) -> BenchReport:
    """Race the network of ``model`` (an ONNX file of ours) against the engines named.

    They run the same network at int8; ``topology`` is another model of ours whose network they run
    instead. Raises UsageError, MissingDependencyError, or BitfoldError where an engine fails.
    """
    options = options or BenchOptions()
    require_engines(against)
    with Session(model, threads=1) as session, tempfile.TemporaryDirectory() as folder:
        graph = session.graph
        theirs = graph if topology is None else Session(topology).graph
        meter = PeakMeter()
        meter.turn()
        meter.read_memory()
        contestants = _contestants(model, theirs, against, options, Path(folder))
        contestants[0] = replace(contestants[0], precision=_precision(graph))
        results = _race(contestants, graph.input.shape, options, meter, report)
        ratios = {f"{r.name}-{r.precision}": r.p50_ms / results[0].p50_ms for r in results[1:]}
        return BenchReport(
            cpu_name(), options.threads, options.batch, options.rounds, results, ratios,
            layer_times(session, options, meter.peak), meter.peak, weight_bytes(session),
            tuple(sorted(host_features())),
        )  # fmt: skip
