"""Races: our session against other engines, each in a process of its own, one turn each a round.

All processes stay alive; in every round each runs for about the same time while the others wait, so
that a noisy machine disturbs all of them alike. Times are wall-clock per inference; a ratio is
their median divided by ours, from one run.
"""

import multiprocessing
import platform
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import bitfold
from bitfold.errors import UsageError

SCHEMA = "bitfold/bench/1"
OURS = "bitfold"
PEERS = ("onnxruntime",)
WARM_UP_S = 0.3

Inference = Callable[[], object]


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """``rounds`` turns of ``turn_s`` seconds each; ``batch`` images per inference."""

    threads: int = 1
    batch: int = 1
    rounds: int = 15
    turn_s: float = 0.08
    seed: int = 0


@dataclass(frozen=True, slots=True)
class EngineResult:
    """Times of one engine; ``peak_rss_mb`` is its process's, imports included."""

    name: str
    version: str
    precision: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    images_per_s: float
    peak_rss_mb: float


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One step of our plan; ``share`` is its part of the steps' total time."""

    name: str
    op: str
    kernel: str
    ms: float
    macs: int
    gmac_per_s: float
    share: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """One race."""

    cpu: str
    threads: int
    batch: int
    rounds: int
    engines: tuple[EngineResult, ...]
    ratios: dict[str, float]
    layers: tuple[LayerTime, ...]

    def to_dict(self) -> dict[str, object]:
        """The JSON form (INTERFACE: bench)."""
        return {"schema": SCHEMA, **asdict(self)}


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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


def _random_images(shape: tuple[int, ...], options: BenchOptions) -> NDArray[np.uint8]:
    generator = np.random.default_rng(options.seed)
    return generator.integers(0, 256, (options.batch, *shape), dtype=np.uint8)


def _our_inference(model: Path, options: BenchOptions) -> tuple[Inference, str, str]:
    from bitfold.runtime import Session

    session = Session(model, threads=options.threads)
    images = _random_images(session.graph.input.shape, options)
    bits = dict(session.graph.meta).get("bits", "low-bit").split(",")
    precision = f"W{bits[0]}A{bits[-1]}" if len(bits) == 2 else bits[0]
    return lambda: session.run(images), bitfold.__version__, precision


def _onnxruntime_inference(model: Path, options: BenchOptions) -> tuple[Inference, str, str]:
    from bitfold.export import int8_peer, read_onnx, require_onnxruntime

    require_onnxruntime()
    import onnxruntime

    graph = read_onnx(model)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(
        int8_peer(graph), settings, providers=["CPUExecutionProvider"]
    )
    feed = {"image": _random_images(graph.input.shape, options)}
    return lambda: session.run(None, feed), onnxruntime.__version__, "int8"


_ENGINES: dict[str, Callable[[Path, BenchOptions], tuple[Inference, str, str]]] = {
    OURS: _our_inference,
    "onnxruntime": _onnxruntime_inference,
}


def _run_for(infer: Inference, seconds: float) -> list[float]:
    """Wall-clock milliseconds of each inference, for about ``seconds`` (at least one)."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        infer()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _worker(pipe: Connection, engine: str, model: Path, options: BenchOptions) -> None:
    """Body of an engine's process: build, warm up, then one turn per message."""
    try:
        infer, version, precision = _ENGINES[engine](model, options)
        _run_for(infer, WARM_UP_S)
    except Exception as error:  # handed to the parent, which raises it
        pipe.send(error)
        return
    pipe.send((version, precision))
    while pipe.recv():
        times = _run_for(infer, options.turn_s)
        pipe.send((times, peak_rss_mb()))


@dataclass(slots=True)
class _Racer:
    """The parent's end of one engine's process."""

    name: str
    pipe: Connection
    version: str
    precision: str
    times: list[float]
    peak_rss_mb: float = 0.0

    def turn(self) -> None:
        """Let the engine run for one turn and keep its times."""
        self.pipe.send(obj=True)
        times, self.peak_rss_mb = self.pipe.recv()
        self.times += times

    def result(self, batch: int) -> EngineResult:
        """Percentiles over all turns."""
        p50, p90, p99 = (float(np.percentile(self.times, q)) for q in (50, 90, 99))
        return EngineResult(
            self.name, self.version, self.precision, p50, p90, p99, min(self.times),
            batch * 1e3 / p50, self.peak_rss_mb,
        )  # fmt: skip


@contextmanager
def _racer(engine: str, model: Path, options: BenchOptions) -> Iterator[_Racer]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_worker, args=(theirs, engine, model, options), daemon=True)
    process.start()
    theirs.close()
    try:
        hello = ours.recv()
        if isinstance(hello, Exception):
            raise hello
        version, precision = hello
        yield _Racer(engine, ours, version, precision, times=[])
        ours.send(obj=False)
    finally:
        ours.close()
        process.join(timeout=5)
        process.kill()


def _layers(model: Path, options: BenchOptions) -> tuple[LayerTime, ...]:
    from bitfold.runtime import Session

    with Session(model, threads=1) as session:
        steps = session.profile(_random_images(session.graph.input.shape, options)[:1])
    total = sum(step.ms for step in steps)
    return tuple(
        LayerTime(
            step.name, step.op, step.kernel, step.ms, step.macs,
            step.macs / step.ms / 1e6 if step.ms else 0.0, step.ms / total if total else 0.0,
        )
        for step in steps
    )  # fmt: skip


def run_bench(
    model: Path,
    *,
    against: tuple[str, ...] = (),
    options: BenchOptions | None = None,
    report: Callable[[int], None] = lambda round_number: None,
) -> BenchReport:
    """Race the network of ``model`` (an ONNX file of ours) against the engines named."""
    options = options or BenchOptions()
    unknown = sorted(set(against) - set(PEERS))
    if unknown:
        raise UsageError(f"unknown engine {', '.join(unknown)}", todo=f"Known: {', '.join(PEERS)}.")
    with ExitStack() as stack:
        racers = [stack.enter_context(_racer(n, model, options)) for n in (OURS, *against)]
        for number in range(options.rounds):
            report(number)
            for racer in racers:
                racer.turn()
        results = tuple(racer.result(options.batch) for racer in racers)
    ratios = {f"{r.name}-{r.precision}": r.p50_ms / results[0].p50_ms for r in results[1:]}
    return BenchReport(
        cpu_name(), options.threads, options.batch, options.rounds, results, ratios,
        _layers(model, options),
    )  # fmt: skip
