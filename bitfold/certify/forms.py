"""The forms of a network that run: kernel rows, ONNX files in two runtimes, the stepped array."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bitfold.certify.stages import Images, Logits, Stage, Traces, absent
from bitfold.errors import UnsupportedError
from bitfold.ir import Conv2d, IntGraph, Linear, trace_oracle

SIMULATED_IMAGES = 2
CONFORMANCE_IMAGES = 10
DEFINED_IMAGES = 1


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the network: its name and how to run it on a batch, tensor by tensor.

    A form run tensor by tensor is not the one a user runs: exposing tensors keeps kernels and ONNX
    Runtime from working across them. A ``whole plan`` form therefore checks the results alone.
    """

    name: str
    trace: Callable[[Images], Traces]
    limit: int | None = None
    detail: str = ""


def _whole_plan(
    name: str,
    graph: IntGraph,
    run: Callable[[Images], Logits],
    limit: int | None = None,
    detail: str = "",
) -> Form:
    def trace(images: Images) -> Traces:
        return {graph.output.name: run(images)}

    return Form(f"{name}, whole plan", trace, limit, detail)


def kernel_forms(graph: IntGraph, stack: ExitStack) -> Iterator[Form]:
    """Each convolution row of this CPU, forced; sessions are closed with ``stack``."""
    from bitfold.kernels import forced_choices
    from bitfold.runtime import Session

    for backend, force in forced_choices():
        session = stack.enter_context(Session(graph, backend=backend, force=force))
        yield Form(f"{backend} {force}", session.trace)
        yield _whole_plan(f"{backend} {force}", graph, session.run)


def onnx_forms(graph: IntGraph, model_path: Path | None) -> Iterator[Form | Stage]:
    """ONNX Runtime and OpenVINO on what they run; an empty stage where they run nothing.

    A file of ours is run as it is, other profiles are written from ``graph``.
    """
    from bitfold.export import onnx_model, profile_in

    data = None if model_path is None else model_path.read_bytes()
    given = None if data is None else profile_in(data)
    wanted = dict.fromkeys(("qcdq", "integer", *(() if given in (None, "qonnx") else (given,))))
    for profile in wanted:
        try:
            is_given = data is not None and profile == given
            model = data if is_given else onnx_model(graph, profile=profile)
        except UnsupportedError as error:
            yield absent(f"onnxruntime {profile}", f"not written: {error.what}, {error.where}")
            continue
        assert model is not None
        yield from _runtime_forms(graph, profile, model)


def _runtime_forms(graph: IntGraph, profile: str, model: bytes) -> Iterator[Form | Stage]:
    from bitfold.export import (
        is_openvino_available,
        run_onnxruntime,
        run_openvino,
        trace_onnxruntime,
        trace_openvino,
    )  # fmt: skip

    is_default = profile == "qcdq"
    few = None if is_default else CONFORMANCE_IMAGES
    detail = "" if is_default else f"{CONFORMANCE_IMAGES} images"
    engine = "onnxruntime" if is_default else f"onnxruntime {profile}"
    for name, optimized in ((engine, True), (f"{engine} unoptimized", False)):
        trace = partial(trace_onnxruntime, model, optimized=optimized)
        yield Form(name, trace, few, detail)
        yield _whole_plan(
            name, graph, partial(run_onnxruntime, model, optimized=optimized), few, detail
        )
    if profile != "integer":
        return
    if not is_openvino_available():
        yield absent("openvino integer", "OpenVINO is not installed")
        return
    yield Form("openvino integer", partial(trace_openvino, model), few, detail)
    yield _whole_plan("openvino integer", graph, partial(run_openvino, model), few, detail)


def definition_form(graph: IntGraph) -> Form:
    """What the other forms are compared with has its products from float64: one image without."""
    return Form(
        "oracle in int64", partial(trace_oracle, graph), DEFINED_IMAGES, f"{DEFINED_IMAGES} image"
    )


def array_form(graph: IntGraph) -> Form | Stage:
    """The stepped array on a few images; an empty stage where nothing runs on it."""
    from bitfold.fpga_sim import step_graph

    if not any(isinstance(node, Conv2d | Linear) for node in graph.nodes):
        return absent("fpga array", "the graph has no Conv2d and no Linear")
    return Form(
        "fpga array", partial(step_graph, graph), SIMULATED_IMAGES, f"{SIMULATED_IMAGES} images"
    )
