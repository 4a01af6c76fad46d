"""Race every network and grid against the int8 engines; JSON and table for docs/benchmarks.md.

    python benchmarks/engines.py -o benchmarks/results/engines.json
    python benchmarks/engines.py -o benchmarks/results/engines.json --threads 2
    python benchmarks/engines.py -o benchmarks/results/engines.json --batch 8
    python benchmarks/engines.py -o benchmarks/results/engines.json --table engines.md
    python benchmarks/engines.py -o benchmarks/results/engines.json --layers resnet18 --grid T,2

Weights do not influence speed, so the networks are random. The engines run the *plain* network of
each name (convolutions, batch norms folded away, ReLU) at int8, whatever a method adds to ours;
``--own`` gives them our topology instead. A row that the file has already is kept, so that a run
can be interrupted and gone on with. The table names the fastest int8 engine of each row;
``--layers`` prints the convolutions of one network beside the machine's peak.
"""

import argparse
import json
import platform
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import bitfold
from bitfold.benchmark import PEERS, BenchOptions, cpu_name, run_bench
from bitfold.files import write_atomically
from bitfold.ir import IntGraph
from bitfold.kernels import host_features

LARGE = ((224, 224, 3), 1000)
SMALL = ((32, 32, 3), 10)
NETWORKS = {"resnet18": LARGE, "resnet34": LARGE, "mobilenetv2": LARGE, "resnet20": SMALL}
BRANCHES = 7
PACKAGES = ("numpy", "onnx", "onnxruntime", "openvino", "ai-edge-litert")
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Grid:
    """A column of the table: how to make a network with it."""

    label: str
    method: str
    bits: tuple[int, int]
    weight_grid: str = "odd"
    per_channel: bool = False


GRIDS = (
    Grid("T,2", "pact-sawb", (2, 2), "narrow"),
    Grid("T,T", "sttn", (2, 2)),
    Grid("odd2,2", "pact-sawb", (2, 2)),
    Grid("odd2,2 uniq", "uniq", (2, 2)),
    Grid("1,1", "uniq", (1, 1)),
    Grid("3,3", "pact-sawb", (3, 3)),
    Grid("4,4", "pact-sawb", (4, 4), "narrow"),
    Grid("T,2 basq", "basq", (2, 2)),
    Grid("T,2 basq per channel", "basq", (2, 2), per_channel=True),
)
PLAIN_GRID = GRIDS[2]
# Ratios asked for on a core with AVX-512 VNNI, one thread, batch 1.
TARGETS = {
    ("resnet18", "T,2"): 2.0, ("resnet18", "T,T"): 2.0, ("resnet18", "odd2,2"): 1.8,
    ("resnet18", "1,1"): 3.0, ("resnet18", "3,3"): 1.6, ("resnet18", "4,4"): 1.3,
    ("resnet34", "T,2"): 2.1, ("resnet34", "T,T"): 2.1, ("resnet34", "odd2,2"): 1.9,
    ("resnet34", "1,1"): 3.2, ("resnet34", "3,3"): 1.7, ("resnet34", "4,4"): 1.4,
    ("mobilenetv2", "T,2"): 1.3, ("mobilenetv2", "odd2,2"): 1.3, ("mobilenetv2", "1,1"): 1.5,
    ("mobilenetv2", "3,3"): 1.2, ("mobilenetv2", "4,4"): 1.1,
    ("mobilenetv2", "T,2 basq per channel"): 0.5,
    ("resnet20", "T,2"): 1.4, ("resnet20", "T,T"): 1.4, ("resnet20", "odd2,2"): 1.4,
    ("resnet20", "1,1"): 1.8, ("resnet20", "3,3"): 1.3, ("resnet20", "4,4"): 1.2,
}  # fmt: skip


def cells() -> Iterator[tuple[str, Grid]]:
    """Every network with every grid that it has."""
    from bitfold.models.offered import NETS

    for net in NETWORKS:
        for grid in GRIDS:
            if grid.method in NETS[net] and (net == "mobilenetv2" or not grid.per_channel):
                yield net, grid


def random_graph(net: str, grid: Grid, *, shape: tuple[int, int, int], classes: int) -> IntGraph:
    """The integer graph of the network with random weights."""
    # The engines' processes are apart from this one: torch does not count towards their memory.
    from bitfold.export import fold_network
    from bitfold.models import NetSpec, Preprocessing, new_network
    from bitfold.models.nets.catalogue import count_genes

    fields = {
        "net": net,
        "method": grid.method,
        "bits": grid.bits,
        "input_shape": shape,
        "class_names": tuple(map(str, range(classes))),
        "preprocessing": Preprocessing(124, 58),
        "weight_grid": grid.weight_grid,
        "per_channel": grid.per_channel,
    }
    genes = count_genes(NetSpec(**fields)) if grid.method == "basq" else 0
    spec = NetSpec(**fields, genome=tuple(i % BRANCHES for i in range(genes)))
    return fold_network(new_network(spec, seed=0)).graph


def write_model(net: str, grid: Grid, path: Path) -> None:
    """The network with random weights as an ONNX file."""
    from bitfold.export import to_onnx

    shape, classes = NETWORKS[net]
    to_onnx(random_graph(net, grid, shape=shape, classes=classes), path)


