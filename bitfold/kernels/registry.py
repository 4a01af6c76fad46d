"""The kernel table: every row, best first, and which one answers on this machine."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from bitfold.errors import BitfoldError, UsageError
from bitfold.kernels.c_steps import fits_every_step
from bitfold.kernels.numba_backend import MAX_BITSERIAL_PAIRS, NUMBA_ROWS
from bitfold.kernels.program import Program
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import Buffer, Step
from bitfold.kernels.tuning import TuneMode, tune_mode

BackendName = Literal["auto", "c", "numba"]
FORCE_VARIABLE = "BITFOLD_FORCE_KERNEL"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether a row may answer on this machine, and why or why not."""

    row: Row
    chosen: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """Whether rows are timed, the file that keeps the times, and of how many layers."""

    mode: TuneMode
    file: str | None
    layers: int


def _c_rows() -> tuple[tuple[Row, ...], str]:
    """Rows of the C library, and why there are none."""
    try:
        from bitfold.kernels.c_backend import c_rows

        rows = tuple(c_rows())
    except (ImportError, OSError, BitfoldError) as error:
        return (), str(error).splitlines()[0] if str(error) else type(error).__name__
    return rows, "" if rows else "the library lists no kernels"


@cache
def _warn_once(reason: str) -> None:
    _log.warning("no C kernels (%s): the numba kernels answer, which are slower", reason)


def kernel_rows() -> tuple[Row, ...]:
    """Every row, best first: C, then numba."""
    return _c_rows()[0] + NUMBA_ROWS


def host_features() -> frozenset[str]:
    """CPU features of this machine, named as in ``Row.needs``; empty without the C library."""
    try:
        from bitfold.kernels.features import host_features as ask

        return ask()
    except (ImportError, OSError, BitfoldError):  # as without the library: numba answers
        return frozenset()


def forced_kernel(force: str | None = None) -> str | None:
    """``force``, or else the environment's BITFOLD_FORCE_KERNEL; raises UsageError if unknown."""
    name = force or os.environ.get(FORCE_VARIABLE) or None
    rows = kernel_rows()
    if name is not None and not any(row.answers_to(name) for row in rows):
        known = sorted({x for row in rows for x in (row.isa, row.layout, row.backend)})
        raise UsageError(
            f"no kernel is called {name!r}",
            where="force" if force else FORCE_VARIABLE,
            todo=f"Use one of: {', '.join(known)}; LAYOUT:ISA; or a symbol.",
        )
    return name


def forced_choices() -> tuple[tuple[Literal["c", "numba"], str], ...]:
    """(backend, force) for every convolution row this machine can run, to run each on its own."""
    features = host_features()
    return tuple(
        ("numba" if row.backend == "numba" else "c", f"{row.layout}:{row.isa}")
        for row in kernel_rows()
        if row.op == "conv2d" and row.needs <= features
    )


def choose_backend(backend: BackendName, *, force: str | None) -> Literal["c", "numba"]:
    """The backend that answers: C where the host covers a row that fits, else numba."""
    if backend not in ("auto", "c", "numba"):
        raise UsageError(
            f"no backend is called {backend!r}", todo="Use one of: auto, c, numba, oracle."
        )
    rows, why = _c_rows()
    named = [row for row in rows + NUMBA_ROWS if not force or row.answers_to(force)]
    in_numba = any(row.backend == "numba" for row in named)
    if backend == "numba" and in_numba:
        return "numba"
    features = host_features()
    if backend != "numba" and any(row.backend == "c" and row.needs <= features for row in named):
        return "c"
    if backend == "c" or not in_numba:
        raise _no_answer(backend, named, force, why=why)
    if why:
        _warn_once(why)
    return "numba"


def _no_answer(
    backend: BackendName, named: Sequence[Row], force: str | None, *, why: str
) -> UsageError:
    """The error where no row of the backend fits what is forced, or there are no C rows at all."""
    missing = sorted({x for row in named for x in row.needs - host_features()})
    if why and backend == "c":
        what, todo = f"no C kernel answers: {why}", "Build the kernel library, or use numba."
    elif missing:
        what, todo = f"{force} needs {', '.join(missing)}", "Force another row, or none."
    else:
        what, todo = f"the {backend} backend has no kernel {force}", "Use backend auto."
    return UsageError(what, where=f"backend {backend}", todo=f"{todo} `bitfold kernels` lists all.")


