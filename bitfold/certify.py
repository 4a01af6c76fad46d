"""The certificate: every form of a network on one batch, and the first place that differs.

The integer graph's oracle is the answer by definition. Against it, tensor by tensor: every kernel
row this CPU can run (forced one at a time), ONNX Runtime at its default and at its lowest
optimization level on the ``qcdq`` and the ``integer`` file, OpenVINO on the latter, and the stepped
FPGA array. The trained fake-quantized network is compared with
float64 layers fed by the graph's own codes: layers folded into exact thresholds must agree to the
last code, layers behind the fixed-point stream carry a bound and their flips are listed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import UnsupportedError, UsageError
from bitfold.ir import Accumulator, IntGraph, Thresholds, trace_float64, trace_oracle

if TYPE_CHECKING:
    from torch import nn

    from bitfold.export import LayerFlips, LayerReport, RuntimeFlips
    from bitfold.models import PublishedOptions

SCHEMA = "bitfold/verify/1"
ORACLE = "oracle"
SIMULATED_IMAGES = 2
CONFORMANCE_IMAGES = 10
DEFINED_IMAGES = 1
BATCH = 50
# What evaluating the trained network in float64 can itself move a value by.
FLOAT64_NOISE = 1e-9

Images = NDArray[np.uint8]
Logits = NDArray[np.float32]
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

    def shifted(self, offset: int) -> "Stage":
        """The same stage for a batch that starts at image ``offset``."""
        if self.first is None:
            return self
        image, *rest = self.first.index
        return replace(self, first=replace(self.first, index=(image + offset, *rest)))


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """How one quantizer was folded, and how often its codes differ from the trained network's.

    ``farthest`` is how far, in real units, a value whose code differs lies from the crossing; it
    may not pass ``bound``.
    """

    name: str
    exact: bool
    bound: float
    compared: int
    flips: int
    flips_free_running: int
    farthest: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """All stages, what was proved without running anything, and the fold's layer table.

    ``folding`` lists every bound that the fold stated: stream, channel multipliers, biases.
    """

    images: int
    stages: tuple[Stage, ...]
    layers: tuple[LayerRecord, ...]
    folding: tuple["LayerReport", ...]
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


@dataclass(frozen=True, slots=True)
class _Form:
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
) -> _Form:
    def trace(images: Images) -> Traces:
        return {graph.output.name: run(images)}

    return _Form(f"{name}, whole plan", trace, limit, detail)


def _kernel_forms(graph: IntGraph, stack: ExitStack) -> Iterator[_Form]:
    from bitfold.kernels import forced_choices
    from bitfold.runtime import Session

    for backend, force in forced_choices():
        session = stack.enter_context(Session(graph, backend=backend, force=force))
        yield _Form(f"{backend} {force}", session.trace)
        yield _whole_plan(f"{backend} {force}", graph, session.run)


def _onnx_forms(graph: IntGraph, model_path: Path | None) -> Iterator[_Form | Stage]:
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
            yield _absent(f"onnxruntime {profile}", f"not written: {error.what}, {error.where}")
            continue
        assert model is not None
        yield from _runtime_forms(graph, profile, model)


def _runtime_forms(graph: IntGraph, profile: str, model: bytes) -> Iterator[_Form | Stage]:
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
        yield _Form(name, trace, few, detail)
        yield _whole_plan(
            name, graph, partial(run_onnxruntime, model, optimized=optimized), few, detail
        )
    if profile != "integer":
        return
    if not is_openvino_available():
        yield _absent("openvino integer", "OpenVINO is not installed")
        return
    yield _Form("openvino integer", partial(trace_openvino, model), few, detail)
    yield _whole_plan("openvino integer", graph, partial(run_openvino, model), few, detail)


def runtime_stage(name: str, flips: Sequence["RuntimeFlips"]) -> Stage:
    """Codes of another tool's model under a runtime, layer by layer: what its float32 decides."""
    worst = next((flip for flip in flips if flip.first is not None), None)
    first = None
    if worst is not None and worst.first is not None:
        first = FirstDifference(worst.name, worst.first, worst.want, worst.got)
    farthest = max((flip.farthest for flip in flips if flip.flips), default=0.0)
    return Stage(
        name, ORACLE, sum(flip.compared for flip in flips), sum(flip.flips for flip in flips),
        float(max((abs(flip.want - flip.got) for flip in flips), default=0)), first, exact=False,
        detail=f"{len(flips)} layers; at most {farthest:.2g} of a code from the crossing",
    )  # fmt: skip


