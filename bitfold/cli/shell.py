"""What every verb shares: common options, one JSON object or a table, the error block, progress.

A verb is a function ``(shell, …options…) -> None`` and a ``Verb`` that names it. It parses, calls
one function of the package and hands the result to ``shell.emit``. Everything else is here.
"""

import contextlib
import errno
import inspect
import json
import logging
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, TypeVar

import typer

from bitfold.errors import (
    BitfoldError,
    InputError,
    MissingDependencyError,
    OutputError,
    UsageError,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

T = TypeVar("T", bound=str)

DEBUG_VARIABLE = "BITFOLD_DEBUG"
INTERRUPTED, PIPE_CLOSED = 130, 141
UNUSED_VERB = ""
WIDTH_WITHOUT_TERMINAL = 200
LONGEST_SHOWN = 1000
EXTRAS = {
    "torch": "export",
    "PIL": "export",
    "onnxruntime": "bench",
    "matplotlib": "report",
    "joblib": "search",
    "optuna": "search",
    "distributed": "cluster",
    "dask": "cluster",
}
REQUIRED = ("numpy", "cffi", "numba", "onnx", "onnx_ir", "rich")

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
QuietFlag = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]
VerboseFlag = Annotated[bool, typer.Option("-v", "--verbose", help="Log details to stderr.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]


def _json_ready(value: object) -> object:
    """``value`` as strict JSON data: NaN and infinities become null, numpy numbers plain ones."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case Mapping():
            return {str(key): _json_ready(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_json_ready(entry) for entry in value]
        case os.PathLike():
            return os.fspath(value)
    to_plain = getattr(value, "tolist", None)
    if to_plain is None:
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return _json_ready(to_plain())


def json_text(fields: Mapping[str, object], *, indent: int | None = None) -> str:
    """One JSON object as text, keys in the given order."""
    return json.dumps(_json_ready(fields), indent=indent, ensure_ascii=False, allow_nan=False)


def write_json(path: os.PathLike[str], fields: Mapping[str, object]) -> None:
    """Write one indented JSON object; nothing half-written is left behind."""
    write_output(path, (json_text(fields, indent=2) + "\n").encode())


def write_output(path: os.PathLike[str], data: bytes) -> None:
    """Write ``data`` beside ``path`` and rename; raises OutputError."""
    from bitfold.files import write_atomically

    write_atomically(Path(path), data)


@dataclass(frozen=True, slots=True)
class Shell:
    """How this call of a verb talks: the common options and the stream results go to."""

    verb: str
    stdout: TextIO
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    seed: int = 0

    @property
    def schema(self) -> str:
        """``bitfold/VERB/1``."""
        return f"bitfold/{self.verb}/1"

    @property
    def log(self) -> logging.Logger:
        """Where this verb logs; shown on stderr with ``-v``."""
        return logging.getLogger(f"bitfold.cli.{self.verb}")

    @property
    def interactive(self) -> bool:
        """Whether progress may be shown: both streams are terminals and nobody asked for quiet."""
        return self.stdout.isatty() and sys.stderr.isatty() and not self.quiet

    def emit(
        self, fields: Mapping[str, object], render: Callable[[], Sequence["RenderableType"]]
    ) -> None:
        """Print ``fields`` as one JSON object, or what ``render`` makes for a reader."""
        if self.json:
            text = json_text({"schema": self.schema} | dict(fields))
            self.stdout.write(text + "\n")
        elif not self.quiet:
            console = console_for(self.stdout)
            for part in render():
                console.print(part, soft_wrap=isinstance(part, str))
        self.stdout.flush()

    def note(self, text: str) -> None:
        """One line on stderr for a reader; nothing with ``-q`` or ``--json``."""
        if not self.quiet and not self.json:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def progress(self, *fields: str) -> Iterator["Progress"]:
        """A rich progress bar on stderr with task ``fields``; invisible off a terminal."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn()]
        columns += [TextColumn("{task.fields[" + field + "]}") for field in fields]
        with Progress(
            *columns,
            TimeRemainingColumn(),
            console=console_for(sys.stderr),
            disable=not self.interactive,
            transient=True,
        ) as bar:
            yield bar


def console_for(stream: TextIO) -> "Console":
    """A rich console: colour only on a terminal, wide and plain elsewhere."""
    from rich.console import Console

    terminal = stream.isatty()
    return Console(
        file=stream,
        force_terminal=terminal,
        no_color=None if terminal else True,
        width=None if terminal else WIDTH_WITHOUT_TERMINAL,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _indented(label: str, text: str) -> list[str]:
    lines = text.splitlines() or [""]
    return [f"  {label:<6} {lines[0]}", *(f"         {line}" for line in lines[1:])]


def _shown(text: str) -> str:
    """``text`` without control characters and of bounded length: files name their own parts."""
    clear = (c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text[:LONGEST_SHOWN])
    rest = len(text) - LONGEST_SHOWN
    return "".join(clear) + (f"… and {rest} characters more" if rest > 0 else "")


def error_block(error: BitfoldError, *, verb: str) -> str:
    """The short block for a person: what is wrong, where, what to do next."""
    what, where, todo = map(_shown, (error.what, error.where, error.todo))
    lines = [f"bitfold {verb}".rstrip() + f": error: {what}"]
    lines += _indented("where:", where) if where else []
    lines += _indented("do:", todo) if todo else []
    return "\n".join(lines)


def _missing_module(error: ModuleNotFoundError) -> BitfoldError | None:
    name = (error.name or "").partition(".")[0]
    if name not in (*EXTRAS, *REQUIRED):
        return None
    package = f"bitfold[{EXTRAS[name]}]" if name in EXTRAS else "bitfold"
    return MissingDependencyError(
        f"the package '{name}' is not installed, and this verb needs it",
        todo=f"pip install '{package}'",
    )


def _system_error(error: OSError) -> BitfoldError:
    what = error.strerror or str(error)
    where = "" if error.filename is None else f"file {error.filename}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return OutputError(
            f"writing failed: {what}", where=where, todo="free some space or choose another place"
        )
    return InputError(f"the system refused: {what}", where=where, todo="check the path and rights")


def _bug(error: Exception) -> BitfoldError:
    frames = traceback.extract_tb(error.__traceback__)
    last = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return BitfoldError(
        f"a bug in bitfold: {type(error).__name__}: {error}",
        where=last,
        todo=f"set {DEBUG_VARIABLE}=1 for the traceback and report it with this command line",
    )


def as_bitfold_error(error: Exception) -> BitfoldError:
    """Any exception as one with a sentence and an exit code."""
    match error:
        case BitfoldError():
            return error
        case ModuleNotFoundError() if (missing := _missing_module(error)) is not None:
            return missing
        case OSError():
            return _system_error(error)
        case MemoryError():
            return InputError("not enough memory", todo="use fewer images, or a smaller batch")
    return _bug(error)


def report_error(error: Exception, *, verb: str) -> int:
    """Print the error block to stderr and give the exit code."""
    shown = as_bitfold_error(error)
    if os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exception(error)
    with contextlib.suppress(OSError):
        print(error_block(shown, verb=verb), file=sys.stderr, flush=True)
    return shown.exit_code


def settle(stream: TextIO) -> None:
    """Flush ``stream``; where that fails, drop what is left: the interpreter's exit stays quiet."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, stream.fileno())
            os.close(devnull)


def set_up_logging(*, quiet: bool, verbose: bool) -> None:
    """Send the package's log to stderr: warnings; ``verbose``: everything; ``quiet``: errors."""
    logger = logging.getLogger("bitfold")
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(level)


def guarded(action: Callable[[], None], *, verb: str) -> int:
    """Run ``action``; every way it can end becomes an exit code and at most one block on stderr."""
    try:
        action()
    except BrokenPipeError:
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print(f"bitfold {verb}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except typer.Exit as ended:
        return int(ended.exit_code)
    except Exception as error:
        return report_error(error, verb=verb)
    return 0


COMMON: tuple[tuple[str, object, object], ...] = (
    ("json", JsonFlag, False),
    ("quiet", QuietFlag, False),
    ("verbose", VerboseFlag, False),
    ("seed", SeedOption, 0),
)


def _signature(function: Callable[..., None]) -> inspect.Signature:
    """The verb's own options behind its shell, then the common ones, keyword-only."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    common = [inspect.Parameter(n, keyword, annotation=a, default=d) for n, a, d in COMMON]
    return inspect.Signature([p.replace(kind=keyword) for p in own] + common)


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: its name, its function ``(shell, …options…) -> None`` and example command lines."""

    name: str
    function: Callable[..., None]
    examples: tuple[str, ...]

    @property
    def epilog(self) -> str:
        """The examples as they stand at the end of ``--help``."""
        return "\b\nExamples:\n" + "\n".join(f"  {example}" for example in self.examples)

    def command(self) -> Callable[..., None]:
        """The function typer calls: the verb's options and the common ones, the shell made here."""

        def run_verb(
            *, json: bool, quiet: bool, verbose: bool, seed: int, **options: object
        ) -> None:
            stdout = sys.stdout
            shell = Shell(self.name, stdout, json=json, quiet=quiet, verbose=verbose, seed=seed)
            set_up_logging(quiet=quiet, verbose=verbose)
            with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
                if not verbose and not sys.warnoptions:
                    warnings.simplefilter("ignore")
                code = guarded(lambda: self.function(shell, **options), verb=self.name)
            settle(stdout)
            raise typer.Exit(code)

        signature = _signature(self.function)
        annotations = {p.name: p.annotation for p in signature.parameters.values()}
        run_verb.__doc__ = self.function.__doc__
        run_verb.__signature__ = signature  # type: ignore[attr-defined]  # read by typer
        run_verb.__annotations__ = annotations
        return run_verb


def parse_pair(text: str, *, option: str, separator: str = ",") -> tuple[int, int]:
    """``"4,4"`` as (4, 4); raises UsageError."""
    parts = text.split(separator)
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(
            f"{option} needs two numbers as in 4{separator}4, got {text!r}",
            where=f"option {option}",
        )
    return int(parts[0]), int(parts[1])


def one_of(text: str, choices: Sequence[T], *, option: str) -> T:
    """The entry of ``choices`` equal to ``text``; raises UsageError naming them."""
    for choice in choices:
        if choice == text:
            return choice
    raise UsageError(
        f"{option} {text!r} does not exist",
        where=f"option {option}",
        todo="choose from: " + ", ".join(choices),
    )
