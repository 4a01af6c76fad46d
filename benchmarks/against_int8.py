"""Race our kernels against ONNX Runtime int8 on untrained networks; JSON for docs/benchmarks.md.

    python benchmarks/against_int8.py -o benchmarks/results/against_int8.json

Weights do not influence speed, so the networks are random. Every engine runs in a process of its
own and takes one turn a round (see ``bitfold/benchmark.py``).
"""

import argparse
import json
import platform
import tempfile
from importlib import metadata
from pathlib import Path

from bitfold.benchmark import BenchOptions, run_bench

NETWORKS = (
    ("resnet20", (2, 2), (32, 32, 3)),
    ("resnet20", (3, 3), (32, 32, 3)),
    ("resnet20", (4, 4), (32, 32, 3)),
    ("resnet20", (2, 2), (28, 28, 1)),
    ("resnet20", (4, 4), (28, 28, 1)),
    ("resnet8", (2, 2), (32, 32, 3)),
)


def race(
    net: str, bits: tuple[int, int], shape: tuple[int, int, int], options: BenchOptions
) -> dict:
    """One network's report, as plain data."""
    # Engines' processes import this file; torch must not count towards their memory.
    from bitfold.export import fold_network, to_onnx
    from bitfold.models import NetSpec, Preprocessing, new_network

    spec = NetSpec.with_default_grid(
        net=net,
        method="pact-sawb",
        bits=bits,
        input_shape=shape,
        class_names=tuple(str(i) for i in range(10)),
        preprocessing=Preprocessing(73, 90),
    )
    graph = fold_network(new_network(spec, seed=0)).graph
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        to_onnx(graph, path)
        report = run_bench(path, against=("onnxruntime",), options=options)
    size = "x".join(map(str, shape))
    return {"network": net, "bits": f"W{bits[0]}A{bits[1]}", "input": size, **report.to_dict()}


def main() -> None:
    """Parse, race, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    settings = BenchOptions(threads=options.threads, rounds=options.rounds)
    races = []
    for net, bits, shape in NETWORKS:
        races.append(race(net, bits, shape, settings))
        print(net, bits, shape, races[-1]["ratios"], flush=True)
    packages = ("numpy", "onnxruntime", "onnx")
    versions = {name: metadata.version(name) for name in packages}
    document = {"python": platform.python_version(), "versions": versions, "races": races}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
