"""C backend: chooses rows of the C kernel table for steps and packs them."""

from collections.abc import Sequence

from bitfold.errors import MissingDependencyError, UsageError
from bitfold.kernels.c_library import Library, find_library, load_library
from bitfold.kernels.c_program import CProgram, bind_program
from bitfold.kernels.packed_step import PackedProgram
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import Buffer, ConvStep, Step
from bitfold.kernels.tuning import TuneMode
from bitfold.kernels.tuning.chooser import Chooser

# From the least to the most demanding: forcing one allows those before it.
ISA_ORDER = (
    "scalar", "avx2", "avxvnni", "avx512bw", "avx512vpopcntdq", "avx512vnni", "avx512vbmi",
    "neon", "neondot",
)  # fmt: skip


def c_rows() -> tuple[Row, ...]:
    """Rows of the C kernel table, best first; empty without the library."""
    path = find_library()
    return load_library(path).rows if path is not None else ()


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
    packed = PackedProgram(
        tuple(pick.row.symbol for pick in picks),
        tuple(pick.reason for pick in picks),
        tuple(pick.packed for pick in picks),
        input,
        steps[-1].out,
        arena_bytes,
    )
    return bind_program(library, packed, threads=threads)


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
