"""The trained network beside its integer graph, as stages and as a table of layers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfold.certify.causes import UNKNOWN, Cause
from bitfold.certify.stages import ORACLE, FirstDifference, Images, Stage, Traces
from bitfold.errors import UsageError
from bitfold.ir import IntGraph

if TYPE_CHECKING:
    from torch import nn

    from bitfold.export import Decision, LayerFlips, LayerReport
    from bitfold.export.fake_quant import Precision
    from bitfold.models import PublishedOptions

# What evaluating the trained network in float64 can itself move a value by.
FLOAT64_NOISE = 1e-9
# The same in float32, for values of ordinary size: it only names a likely cause.
FLOAT32_NOISE = 1e-4


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """How one quantizer was folded, and how often its codes differ from the trained network's.

    ``flips`` and ``flips_float32`` count layer by layer, fed by the graph's codes, the network
    computing in float64 and in float32; ``flips_free_running`` counts in the float32 network left
    to itself. ``farthest`` is how far, in real units, a value whose code differs in float64 lies
    from the crossing; it may not pass ``bound``.
    """

    name: str
    exact: bool
    bound: float
    compared: int
    flips: int
    flips_float32: int
    flips_free_running: int
    farthest: float
    farthest_float32: float


@dataclass(frozen=True, slots=True)
class TrainedNet:
    """The fake-quantized network and how each of its quantizers was folded."""

    model: "nn.Module"
    names: tuple[str, ...]
    folding: tuple["LayerReport", ...]
    decisions: tuple["Decision", ...]

    @property
    def reports(self) -> Mapping[str, "LayerReport"]:
        """How each quantizer was folded."""
        return {report.name: report for report in self.folding if report.kind == "thresholds"}


def trained_net(
    graph: IntGraph, checkpoint: Path, published: "PublishedOptions | None"
) -> TrainedNet:
    """The network in ``checkpoint`` and how it folds; UsageError where it is another one."""
    from bitfold.export import fold_network, quantizer_names
    from bitfold.models import load_one_network

    model = load_one_network(checkpoint, published=published).model
    folded = fold_network(model)
    names = quantizer_names(graph, model)
    if not names:
        raise UsageError(
            "the checkpoint and the model share no quantizer: they are different networks",
            where=f"file {checkpoint}",
            todo="Give the checkpoint that the model was exported from.",
        )
    return TrainedNet(model, names, folded.layers, folded.decisions)


# How the trained network is run: the name of its stages, float64 or not, fed by the graph or not.
ALONE_64, ALONE_32, RUNNING = "float64", "float32", "float32 free running"
WAYS: Mapping[str, tuple["Precision", bool]] = {
    ALONE_64: ("float64", True),
    ALONE_32: ("float32", True),
    RUNNING: ("float32", False),
}
NOISE = {ALONE_64: FLOAT64_NOISE, ALONE_32: FLOAT32_NOISE}


class TrainedComparison:
    """Flips of every quantizer, batch by batch, in each of the three ways to run the network."""

    def __init__(self, trained: TrainedNet) -> None:
        self.trained = trained
        self.flips: dict[str, list[tuple[LayerFlips, ...]]] = {way: [] for way in WAYS}
        self.logits: list[NDArray[np.float32]] = []

    def add(self, images: Images, offset: int, *, want: Traces) -> None:
        """Compare on one batch that starts at image ``offset``; ``want`` is the oracle's trace."""
        from bitfold.export import compare_codes

        codes = {name: np.asarray(want[name], np.int64) for name in self.trained.names}
        for way, (precision, is_fed) in WAYS.items():
            found, logits = compare_codes(
                self.trained.model, self.trained.names, images,
                codes=codes, layer_by_layer=is_fed, precision=precision,
            )  # fmt: skip
            self.flips[way].append(tuple(flip.shifted(offset) for flip in found))
            if way == RUNNING:
                self.logits.append(logits)

    def merged(self, way: str) -> dict[str, "LayerFlips"]:
        """Flips of every quantizer over all batches."""
        from bitfold.export import merge_flips

        columns = zip(*self.flips[way], strict=True)
        merged = [merge_flips(list(column)) for column in columns]
        return {flip.name: flip for flip in merged}

    def stages(self) -> tuple[Stage, ...]:
        """Layers by layer in both precisions, and whether the flips keep to their bounds."""
        return (*self._stages(ALONE_64), *self._bound_stages(), *self._stages(ALONE_32))

    def _stages(self, way: str) -> Iterator[Stage]:
        """Only float64 decides about the verdict: float32 rounds where the fold does not."""
        flips, reports = self.merged(way).values(), self.trained.reports
        for exact, label in ((True, "exact layers"), (False, "stream layers")):
            chosen = [flip for flip in flips if reports[flip.name].exact == exact]
            if chosen:
                decides = exact and way == ALONE_64
                reach = _reach(reports, NOISE[way])
                yield _flip_stage(f"fake-quant {way}, {label}", chosen, exact=decides, reach=reach)

    def _bound_stages(self) -> list[Stage]:
        return _bound_stages(list(self.merged(ALONE_64).values()), self.trained.reports)

    def records(self) -> tuple[LayerRecord, ...]:
        """The fold's layer table."""
        alone, single, running = (self.merged(way) for way in WAYS)
        reports = self.trained.reports
        return tuple(
            LayerRecord(
                name, reports[name].exact, reports[name].error, flip.compared, flip.flips,
                single[name].flips, running[name].flips, flip.farthest, single[name].farthest,
            )
            for name, flip in alone.items()
        )  # fmt: skip


def _flip_stage(
    name: str, flips: Sequence["LayerFlips"], *, exact: bool, reach: Mapping[str, float]
) -> Stage:
    """``reach``: how far from a crossing each layer's bound and the arithmetic can move a value."""
    worst = next((flip for flip in flips if flip.first is not None), None)
    first = None
    if worst is not None and worst.first is not None:
        why = f"at most {worst.farthest:.2g} from the crossing in real units"
        cause = Cause("tie", why) if worst.farthest <= reach[worst.name] else UNKNOWN
        first = FirstDifference(
            worst.name, worst.first, worst.got, worst.want, cause.kind, cause.why
        )
    return Stage(
        name,
        ORACLE,
        sum(flip.compared for flip in flips),
        sum(flip.flips for flip in flips),
        float(max(flip.max_abs_diff for flip in flips)),
        first,
        exact,
        f"{len(flips)} layers, {_rate(flips):.2g} of the codes flip",
    )


def _reach(reports: Mapping[str, "LayerReport"], noise: float) -> dict[str, float]:
    return {name: report.error * (1 + noise) + noise for name, report in reports.items()}


def _rate(flips: Sequence["LayerFlips"]) -> float:
    return sum(flip.flips for flip in flips) / max(1, sum(flip.compared for flip in flips))


def _bound_stages(
    flips: Sequence["LayerFlips"], reports: Mapping[str, "LayerReport"]
) -> list[Stage]:
    """Whether each layer's flips lie as close to a crossing as its bound says."""
    bounded = [flip for flip in flips if not reports[flip.name].exact]
    reach = _reach(reports, FLOAT64_NOISE)
    beyond = [flip for flip in bounded if flip.farthest > reach[flip.name]]
    if not bounded:
        return []
    first = _flip_stage("", beyond, exact=True, reach=reach).first if beyond else None
    most = max((flip.farthest for flip in bounded), default=0.0)
    name, detail = "fake-quant float64, flips beyond their bound", f"{len(bounded)} layers"
    return [Stage(name, ORACLE, len(bounded), len(beyond), most, first, detail=detail)]