def compile_program(
    steps: Sequence[Step],
    *,
    input: Buffer,
    arena_bytes: int,
    backend: BackendName = "auto",
    force: str | None = None,
    threads: int = 1,
    tune: str | None = None,
) -> Program:
    """Bind each step to a row that fits and whose needs the host covers.

    ``threads`` is how many may share a step. Where several rows of the C library
    fit, ``tune`` (or BITFOLD_TUNE) says how to choose: ``tuning.tune_mode``.

    The image goes to ``input``; results are read from the last step's ``out``. ``force`` (or
    BITFOLD_FORCE_KERNEL) names an ISA, a layout or a backend. Raises UsageError.
    """
    forced, mode = forced_kernel(force), tune_mode(tune)
    if choose_backend(backend, force=forced) == "c":
        from bitfold.kernels.c_backend import compile_c

        named = None if forced == "c" else forced  # the backend, hence no row of it
        program: Program = compile_c(
            tuple(steps), input=input, arena_bytes=arena_bytes, force=named, threads=threads,
            tune=mode,
        )  # fmt: skip
        return program
    from bitfold.kernels.numba_backend.program import compile_numba

    return compile_numba(steps, input=input, arena_bytes=arena_bytes, force=forced, threads=threads)


def remembered(*, tune: str | None = None) -> Remembered:
    """What is known of the speed of rows on this machine; raises UsageError."""
    mode = tune_mode(tune)
    if not _c_rows()[0]:
        return Remembered(mode, None, 0)
    from bitfold.kernels.c_backend import open_library
    from bitfold.kernels.tuning.chooser import memory_of

    memory = memory_of(open_library())
    return Remembered(mode, str(memory.path) if memory.path else None, len(memory))


def explain_choice(
    *, backend: BackendName = "auto", force: str | None = None, tune: str | None = None
) -> tuple[Choice, ...]:
    """For every row of the table: may it answer on this machine, and why or why not."""
    forced, mode = forced_kernel(force), tune_mode(tune)
    answering = choose_backend(backend, force=forced)
    features, rows = host_features(), kernel_rows()
    covered = [r for r in rows if r.runs_on(features) and r.backend == answering]
    timed = answering == "c" and mode != "off" and forced in (None, "c")
    choices = []
    for row in rows:
        reason = _unable(row, features, answering) or _outdone(row, covered, forced, timed=timed)
        praise = reason or _praise(row, forced, timed=timed and row.op == "conv2d")
        choices.append(Choice(row, not reason, praise))
    return tuple(choices)


def _unable(row: Row, features: frozenset[str], answering: str) -> str:
    """Why ``row`` cannot answer, or nothing."""
    missing = sorted(row.needs - features)
    if missing:
        return f"this CPU has no {', '.join(missing)}"
    return f"the {answering} backend answers" if row.backend != answering else ""


def _outdone(row: Row, covered: Sequence[Row], force: str | None, *, timed: bool) -> str:
    """Why ``row`` yields to another of ``covered``, or nothing."""
    rivals = [r for r in covered if r.op == row.op]
    named = [r for r in rivals if force and r.answers_to(force)]
    if named and row not in named:
        return f"{force} is forced"
    if row.backend == "numba" or not (ahead := rivals[: rivals.index(row)]):
        return ""
    if timed and row.op == "conv2d":
        if row.isa == "scalar" and any(r.isa != "scalar" for r in ahead):
            return "only where no vector row fits"
        ahead = [r for r in ahead if r.layout == row.layout]
    first = next((r for r in ahead if fits_every_step(r) and (not named or r in named)), None)
    return f"{first.symbol} comes first" if first else ""


def _praise(row: Row, force: str | None, *, timed: bool) -> str:
    """Why ``row`` is chosen."""
    if row.backend == "c":
        where = "first row whose needs this CPU covers" if fits_every_step(row) else "where it fits"
        return "where it fits and is the fastest: timed layer by layer" if timed else where
    if row.op != "conv2d":
        return "first row whose needs this CPU covers"
    if force in (row.layout, row.symbol):
        return f"chosen for every width: {force} is forced"
    if row.layout == "depthwise":
        return "chosen for depthwise convolutions"
    limit = "up to" if row.layout == "bitserial" else "above"
    return f"chosen {limit} {MAX_BITSERIAL_PAIRS} plane pairs"