def _absent(name: str, reason: str) -> Stage:
    """A stage that compared nothing, and why."""
    return Stage(name, ORACLE, 0, 0, 0.0, None, exact=False, detail=reason)


def _definition_form(graph: IntGraph) -> _Form:
    """What the other forms are compared with has its products from float64: one image without."""
    return _Form(
        "oracle in int64", partial(trace_oracle, graph), DEFINED_IMAGES, f"{DEFINED_IMAGES} image"
    )


def _array_form(graph: IntGraph) -> _Form:
    from bitfold.fpga_sim import step_graph

    return _Form(
        "fpga array", partial(step_graph, graph), SIMULATED_IMAGES, f"{SIMULATED_IMAGES} images"
    )


@dataclass(frozen=True, slots=True)
class _TrainedNet:
    """The fake-quantized network and how each of its quantizers was folded."""

    model: "nn.Module"
    names: tuple[str, ...]
    folding: tuple["LayerReport", ...]

    @property
    def reports(self) -> Mapping[str, "LayerReport"]:
        """How each quantizer was folded."""
        return {report.name: report for report in self.folding if report.kind == "thresholds"}


def _trained_net(
    graph: IntGraph, checkpoint: Path, published: "PublishedOptions | None"
) -> _TrainedNet:
    from bitfold.export import fold_network, quantizer_names
    from bitfold.models import load_one_network

    model = load_one_network(checkpoint, published=published).model
    folding = fold_network(model).layers
    names = quantizer_names(graph, model)
    if not names:
        raise UsageError(
            "the checkpoint and the model share no quantizer: they are different networks",
            where=f"file {checkpoint}",
            todo="Give the checkpoint that the model was exported from.",
        )
    return _TrainedNet(model, names, folding)


class _Comparison:
    """Everything that is compared, batch by batch, and the sums so far."""

    def __init__(
        self, graph: IntGraph, forms: Sequence[_Form], trained: _TrainedNet | None
    ) -> None:
        self.graph = graph
        self.forms = forms
        self.trained = trained
        self.stages: dict[str, list[Stage]] = {form.name: [] for form in forms}
        self.flips: dict[bool, list[tuple[LayerFlips, ...]]] = {True: [], False: []}
        self.logits: list[NDArray[np.float32]] = []
        self.trained_logits: list[NDArray[np.float32]] = []

    def add(self, images: Images, offset: int, report: Callable[[str], None]) -> None:
        """Compare all forms on one batch that starts at image ``offset``."""
        report("oracle")
        want = trace_float64(self.graph, images)
        self.logits.append(np.asarray(want[self.graph.output.name], np.float32))
        if self.trained is not None:
            report("fake-quant network")
            self._add_flips(self.trained, images, offset, want=want)
        for form in self.forms:
            few = images if form.limit is None else images[: max(0, form.limit - offset)]
            if len(few):
                report(form.name)
                expected = {name: values[: len(few)] for name, values in want.items()}
                stage = compare_traces(form.name, form.trace(few), expected, detail=form.detail)
                self.stages[form.name].append(stage.shifted(offset))

    def _add_flips(
        self, trained: _TrainedNet, images: Images, offset: int, *, want: Traces
    ) -> None:
        from bitfold.export import compare_codes

        codes = {name: np.asarray(want[name], np.int64) for name in trained.names}
        for layer_by_layer, parts in self.flips.items():
            found, logits = compare_codes(
                trained.model, trained.names, images, codes=codes, layer_by_layer=layer_by_layer
            )
            parts.append(tuple(flip.shifted(offset) for flip in found))
            if not layer_by_layer:
                self.trained_logits.append(logits)

    def merged_flips(self, *, layer_by_layer: bool) -> dict[str, "LayerFlips"]:
        """Flips of every quantizer over all batches."""
        from bitfold.export import merge_flips

        columns = zip(*self.flips[layer_by_layer], strict=True)
        merged = [merge_flips(list(column)) for column in columns]
        return {flip.name: flip for flip in merged}

    def all_stages(self) -> tuple[Stage, ...]:
        """The float network's stages, then one stage a form."""
        trained = [] if self.trained is None else self._flip_stages(self.trained)
        forms = [_merge_stages(parts) for parts in self.stages.values() if parts]
        return (*trained, *forms)

    def _flip_stages(self, trained: _TrainedNet) -> list[Stage]:
        flips = self.merged_flips(layer_by_layer=True).values()
        stages = []
        for exact, label in ((True, "exact layers"), (False, "stream layers")):
            chosen = [flip for flip in flips if trained.reports[flip.name].exact == exact]
            if chosen:
                stages.append(_flip_stage(f"fake-quant float64, {label}", chosen, exact=exact))
        return [*stages, *_bound_stages(list(flips), trained.reports)]

    def records(self) -> tuple[LayerRecord, ...]:
        """The fold's layer table."""
        if self.trained is None:
            return ()
        alone = self.merged_flips(layer_by_layer=True)
        running = self.merged_flips(layer_by_layer=False)
        reports = self.trained.reports
        return tuple(
            LayerRecord(
                name, reports[name].exact, reports[name].error,
                flip.compared, flip.flips, running[name].flips, flip.farthest,
            )
            for name, flip in alone.items()
        )  # fmt: skip


