"""C backend: binds steps to rows of the C kernel table. No arithmetic on activations in Python."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import MissingDependencyError, UsageError
from bitfold.kernels.c_binding import bind_steps
from bitfold.kernels.c_library import Foreign, Library, find_library, load_library
from bitfold.kernels.packing import round_up
from bitfold.kernels.program import Workers
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ALIGNMENT, Buffer, ConvStep, Step
from bitfold.kernels.tuning import TuneMode
from bitfold.kernels.tuning.chooser import Chooser

# From the least to the most demanding: forcing one allows those before it.
ISA_ORDER = (
    "scalar", "avx2", "avxvnni", "avx512bw", "avx512vpopcntdq", "avx512vnni", "avx512vbmi",
    "neon", "neondot",
)  # fmt: skip

ByteArray = NDArray[np.uint8]


def c_rows() -> tuple[Row, ...]:
    """Rows of the C kernel table, best first; empty without the library."""
    path = find_library()
    return load_library(path).rows if path is not None else ()


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
    reasons: tuple[str, ...]
    arena_bytes: int
    input: Buffer
    output: Buffer
    threads: int
    _library: Library
    _steps: Foreign  # bf_step[]: keeps nothing alive
    _kept: tuple[object, ...]  # what the pointers in _steps point to

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


def compile_c(
    steps: Sequence[Step],
    *,
    input: Buffer,
    arena_bytes: int,
    force: str | None = None,
    threads: int = 1,
    tune: TuneMode = "off",
) -> CProgram:
    """Binds every step to a row that the host covers and that is exact on it.

    Which one where several are: as ``tune`` says (the first, or the fastest); with ``force``, the
    first. ``force`` is an ISA (``avx2``: its rows first, then those of lesser ISAs), a layout
    (``bitserial``), a layout and an ISA (``bitserial:avx2``) or a symbol; steps for which no such
    row exists take the best row otherwise allowed. A scratch area for
    each of ``threads`` follows the given arena.
    Raises UsageError on an unknown or uncovered ``force``.
    """
    library = open_library()
    rows = allowed_rows(library, force)
    weights = sum(step.weight.nbytes for step in steps if isinstance(step, ConvStep))
    chooser = Chooser(
        library, rows, force=force, mode=tune, arena_bytes=arena_bytes, weight_bytes=weights
    )
    picks = tuple(chooser.pick(step) for step in steps)
    chooser.save()
    packed = tuple(pick.packed for pick in picks)
    scratch = round_up(arena_bytes, ALIGNMENT)
    scratch_bytes = round_up(max((p.scratch_bytes for p in packed), default=0), ALIGNMENT)
    chosen = tuple(pick.row for pick in picks)
    table, kept = bind_steps(library, chosen, packed, scratch=scratch, scratch_bytes=scratch_bytes)
    total = scratch + threads * scratch_bytes
    reasons = tuple(pick.reason for pick in picks)
    return CProgram(chosen, reasons, total, input, steps[-1].out, threads, library, table, kept)


def open_library() -> Library:
    """The kernel library; raises MissingDependencyError where it is not built."""
    path = find_library()
    if path is None:
        raise MissingDependencyError(
            "the C kernel library is not built",
            todo="Build it (docs/adding_a_kernel.md) or use the numba backend.",
        )
    return load_library(path)


def allowed_rows(library: Library, force: str | None) -> tuple[Row, ...]:
    """Rows that the host covers, those that ``force`` asks for first."""
    covered = [row for row in library.rows if row.runs_on(library.features)]
    if force is None:
        return tuple(covered)
    wanted = [row for row in library.rows if row.answers_to(force)]
    if not wanted:
        names = sorted({name for row in library.rows for name in (row.isa, row.layout)})
        raise UsageError(
            f"no kernel is called {force!r}",
            todo=f"Choose one of {', '.join(names)}, layout:isa, or a symbol.",
        )
    usable = [row for row in wanted if row in covered]
    if not usable:
        missing = sorted(wanted[0].needs - library.features)
        raise UsageError(f"this CPU cannot run {force}: it lacks {', '.join(missing)}")
    limit = max(ISA_ORDER.index(row.isa) for row in usable)
    rest = [row for row in covered if ISA_ORDER.index(row.isa) <= limit and row not in usable]
    return (*usable, *rest)
