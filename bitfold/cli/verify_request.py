"""What ``bitfold verify`` is asked to certify, and its reading: model, images, options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from bitfold.cli.inputs import open_model, open_values, require_file
from bitfold.cli.published_options import published_options
from bitfold.cli.shell import Shell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bitfold.certify import Certificate, DataSource, Inputs, Stage
    from bitfold.ir import IntGraph
    from bitfold.models import PublishedOptions

DEFAULT_LIMIT = 500
OPTIONS = ("genome", "edges", "input_shape", "mean", "std", "bits", "calib")


@dataclass(frozen=True, slots=True)
class Request:
    """One certificate: its files, images, and the text of every option that shapes the network."""

    model: Path
    data: str
    checkpoint: Path | None = None
    limit: int = DEFAULT_LIMIT
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def published(self) -> "PublishedOptions":
        """The options as one value; raises UsageError for text that is none."""
        return published_options(**{key: self.options.get(key) for key in OPTIONS})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A request with everything read; ``own_values`` in the form of another tool's model."""

    request: Request
    published: "PublishedOptions"
    graph: "IntGraph"
    images: "NDArray[np.uint8]"
    labels: "NDArray[np.int64] | None"
    own_values: "NDArray[np.generic] | None"

    def inputs(self) -> "Inputs":
        """Digests of everything read."""
        from bitfold.certify import inputs_of_certificate
        from bitfold.ir.own_input import without_own_input

        return inputs_of_certificate(
            without_own_input(self.graph), self.images, labels=self.labels,
            files=(self.request.model, self.request.checkpoint), source=self._source(),
        )  # fmt: skip

    def _source(self) -> "DataSource":
        from bitfold.certify import DataSource

        return DataSource(self.request.data, self.request.limit, dict(self.request.options))

    def certificate(self, shell: Shell) -> "Certificate":
        """Run every form, showing each stage."""
        from bitfold.certify import certify
        from bitfold.ir.own_input import without_own_input

        own, model = self.own_values, self.request.model
        with shell.progress() as bar:
            task = bar.add_task("verify", total=None)
            return certify(
                without_own_input(self.graph),
                self.images,
                labels=self.labels,
                stages=() if own is None else _runtime_stages(model, own),
                model_path=model,
                checkpoint=self.request.checkpoint,
                published=self.published,
                source=self._source(),
                report=lambda stage: bar.update(task, description=f"verify: {stage}"),
            )


def load(request: Request) -> Loaded:
    """Read the model and at most ``limit`` images."""
    if request.checkpoint is not None:
        require_file(request.checkpoint, kind="checkpoint")
    published = request.published()
    graph = open_model(request.model, published=published)
    return Loaded(request, published, graph, *open_data(graph, request.data, request.limit))


def open_data(
    graph: "IntGraph", data: str, limit: int
) -> tuple["NDArray[np.uint8]", "NDArray[np.int64] | None", "NDArray[np.generic] | None"]:
    """Pixels, labels, and the same in the form of another tool's model, which may be a file."""
    from bitfold.ir.own_input import own_input
    from bitfold.models import load_images

    own = own_input(graph)
    if own is not None and data.endswith(".npy"):
        values = open_values(Path(data))[:limit]
        return own.to_pixels(values), None, values
    labelled = load_images(data)
    labels = None if labelled.labels is None else labelled.labels[:limit]
    if own is None:
        return labelled.images[:limit], labels, None
    given = own.of_images(labelled.images[:limit])
    return own.to_pixels(given), labels, given


def _runtime_stages(model: Path, values: "NDArray[np.generic]") -> tuple["Stage", ...]:
    """The model itself under ONNX Runtime: layers fed with its codes, float32 rounding differs."""
    from bitfold.certify import runtime_stage
    from bitfold.export import compare_file

    return tuple(
        runtime_stage(name, compare_file(model, values, optimized=optimized))
        for name, optimized in (
            ("the given model in onnxruntime", True),
            ("the given model in onnxruntime unoptimized", False),
        )
    )