def _flip_stage(name: str, flips: Sequence["LayerFlips"], *, exact: bool) -> Stage:
    worst = next((flip for flip in flips if flip.first is not None), None)
    first = None
    if worst is not None and worst.first is not None:
        first = FirstDifference(worst.name, worst.first, worst.got, worst.want)
    return Stage(
        name,
        ORACLE,
        sum(flip.compared for flip in flips),
        sum(flip.flips for flip in flips),
        float(max(flip.max_abs_diff for flip in flips)),
        first,
        exact,
        f"{len(flips)} layers",
    )


def _bound_stages(
    flips: Sequence["LayerFlips"], reports: Mapping[str, "LayerReport"]
) -> list[Stage]:
    """Whether each layer's flips lie as close to a crossing as its bound says."""
    bounded = [flip for flip in flips if not reports[flip.name].exact]
    beyond = [
        flip
        for flip in bounded
        if flip.farthest > reports[flip.name].error * (1 + FLOAT64_NOISE) + FLOAT64_NOISE
    ]
    if not bounded:
        return []
    first = _flip_stage("", beyond, exact=True).first if beyond else None
    most = max((flip.farthest for flip in bounded), default=0.0)
    name, detail = "fake-quant float64, flips beyond their bound", f"{len(bounded)} layers"
    return [Stage(name, ORACLE, len(bounded), len(beyond), most, first, detail=detail)]


def _merge_stages(parts: Sequence[Stage]) -> Stage:
    """One stage over several batches; ``first`` is the earliest."""
    return replace(
        parts[0],
        compared=sum(part.compared for part in parts),
        mismatches=sum(part.mismatches for part in parts),
        max_abs_diff=max(part.max_abs_diff for part in parts),
        first=next((part.first for part in parts if part.first is not None), None),
    )


def _accuracy(
    logits: Sequence[NDArray[np.float32]], labels: NDArray[np.int64] | None
) -> float | None:
    if labels is None or not logits:
        return None
    return float((np.concatenate(logits).argmax(1) == labels).mean())


def certify(
    graph: IntGraph,
    images: Images,
    *,
    labels: NDArray[np.int64] | None = None,
    model_path: Path | None = None,
    checkpoint: Path | None = None,
    published: "PublishedOptions | None" = None,
    stages: Sequence[Stage] = (),
    report: Callable[[str], None] = lambda stage: None,
) -> Certificate:
    """Run every form of ``graph`` on ``images`` (N, H, W, C) and compare them with the oracle.

    ``model_path`` is an ONNX file to run as it is; the profiles it does not have are written from
    ``graph``;
    ``checkpoint`` adds the trained network, read as ``published`` asks. ``report`` is told each
    stage before it runs; ``stages`` compared elsewhere are taken in.
    Raises UsageError without images or with another network's checkpoint.
    """
    if not len(images):
        raise UsageError("there are no images to compare on", todo="Give at least one image.")
    trained = _trained_net(graph, checkpoint, published) if checkpoint is not None else None
    with ExitStack() as stack:
        found = (
            _definition_form(graph), *_kernel_forms(graph, stack),
            *_onnx_forms(graph, model_path), _array_form(graph),
        )  # fmt: skip
        forms = [form for form in found if isinstance(form, _Form)]
        comparison = _Comparison(graph, forms, trained)
        for offset in range(0, len(images), BATCH):
            comparison.add(images[offset : offset + BATCH], offset, report)
    absent = (stage for stage in found if isinstance(stage, Stage))
    return Certificate(
        len(images),
        (*stages, *comparison.all_stages(), *absent),
        comparison.records(),
        () if trained is None else tuple(layer for layer in trained.folding if not layer.exact),
        sum(isinstance(t, Accumulator) for t in graph.types.values()),
        requantization_pairs(graph),
        _accuracy(comparison.logits, labels),
        _accuracy(comparison.trained_logits, labels),
    )
