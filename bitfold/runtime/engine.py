"""A program with its arenas and threads, and what its steps are called."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import UsageError
from bitfold.kernels.program import Program, allocate_arena
from bitfold.runtime.outline import Outline, OutlinedTensor

Images = NDArray[np.uint8]
Logits = NDArray[np.float32]
Traced = NDArray[np.int64] | NDArray[np.float32]

_DTYPES = {"u8": np.uint8, "i32": np.int32, "f32": np.float32}


class Calls:
    """Calls in progress: none begins once closing has begun, and closing waits for those left."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._running = 0
        self._closed = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """A call for the duration of a ``with``; raises UsageError after ``close``."""
        with self._changed:
            if self._closed:
                raise UsageError("the session is closed", todo="Make another one.")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Refuse calls from now on, and return when none is left."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._running)


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


class Engine:
    """A packed plan and its arenas."""

    def __init__(self, outline: Outline, program: Program) -> None:
        self.outline = outline
        self.program = program
        self.arenas = _ArenaPool(program.arena_bytes)
        self.workers = program.start_workers()

    def run(self, images: Images, logits: Logits) -> None:
        """One thread, the caller's."""
        with self.arenas.lent() as arena:
            self.program.run(images, logits, arena)

    def run_shared(self, images: Images, logits: Logits) -> None:
        """One image at a time, each shared among all threads."""
        with self.arenas.lent() as arena:
            self.program.run(images, logits, arena, self.workers)

    def close(self) -> None:
        """Stop the threads; nothing may run on them any more."""
        if self.workers is not None:
            self.workers.close()

    def trace(self, image: Images) -> dict[str, Traced]:
        """Every materialized tensor of one image."""
        outline, traced = self.outline, dict[str, Traced]()
        with self.arenas.lent() as arena:
            _bytes_of(arena, outline.tensors[outline.image])[...] = image.reshape(-1)
            for i in range(-1, len(outline.steps)):
                if i >= 0:
                    self.program.run_step(i, arena)
                ready = {name: t for name, t in outline.tensors.items() if t.ready == i}
                traced |= {name: _read(arena, tensor) for name, tensor in ready.items()}
        return traced


def _bytes_of(arena: NDArray[np.uint8], tensor: OutlinedTensor) -> NDArray[np.uint8]:
    start = tensor.buffer.offset
    return arena[start : start + tensor.buffer.num_bytes]


def _read(arena: NDArray[np.uint8], tensor: OutlinedTensor) -> Traced:
    """A copy of a tensor: codes and integers as int64, results as float32."""
    stored = _bytes_of(arena, tensor).view(_DTYPES[tensor.buffer.kind])
    if tensor.buffer.kind == "f32":
        return stored.astype(np.float32).reshape(tensor.buffer.shape)
    values = stored.astype(np.int64).reshape(tensor.buffer.shape)
    lo, step = tensor.codes or (0, 1)
    return lo + step * values
