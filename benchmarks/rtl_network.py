"""A whole network through the Verilog: every layer's products under Verilator, then the logits.

    python benchmarks/rtl_network.py [CHECKPOINT.pt] [--image 0] [--array 4x4] [--lanes 4]
        [--dataflow os] [--drain shadow] [--out benchmarks/results/rtl_network.json]

Every Conv2d and Linear runs on the emitted array, one compiled test bench for each pair of operand
grids; the sums that come out of the simulation, and nothing else, go on to the next layer. The
other operations are the oracle's. In the end the logits must equal `Session`'s.
"""

import argparse
import json
import platform
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bitfold import Session
from bitfold.export import from_checkpoint
from bitfold.files import write_atomically
from bitfold.fpga_sim import ArrayConfig
from bitfold.fpga_sim.rtl import run_network

EMBEDDED = Path(__file__).parents[1] / "bitfold" / "data" / "resnet20_w2a2.pt"
IMAGES = Path(__file__).parents[1] / "bitfold" / "data" / "fashion_mnist_500.npz"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=EMBEDDED)
    parser.add_argument("--image", type=int, default=0)
    parser.add_argument("--array", default="4x4")
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--dataflow", default="os")
    parser.add_argument("--drain", default="shadow")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    """Run the image, compare, write JSON where asked."""
    options = arguments()
    rows, cols = (int(part) for part in options.array.split("x"))
    array = ArrayConfig(
        rows=rows, cols=cols, lanes=options.lanes, dataflow=options.dataflow, drain=options.drain
    )
    graph = from_checkpoint(options.checkpoint)
    image = np.load(IMAGES)["images"][options.image].reshape(1, *graph.input.shape)
    want = Session(graph).run(image)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        found = run_network(graph, image, array, Path(place), simulator="verilator")
    for layer in found.layers:
        print(f"{layer.name:24} {layer.rtl:>8} cycles, closed form {layer.closed:>8}")
    version = subprocess.run(["verilator", "--version"], capture_output=True, text=True, check=True)
    report = {
        "command": "python benchmarks/rtl_network.py",
        "checkpoint": options.checkpoint.name,
        "verilator": version.stdout.strip(),
        "machine": platform.machine(),
        "array": {"rows": rows, "cols": cols, "lanes": array.lanes, "dataflow": array.dataflow,
                  "drain": array.drain},
        "image": options.image,
        "test_benches": found.benches,
        "seconds": round(time.monotonic() - start, 1),
        "layers_run": len(found.layers),
        "rtl_cycles": sum(layer.rtl for layer in found.layers),
        "cycles_differ": sum(layer.rtl != layer.closed for layer in found.layers),
        "logits": int(want.size),
        "logits_differ": int((found.logits != want).sum()),
        "layers": [asdict(layer) for layer in found.layers],
    }  # fmt: skip
    summary = {key: value for key, value in report.items() if key != "layers"}
    print(json.dumps(summary, indent=1))
    if options.out is not None:
        write_atomically(options.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
