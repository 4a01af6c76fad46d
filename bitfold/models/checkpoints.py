"""Our checkpoint file: read without running anything in it, written whole or not at all.

    {format: "bitfold/checkpoint/1", spec: dict, record: dict, model: state_dict}

``spec`` rebuilds the network (``NetSpec``), ``record`` says how it was trained, ``model`` holds
contiguous CPU tensors.
"""

import io
import pickle
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from bitfold.errors import InputError, UnsupportedError, UsageError
from bitfold.files import write_atomically
from bitfold.models.layers import PixelConv2d, QuantConv2d, QuantLinear
from bitfold.models.nets import PreActResNet, build_network
from bitfold.models.protocol import ActivationQuantizer
from bitfold.models.spec import NetSpec

CHECKPOINT_FORMAT = "bitfold/checkpoint/1"
FAMILY = CHECKPOINT_FORMAT.rsplit("/", 1)[0] + "/"
NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class LoadedNet:
    """A network in eval mode, what it is, and how it came to be."""

    model: PreActResNet
    spec: NetSpec
    record: Mapping[str, object] = field(default_factory=dict)


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
    path: Path | str, model: PreActResNet, *, record: Mapping[str, object] | None = None
) -> None:
    """Write ``model`` and its ``spec``; on OutputError an existing file keeps its content."""
    content = {
        "format": CHECKPOINT_FORMAT,
        "spec": model.spec.to_dict(),
        "record": dict(record or {}),
        "model": {name: _plain(tensor) for name, tensor in model.state_dict().items()},
    }
    write_atomically(path, to_bytes(content))


def load_checkpoint(path: Path | str) -> LoadedNet:
    """Read and check a checkpoint.

    Raises InputError for a missing, damaged or inconsistent file and UnsupportedError for one
    that is sound but not ours, of another version, or of a network that is not offered.
    """
    path = Path(path)
    content = _our_content(read_tensors(path), path)
    spec = _spec(content["spec"], path)
    model = _empty_network(spec, path)
    tensors = content["model"]
    _check_tensors(model.state_dict(), tensors, path)
    assert isinstance(tensors, dict)
    model.load_state_dict(tensors, assign=True)
    problems = list(_value_problems(model))
    if problems:
        raise InputError(
            f"the checkpoint's numbers make no network: {_shortened(problems)}",
            where=f"file {path}",
            todo="Train it again, with a lower learning rate if it diverged.",
        )
    record = content["record"]
    assert isinstance(record, dict)
    return LoadedNet(model.eval(), spec, record)


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


def _damaged(path: Path, reason: str) -> InputError:
    size = path.stat().st_size
    first = next(iter(reason.strip().splitlines()), "") or "it ends too early"
    return InputError(
        f"the checkpoint is truncated, damaged or no checkpoint ({size} bytes): {first}",
        where=f"file {path}",
        todo="Copy or write it again.",
    )


def _our_content(content: object, path: Path) -> dict[str, object]:
    where = f"file {path}"
    name = content.get("format") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(name, str) or not name.startswith(FAMILY):
        keys = (
            _shortened(map(str, content)) if isinstance(content, dict) else type(content).__name__
        )
        raise UnsupportedError(
            f"readable, but not a checkpoint of bitfold: it holds {keys or 'nothing'}",
            where=where,
            todo="Published layouts are not read yet; train with `bitfold train`.",
        )
    if name != CHECKPOINT_FORMAT:
        raise UnsupportedError(
            f"checkpoint format {name!r}; this version reads {CHECKPOINT_FORMAT!r}",
            where=where,
            todo="Use the version of bitfold that wrote it.",
        )
    wrong = [key for key in ("spec", "record", "model") if not isinstance(content.get(key), dict)]
    if wrong:
        raise InputError(
            f"the checkpoint has no {_shortened(wrong)}", where=where, todo="Write it again."
        )
    return content


def _spec(fields: object, path: Path) -> NetSpec:
    assert isinstance(fields, dict)
    try:
        return NetSpec.from_dict(fields)
    except UsageError as error:
        raise UnsupportedError(error.what, where=f"file {path}", todo=error.todo) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad_spec(path, error) from error


def _empty_network(spec: NetSpec, path: Path) -> PreActResNet:
    try:
        with torch.device("meta"):
            return build_network(spec)
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


def _check_tensors(want: Mapping[str, Tensor], got: object, path: Path) -> None:
    """Raise InputError naming tensors that are missing, left over, mis-shaped or not finite."""
    assert isinstance(got, dict)
    missing = [name for name in want if name not in got]
    extra = [str(name) for name in got if name not in want]
    known = {name: got[name] for name in want if name in got}
    shapes = [
        f"{name} is {_kind(value)}, not {_kind(want[name])}"
        for name, value in known.items()
        if _kind(value) != _kind(want[name])
    ]
    broken = [
        name
        for name, value in known.items()
        if isinstance(value, Tensor) and not torch.isfinite(value).all()
    ]
    faults = {
        "missing": missing,
        "unexpected": extra,
        "of another kind": shapes,
        "not finite": broken,
    }
    found = [f"{kind}: {_shortened(names)}" for kind, names in faults.items() if names]
    if found:
        raise InputError(
            f"the checkpoint's tensors do not fit its network; {'; '.join(found)}",
            where=f"file {path}",
            todo="Write the checkpoint again; it was changed, or training diverged.",
        )


def _kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    layout = "" if value.layout == torch.strided else f" {value.layout}"
    return f"{str(value.dtype).removeprefix('torch.')}{layout} {tuple(value.shape)}"


def _value_problems(model: nn.Module) -> list[str]:
    """What makes a module of finite numbers impossible to evaluate."""
    problems = []
    for name, module in model.named_modules():
        match module:
            case ActivationQuantizer():
                problems += [f"{name}.{fault}" for fault in module.faults()]
            case nn.BatchNorm2d(running_var=Tensor() as variance):
                if float(variance.min()) + module.eps <= 0:
                    problems.append(f"{name}.running_var falls to {float(variance.min()):g}")
            case PixelConv2d():
                faults = module.weight_quantizer.faults(module.pixel_weight().detach())
                problems += [f"{name}.{fault}" for fault in faults]
            case QuantConv2d() | QuantLinear():
                faults = module.weight_quantizer.faults(module.weight.detach())
                problems += [f"{name}.{fault}" for fault in faults]
            case _:
                pass
    return problems


def _shortened(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMES_SHOWN} more" if len(listed) > NAMES_SHOWN else ""
    return ", ".join(map(str, listed[:NAMES_SHOWN])) + more
