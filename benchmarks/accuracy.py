"""Accuracy of a checkpoint on the full test set: fake-quant against integers, and code flips.

    python benchmarks/accuracy.py CKPT --data fashion-mnist -o benchmarks/results/NAME.json

States top-1 of the trained float network with fake quantizers and of the integer network, how often
both agree, and per quantizer how many activation codes differ: free running, and layer by layer in
float64 on the first ``--flips`` images.
"""

import argparse
import json
import platform
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bitfold.export import Folded, compare_codes, fold_network, quantizer_names
from bitfold.ir import trace_oracle
from bitfold.models import evaluate, load_checkpoint, load_images
from bitfold.runtime import Session

CHUNK = 100


def flips(model: nn.Module, folded: Folded, images: NDArray[np.uint8]) -> list[dict[str, object]]:
    """One record per quantizer, summed over ``images``."""
    names = quantizer_names(folded.graph, model)
    exact = {layer.name: layer.exact for layer in folded.layers}
    table = {
        name: {
            "layer": name,
            "exact": exact[name],
            "codes": 0,
            "layer_by_layer": 0,
            "free_running": 0,
        }
        for name in names
    }
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        codes = trace_oracle(folded.graph, chunk)
        for layer_by_layer in (True, False):
            kind = "layer_by_layer" if layer_by_layer else "free_running"
            found, _ = compare_codes(
                model, names, chunk, codes=codes, layer_by_layer=layer_by_layer
            )
            for flip in found:
                table[flip.name][kind] += flip.flips
                table[flip.name]["codes"] += flip.compared * layer_by_layer
    return list(table.values())


def main() -> None:
    """Parse, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    net = load_checkpoint(options.checkpoint)
    data = load_images(options.data)
    folded = fold_network(net.model)
    with Session(folded.graph) as session:
        logits = session.run(data.images)
    hits = logits.argmax(1) == data.labels
    document = {
        "checkpoint": options.checkpoint.name,
        "images": len(data.images),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "top1_fake_quant": evaluate(net.model, data),
        "top1_integer": float(np.mean(hits)),
        "flip_images": options.flips,
        "layers": flips(net.model, folded, data.images[: options.flips]),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    print({key: value for key, value in document.items() if key != "layers"})


if __name__ == "__main__":
    main()
