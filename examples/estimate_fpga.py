"""How an array of processing elements would run a network: cycles, latency and resources.

    python examples/estimate_fpga.py [MODEL.onnx]

The numbers are a model's estimates; docs/fpga_model.md says how far they can be trusted. Without
an argument a network with random weights is estimated: cycles do not depend on the weights.
"""

import sys
from pathlib import Path

import bitfold
from bitfold.fpga_sim import Report, devices, simulate
from bitfold.ir import IntGraph
from bitfold.models import NetSpec, Preprocessing, new_network

ARRAYS = ((8, 8), (16, 16), (32, 32))


def random_graph() -> IntGraph:
    """ResNet-8 with 2-bit weights and activations, on 28x28 grey images."""
    spec = NetSpec.with_default_grid(
        net="resnet8",
        method="pact-sawb",
        bits=(2, 2),
        input_shape=(28, 28, 1),
        class_names=tuple(f"class{i}" for i in range(10)),
        preprocessing=Preprocessing(mean=73, std=90),
        width=0.5,
    )
    return bitfold.export.fold_network(new_network(spec, seed=0)).graph


def line(report: Report, array: tuple[int, int]) -> str:
    """One row of the table."""
    used = "-" if report.resources is None else report.resources.counts()["lut"]
    return (
        f"{array[0]:>3}x{array[1]:<3} {report.cycles:>10} {report.latency_ms:>8.3f} "
        f"{report.utilisation:>7.1%} {used:>8} {'yes' if report.fits else 'no'}"
    )


def main(arguments: list[str]) -> None:
    """Print one line for every array size on every device."""
    graph = bitfold.load(Path(arguments[0])) if arguments else random_graph()
    for device in devices():
        print(device)
        print("  array      cycles       ms    util      LUT fits")
        for array in ARRAYS:
            print(line(simulate(graph, device=device, array=array), array))


if __name__ == "__main__":
    main(sys.argv[1:])
