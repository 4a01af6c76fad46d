"""A network ready to answer."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Literal, Self, cast, overload

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import InputError, UsageError
from bitfold.ir import IntGraph, run_oracle, trace_oracle
from bitfold.ir.own_input import own_input
from bitfold.kernels import Program, compile_program
from bitfold.kernels.program import allocate_arena
from bitfold.kernels.tuning import tune_mode
from bitfold.runtime.plan import Plan, PlannedTensor, plan_graph
from bitfold.runtime.profile import StepTime, profile_program

Images = NDArray[np.uint8]
Logits = NDArray[np.float32]
Traced = NDArray[np.int64] | NDArray[np.float32]
Feeds = Mapping[str, Images]

INPUT_NAME, OUTPUT_NAME = "image", "logits"
BACKENDS = ("auto", "c", "numba", "oracle")
_DTYPES = {"u8": np.uint8, "i32": np.int32, "f32": np.float32}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, shape and type of an input or output, as ONNX Runtime gives them."""

    name: str
    shape: tuple[str | int, ...]
    type: str


class _ArenaPool:
    """Arenas of one size; each is used by one thread at a time."""

    def __init__(self, arena_bytes: int) -> None:
        self._arena_bytes = arena_bytes
        self._free: list[NDArray[np.uint8]] = []
        self._lock = Lock()

    @contextmanager
    def lent(self) -> Iterator[NDArray[np.uint8]]:
        """An arena for the duration of a ``with``."""
        with self._lock:
            arena = self._free.pop() if self._free else None
        if arena is None:
            arena = allocate_arena(self._arena_bytes)
        try:
            yield arena
        finally:
            with self._lock:
                self._free.append(arena)


class _Engine:
    """A plan bound to kernels, with its arenas."""

    def __init__(
        self,
        graph: IntGraph,
        backend: Literal["auto", "c", "numba"],
        force: str | None,
        *,
        threads: int,
        tune: str | None,
    ) -> None:
        self.plan: Plan = plan_graph(graph)
        self.program: Program = compile_program(
            self.plan.steps,
            input=self.plan.input,
            arena_bytes=self.plan.arena_bytes,
            backend=backend,
            force=force,
            threads=threads,
            tune=tune,
        )
        self.arenas = _ArenaPool(self.program.arena_bytes)
        self.workers = self.program.start_workers()

    def run(self, images: Images, logits: Logits) -> None:
        """One thread, the caller's."""
        with self.arenas.lent() as arena:
            self.program.run(images, logits, arena)

    def run_shared(self, images: Images, logits: Logits) -> None:
        """One image at a time, each shared among all threads."""
        with self.arenas.lent() as arena:
            self.program.run(images, logits, arena, self.workers)

    def close(self) -> None:
        if self.workers is not None:
            self.workers.close()

    def trace(self, image: Images) -> dict[str, Traced]:
        """Every materialized tensor of one image."""
        plan, traced = self.plan, dict[str, Traced]()
        with self.arenas.lent() as arena:
            _bytes_of(arena, plan.tensors[next(iter(plan.tensors))])[...] = image.reshape(-1)
            for i in range(-1, len(plan.steps)):
                if i >= 0:
                    self.program.run_step(i, arena)
                ready = {name: t for name, t in plan.tensors.items() if t.ready == i}
                traced |= {name: _read(arena, tensor) for name, tensor in ready.items()}
        return traced


def _bytes_of(arena: NDArray[np.uint8], tensor: PlannedTensor) -> NDArray[np.uint8]:
    start = tensor.buffer.offset
    return arena[start : start + tensor.buffer.num_bytes]


def _read(arena: NDArray[np.uint8], tensor: PlannedTensor) -> Traced:
    """A copy of a tensor: codes and integers as int64, results as float32."""
    stored = _bytes_of(arena, tensor).view(_DTYPES[tensor.buffer.kind])
    if tensor.buffer.kind == "f32":
        return stored.astype(np.float32).reshape(tensor.buffer.shape)
    values = stored.astype(np.int64).reshape(tensor.buffer.shape)
    grid = tensor.grid
    return values if grid is None else grid.lo + grid.step * values


