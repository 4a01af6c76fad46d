"""From a checkpoint to a verified, fast integer network.

    python examples/quickstart.py [CHECKPOINT [SPEC]]

Without arguments a network with random weights stands in for a trained one, and the images that
come with the package are classified.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import bitfold
from bitfold.certify import certify
from bitfold.models import NetSpec, Preprocessing, load_images, new_network, save_checkpoint

NUM_VERIFIED = 2


def random_checkpoint(path: Path) -> Path:
    """A small ResNet-8 with 2-bit weights and activations, on 28x28 grey images."""
    spec = NetSpec.with_default_grid(
        net="resnet8",
        method="pact-sawb",
        bits=(2, 2),
        input_shape=(28, 28, 1),
        class_names=tuple(f"class{i}" for i in range(10)),
        preprocessing=Preprocessing(mean=73, std=90),
        width=0.25,
    )
    save_checkpoint(path, new_network(spec, seed=0))
    return path


def main(arguments: list[str]) -> None:
    """Run every step and print what it found."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        checkpoint = (
            Path(arguments[0]) if arguments else random_checkpoint(model.with_suffix(".pt"))
        )
        data = load_images(arguments[1] if len(arguments) > 1 else "embedded")

        # 1. Fold: integers only between the pixels and the logits.
        graph = bitfold.export.from_checkpoint(checkpoint)
        print(f"folded      {len(graph.nodes)} nodes, input {graph.input.shape}")

        # 2. Write ONNX, and read it back: the same graph.
        bitfold.export.to_onnx(graph, model, profile="qcdq")
        print(f"written     {model.name}, equal when read back: {bitfold.load(model) == graph}")

        # 3. Run. The answer depends neither on the backend nor on threads nor on the batch.
        with bitfold.Session(model, threads=2) as session:
            logits = session.run(data.images)
        print(f"classified  {len(logits)} images")
        if data.labels is not None:
            print(f"top-1       {np.mean(logits.argmax(1) == data.labels):.1%}")

        # 4. Prove: oracle, every kernel, ONNX Runtime and the FPGA array, integer for integer.
        certificate = certify(graph, data.images[:NUM_VERIFIED], model_path=model)
        print(f"verified    {len(certificate.stages)} stages, all equal: {certificate.ok}")


if __name__ == "__main__":
    main(sys.argv[1:])