def race(net: str, grid: Grid, options: BenchOptions, *, own: bool) -> Row:
    """One row: the report of a race."""
    with tempfile.TemporaryDirectory() as folder:
        model, plain = Path(folder) / "model.onnx", Path(folder) / "plain.onnx"
        write_model(net, grid, model)
        write_model(net, PLAIN_GRID, plain)
        topology = None if own else plain
        report = run_bench(model, against=PEERS, options=options, topology=topology)
    return report.to_dict()


def row_of(net: str, grid: Grid, options: BenchOptions, *, own: bool) -> Row:
    """``race`` under its name; what goes wrong is part of the row."""
    named: Row = {
        "name": row_name(net, grid, options, own=own),
        "network": net,
        "grid": grid.label,
        "peers": "own topology" if own else "plain",
        "version": bitfold.__version__,
    }
    try:
        return named | race(net, grid, options, own=own)
    except Exception as error:  # the other rows go on
        traceback.print_exc()
        return named | {"error": f"{type(error).__name__}: {error}"}


def row_name(net: str, grid: Grid, options: BenchOptions, *, own: bool) -> str:
    """What tells rows apart."""
    tail = ", own topology" if own else ""
    return f"{net} {grid.label}, {options.threads} threads, batch {options.batch}{tail}"


def read_rows(path: Path) -> dict[str, Row]:
    """Rows of an earlier run, by name."""
    if not path.exists():
        return {}
    return {row["name"]: row for row in json.loads(path.read_text())["rows"]}


def write_rows(path: Path, rows: Mapping[str, Row]) -> None:
    """The whole document, rows in the order they were measured."""
    document = {
        "cpu": cpu_name(),
        "features": sorted(host_features()),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "rows": list(rows.values()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())


def table(document: Mapping[str, object]) -> str:
    """Markdown: one line a row, times in ms as median / min."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines = [
        f"{document['cpu']}, Python {document['python']}, {versions}. Median / min in ms.",
        "",
        "| network | W,A | threads, batch | bitfold | ONNX Runtime | OpenVINO | LiteRT | ratio "
        "| target | cold start, ms | peak RSS, MB | weights, bytes (least) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        if "error" in row:
            lines.append(f"| {row['network']} | {row['grid']} | {row['error']} |")
            continue
        ours, *theirs = row["engines"]
        best = min(theirs, key=lambda engine: engine["p50_ms"])
        target = TARGETS.get((row["network"], row["grid"]), "")
        times = [f"{engine['p50_ms']:.3f} / {engine['min_ms']:.3f}" for engine in (ours, *theirs)]
        weights = row["weights"]
        cells = [
            row["network"], row["grid"], f"{row['threads']}, {row['batch']}", *times,
            f"{best['p50_ms'] / ours['p50_ms']:.2f} ({best['name']})", target,
            f"{ours['cold_start_ms']:.0f}", f"{ours['peak_rss_mb']:.0f}",
            f"{weights['packed']} ({weights['least']})",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def layers(row: Row) -> str:
    """Markdown: the convolutions of one row of the results, with the machine's peak."""
    peak = row["peak"]
    lines = [
        f"Peak ({peak['isa']}): {peak['macs_per_cycle']:.1f} MAC a cycle at "
        f"{peak['clock_ghz']:.2f} GHz.",
        "",
        "| layer | kernel | ms | MAC a cycle | of the peak |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {x['name']} | {x['kernel'].removeprefix('bf_conv2d_')} | {x['ms']:.3f} "
        f"| {x['macs_per_cycle']:.1f} | {x['peak_share']:.2f} |"
        for x in row["layers"]
        if x["macs"]
    ]
    return "\n".join(lines)


def main() -> None:
    """Parse, run what is missing, write after every row; or write a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--net", default="", help="only networks whose name holds this text")
    parser.add_argument("--grid", default="", help="only the grid of this name")
    parser.add_argument("--own", action="store_true", help="the engines run our topology")
    parser.add_argument("--again", action="store_true", help="measure rows anew")
    parser.add_argument("--layers", default="", help="print the layers of this network's row")
    parser.add_argument("--table", type=Path, help="write the table there and run nothing")
    words = parser.parse_args()
    if words.table:
        words.table.write_text(table(json.loads(words.output.read_text())), encoding="utf-8")
        return
    if words.layers:
        rows = read_rows(words.output).values()
        asked = (words.layers, words.grid, words.threads, words.batch)
        names = ("network", "grid", "threads", "batch")
        print(*(layers(r) for r in rows if tuple(r.get(n) for n in names) == asked), sep="\n")
        return
    options = BenchOptions(threads=words.threads, batch=words.batch, rounds=words.rounds)
    rows = read_rows(words.output)
    for net, grid in cells():
        name = row_name(net, grid, options, own=words.own)
        if words.net not in net or words.grid not in ("", grid.label):
            continue
        if name in rows and "error" not in rows[name] and not words.again:
            continue
        rows[name] = row_of(net, grid, options, own=words.own)
        print(name, rows[name].get("ratios", rows[name].get("error")), flush=True)
        write_rows(words.output, rows)


if __name__ == "__main__":
    main()
