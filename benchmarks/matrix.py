"""Every network × method × bits at full size: exports, verifies, simulates; JSON and a table.

    python benchmarks/matrix.py -o benchmarks/results/matrix.json [--net resnet18] [--minutes 30]
    python benchmarks/matrix.py -o benchmarks/results/matrix.json --chosen-rows
    python benchmarks/matrix.py -o benchmarks/results/matrix.json --page docs/networks.md

Weights are random, statistics come from one calibration pass. A row is a network folded to
integers, written as ONNX, and run: by the oracle (with ``ir.float64``'s exact products), the chosen
C and numba kernels (every tensor they materialize, and the whole plan) and ONNX Runtime on two
images; on the first of them by each kernel row of this CPU, forced, tensor by tensor, by ONNX
Runtime without optimization, and on the ``integer`` profile by ONNX Runtime and OpenVINO. All are
compared by ``==``; then one FPGA part is simulated. Rows of the same bitfold version that the file
holds already are kept; one that failed is tried again; remove the file to measure everything anew.
``--chosen-rows`` leaves the forced kernel rows out, which take most of the time; a later run
without it does such networks again.
"""

import argparse
import itertools
import json
import platform
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

import bitfold
from bitfold.benchmark import cpu_name
from bitfold.certify import Stage, compare_traces
from bitfold.errors import UnsupportedError
from bitfold.export import (
    Folded,
    fold_network,
    onnx_model,
    run_onnxruntime,
    run_openvino,
    to_onnx,
)
from bitfold.files import write_atomically
from bitfold.fpga_sim import simulate
from bitfold.ir import IntGraph, trace_float64
from bitfold.kernels import forced_choices
from bitfold.models import NetSpec, Preprocessing, new_network
from bitfold.models.nets.catalogue import count_genes
from bitfold.models.offered import NETS
from bitfold.runtime import Session

IMAGES = 2
DEVICE = "zu3eg"
BRANCHES = 7
LARGE = ((224, 224, 3), 1000)
SMALL = ((32, 32, 3), 10)
SIZES = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "alexnet"), LARGE),
    **dict.fromkeys(("mobilenetv1", "mobilenetv2"), LARGE),
    "mlp": ((28, 28, 1), 10),
}
# The first of a method comes first: one row a pair, then the others.
BITS = {
    "uniq": ((2, 2), (1, 1), (4, 4), (3, 3), (8, 8)),
    "pact-sawb": ((2, 2), (4, 4), (3, 3)),
    "pact-dorefa": ((2, 2),),
    "sttn": ((2, 2),),
    "stqn": ((3, 3),),
    "basq": ((2, 2), (4, 4), (3, 3)),
}
PER_CHANNEL = (("mobilenetv2", "basq"),)
MARK = "<!-- benchmarks/matrix.py --page writes what follows -->"
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Cell:
    """One network of the matrix."""

    net: str
    method: str
    bits: tuple[int, int]
    per_channel: bool = False

    @property
    def label(self) -> str:
        """As in ``mobilenetv2 basq 2/2 per channel``."""
        tail = " per channel" if self.per_channel else ""
        return f"{self.net} {self.method} {self.bits[0]}/{self.bits[1]}{tail}"

    def spec(self) -> NetSpec:
        """The network at full size; BASQ with all seven branches in turn as its genome."""
        shape, classes = SIZES.get(self.net, SMALL)
        fields = {
            "net": self.net,
            "method": self.method,
            "bits": self.bits,
            "input_shape": shape,
            "class_names": tuple(map(str, range(classes))),
            "preprocessing": Preprocessing(124, 58),
            "per_channel": self.per_channel,
        }
        genes = count_genes(NetSpec(**fields)) if self.method == "basq" else 0
        return NetSpec(**fields, genome=tuple(i % BRANCHES for i in range(genes)))


def cells() -> Iterator[Cell]:
    """All networks: each pair at its first bits, then at its second, and so on."""
    for turn in range(max(map(len, BITS.values()))):
        for net, methods in NETS.items():
            for method in methods:
                for bits in BITS.get(method, ())[turn : turn + 1]:
                    yield Cell(net, method, bits)
                    if (net, method) in PER_CHANNEL:
                        yield Cell(net, method, bits, per_channel=True)


