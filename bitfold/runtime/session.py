"""A network ready to answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, cast, overload

import numpy as np

from bitfold.errors import InputError, UsageError
from bitfold.kernels.tuning import tune_mode
from bitfold.runtime.engine import Calls, Engine, Images, Logits, Traced
from bitfold.runtime.model import Model, open_engine

if TYPE_CHECKING:
    from bitfold.ir import IntGraph
    from bitfold.ir.own_input import OwnInput
    from bitfold.runtime.plan import Plan
    from bitfold.runtime.profile import StepTime

Feeds = Mapping[str, Images]

INPUT_NAME, OUTPUT_NAME = "image", "logits"
BACKENDS = ("auto", "c", "numba", "oracle")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, shape and type of an input or output, as ONNX Runtime gives them."""

    name: str
    shape: tuple[str | int, ...]
    type: str


def _stacked(tensors: Sequence[Traced]) -> Traced:
    return cast("Traced", np.stack(tensors))


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
        model: "IntGraph | str | Path",
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
        tune_mode(tune)  # refuse an unknown word on every backend
        self.backend = backend
        self.threads = threads
        self._model = Model(model)
        self._engine: Engine | None = None
        if backend != "oracle":
            self._engine = open_engine(self._model, backend, force, threads=threads, tune=tune)
        self._own: OwnInput | None = self._model.own
        self._shapes = self._model.shapes
        self._pool = None
        if threads > 1:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(threads)
        self._calls = Calls()
        self._plan: Plan | None = None

    @property
    def graph(self) -> "IntGraph":
        """The integer graph that runs.

        A session that was given a path reads the file again when it is first asked: what runs is
        packed. Raises InputError where the file has gone or changed since.
        """
        return self._model.graph

    @property
    def plan(self) -> "Plan":
        """The lowered graph; raises UsageError on the oracle backend, which has none."""
        self._engine_or_error("a plan")
        if self._plan is None:
            from bitfold.runtime.plan import plan_graph

            self._plan = plan_graph(self.graph)
        return self._plan

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
            with self._calls.one():
                return self._infer(self._checked(images))
        names = [] if images is None else list(images)
        wanted = self.get_inputs()[0].name
        if any(name != OUTPUT_NAME for name in names) or set(feeds) != {wanted}:
            raise UsageError(
                f"outputs {names} of inputs {sorted(feeds)}",
                todo=f"The input is {wanted!r}, the output {OUTPUT_NAME!r}.",
            )
        with self._calls.one():
            return [self._infer(self._checked(feeds[wanted]))] * max(1, len(names))

    def get_inputs(self) -> list[TensorInfo]:
        """The one input: raw pixels, or what another tool's model takes."""
        if self._own is not None:
            kind = "tensor(float)" if self._own.dtype == "float32" else f"tensor({self._own.dtype})"
            return [TensorInfo(self._own.name, ("N", *self._own.shape), kind)]
        return [TensorInfo(INPUT_NAME, ("N", *self._shapes[0]), "tensor(uint8)")]

    def get_outputs(self) -> list[TensorInfo]:
        """The one output: logits."""
        return [TensorInfo(OUTPUT_NAME, ("N", *self._result_shape), "tensor(float)")]

    def trace(self, images: Images) -> dict[str, Traced]:
        """Every materialized tensor by node name, (N, …): int64 codes and integers, float32 logits.

        Tensors that exist only inside a fused kernel are absent; the oracle backend has them all.
        """
        with self._calls.one():
            return self._trace(self._checked(images))

    def _trace(self, checked: Images) -> dict[str, Traced]:
        if self._engine is None:
            from bitfold.ir import trace_oracle

            return dict(trace_oracle(self.graph, checked))
        # Without images, shapes and types come from one that is then left out.
        some = checked if len(checked) else np.zeros((1, *self._shapes[0]), np.uint8)
        traces = [self._engine.trace(image) for image in some]
        stacked = {name: _stacked([trace[name] for trace in traces]) for name in traces[0]}
        return {name: values[: len(checked)] for name, values in stacked.items()}

    def profile(self, images: Images | None = None, *, repeats: int = 10) -> "list[StepTime]":
        """Median time of each step for one image; without ``images``, on an image made up."""
        engine = self._engine_or_error("times per step")
        if repeats < 1:
            raise UsageError(f"repeats={repeats}", todo="Use 1 or more.")
        if images is None:
            shape = self._shapes[0]
            checked = np.arange(int(np.prod(shape))).astype(np.uint8).reshape(1, *shape)
        else:
            checked = self._checked(images)
        if not len(checked):
            raise InputError("no images to time", todo="Pass one or more, or none at all.")
        from bitfold.runtime.profile import profile_program

        with self._calls.one(), engine.arenas.lent() as arena:
            return profile_program(
                engine.program, engine.outline, images=checked, arena=arena, repeats=repeats
            )

    def close(self) -> None:
        """Stop the threads, once all calls in progress are done; the session answers no more."""
        self._calls.close()
        if self._pool is not None:
            self._pool.shutdown()
        if self._engine is not None:
            self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        shape = "x".join(map(str, self._shapes[0]))
        classes = "x".join(map(str, self._result_shape))
        return f"Session({shape} -> {classes}, backend={self.backend!r}, threads={self.threads})"

    @property
    def _result_shape(self) -> tuple[int, ...]:
        return self._shapes[1]

    def _engine_or_error(self, wish: str) -> Engine:
        if self._engine is None:
            raise UsageError(f"the oracle backend has no {wish}", todo="Use another backend.")
        return self._engine

    def _checked(self, images: object) -> Images:
        """``images`` as a C-contiguous array; raises InputError if they do not fit the input.

        The own input of another tool's model is turned into pixels.
        """
        if self._own is not None:
            return self._own.to_pixels(images)
        shape = self._shapes[0]
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
            from bitfold.ir import run_oracle

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
