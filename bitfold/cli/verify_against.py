"""``bitfold verify A --against B``: where two models of one network part."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitfold.cli.certificate_table import stage_table
from bitfold.cli.inputs import open_model, open_values, require_file
from bitfold.cli.shell import Shell, write_json
from bitfold.cli.verify_request import open_data
from bitfold.errors import BitfoldError, MismatchError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from bitfold.certify import Bisection
    from bitfold.ir import IntGraph

SHOWN = 12


@dataclass(frozen=True, slots=True)
class _Model:
    """A file, and its graph, or why it cannot be read."""

    path: Path
    graph: "IntGraph | None"
    refusal: str


def against(
    shell: Shell, model: Path, other: Path, *, data: str | None, limit: int, output: Path | None
) -> None:
    """Compare ``model`` with ``other``; MismatchError names the first tensor that differs."""
    if data is None:
        raise UsageError("no images to compare on", where="option --data", todo="--data embedded")
    sides = _opened(model), _opened(other)
    found = _bisected(*sides, data, limit)
    refusals = tuple(side.refusal for side in sides if side.refusal)
    fields = _fields(found, sides[0], refusals)
    if output is not None:
        write_json(output, {"schema": shell.schema, **fields})
    shell.emit(fields, lambda: _render(found, refusals))
    if not found.ok:
        raise _mismatch(found, model, other)


def _opened(path: Path) -> _Model:
    require_file(path, kind="model")
    try:
        return _Model(path, open_model(path), "")
    except BitfoldError as error:
        place = f" ({error.where})" if error.where else ""
        return _Model(path, None, f"{path} is not read: {error.what}{place}")


def _bisected(first: _Model, second: _Model, data: str, limit: int) -> "Bisection":
    from bitfold.certify import FileSide, Side, bisect_files, bisect_graphs
    from bitfold.ir.own_input import without_own_input

    labels = _labels(first.path, second.path)
    if first.graph is not None and second.graph is not None:
        graphs = first.graph, second.graph
        sides = [
            Side(label, without_own_input(graph), open_data(graph, data, limit)[0])
            for label, graph in zip(labels, graphs, strict=True)
        ]
        return bisect_graphs(*sides)
    values = _values(first.graph or second.graph, data, limit)
    a, b = (
        FileSide(label, model.path, values, model.graph)
        for label, model in zip(labels, (first, second), strict=True)
    )
    return bisect_files(a, b)


def _labels(first: Path, second: Path) -> tuple[str, str]:
    """File names, or paths where those are alike."""
    if first.name != second.name:
        return first.name, second.name
    return str(first), str(second)


def _values(graph: "IntGraph | None", data: str, limit: int) -> "NDArray[np.generic]":
    """What the model that can be read takes; else what the data holds."""
    from bitfold.models import load_images

    if graph is not None:
        pixels, _, own = open_data(graph, data, limit)
        return pixels if own is None else own
    if data.endswith(".npy"):
        return open_values(Path(data))[:limit]
    return load_images(data).images[:limit]


def _fields(found: "Bisection", first: _Model, refusals: tuple[str, ...]) -> dict[str, object]:
    from dataclasses import asdict

    from bitfold.ir import Accumulator

    types = () if first.graph is None else tuple(first.graph.types.values())
    return {
        "images": found.images,
        "stages": [asdict(stage) for stage in found.stages()],
        "accumulators_proved": sum(isinstance(kind, Accumulator) for kind in types),
        "requant_pairs_checked": 0,
        "ok": found.ok,
        "against": found.to_dict() | {"not_read": list(refusals)},
    }


def _render(found: "Bisection", refusals: tuple[str, ...]) -> list["RenderableType"]:
    lines: list[RenderableType] = [stage_table(found.stages()), *refusals]
    lines += [f"structure: {line}" for line in found.structure[:SHOWN]]
    if len(found.structure) > SHOWN:
        lines.append(f"structure: {len(found.structure) - SHOWN} more, see --json")
    verdict = "equal" if found.ok else "NOT EQUAL"
    compared = len(found.tensors) + len(found.results)
    return [*lines, f"{verdict}: {compared} tensors on {found.images} images in {found.how}"]


def _mismatch(found: "Bisection", model: Path, other: Path) -> MismatchError:
    where = f"{model} against {other}"
    if found.place is None:
        return MismatchError(
            "the structures differ: the results cannot be compared",
            where=where,
            todo=found.structure[0] if found.structure else "compare models of one network",
        )
    return MismatchError(
        f"the first difference is at {found.place}",
        where=where,
        todo="everything in front of that tensor is equal: look at what makes it",
    )
