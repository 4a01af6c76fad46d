"""``bitfold demo``: the main job on the embedded networks and images, from checkpoint to report."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from bitfold.cli.bench import measure
from bitfold.cli.certificate_table import mismatch
from bitfold.cli.export import export_checkpoint
from bitfold.cli.inputs import open_graph
from bitfold.cli.shell import Shell, Verb, write_json, write_output
from bitfold.cli.verify_request import Request, load
from bitfold.errors import InputError, OutputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bitfold.certify import Certificate
    from bitfold.ir import IntGraph

T = TypeVar("T")

DATA = Path(__file__).parents[1] / "data"
PEER, PEER_RATIO = "onnxruntime", "onnxruntime-int8"
CERTIFIED_IMAGES, ROUNDS = 16, 9
DEVICE, ARRAY = "zu3eg", (16, 16)

FolderOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for everything it writes.")
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo found for one network; times in ms, ``ratio`` = their median / ours."""

    name: str
    top1: float
    images: int
    ok: bool
    stages: int
    p50_ms: float
    peer_p50_ms: float
    ratio: float
    cycles: int
    fps_estimate: float
    packed_weight_bytes: int
    seconds: float


def demo(shell: Shell, *, output: FolderOption = Path("demo-out")) -> None:
    """The whole way on the embedded networks, in a minute.

    Fold to integers, write ONNX, compare every backend, race against ONNX Runtime int8, estimate on
    an FPGA. Checkpoints, ONNX files, certificates and the JSON of every step stay in DIR.
    """
    started = time.monotonic()
    _make_folder(output)
    outcomes = [run_network(shell, path, folder=output / path.stem) for path in embedded()]
    fields: dict[str, object] = {
        "directory": str(output),
        "networks": [asdict(outcome) for outcome in outcomes],
        "plot": _plot(shell, outcomes, output / "summary.png"),
        "seconds": time.monotonic() - started,
    }
    write_json(output / "summary.json", {"schema": shell.schema, **fields})
    shell.emit(fields, lambda: _render(outcomes, output, float(str(fields["seconds"]))))


def embedded() -> tuple[Path, ...]:
    """The checkpoints that come with the package; raises InputError where there are none."""
    found = tuple(sorted(DATA.glob("*.pt")))
    if not found:
        raise InputError(
            "the embedded networks are missing", where=f"folder {DATA}", todo="reinstall bitfold"
        )
    return found


def run_network(shell: Shell, source: Path, *, folder: Path) -> Outcome:
    """All steps for one embedded network; writes its files, raises MismatchError."""
    started = time.monotonic()
    _make_folder(folder)
    name = source.stem
    checkpoint, model = folder / source.name, folder / f"{name}.onnx"
    write_output(checkpoint, source.read_bytes())
    exported = _step(
        shell,
        f"{name}: fold to integers, write ONNX",
        lambda: export_checkpoint(shell, checkpoint, output=model, profile="qcdq"),
    )
    write_json(folder / "export.json", {"schema": "bitfold/export/1", **exported})
    graph = open_graph(model)
    top1, images = _step(shell, f"{name}: classify", lambda: accuracy(graph))
    certificate = _step(
        shell,
        f"{name}: compare every kernel, ONNX Runtime and the FPGA array",
        lambda: _proved(shell, model, checkpoint),
    )
    race = _step(
        shell,
        f"{name}: race against ONNX Runtime int8",
        lambda: measure(shell, model, against=(PEER,), threads=1, batch=1, rounds=ROUNDS),
    )
    write_json(folder / "bench.json", race.to_dict())
    cycles, fps = _step(shell, f"{name}: estimate on {DEVICE}", lambda: estimate(graph, folder))
    return Outcome(
        name=name,
        top1=top1,
        images=images,
        ok=certificate.ok,
        stages=sum(stage.exact for stage in certificate.stages),
        p50_ms=race.engines[0].p50_ms,
        peer_p50_ms=race.engines[1].p50_ms,
        ratio=race.ratios[PEER_RATIO],
        cycles=cycles,
        fps_estimate=fps,
        packed_weight_bytes=int(str(exported["packed_weight_bytes"])),
        seconds=time.monotonic() - started,
    )


def _proved(shell: Shell, model: Path, checkpoint: Path) -> "Certificate":
    """The certificate on a few embedded images, written beside the model; raises MismatchError."""
    certificate = load(Request(model, "embedded", checkpoint, CERTIFIED_IMAGES)).certificate(shell)
    write_json(model.with_name("certificate.json"), certificate.to_dict())
    if not certificate.ok:
        raise mismatch(certificate, model)
    return certificate


def accuracy(graph: "IntGraph") -> tuple[float, int]:
    """Top-1 accuracy on the embedded images, and their number."""
    from bitfold.models import load_images
    from bitfold.runtime import Session

    labelled = load_images("embedded")
    with Session(graph) as session:
        top1 = session.run(labelled.images).argmax(1)
    return float((top1 == labelled.labels).mean()), len(labelled.images)


def estimate(graph: "IntGraph", folder: Path) -> tuple[int, float]:
    """Cycles an image and images/s on the demo's FPGA array; writes ``simulate.json``."""
    from bitfold.fpga_sim import simulate

    report = simulate(graph, device=DEVICE, array=ARRAY)
    write_json(folder / "simulate.json", report.to_dict())
    return report.cycles, report.images_per_s


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder: {error.strerror}",
            where=f"folder {folder}",
            todo="choose another one with -o",
        ) from error


def _step(shell: Shell, label: str, work: Callable[[], T]) -> T:
    """``work()``, announced and timed for a reader at a terminal."""
    started = time.monotonic()
    result = work()
    if shell.interactive:
        shell.note(f"  {label}: {time.monotonic() - started:.1f} s")
    return result


def _plot(shell: Shell, outcomes: Sequence[Outcome], path: Path) -> str | None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        shell.log.info("no plot: matplotlib is not installed (pip install 'bitfold[report]')")
        return None
    from bitfold.cli.demo_plot import draw_summary

    bars = [(outcome.name, outcome.p50_ms, outcome.peer_p50_ms) for outcome in outcomes]
    write_output(path, draw_summary(bars))
    return str(path)


def _render(
    outcomes: Sequence[Outcome], folder: Path, seconds: float
) -> Sequence["RenderableType"]:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("network")
    for heading in (
        "top-1", "equal stages", "ours ms", "ORT int8 ms", "ratio", "FPGA cycles",
        "images/s (est.)", "packed bytes",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        table.add_row(
            outcome.name, f"{outcome.top1:.1%} of {outcome.images}", str(outcome.stages),
            f"{outcome.p50_ms:.3f}", f"{outcome.peer_p50_ms:.3f}", f"{outcome.ratio:.2f}",
            str(outcome.cycles), f"{outcome.fps_estimate:.0f}", str(outcome.packed_weight_bytes),
        )  # fmt: skip
    line = (
        f"{folder}: every file of every step, {seconds:.0f} s. ratio = their median / ours; the "
        f"FPGA column is a model's estimate for {ARRAY[0]}x{ARRAY[1]} PEs on {DEVICE}"
    )
    return [table, line]


VERB = Verb("demo", demo, ("bitfold demo -o demo-out", "bitfold demo -o demo-out --json"))
