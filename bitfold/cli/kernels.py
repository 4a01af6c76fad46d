"""``bitfold kernels``: the kernel table, which rows answer on this CPU and why."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from bitfold.cli.shell import Shell, Verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bitfold.kernels import Choice, Remembered


def kernels(shell: Shell) -> None:
    """Show all kernels, the choice here, and why.

    Where several kernels fit a layer, `bitfold inspect MODEL` says which one was the fastest.
    """
    from bitfold.kernels import explain_choice, host_features, remembered

    features = host_features()
    choices = explain_choice()
    fields = {
        "cpu_features": sorted(features),
        "kernels": [
            {
                "op": choice.row.op,
                "layout": choice.row.layout,
                "isa": choice.row.isa,
                "needs": sorted(choice.row.needs),
                "symbol": choice.row.symbol,
                "backend": choice.row.backend,
                "available": choice.row.needs <= features,
                "chosen": choice.chosen,
                "why": choice.reason,
            }
            for choice in choices
        ],
        "tuning": asdict(remembered()),
    }
    shell.emit(fields, lambda: _render(choices, features, remembered()))


def _render(
    choices: tuple["Choice", ...], features: frozenset[str], tuning: "Remembered"
) -> list["RenderableType"]:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("op", "layout", "isa", "backend", "needs", "here", "chosen", "why"):
        table.add_column(heading)
    for choice in choices:
        row = choice.row
        here = "yes" if row.needs <= features else "no"
        table.add_row(
            row.op, row.layout, row.isa, row.backend, " ".join(sorted(row.needs)), here,
            "yes" if choice.chosen else "", choice.reason,
        )  # fmt: skip
    cpu = "This CPU: " + (" ".join(sorted(features)) or "no feature that matters")
    place = tuning.file or "this process alone"
    return [table, cpu, f"Tuning {tuning.mode}: {tuning.layers} layers remembered in {place}"]


VERB = Verb("kernels", kernels, ("bitfold kernels", "bitfold kernels --json"))
