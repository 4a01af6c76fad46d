"""Integer accuracy of networks trained with every method, beside the float network of their kind.

    python benchmarks/methods.py CKPT... -o benchmarks/results/methods.json

A float checkpoint is the baseline of every quantized one of the same network. For each quantized
one: top-1 of the fake-quantized and of the integer network on all test images, how many layers fold
exactly, and what its record says of its training (epochs, seconds, seed, start, teacher). Prints
the table of docs/benchmarks.md.
"""

import argparse
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np

from bitfold.export import fold_network
from bitfold.models import LabelledImages, LoadedNet, evaluate, load_checkpoint, load_images
from bitfold.runtime import Session

COLUMNS = ("network", "W/A", "float", "fake-quant", "integers", "behind float", "training")


def trained(net: LoadedNet) -> dict[str, object]:
    """What the checkpoint's record says of its training."""
    record = net.record
    history = record.get("history")
    epochs = history if isinstance(history, list) else []
    return {
        "epochs": len(epochs),
        "seconds": sum(float(epoch["seconds"]) for epoch in epochs),
        "seed": record.get("seed"),
        "init": record.get("init"),
        "teacher": record.get("teacher"),
    }


def row(path: Path, net: LoadedNet, data: LabelledImages) -> dict[str, object]:
    """Everything measured about one quantized checkpoint."""
    folded = fold_network(net.model)
    with Session(folded.graph) as session:
        logits = session.run(data.images)
    return {
        "checkpoint": path.name,
        "net": net.spec.net,
        "method": net.spec.method,
        "bits": list(net.spec.bits),
        "genome": list(net.spec.genome),
        "top1_fake_quant": evaluate(net.model, data),
        "top1_integer": float(np.mean(logits.argmax(1) == data.labels)),
        "exact_layers": sum(layer.exact for layer in folded.layers),
        "bounded_layers": sum(not layer.exact for layer in folded.layers),
        "training": trained(net),
    }


def as_markdown(
    baselines: Mapping[str, Mapping[str, object]], rows: list[dict[str, object]]
) -> str:
    """The table of docs/benchmarks.md."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for entry in rows:
        bits, training = entry["bits"], entry["training"]
        assert isinstance(bits, list)
        assert isinstance(training, Mapping)
        baseline = float(str(baselines[str(entry["net"])]["top1"]))
        fake, integer = float(str(entry["top1_fake_quant"])), float(str(entry["top1_integer"]))
        cells = (
            f"{entry['net']} {entry['method']}", f"{bits[0]}/{bits[1]}", f"{baseline:.2%}",
            f"{fake:.2%}", f"{integer:.2%}", f"{100 * (baseline - integer):+.2f}",
            f"{training['epochs']} epochs, {training['seconds'] / 60:.0f} min",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse, evaluate, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    data = load_images(options.data)
    nets = {path: load_checkpoint(path) for path in options.checkpoints}
    baselines = {
        net.spec.net: {"top1": evaluate(net.model, data), "training": trained(net)}
        for net in nets.values()
        if net.spec.method == "float"
    }
    quantized = [(path, net) for path, net in nets.items() if net.spec.method != "float"]
    if lacking := {net.spec.net for _, net in quantized} - baselines.keys():
        parser.error(f"no float checkpoint of {', '.join(sorted(lacking))}")
    rows = [row(path, net, data) for path, net in quantized]
    document = {
        "images": len(data.images),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "baselines": baselines,
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    print(as_markdown(baselines, rows))


if __name__ == "__main__":
    main()
