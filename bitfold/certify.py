"""The certificate: every form of a network on one batch, and the first place that differs.

The integer graph's oracle is the answer by definition. Against it, tensor by tensor: every kernel
row this CPU can run (forced one at a time), ONNX Runtime at its default and at its lowest
optimization level, and the stepped FPGA array. The trained fake-quantized network is compared with
float64 layers fed by the graph's own codes: layers folded into exact thresholds must agree to the
last code, layers behind the fixed-point stream carry a bound and their flips are listed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitfold.ir import Accumulator, IntGraph, Thresholds, trace_oracle

SCHEMA = "bitfold/verify/1"
ORACLE = "oracle"
SIMULATED_IMAGES = 2

Traces = Mapping[str, NDArray[np.int64] | NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """Where two forms part: node, index (image, row, column, channel), and both values."""

    layer: str
    index: tuple[int, ...]
    got: float
    want: float


@dataclass(frozen=True, slots=True)
class Stage:
    """One comparison; ``exact`` says whether a mismatch breaks the certificate."""

    name: str
    against: str
    compared: int
    mismatches: int
    max_abs_diff: float
    first: FirstDifference | None
    exact: bool = True
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """How one quantizer was folded, and how often its codes differ from the trained network's."""

    name: str
    exact: bool
    bound: float
    compared: int
    flips: int
    flips_free_running: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """All stages, what was proved without running anything, and the fold's layer table."""

    images: int
    stages: tuple[Stage, ...]
    layers: tuple[LayerRecord, ...]
    accumulators_proved: int
    requant_pairs_checked: int
    top1: float | None
    top1_fake_quant: float | None

    @property
    def ok(self) -> bool:
        """No exact stage has a mismatch."""
        return not any(stage.exact and stage.mismatches for stage in self.stages)

    def to_dict(self) -> dict[str, object]:
        """The JSON form (INTERFACE: verify)."""
        fields = asdict(self)
        return {"schema": SCHEMA, **fields, "ok": self.ok}


def compare_traces(
    name: str, got: Traces, want: Traces, *, exact: bool = True, detail: str = ""
) -> Stage:
    """Compare every tensor both traces hold, in the order of ``want``; ``==``, floats too."""
    compared = mismatches = 0
    largest = 0.0
    first: FirstDifference | None = None
    for layer, wanted in want.items():
        if layer not in got:
            continue
        values = got[layer].reshape(wanted.shape)
        compared += wanted.size
        wrong = values != wanted
        if not wrong.any():
            continue
        mismatches += int(wrong.sum())
        largest = max(largest, float(np.abs(values.astype(np.float64) - wanted).max()))
        if first is None:
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            first = FirstDifference(layer, index, float(values[index]), float(wanted[index]))
    return Stage(name, ORACLE, compared, mismatches, largest, first, exact, detail)


def requantization_pairs(graph: IntGraph) -> int:
    """(accumulator value, channel) pairs whose code a threshold table decides, by its order."""
    pairs = 0
    for node in graph.nodes:
        if isinstance(node, Thresholds):
            source = graph.types[node.x]
            if isinstance(source, Accumulator):
                pairs += (source.hi - source.lo + 1) * len(node.table)
    return pairs


def _kernel_stages(graph: IntGraph, images: NDArray[np.uint8], want: Traces) -> Iterator[Stage]:
    from bitfold.kernels import forced_choices
    from bitfold.runtime import Session

    for backend, force in forced_choices():
        with Session(graph, backend=backend, force=force) as session:
            label = f"{backend}:{force}" if force else backend
            stage = compare_traces(label, session.trace(images), want)
            logits = session.run(images)
        whole = compare_traces(f"{label} batch", {graph.output.name: logits}, want)
        yield stage
        yield whole


