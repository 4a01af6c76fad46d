"""Checkpoint files: read without running anything in them, written whole or not at all.

    {format: "bitfold/checkpoint/1", spec: dict, record: dict, model: state_dict}

``spec`` rebuilds the network (``NetSpec``), ``record`` says how it was trained, ``model`` holds
contiguous CPU tensors. A file without ``format`` is a published one (``bitfold.models.published``).
"""

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bitfold.errors import InputError, UnsupportedError, UsageError
from bitfold.files import write_atomically
from bitfold.models.loaded_net import (
    LoadedNet,
    empty_network,
    shortened,
    tensor_faults,
    value_problems,
)
from bitfold.models.nets import QuantNet
from bitfold.models.nets.basq_units import BranchedNet, extract
from bitfold.models.published import PublishedOptions, import_published, quantize_last_input
from bitfold.models.spec import NetSpec

CHECKPOINT_FORMAT = "bitfold/checkpoint/1"
FAMILY = CHECKPOINT_FORMAT.rsplit("/", 1)[0] + "/"


def read_tensors(path: Path) -> object:
    """The content of a file that ``torch.save`` wrote: tensors and plain values only.

    Raises InputError if it is missing, damaged, or holds any other Python object; nothing that
    the file contains is executed.
    """
    where = f"file {path}"
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"the checkpoint {what}", where=where, todo="Check the path.")
    try:
        stream = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"the checkpoint cannot be read: {error}", where=where, todo="Check its permissions."
        ) from error
    _require_no_compression(stream, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    # torch's readers raise what they please on damaged bytes: RuntimeError, EOFError, KeyError …
    except Exception as error:
        raise _damaged(path, str(error)) from error


def save_checkpoint(
    path: Path | str, model: QuantNet, *, record: Mapping[str, object] | None = None
) -> None:
    """Write ``model`` and its ``spec``; on OutputError an existing file keeps its content."""
    content = {
        "format": CHECKPOINT_FORMAT,
        "spec": model.spec.to_dict(),
        "record": dict(record or {}),
        "model": {name: _plain(tensor) for name, tensor in model.state_dict().items()},
    }
    write_atomically(path, to_bytes(content))


def load_checkpoint(path: Path | str, *, published: PublishedOptions | None = None) -> LoadedNet:
    """Read and check a checkpoint, ours or a published one, as ``published`` asks.

    Raises InputError for a missing, damaged or inconsistent file, UnsupportedError for one that is
    sound but of no known layout, of another version, or of a network that is not offered, and
    UsageError if a published one needs options that are not given.
    """
    path = Path(path)
    options = published or PublishedOptions()
    content = read_tensors(path)
    if not _is_ours(content):
        return import_published(content, options, where=f"file {path}")
    fields = _our_fields(content, path)
    spec = _spec(fields["spec"], path)
    if options.edge_bits is not None:
        spec = replace(spec, edge_bits=options.edge_bits)
    model = _filled(_empty_network(spec, path), fields["model"], path)
    if options.genome is not None:
        model = _with_genome(model, options.genome, path)
    notes = []
    if options.calibration is not None:
        notes.append(quantize_last_input(model, options.calibration))
    return LoadedNet(model, model.spec, fields["record"], tuple(notes))


def load_one_network(path: Path | str, *, published: PublishedOptions | None = None) -> LoadedNet:
    """``load_checkpoint``, but UsageError for a BASQ supernet without a genome."""
    loaded = load_checkpoint(path, published=published)
    if isinstance(loaded.model, BranchedNet) and not loaded.spec.genome:
        raise UsageError(
            f"the checkpoint holds a supernet of {loaded.model.num_blocks} blocks with branches",
            where=f"file {path}",
            todo="Say which branch each block takes with --genome; `bitfold search` finds one.",
        )
    return loaded


def _with_genome(model: QuantNet, genome: tuple[int, ...], path: Path) -> QuantNet:
    """The one network of a BASQ supernet that ``genome`` names."""
    if not isinstance(model, BranchedNet) or model.spec.genome not in ((), genome):
        kind = "a network of another genome" if isinstance(model, BranchedNet) else "no supernet"
        raise UsageError(
            f"a genome was given, and the checkpoint holds {kind}",
            where=f"file {path}",
            todo="Leave --genome out, or give the BASQ supernet that the genome was found in.",
        )
    return model if model.spec.genome else extract(model, genome)


def _filled(model: QuantNet, tensors: Mapping[str, object], path: Path) -> QuantNet:
    faults = tensor_faults(model.state_dict(), tensors)
    if faults:
        raise InputError(
            f"the checkpoint's tensors do not fit its network; {'; '.join(faults)}",
            where=f"file {path}",
            todo="Write the checkpoint again; it was changed, or training diverged.",
        )
    model.load_state_dict(tensors, assign=True)
    problems = value_problems(model)
    if problems:
        raise InputError(
            f"the checkpoint's numbers make no network: {shortened(problems)}",
            where=f"file {path}",
            todo="Train it again, with a lower learning rate if it diverged.",
        )
    return model.eval()


def to_bytes(content: object) -> bytes:
    """What ``torch.save`` writes; equal content gives equal bytes."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _refused(path: Path, reason: str) -> InputError:
    if "invalid load key" in reason or "global" not in reason.lower():
        return _damaged(path, reason)
    named = next((line for line in reason.splitlines() if "global" in line.lower()), "")
    return InputError(
        f"the checkpoint holds Python objects beside tensors and was not opened: {named.strip()}",
        where=f"file {path}",
        todo="Save the state_dict alone; a file from a stranger may run code when it is unpickled.",
    )


def _require_no_compression(stream: io.BytesIO, path: Path) -> None:
    """Torch stores its tensors as they are: an archive that unfolds to more is not its own.

    Raises InputError before anything is unfolded.
    """
    unfolded = 0
    try:
        # Neither is torch's old format an archive, nor is what is damaged: torch.load says.
        if zipfile.is_zipfile(stream):
            with zipfile.ZipFile(stream) as archive:
                unfolded = sum(entry.file_size for entry in archive.infolist())
    # zipfile raises more than BadZipFile on damaged bytes: ValueError, UnicodeDecodeError …
    except Exception as error:
        raise _damaged(path, str(error)) from error
    stream.seek(0)
    size = stream.getbuffer().nbytes
    if unfolded > size:
        raise _damaged(path, f"its content is compressed and claims {unfolded} bytes")


def _damaged(path: Path, reason: str) -> InputError:
    size = path.stat().st_size
    first = next(iter(reason.strip().splitlines()), "") or "it ends too early"
    return InputError(
        f"the checkpoint is truncated, damaged or no checkpoint ({size} bytes): {first}",
        where=f"file {path}",
        todo="Copy or write it again.",
    )


def _is_ours(content: object) -> bool:
    return isinstance(content, dict) and str(content.get("format", "")).startswith(FAMILY)


def _our_fields(content: object, path: Path) -> dict[str, dict[str, object]]:
    assert isinstance(content, dict)
    where = f"file {path}"
    name = content["format"]
    if name != CHECKPOINT_FORMAT:
        raise UnsupportedError(
            f"checkpoint format {name!r}; this version reads {CHECKPOINT_FORMAT!r}",
            where=where,
            todo="Use the version of bitfold that wrote it.",
        )
    wrong = [key for key in ("spec", "record", "model") if not isinstance(content.get(key), dict)]
    if wrong:
        raise InputError(
            f"the checkpoint has no {shortened(wrong)}", where=where, todo="Write it again."
        )
    return content


def _spec(fields: Mapping[str, object], path: Path) -> NetSpec:
    try:
        return NetSpec.from_dict(fields)
    except UsageError as error:
        raise UnsupportedError(error.what, where=f"file {path}", todo=error.todo) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad_spec(path, error) from error


def _empty_network(spec: NetSpec, path: Path) -> QuantNet:
    try:
        return empty_network(spec)
    except UsageError as error:
        raise UnsupportedError(error.what, where=f"file {path}", todo=error.todo) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise _bad_spec(path, error) from error


def _bad_spec(path: Path, error: Exception) -> InputError:
    return InputError(
        f"the network specification is damaged: {type(error).__name__} {error}",
        where=f"file {path}, spec",
        todo="Write the checkpoint again.",
    )
