"""``bitfold check``: what becomes of every node of a model, and what to change."""

from typing import TYPE_CHECKING

from bitfold.cli.inputs import ModelArgument, is_torch_file, require_file
from bitfold.cli.shell import Shell, Verb
from bitfold.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bitfold.export.foreign import Survey


def check(shell: Shell, model: ModelArgument) -> None:
    """Say how every node of a model is lowered, or why it is not.

    Nothing is run; for what is not supported it says what to change. Exit code 3 where anything
    is not.
    """
    require_file(model, kind="model")
    if is_torch_file(model):
        raise UsageError(
            "a checkpoint has no ONNX nodes",
            where=f"file {model}",
            todo=f"bitfold inspect {model}",
        )
    from bitfold.export import survey_onnx

    survey = survey_onnx(model)
    fields = {
        "model": str(model),
        "supported": survey.error is None,
        "error": None if survey.error is None else str(survey.error),
        "nodes": [
            {
                "name": node.name,
                "op": node.op,
                "supported": node.status == "supported",
                "status": node.status,
                "how": node.how,
                "todo": node.todo,
            }
            for node in survey.nodes
        ],
    }
    shell.emit(fields, lambda: _render(survey))
    if survey.error is not None:
        raise _unsupported(survey, str(model))


def _unsupported(survey: "Survey", model: str) -> UnsupportedError:
    assert survey.error is not None
    count = sum(node.status == "unsupported" for node in survey.nodes)
    what = survey.error.what
    if count > 1:
        what = f"{count} nodes are not supported; the first: {what}"
    place = ", ".join(part for part in (f"file {model}", survey.error.where) if part)
    return UnsupportedError(what, where=place, todo=survey.error.todo)


def _render(survey: "Survey") -> list["RenderableType"]:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("node", "operator", "", "how, or why not", "do"):
        table.add_column(heading)
    for node in survey.nodes:
        table.add_row(node.name, node.op, node.status, node.how, node.todo)
    done = sum(node.status == "supported" for node in survey.nodes)
    return [table, f"{done} of {len(survey.nodes)} nodes supported"]


VERB = Verb(
    "check",
    check,
    ("bitfold check resnet20.onnx", "bitfold check model_int8.onnx --json"),
)