class Stopwatch:
    """Seconds since it was made or last read."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def lap(self) -> float:
        """Seconds of the last part, to a hundredth."""
        before, self.start = self.start, time.perf_counter()
        return round(self.start - before, 2)


def layer_counts(folded: Folded) -> dict[str, int]:
    """How many steps of the fold are exact, bounded by the stream, or saturating."""
    saturating = sum(layer.kind == "saturating stream" for layer in folded.layers)
    exact = sum(layer.exact for layer in folded.layers)
    bounded = len(folded.layers) - exact - saturating
    return {"exact": exact, "bounded": bounded, "saturating": saturating}


class Comparison:
    """Every form of one network against the oracle: stages, refusals, and seconds of each part."""

    def __init__(self, graph: IntGraph, images: np.ndarray) -> None:
        self.graph, self.images, self.watch = graph, images, Stopwatch()
        self.want = trace_float64(graph, images)
        self.seconds = {"oracle": self.watch.lap()}
        self.stages: dict[str, Stage] = {}
        self.refused: dict[str, str] = {}

    def add(self, name: str, got: Mapping[str, np.ndarray]) -> None:
        """Compare the tensors of ``got``, which may be those of the first images alone."""
        count = len(next(iter(got.values())))
        want = {layer: values[:count] for layer, values in self.want.items()}
        self.stages[name] = compare_traces(name, got, want)

    def add_logits(self, name: str, logits: np.ndarray) -> None:
        """Compare the results."""
        self.add(name, {self.graph.output.name: logits})

    def add_chosen_kernels(self) -> None:
        """The plans that a user gets, all images."""
        for backend in ("c", "numba"):
            with Session(self.graph, backend=backend) as session:
                self.add(backend, session.trace(self.images))
                self.add_logits(f"{backend} whole plan", session.run(self.images))
            self.seconds[backend] = self.watch.lap()

    def add_kernel_rows(self) -> None:
        """Each row of this CPU where it fits, one image."""
        for backend, row in forced_choices():
            with Session(self.graph, backend=backend, force=row) as session:
                self.add(row, session.trace(self.images[:1]))
        self.seconds["rows"] = self.watch.lap()

    def add_runtimes(self, path: Path) -> None:
        """ONNX Runtime on the default profile, then both runtimes on ``integer``."""
        first = self.images[:1]
        self.add_logits("onnxruntime", run_onnxruntime(path, self.images))
        self.add_logits("onnxruntime unoptimized", run_onnxruntime(path, first, optimized=False))
        self.seconds["onnxruntime"] = self.watch.lap()
        try:
            data = onnx_model(self.graph, profile="integer")
        except UnsupportedError as error:
            self.refused["integer"] = str(error)
            return
        self.add_logits("onnxruntime integer", run_onnxruntime(data, first))
        self.add_logits("openvino integer", run_openvino(data, first))
        self.seconds["integer"] = self.watch.lap()

    def row(self) -> Row:
        """What the results file holds of it."""
        answers = self.want[self.graph.output.name]
        stages = self.stages.items()
        return {
            "compared": {name: stage.compared for name, stage in stages},
            "mismatches": {name: stage.mismatches for name, stage in stages},
            "first": {name: stage.first.layer for name, stage in stages if stage.first},
            "refused": self.refused,
            "distinct_logits": int((answers[0] != answers[1]).sum()),
            "seconds": self.seconds,
        }


def compare(graph: IntGraph, path: Path, images: np.ndarray, *, all_rows: bool) -> Row:
    """Values compared and mismatches of every form against the oracle, and seconds of each."""
    comparison = Comparison(graph, images)
    comparison.add_chosen_kernels()
    if all_rows:
        comparison.add_kernel_rows()
    comparison.add_runtimes(path)
    return comparison.row()


def measure(cell: Cell, folder: Path, *, all_rows: bool) -> Row:
    """Everything about one network."""
    spec, watch = cell.spec(), Stopwatch()
    model = new_network(spec, seed=0)
    seconds = {"new": watch.lap()}
    folded = fold_network(model)
    seconds["fold"] = watch.lap()
    graph, path = folded.graph, folder / "model.onnx"
    export = to_onnx(graph, path)
    seconds["onnx"] = watch.lap()
    shape = (IMAGES, *spec.input_shape)
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    found = compare(graph, path, images, all_rows=all_rows)
    seconds |= found.pop("seconds")
    watch.lap()
    report = simulate(graph, device=DEVICE)
    seconds["simulate"] = watch.lap()
    return {
        "input": "x".join(map(str, spec.input_shape)),
        "layers": len(report.layers),
        "macs": sum(layer.macs for layer in report.layers),
        "nodes": len(graph.nodes),
        "steps": layer_counts(folded),
        "fused_layers": len(export.fused_layers),
        "file_bytes": path.stat().st_size,
        **found,
        "cycles": report.cycles,
        "latency_ms": report.latency_ms,
        "seconds": seconds,
    }


def row_of(cell: Cell, *, all_rows: bool) -> Row:
    """``measure`` under the cell's name; what goes wrong is part of the row."""
    named: Row = {
        "name": cell.label,
        "net": cell.net,
        "method": cell.method,
        "bits": list(cell.bits),
        "per_channel": cell.per_channel,
        "version": bitfold.__version__,
        "all_rows": all_rows,
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            return named | measure(cell, Path(folder), all_rows=all_rows)
    except Exception as error:  # a benchmark of hundreds of networks goes on
        traceback.print_exc()
        return named | {"error": f"{type(error).__name__}: {error}"}


def is_done(row: Row, *, all_rows: bool) -> bool:
    """Whether ``row`` is this version's, has no error, and holds the kernel rows if asked for."""
    is_sound = row["version"] == bitfold.__version__ and "error" not in row
    return is_sound and (bool(row["all_rows"]) or not all_rows)


def read_rows(path: Path) -> dict[str, Row]:
    """Rows of an earlier run, by name."""
    if not path.exists():
        return {}
    return {row["name"]: row for row in json.loads(path.read_text())["rows"]}


def write_rows(path: Path, rows: Mapping[str, Row]) -> None:
    """The whole document, in the order of ``cells``."""
    packages = ("torch", "numpy", "numba", "onnx", "onnxruntime", "openvino")
    document = {
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "device": DEVICE,
        "images": IMAGES,
        "rows": [rows[cell.label] for cell in cells() if cell.label in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())


def summary(row: Row) -> str:
    """One line."""
    if "error" in row:
        return f"{row['name']:36} {row['error']}"
    seconds = " ".join(f"{name} {value:.1f}" for name, value in row["seconds"].items())
    wrong = sum(row["mismatches"].values())
    return (
        f"{row['name']:36} {row['macs'] / 1e6:7.0f} M  {wrong} mismatches, "
        f"{row['distinct_logits']} distinct logits  {row['steps']}  {seconds}  "
        f"{' '.join(row['refused'])}"
    )


def joined(values: Sequence[str]) -> str:
    """The values in one cell of a table, once where all are equal."""
    return values[0] if len(set(values)) == 1 else " · ".join(values)


def table(rows: Mapping[str, Row]) -> str:
    """Markdown: one line a network and method, bits side by side."""
    lines = [
        "| network | input | method | bits W/A | layers | MMACs | exact / bounded / saturating "
        "| ONNX file, MB | Mcycles | forms | mismatches |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    done = [row for row in rows.values() if "error" not in row]
    order = list(NETS)

    def place(row: Row) -> tuple[int, int, bool]:
        net = str(row["net"])
        return order.index(net), NETS[net].index(str(row["method"])), bool(row["per_channel"])

    done.sort(key=lambda row: (place(row), row["bits"]))
    for _, found in itertools.groupby(done, key=place):
        group = list(found)
        first = group[0]
        steps = [f"{' / '.join(map(str, row['steps'].values()))}" for row in group]
        cell = [
            str(first["net"]),
            str(first["input"]),
            str(first["method"]) + (", per channel" if first["per_channel"] else ""),
            " · ".join("/".join(map(str, row["bits"])) for row in group),
            joined([str(row["layers"]) for row in group]),
            joined([f"{row['macs'] / 1e6:.0f}" for row in group]),
            joined(steps),
            joined([f"{row['file_bytes'] / 1e6:.1f}" for row in group]),
            joined([f"{row['cycles'] / 1e6:.2f}" for row in group]),
            joined([str(len(row["compared"])) for row in group]),
            str(sum(sum(row["mismatches"].values()) for row in group)),
        ]
        lines.append(f"| {' | '.join(cell)} |")
    return "\n".join(lines)


def conditions(document: Mapping[str, object]) -> str:
    """Where and with what the rows were measured, and how many there are."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    done = sum("error" not in row for row in document["rows"])
    return (
        f"{done} of {sum(1 for _ in cells())} networks on one core of {document['cpu']}: "
        f"bitfold {bitfold.__version__}, Python {document['python']}, {versions}."
    )


def write_page(page: Path, results: Path) -> None:
    """Replace what follows ``MARK`` in ``page`` by the table of ``results``."""
    document = json.loads(results.read_text())
    head = page.read_text(encoding="utf-8").partition(MARK)[0]
    body = f"{head}{MARK}\n\n{conditions(document)}\n\n{table(read_rows(results))}\n"
    page.write_text(body, encoding="utf-8")


def main() -> None:
    """Parse, run what is missing, write after every row; or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--net", default="", help="only networks whose name holds this text")
    parser.add_argument("--method", default="", help="only methods whose name holds this text")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no row after this long")
    parser.add_argument(
        "--chosen-rows", action="store_true", help="leave out the kernel rows that are not chosen"
    )
    parser.add_argument("--page", type=Path, help="write the table there and run nothing")
    options = parser.parse_args()
    if options.page:
        write_page(options.page, options.output)
        return
    rows, all_rows = read_rows(options.output), not options.chosen_rows
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * options.minutes
    for cell in cells():
        chosen = options.net in cell.net and options.method in cell.method
        if not chosen or (cell.label in rows and is_done(rows[cell.label], all_rows=all_rows)):
            continue
        if time.monotonic() > end:
            break
        rows[cell.label] = row_of(cell, all_rows=all_rows)
        print(summary(rows[cell.label]), flush=True)
        write_rows(options.output, rows)


if __name__ == "__main__":
    main()
