"""A certificate for a reader: the table of stages, the verdict, the error of one that fails."""

from pathlib import Path
from typing import TYPE_CHECKING

from bitfold.errors import MismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from bitfold.certify import Certificate, Stage


def mismatch(certificate: "Certificate", model: Path) -> MismatchError:
    """The error for a certificate that is not ok, naming the first place that differs."""
    stage = next(stage for stage in certificate.stages if stage.exact and stage.mismatches)
    return MismatchError(
        f"{stage.name} and {stage.against} differ in {stage.mismatches} of {stage.compared} values",
        where=f"{model}, {'no place given' if stage.first is None else stage.first}",
        todo="that kernel or writer is wrong for this network: please report it with the model",
    )


def stage_table(stages: "Sequence[Stage]") -> "RenderableType":
    """One line a stage."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("against")
    for heading in ("compared", "mismatches", "max |diff|"):
        table.add_column(heading, justify="right")
    table.add_column("first difference")
    for stage in stages:
        table.add_row(
            stage.name + ("" if stage.exact else " (bounded)"),
            stage.against,
            str(stage.compared),
            str(stage.mismatches),
            f"{stage.max_abs_diff:g}",
            stage.detail if not stage.compared else "" if stage.first is None else str(stage.first),
        )
    return table


def render_certificate(certificate: "Certificate") -> list["RenderableType"]:
    """The stages as a table and a last line."""
    verdict = "equal everywhere" if certificate.ok else "NOT EQUAL"
    line = (
        f"{verdict}: {certificate.images} images, {certificate.accumulators_proved} accumulators "
        f"proved, {certificate.requant_pairs_checked} requantization pairs"
    )
    return [stage_table(certificate.stages), line]
