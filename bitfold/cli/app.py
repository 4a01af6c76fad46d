"""The app: every verb in one tuple, ``--version``, and the exit code of a whole call."""

import contextlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from bitfold.cli import (
    bench,
    check,
    demo,
    doctor,
    emit,
    explore,
    export,
    inspect,
    kernels,
    new,
    run,
    search,
    simulate,
    train,
    verify,
)
from bitfold.cli.shell import UNUSED_VERB, Verb, report_error, settle
from bitfold.errors import UsageError

VERBS: tuple[Verb, ...] = (
    demo.VERB,
    new.VERB,
    train.VERB,
    search.VERB,
    export.VERB,
    check.VERB,
    inspect.VERB,
    run.VERB,
    verify.VERB,
    bench.VERB,
    simulate.VERB,
    explore.VERB,
    emit.VERB,
    kernels.VERB,
    doctor.VERB,
)

# typer keeps its own copy of click; both spell the base class of every wrong command line alike.
CLICK_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]


def version() -> str:
    """The installed version, or the source tree's."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("bitfold")
    from bitfold import __version__

    return __version__


def _global_options(
    context: typer.Context,
    *,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Low-bit networks: trained, folded to integers, run fast on CPUs, estimated for FPGAs.

    Every verb takes --json, -q, -v, --seed and --help. Exit codes: 0 done, 1 a comparison failed,
    2 wrong usage or unreadable input, 3 the model is readable but not supported.
    """
    if show_version:
        print(f"bitfold {version()}")
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


def build_app() -> typer.Typer:
    """The typer application with all verbs."""
    app = typer.Typer(
        name="bitfold",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(_global_options)
    for verb in VERBS:
        app.command(verb.name, epilog=verb.epilog)(verb.command())
    return app


def _usage_error(error: Exception) -> UsageError:
    message = str(getattr(error, "message", error))
    formatted = getattr(error, "format_message", None)
    context = getattr(error, "ctx", None)
    command = "bitfold" if context is None else context.command_path
    return UsageError(formatted() if formatted else message, todo=f"see {command} --help")


def _named_verb(arguments: Sequence[str]) -> str:
    names = {verb.name for verb in VERBS}
    return next((argument for argument in arguments if argument in names), UNUSED_VERB)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises and prints no traceback."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # absent on captures
    try:
        code = get_command(build_app()).main(words, prog_name="bitfold", standalone_mode=False)
    except CLICK_USAGE_ERROR as error:
        return report_error(_usage_error(error), verb=_named_verb(words))
    except typer.Abort:
        return 130
    settle(sys.stdout)
    return int(code or 0)