def _stacked(tensors: Sequence[Traced]) -> Traced:
    return cast("Traced", np.stack(tensors))


def _read_graph(model: IntGraph | str | Path) -> IntGraph:
    if isinstance(model, IntGraph):
        return model
    from importlib import import_module

    graph = import_module("bitfold.export").read_onnx(Path(model))
    assert isinstance(graph, IntGraph)
    return graph


class Session:
    """Runs an integer graph: ``Session(graph)`` or ``Session("model.onnx")``.

    ``backend`` is auto (C where it can, else numba), c, numba or oracle; ``threads`` share a batch,
    and C kernels an image; ``force`` names a kernel (an ISA or a layout, see ``bitfold kernels``).
    ``tune`` says how C kernels are chosen: auto (timed once for each kind of layer, then
    remembered), cached (as remembered, nothing is timed), off (the first that fits).
    The answer depends on none of them, nor on the batch. Safe to use from several threads at once.
    """

    def __init__(
        self,
        model: IntGraph | str | Path,
        backend: Literal["auto", "c", "numba", "oracle"] = "auto",
        *,
        threads: int = 1,
        force: str | None = None,
        tune: Literal["auto", "cached", "off"] | None = None,
    ) -> None:
        if backend not in BACKENDS:
            raise UsageError(
                f"no backend is called {backend!r}", todo=f"Use one of: {', '.join(BACKENDS)}."
            )
        if threads < 1:
            raise UsageError(f"threads={threads}", todo="Use 1 or more.")
        self.graph = _read_graph(model)
        self._own = own_input(self.graph)
        self.backend = backend
        self.threads = threads
        tune_mode(tune)  # refuse an unknown word on every backend
        self._engine = (
            None
            if backend == "oracle"
            else _Engine(self.graph, backend, force, threads=threads, tune=tune)
        )
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._closed = False

    @property
    def plan(self) -> Plan:
        """The lowered graph; raises UsageError on the oracle backend, which has none."""
        return self._engine_or_error("a plan").plan

    @property
    def kernels(self) -> tuple[str, ...]:
        """Symbol of the kernel that runs each step of the plan."""
        rows = self._engine_or_error("kernels").program.rows
        return tuple(row.symbol if row else "" for row in rows)

    @property
    def kernel_reasons(self) -> tuple[str, ...]:
        """Why each step of the plan runs on its kernel."""
        return tuple(self._engine_or_error("kernels").program.reasons)

    @overload
    def run(self, images: Images, feeds: None = None) -> Logits: ...
    @overload
    def run(self, images: Sequence[str] | None, feeds: Feeds) -> list[Logits]: ...
    def run(
        self, images: Images | Sequence[str] | None, feeds: Feeds | None = None
    ) -> Logits | list[Logits]:
        """Logits (N, classes) float32 of uint8 images (N, H, W, C), N from 0 on.

        A model read from another tool takes its own input (see ``get_inputs``).

        Also in ONNX Runtime's manner: ``run(None, {"image": images})`` gives ``[logits]``.
        Raises InputError on images of another type or shape, UsageError on unknown names.
        """
        if feeds is None:
            return self._infer(self._checked(images))
        names = [] if images is None else list(images)
        wanted = self.get_inputs()[0].name
        if any(name != OUTPUT_NAME for name in names) or set(feeds) != {wanted}:
            raise UsageError(
                f"outputs {names} of inputs {sorted(feeds)}",
                todo=f"The input is {wanted!r}, the output {OUTPUT_NAME!r}.",
            )
        return [self._infer(self._checked(feeds[wanted]))] * max(1, len(names))

    def get_inputs(self) -> list[TensorInfo]:
        """The one input: raw pixels, or what another tool's model takes."""
        if self._own is not None:
            kind = "tensor(float)" if self._own.dtype == "float32" else f"tensor({self._own.dtype})"
            return [TensorInfo(self._own.name, ("N", *self._own.shape), kind)]
        return [TensorInfo(INPUT_NAME, ("N", *self.graph.input.shape), "tensor(uint8)")]

    def get_outputs(self) -> list[TensorInfo]:
        """The one output: logits."""
        return [TensorInfo(OUTPUT_NAME, ("N", *self._result_shape), "tensor(float)")]

    def trace(self, images: Images) -> dict[str, Traced]:
        """Every materialized tensor by node name, (N, …): int64 codes and integers, float32 logits.

        Tensors that exist only inside a fused kernel are absent; the oracle backend has them all.
        """
        checked = self._checked(images)
        if self._engine is None:
            return dict(trace_oracle(self.graph, checked))
        # Without images, shapes and types come from one that is then left out.
        some = checked if len(checked) else np.zeros((1, *self.graph.input.shape), np.uint8)
        traces = [self._engine.trace(image) for image in some]
        stacked = {name: _stacked([trace[name] for trace in traces]) for name in traces[0]}
        return {name: values[: len(checked)] for name, values in stacked.items()}

    def profile(self, images: Images | None = None, *, repeats: int = 10) -> list[StepTime]:
        """Median time of each step for one image; without ``images``, on an image made up."""
        engine = self._engine_or_error("times per step")
        if repeats < 1:
            raise UsageError(f"repeats={repeats}", todo="Use 1 or more.")
        if images is None:
            shape = self.graph.input.shape
            checked = np.arange(int(np.prod(shape))).astype(np.uint8).reshape(1, *shape)
        else:
            checked = self._checked(images)
        if not len(checked):
            raise InputError("no images to time", todo="Pass one or more, or none at all.")
        with engine.arenas.lent() as arena:
            return profile_program(
                engine.program, engine.plan, images=checked, arena=arena, repeats=repeats
            )

    def close(self) -> None:
        """Stop the threads; the session answers no more."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown()
        if self._engine is not None:
            self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.graph.input.shape))
        classes = "x".join(map(str, self._result_shape))
        return f"Session({shape} -> {classes}, backend={self.backend!r}, threads={self.threads})"

    @property
    def _result_shape(self) -> tuple[int, ...]:
        return self.graph.types[self.graph.output.name].shape

    def _engine_or_error(self, wish: str) -> _Engine:
        if self._engine is None:
            raise UsageError(f"the oracle backend has no {wish}", todo="Use another backend.")
        return self._engine

    def _checked(self, images: object) -> Images:
        """``images`` as a C-contiguous array; raises InputError if they do not fit the input.

        The own input of another tool's model is turned into pixels.
        """
        if self._closed:
            raise UsageError("the session is closed", todo="Make another one.")
        if self._own is not None:
            return self._own.to_pixels(images)
        shape = self.graph.input.shape
        wanted = f"uint8 (N, {', '.join(map(str, shape))})"
        if not isinstance(images, np.ndarray):
            raise InputError(
                f"images are {type(images).__name__}, wanted an array {wanted}",
                where=f"input {INPUT_NAME}",
            )
        if images.dtype != np.uint8 or images.shape[1:] != shape or images.ndim != 4:
            single = images.shape == shape and images.dtype == np.uint8
            raise InputError(
                f"images are {images.dtype} {images.shape}, wanted {wanted}",
                where=f"input {INPUT_NAME}",
                todo="Pass images[None] for a batch of one."
                if single
                else "Pass raw pixels 0 … 255; the network scales them itself.",
            )
        return np.ascontiguousarray(images)

    def _infer(self, images: Images) -> Logits:
        if self._engine is None:
            return run_oracle(self.graph, images)
        logits = np.empty((len(images), *self._result_shape), np.float32)
        if self._pool is None:
            self._engine.run(images, logits)
            return logits
        # As many images to each thread as go round; those left over are shared, image by image.
        whole = len(images) // self.threads
        ends = [whole * i for i in range(self.threads + 1)]
        waiting = [
            self._pool.submit(self._engine.run, images[start:end], logits[start:end])
            for start, end in pairwise(ends)
            if end > start
        ]
        for done in waiting:
            done.result()
        self._engine.run_shared(images[ends[-1] :], logits[ends[-1] :])
        return logits
