"""What a certificate was made from and where: digests of every input, versions, CPU features."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bitfold import __version__
from bitfold.errors import InputError
from bitfold.ir import IntGraph, to_text
from bitfold.kernels import host_features

PACKAGES = ("numpy", "numba", "onnx", "onnxruntime", "openvino", "torch")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file by path, size and SHA-256."""

    path: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """The record of ``path``; raises InputError where it cannot be read."""
        try:
            with path.open("rb") as stream:
                digest, size = hashlib.file_digest(stream, "sha256"), stream.tell()
        except OSError as error:
            raise InputError(f"cannot read it: {error.strerror}", where=f"file {path}") from error
        return cls(str(path), size, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class DataSource:
    """What images were asked for: SPEC and limit; and the options that shaped the network."""

    spec: str | None = None
    limit: int | None = None
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that decides a certificate, by digest.

    ``graph_sha256`` is of the graph's canonical text, ``images_sha256`` of dtype, shape and bytes.
    """

    model: FileRecord | None
    checkpoint: FileRecord | None
    data: str | None
    limit: int | None
    options: Mapping[str, str]
    graph_sha256: str
    images_shape: tuple[int, ...]
    images_sha256: str
    labels_sha256: str | None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        files = {"model": self.model, "checkpoint": self.checkpoint}
        records = {
            key: record and {name: getattr(record, name) for name in ("path", "bytes", "sha256")}
            for key, record in files.items()
        }
        return records | {
            "data": self.data,
            "limit": self.limit,
            "options": dict(self.options),
            "graph_sha256": self.graph_sha256,
            "images_shape": list(self.images_shape),
            "images_sha256": self.images_sha256,
            "labels_sha256": self.labels_sha256,
        }


def array_sha256(array: NDArray[np.generic]) -> str:
    """SHA-256 of dtype, shape and bytes."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def inputs_of_certificate(
    graph: IntGraph,
    images: NDArray[np.uint8],
    *,
    labels: NDArray[np.int64] | None,
    files: tuple[Path | None, Path | None],
    source: DataSource,
) -> Inputs:
    """Digests of ``graph``, ``images``, ``labels`` and of the ``files`` model and checkpoint."""
    model, checkpoint = (None if path is None else FileRecord.of(path) for path in files)
    return Inputs(
        model, checkpoint, source.spec, source.limit, source.options,
        hashlib.sha256(to_text(graph).encode()).hexdigest(),
        images.shape, array_sha256(images),
        None if labels is None else array_sha256(np.asarray(labels, np.int64)),
    )  # fmt: skip


def environment() -> dict[str, object]:
    """Versions and CPU features that stages may depend on; absent packages are null."""
    found: dict[str, object] = {"bitfold": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    found["machine"] = platform.machine()
    found["cpu_features"] = sorted(host_features())
    return found
