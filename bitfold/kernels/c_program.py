"""A program of C kernels. No arithmetic on activations in Python."""

import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import UsageError
from bitfold.kernels.buffer import ALIGNMENT, Buffer, aligned_bytes
from bitfold.kernels.c_binding import bind_steps
from bitfold.kernels.c_library import Foreign, Library
from bitfold.kernels.packed_step import PackedProgram
from bitfold.kernels.program import Workers
from bitfold.kernels.rows import Row

ByteArray = NDArray[np.uint8]


class CWorkers:
    """Threads of the C library, asleep until a program runs on them; stopped when let go of."""

    def __init__(self, library: Library, pool: Foreign) -> None:
        self.pool = pool
        self._stop = weakref.finalize(self, library.lib.bf_pool_stop, pool)

    def close(self) -> None:
        """Stop the threads; nothing may run on them any more."""
        self._stop()


@dataclass(frozen=True, slots=True)
class CProgram:
    """Steps bound to C kernels; immutable, and safe to run from several threads at once."""

    rows: tuple[Row, ...]
    packed: PackedProgram
    arena_bytes: int
    threads: int
    _library: Library
    _steps: Foreign  # bf_step[]: keeps nothing alive
    _kept: tuple[object, ...]  # what the pointers in _steps point to

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why each step runs on its row."""
        return self.packed.reasons

    @property
    def input(self) -> Buffer:
        """Where the image goes."""
        return self.packed.input

    @property
    def output(self) -> Buffer:
        """Where the results lie after the last step."""
        return self.packed.output

    def start_workers(self) -> CWorkers | None:
        """The threads that ``run`` may share steps with; None where there is one, the caller."""
        pool = self._library.lib.bf_pool_start(self.threads)
        return CWorkers(self._library, pool) if pool != self._library.ffi.NULL else None

    def run(
        self,
        images: ByteArray,
        logits: NDArray[np.float32],
        arena: ByteArray,
        workers: Workers | None = None,
    ) -> None:
        """Images (N, H, W, C) uint8 → logits (N, classes) float32, both C-contiguous.

        ``arena``: uint8, ``arena_bytes`` long, 64-byte aligned, used by this call alone.
        ``workers`` share every step. Raises UsageError where an array does not fit.
        """
        self._check_batch(images, logits)
        ffi, lib = self._library.ffi, self._library.lib
        batch = ffi.new(
            "bf_batch *",
            {
                "num_images": len(images),
                "image_bytes": self.input.num_bytes,
                "input_offset": self.input.offset,
                "logit_bytes": self.output.num_bytes,
                "output_offset": self.output.offset,
            },
        )
        lib.bf_run_batch(
            self._steps,
            len(self.rows),
            batch,
            ffi.cast("uint8_t *", images.ctypes.data),
            ffi.cast("uint8_t *", logits.ctypes.data),
            self._arena_pointer(arena),
            workers.pool if workers else ffi.NULL,
        )

    def run_step(self, index: int, arena: ByteArray) -> None:
        """Step ``index`` alone, on what lies in the arena."""
        self.run_share(index, arena, share=(0, 1))

    def run_share(self, index: int, arena: ByteArray, *, share: tuple[int, int]) -> None:
        """Part i of n of step ``index``, with ``share`` (i, n) and n up to ``threads``."""
        if not 0 <= index < len(self.rows):
            raise UsageError(f"no step {index}: the program has {len(self.rows)}")
        if not 0 <= share[0] < share[1] <= self.threads:
            raise UsageError(f"part {share[0]} of {share[1]}: the program has {self.threads}")
        ffi, step = self._library.ffi, self._steps + index
        step.kernel(step, self._arena_pointer(arena), ffi.new("bf_share *", share))

    def _check_batch(self, images: ByteArray, logits: NDArray[np.float32]) -> None:
        fits = (
            images.dtype == np.uint8
            and logits.dtype == np.float32
            and len(images) == len(logits)
            and images.nbytes == len(images) * self.input.num_bytes
            and logits.nbytes == len(logits) * self.output.num_bytes
            and images.flags.c_contiguous
            and logits.flags.c_contiguous
            and logits.flags.writeable
        )
        if not fits:
            raise UsageError(
                f"images {images.dtype}{images.shape} and logits {logits.dtype}{logits.shape} do "
                f"not fit uint8 (N, *{self.input.shape}) and float32 (N, *{self.output.shape}), "
                "C-contiguous"
            )

    def _arena_pointer(self, arena: ByteArray) -> Foreign:
        address = int(arena.ctypes.data)
        if arena.dtype != np.uint8 or arena.nbytes < self.arena_bytes or address % ALIGNMENT:
            raise UsageError(
                f"an arena of {self.arena_bytes} bytes at a multiple of {ALIGNMENT} is needed, "
                f"got {arena.nbytes} bytes at {address % ALIGNMENT} past one"
            )
        return self._library.ffi.cast("uint8_t *", address)


def bind_program(library: Library, packed: PackedProgram, *, threads: int) -> CProgram:
    """``packed`` bound to the rows of ``library`` that it names.

    A scratch area for each of ``threads`` follows the plan's tensors in the arena. Raises
    UsageError where the library has no such row.
    """
    by_symbol = {row.symbol: row for row in library.rows}
    unknown = [symbol for symbol in packed.symbols if symbol not in by_symbol]
    if unknown:
        raise UsageError(f"the kernel library has no row {unknown[0]}", where=str(library.path))
    rows = tuple(by_symbol[symbol] for symbol in packed.symbols)
    scratch = aligned_bytes(packed.arena_bytes)
    scratch_bytes = aligned_bytes(max((p.scratch_bytes for p in packed.steps), default=0))
    table, kept = bind_steps(
        library, rows, packed.steps, scratch=scratch, scratch_bytes=scratch_bytes
    )
    total = scratch + threads * scratch_bytes
    return CProgram(rows, packed, total, threads, library, table, kept)