def _onnx_stages(
    graph: IntGraph, model_path: Path | None, images: NDArray[np.uint8], want: Traces
) -> Iterator[Stage]:
    from bitfold.export import onnx_model, trace_onnxruntime

    model = model_path.read_bytes() if model_path is not None else onnx_model(graph)
    for name, optimized in (("onnxruntime", True), ("onnxruntime unoptimized", False)):
        yield compare_traces(name, trace_onnxruntime(model, images, optimized=optimized), want)


def _array_stage(graph: IntGraph, images: NDArray[np.uint8], want: Traces) -> Stage:
    from bitfold.fpga_sim import step_graph

    few = images[:SIMULATED_IMAGES]
    expected = {name: values[: len(few)] for name, values in want.items()}
    return compare_traces(
        "fpga array", step_graph(graph, few), expected, detail=f"{len(few)} images"
    )


def _fold_stages(
    graph: IntGraph, checkpoint: Path, images: NDArray[np.uint8], want: Traces
) -> tuple[list[Stage], tuple[LayerRecord, ...], NDArray[np.float32]]:
    from bitfold.export import compare_codes, fold_network, quantizer_names
    from bitfold.models import load_checkpoint

    model = load_checkpoint(checkpoint).model
    folded = fold_network(model)
    reports = {report.name: report for report in folded.layers}
    names = quantizer_names(graph, model)
    codes = {name: np.asarray(want[name], np.int64) for name in names}
    alone, _ = compare_codes(model, names, images, codes=codes, layer_by_layer=True)
    running, logits = compare_codes(model, names, images, codes=codes, layer_by_layer=False)
    stages = []
    for exact, label in ((True, "exact layers"), (False, "stream layers")):
        chosen = [flip for flip in alone if reports[flip.name].exact == exact]
        if not chosen:
            continue
        worst = next((flip for flip in chosen if flip.first is not None), None)
        first = None
        if worst is not None and worst.first is not None:
            want_code = float(codes[worst.name][worst.first])
            first = FirstDifference(worst.name, worst.first, float("nan"), want_code)
        stages.append(
            Stage(
                f"fake-quant float64, {label}",
                ORACLE,
                sum(flip.compared for flip in chosen),
                sum(flip.flips for flip in chosen),
                float(max(flip.max_abs_diff for flip in chosen)),
                first,
                exact,
                f"{len(chosen)} layers",
            )
        )
    records = tuple(
        LayerRecord(
            a.name, reports[a.name].exact, reports[a.name].error, a.compared, a.flips, r.flips
        )
        for a, r in zip(alone, running, strict=True)
    )
    return stages, records, logits


def _accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64] | None) -> float | None:
    return None if labels is None else float((logits.argmax(1) == labels).mean())


def certify(
    graph: IntGraph,
    images: NDArray[np.uint8],
    *,
    labels: NDArray[np.int64] | None = None,
    model_path: Path | None = None,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = lambda stage: None,
) -> Certificate:
    """Run every form of ``graph`` on ``images`` (N, H, W, C) and compare them with the oracle.

    ``model_path`` is the ONNX file to run under ONNX Runtime (default: written from ``graph``);
    ``checkpoint`` adds the trained network. ``report`` is told each stage before it runs.
    """
    report("oracle")
    want = trace_oracle(graph, images)
    stages: list[Stage] = []
    records: tuple[LayerRecord, ...] = ()
    fake_quant = None
    if checkpoint is not None:
        report("fake-quant network")
        fold_stages, records, float_logits = _fold_stages(graph, checkpoint, images, want)
        stages += fold_stages
        fake_quant = _accuracy(float_logits, labels)
    report("kernels")
    stages += _kernel_stages(graph, images, want)
    report("ONNX Runtime")
    stages += _onnx_stages(graph, model_path, images, want)
    report("FPGA array")
    stages.append(_array_stage(graph, images, want))
    logits = np.asarray(want[graph.output.name], np.float32)
    return Certificate(
        len(images),
        tuple(stages),
        records,
        sum(isinstance(t, Accumulator) for t in graph.types.values()),
        requantization_pairs(graph),
        _accuracy(logits, labels),
        fake_quant,
    )
