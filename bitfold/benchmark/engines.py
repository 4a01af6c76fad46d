"""The engines: how each loads its file at its best settings, inside its own process.

Nothing is imported before an engine asks for it: a process's memory is its own engine's.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import bitfold
from bitfold.benchmark.report import BenchOptions
from bitfold.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from bitfold.export.int8 import Int8Peer

OURS = "bitfold"
INT8 = "int8"

Images = NDArray[np.uint8]
Inference = Callable[[Images], object]


@dataclass(frozen=True, slots=True)
class Engine:
    """``imports`` are loaded first and timed apart; ``load`` makes an inference of a file.

    ``package`` is the distribution, ``suffix`` that of the files it reads.
    """

    package: str
    imports: tuple[str, ...]
    suffix: str
    load: Callable[[Path, BenchOptions], Inference]


def _load_ours(model: Path, options: BenchOptions) -> Inference:
    from bitfold.runtime import Session

    return Session(model, threads=options.threads).run


def _load_onnxruntime(model: Path, options: BenchOptions) -> Inference:
    """Every optimization; one thread is the caller's own."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})[0]


def _load_openvino(model: Path, options: BenchOptions) -> Inference:
    """For latency, on so many threads; pixels are not copied on their way in."""
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": options.threads}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    output = compiled.outputs[0]
    return lambda images: request.infer([images], share_inputs=True)[output]


def _load_litert(model: Path, options: BenchOptions) -> Inference:
    """XNNPACK, which the interpreter applies by itself."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=os.fspath(model), num_threads=options.threads)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]

    def infer(images: Images) -> object:
        interpreter.set_tensor(source, images)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return infer


ENGINES: Mapping[str, Engine] = {
    OURS: Engine("bitfold", ("bitfold.runtime.session",), ".onnx", _load_ours),
    "onnxruntime": Engine("onnxruntime", ("onnxruntime",), ".onnx", _load_onnxruntime),
    "openvino": Engine("openvino", ("openvino",), ".onnx", _load_openvino),
    "litert": Engine(
        "ai-edge-litert", ("ai_edge_litert.interpreter",), ".tflite", _load_litert
    ),
}  # fmt: skip
PEERS = tuple(name for name in ENGINES if name != OURS)


def require_engines(names: tuple[str, ...]) -> None:
    """Raise UsageError for an unknown engine, MissingDependencyError for one not installed."""
    for name in names:
        if name not in PEERS:
            raise UsageError(f"unknown engine {name}", todo=f"Known: {', '.join(PEERS)}.")
        engine = ENGINES[name]
        if find_spec(engine.imports[0].partition(".")[0]) is None:
            raise MissingDependencyError(
                f"{name} is not installed",
                where=f"package {engine.package}",
                todo="pip install 'bitfold[bench]'",
            )


def import_engine(name: str) -> str:
    """Load the packages of an engine; its version."""
    engine = ENGINES[name]
    for module in engine.imports:
        import_module(module)
    return bitfold.__version__ if name == OURS else metadata.version(engine.package)


def write_peer(peer: "Int8Peer", suffix: str, folder: Path, *, batch: int) -> Path:
    """The int8 network as a file with ``suffix`` in ``folder``; its path."""
    from bitfold.export import peer_onnx, peer_tflite

    path = folder / f"peer{suffix}"
    if not path.exists():
        write = peer_onnx if suffix == ".onnx" else peer_tflite
        path.write_bytes(write(peer, batch=batch))
    return path


def random_images(shape: tuple[int, ...], options: BenchOptions) -> Images:
    """A batch of random pixels, the same for every engine."""
    generator = np.random.default_rng(options.seed)
    return generator.integers(0, 256, (options.batch, *shape), dtype=np.uint8)
