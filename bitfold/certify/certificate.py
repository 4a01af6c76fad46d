"""All forms of one network on a batch, and what is proved without running anything."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfold.certify.forms import Form, array_form, definition_form, kernel_forms, onnx_forms
from bitfold.certify.inputs import DataSource, Inputs, environment, inputs_of_certificate
from bitfold.certify.proofs import (
    AccumulatorProof,
    accumulator_proofs,
    accumulator_stage,
    pairs_checked,
    requantization_checks,
    requantization_stages,
)
from bitfold.certify.stages import Images, Stage, compare_traces, merge_stages
from bitfold.certify.trained import LayerRecord, TrainedComparison, trained_net
from bitfold.errors import UsageError
from bitfold.ir import IntGraph, trace_float64

if TYPE_CHECKING:
    from bitfold.export import LayerReport, RequantCheck
    from bitfold.models import PublishedOptions

SCHEMA = "bitfold/verify/1"
BATCH = 50


@dataclass(frozen=True, slots=True)
class Certificate:
    """All stages, what was proved without running anything, and the fold's layer table.

    ``accumulators`` and ``requantization`` say layer by layer what is proved and how.
    ``folding`` lists every bound that the fold stated: stream, channel multipliers, biases.
    """

    images: int
    stages: tuple[Stage, ...]
    layers: tuple[LayerRecord, ...]
    folding: tuple["LayerReport", ...]
    accumulators_proved: int
    requant_pairs_checked: int
    accumulators: tuple[AccumulatorProof, ...]
    requantization: tuple["RequantCheck", ...]
    top1: float | None
    top1_fake_quant: float | None
    inputs: Inputs
    environment: Mapping[str, object]

    @property
    def ok(self) -> bool:
        """No exact stage has a mismatch."""
        return not any(stage.exact and stage.mismatches for stage in self.stages)

    def to_dict(self) -> dict[str, object]:
        """The JSON form (INTERFACE: verify)."""
        plain = ("inputs", "environment")
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in plain}
        lists = {key: plain_values(value) for key, value in found.items()}
        return {"schema": SCHEMA, **lists, "ok": self.ok} | {
            "inputs": self.inputs.to_dict(),
            "environment": dict(self.environment),
        }


def plain_values(value: object) -> object:
    """Tuples of dataclasses as lists of their fields."""
    return [asdict(entry) for entry in value] if isinstance(value, tuple) else value


class _Comparison:
    """Everything that is compared, batch by batch, and the sums so far."""

    def __init__(
        self, graph: IntGraph, forms: Sequence[Form], trained: TrainedComparison | None
    ) -> None:
        self.graph = graph
        self.forms = forms
        self.trained = trained
        self.stages: dict[str, list[Stage]] = {form.name: [] for form in forms}
        self.logits: list[NDArray[np.float32]] = []

    def add(self, images: Images, offset: int, report: Callable[[str], None]) -> None:
        """Compare all forms on one batch that starts at image ``offset``."""
        report("oracle")
        want = trace_float64(self.graph, images)
        self.logits.append(np.asarray(want[self.graph.output.name], np.float32))
        if self.trained is not None:
            report("fake-quant network")
            self.trained.add(images, offset, want=want)
        for form in self.forms:
            few = images if form.limit is None else images[: max(0, form.limit - offset)]
            if len(few):
                report(form.name)
                expected = {name: values[: len(few)] for name, values in want.items()}
                stage = compare_traces(
                    form.name, form.trace(few), expected, graph=self.graph, detail=form.detail
                )
                self.stages[form.name].append(stage.shifted(offset))

    def all_stages(self) -> tuple[Stage, ...]:
        """The float network's stages, then one stage a form."""
        trained = () if self.trained is None else self.trained.stages()
        return (*trained, *(merge_stages(parts) for parts in self.stages.values() if parts))


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
    source: DataSource = DataSource(),  # noqa: B008  # frozen
    report: Callable[[str], None] = lambda stage: None,
) -> Certificate:
    """Run every form of ``graph`` on ``images`` (N, H, W, C) and compare them with the oracle.

    ``model_path`` is the file that ``graph`` was read from; where it is ONNX it is run as it is,
    and the profiles it does not have are written from ``graph``. ``checkpoint`` adds the trained
    network, read as ``published`` asks. ``report`` is told each stage before it runs; ``stages``
    compared elsewhere are taken in; ``source`` is recorded with the digests of all inputs.
    Raises UsageError without images or with another network's checkpoint.
    """
    if not len(images):
        raise UsageError("there are no images to compare on", todo="Give at least one image.")
    files = (model_path, checkpoint)
    inputs = inputs_of_certificate(graph, images, labels=labels, files=files, source=source)
    trained = None
    if checkpoint is not None:
        trained = TrainedComparison(trained_net(graph, checkpoint, published))
    with ExitStack() as stack:
        is_onnx = model_path is not None and model_path.suffix == ".onnx"
        found = (
            definition_form(graph), *kernel_forms(graph, stack),
            *onnx_forms(graph, model_path if is_onnx else None), array_form(graph),
        )  # fmt: skip
        forms = [form for form in found if isinstance(form, Form)]
        comparison = _Comparison(graph, forms, trained)
        for offset in range(0, len(images), BATCH):
            comparison.add(images[offset : offset + BATCH], offset, report)
    absent = (stage for stage in found if isinstance(stage, Stage))
    report("proofs")
    return _finished(comparison, (*stages, *comparison.all_stages(), *absent), inputs, labels)


def _finished(
    comparison: _Comparison,
    stages: tuple[Stage, ...],
    inputs: Inputs,
    labels: NDArray[np.int64] | None,
) -> Certificate:
    graph, trained = comparison.graph, comparison.trained
    folding = () if trained is None else trained.trained.folding
    accumulators = accumulator_proofs(graph)
    checks = requantization_checks(graph, () if trained is None else trained.trained.decisions)
    return Certificate(
        inputs.images_shape[0],
        (*stages, accumulator_stage(graph), *requantization_stages(checks)),
        () if trained is None else trained.records(),
        tuple(layer for layer in folding if not layer.exact),
        len(accumulators),
        pairs_checked(checks),
        accumulators,
        checks,
        _accuracy(comparison.logits, labels),
        None if trained is None else _accuracy(trained.logits, labels),
        inputs,
        environment(),
    )
