"""Where a session's network comes from: a graph, a file, or what is kept of that file."""

import os
from hashlib import file_digest
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bitfold.errors import InputError
from bitfold.kernels.tuning import tune_mode
from bitfold.runtime.engine import Engine

if TYPE_CHECKING:
    from bitfold.ir import IntGraph
    from bitfold.ir.own_input import OwnInput

Shapes = tuple[tuple[int, ...], tuple[int, ...]]
FORCE_VARIABLE = "BITFOLD_FORCE_KERNEL"


def file_sha256(path: Path) -> str | None:
    """Digest of a regular file; None for anything else."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            return file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


class Model:
    """An integer graph at hand, or one that can be read from its file again.

    The own input of another tool's model, and the shapes of an image and of its result, stay known
    where the graph is let go.
    """

    def __init__(self, model: "IntGraph | str | Path") -> None:
        self.path = Path(model) if isinstance(model, str | Path) else None
        self.sha256 = file_sha256(self.path) if self.path else None
        self._graph = None if isinstance(model, str | Path) else model
        self._own: OwnInput | None = None
        self._shapes: Shapes | None = None
        if self._graph is not None:
            self._learn(self._graph)

    @property
    def graph(self) -> "IntGraph":
        """The graph; raises InputError where its file has gone or is another one by now."""
        if self._graph is None:
            self._graph = self._read()
            self._learn(self._graph)
        return self._graph

    @property
    def own(self) -> "OwnInput | None":
        """What another tool's model takes instead of pixels."""
        self._know()
        return self._own

    @property
    def shapes(self) -> Shapes:
        """Shape of an image and of its result."""
        self._know()
        assert self._shapes is not None
        return self._shapes

    def take_pixels(self, shapes: Shapes) -> None:
        """Know, without the graph, that it takes pixels and what its ``shapes`` are."""
        self._own, self._shapes = None, shapes

    def let_go(self) -> None:
        """Forget a graph that can be read again."""
        if self.path is not None and self.sha256 is not None:
            self._graph = None

    def is_unchanged(self) -> bool:
        """Whether the file is still the one that was there first."""
        return self.path is not None and file_sha256(self.path) == self.sha256

    def _read(self) -> "IntGraph":
        assert self.path is not None
        graph: IntGraph = import_module("bitfold.export").read_onnx(self.path)
        if self.sha256 is not None and not self.is_unchanged():
            raise InputError(
                "the file has changed since it was opened",
                where=f"file {self.path}",
                todo="Open a session on the file as it is now.",
            )
        return graph

    def _know(self) -> None:
        if self._shapes is None:
            self._learn(self.graph)

    def _learn(self, graph: "IntGraph") -> None:
        from bitfold.ir.own_input import own_input

        self._own = own_input(graph)
        self._shapes = graph.input.shape, graph.types[graph.output.name].shape


def open_engine(
    model: Model,
    backend: Literal["auto", "c", "numba"],
    force: str | None,
    *,
    threads: int,
    tune: str | None,
) -> Engine:
    """The engine that runs ``model``: from its kept plan, else planned, packed and kept."""
    if not _may_be_kept(model, backend, force, tune):
        return _packed(model, backend, force, threads=threads, tune=tune)
    from bitfold.runtime.plan_cache import keep, plan_key, recall

    key = plan_key(str(model.sha256))
    stored = recall(key, threads=threads) if key else None
    if stored is not None:
        model.take_pixels((stored.outline.input.shape, stored.program.output.shape))
        return Engine(*stored)
    engine = _packed(model, backend, force, threads=threads, tune=tune)
    if key and model.own is None and model.is_unchanged():
        keep(key, engine.outline, engine.program)
    return engine


def _packed(
    model: Model,
    backend: Literal["auto", "c", "numba"],
    force: str | None,
    *,
    threads: int,
    tune: str | None,
) -> Engine:
    from bitfold.kernels import compile_program
    from bitfold.runtime.plan import outline_of, plan_graph

    plan = plan_graph(model.graph)
    program = compile_program(
        plan.steps, input=plan.input, arena_bytes=plan.arena_bytes, backend=backend, force=force,
        threads=threads, tune=tune,
    )  # fmt: skip
    outline = outline_of(plan, image=model.graph.input.name)
    model.let_go()
    return Engine(outline, program)


def _may_be_kept(model: Model, backend: str, force: str | None, tune: str | None) -> bool:
    """Whether the plan is that of a file, with rows that are chosen and not forced."""
    forced = force or os.environ.get(FORCE_VARIABLE)
    return not (model.sha256 is None or backend == "numba" or forced or tune_mode(tune) == "off")
