"""The state_dict of somebody else's checkpoint: unwrapped, its tensors checked one by one.

METHODS of the papers' code: a file is ``{net | model_state_dict | state_dict: tensors, …}`` or the
tensors themselves, names with or without one leading ``module.``. Nothing in it says what the
pixels were normalized with; ``PublishedOptions`` does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfold.errors import InputError, UnsupportedError, UsageError
from bitfold.models.loaded_net import kind_of, shortened
from bitfold.models.nets import QuantNet
from bitfold.models.spec import NetSpec, PublishedPreprocessing

WRAPPERS = ("net", "model_state_dict", "state_dict")
PARALLEL_PREFIX = "module."
DEFAULT_EDGE_BITS = 8
NORM_EPS = 1e-5  # torch's default, which all of the published networks keep
NORM_FIELDS = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class PublishedOptions:
    """What a checkpoint does not say about the network to make of it.

    ``input_shape`` is (H, W, C); ``genome`` BASQ's branch a block; ``bits`` (weights, activations)
    where no tensor stores them (PACT), checked against the tensors elsewhere; ``edge_bits`` the
    bits given to first and last layers that were trained in float (default 8); ``class_names``
    default to the class numbers. ``calibration`` images (N, H, W, C) give a classifier that is fed
    with real numbers an 8-bit input. Genome and edge bits count for checkpoints of ours as well.
    """

    input_shape: tuple[int, int, int] | None = None
    preprocessing: PublishedPreprocessing | None = None
    genome: tuple[int, ...] | None = None
    edge_bits: int | None = None
    bits: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    calibration: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)

    def require_input(self) -> tuple[tuple[int, int, int], PublishedPreprocessing]:
        """Image shape and preprocessing; UsageError if one is missing or they disagree."""
        if self.input_shape is None or self.preprocessing is None:
            raise UsageError(
                "a published checkpoint says neither the image size nor the preprocessing",
                where="options --input, --mean, --std",
                todo="Give --input HxWxC and --mean, --std (one or C numbers, units of pixel/255).",
            )
        channels, given = self.input_shape[2], len(self.preprocessing.means)
        if channels != given:
            raise UsageError(
                f"{given} means and stds for images of {channels} channels",
                where="options --input, --mean, --std",
                todo=f"Give one number or {channels}.",
            )
        return self.input_shape, self.preprocessing

    @property
    def float_edge_bits(self) -> int:
        """Bits for layers that were trained in float."""
        return DEFAULT_EDGE_BITS if self.edge_bits is None else self.edge_bits

    def names_of(self, num_classes: int) -> tuple[str, ...]:
        """``class_names``, or the numbers; UsageError if there are not ``num_classes``."""
        if not self.class_names:
            return tuple(map(str, range(num_classes)))
        if len(self.class_names) != num_classes:
            raise UsageError(
                f"{len(self.class_names)} class names for {num_classes} classes",
                where="class names",
                todo="Give one name a class, in the order of the logits.",
            )
        return self.class_names


def unwrap(content: object, where: str) -> dict[str, Tensor]:
    """Tensors by name, wrapper and one ``module.`` taken off.

    Raises UnsupportedError if there are none to be found, InputError for entries that are no
    dense tensors or claim more elements than the file holds.
    """
    inner = content
    if isinstance(content, dict):
        wrapped = (content[key] for key in WRAPPERS if isinstance(content.get(key), dict))
        inner = next(wrapped, content)
    if not isinstance(inner, dict) or not any(isinstance(v, Tensor) for v in inner.values()):
        keys = shortened(map(str, inner)) if isinstance(inner, dict) else type(inner).__name__
        raise UnsupportedError(
            f"readable, but neither a checkpoint of bitfold nor a published one: it holds "
            f"{keys or 'nothing'}",
            where=where,
            todo="Known: bitfold's own, UniQ, BASQ, STTN and fms-style PACT/SAWB checkpoints.",
        )
    for name, value in inner.items():
        _check_entry(name, value, where)
    prefixed = all(name.startswith(PARALLEL_PREFIX) for name in inner)
    start = len(PARALLEL_PREFIX) if prefixed else 0
    return {name[start:]: value for name, value in inner.items()}


def _check_entry(name: object, value: object, where: str) -> None:
    if not isinstance(name, str):
        raise bad_tensor(f"the entry {name!r}", "has a name that is no text", where)
    if not isinstance(value, Tensor):
        raise bad_tensor(name, f"is a {type(value).__name__}, not a tensor", where)
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise bad_tensor(name, f"is not a plain tensor but {kind_of(value)}", where)
    # A stride of 0 lets a few bytes pose as terabytes; the first operation would allocate them.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise bad_tensor(name, f"claims shape {tuple(value.shape)} with fewer bytes stored", where)


def bad_tensor(name: str, fault: str, where: str) -> InputError:
    """The error for one tensor, named as the file names it."""
    return InputError(
        f"{name} {fault}", where=where, todo="The file is damaged, or training diverged."
    )


@dataclass(slots=True)
class TensorTable:
    """The tensors of a checkpoint, checked as they are taken; what nobody took is an error.

    ``values`` has the names without ``module.``; ``where`` names the file. ``notes`` collects
    what is legal but worth saying.
    """

    values: Mapping[str, Tensor]
    where: str
    notes: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def take(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """The float32 tensor ``name``, finite and of ``shape``; InputError otherwise."""
        value = self.raw(name)
        if value.dtype != torch.float32:
            raise self.fault(name, f"is {kind_of(value)}; float32 is expected")
        if shape is not None and tuple(value.shape) != shape:
            raise self.fault(name, f"has shape {tuple(value.shape)}, not {shape}")
        if not bool(torch.isfinite(value).all()):
            raise self.fault(name, "holds NaN or infinity")
        return value.clone(memory_format=torch.contiguous_format)

    def raw(self, name: str) -> Tensor:
        """The tensor ``name`` of any dtype; InputError if it is missing."""
        if name not in self.values:
            raise InputError(
                f"{name} is missing",
                where=self.where,
                todo="Give the whole checkpoint as the published code wrote it.",
            )
        self._taken.add(name)
        return self.values[name].detach()

    def number(self, name: str) -> float:
        """The one finite number in ``name``, of any plain dtype."""
        value = self.raw(name)
        if value.numel() != 1 or value.is_complex():
            raise self.fault(name, f"is {kind_of(value)}; one number is expected")
        number = float(value)
        if not abs(number) < float("inf"):
            raise self.fault(name, f"is {number}")
        return number

    def positive(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """``take``, all entries above zero."""
        value = self.take(name, shape)
        if value.numel() and float(value.min()) <= 0:
            raise self.fault(name, f"falls to {float(value.min()):g}; it must be positive")
        return value

    def shape(self, name: str, dims: int) -> tuple[int, ...]:
        """Shape of ``name``, which must have ``dims`` dimensions, none of them 0."""
        found = tuple(self.raw(name).shape)
        if len(found) != dims or 0 in found:
            raise self.fault(name, f"has shape {found}; {dims} dimensions are expected")
        return found

    def norm(self, prefix: str, channels: int) -> dict[str, Tensor]:
        """A batch norm's tensors by field; variance + eps must be positive, gamma 0 is noted."""
        fields = {f: self.take(f"{prefix}.{f}", (channels,)) for f in NORM_FIELDS}
        lowest = float(fields["running_var"].min())
        if float((fields["running_var"] + NORM_EPS).min()) <= 0:  # the sum that float32 makes
            raise self.fault(f"{prefix}.running_var", f"falls to {lowest:g}; variance + eps ≤ 0")
        constant = int((fields["weight"] == 0).sum())
        if constant:
            self.notes.append(
                f"{prefix}.weight is 0 in {constant} channels: their output is constant"
            )
        counter = f"{prefix}.{COUNTER}"
        count = int(self.number(counter)) if counter in self else 0
        return {**fields, COUNTER: torch.tensor(count)}

    def drop(self, prefix: str) -> None:
        """Take every tensor under ``prefix`` without reading it."""
        self._taken.update(name for name in self.values if name.startswith(prefix))

    def finish(self) -> None:
        """Raise InputError naming tensors that nothing took."""
        extra = [name for name in self.values if name not in self._taken]
        if extra:
            raise InputError(
                f"tensors that this network has no place for: {shortened(extra)}",
                where=self.where,
                todo="The file holds another network, or a variant that is not known.",
            )

    def fault(self, name: str, what: str) -> InputError:
        """The error that ``name`` is unusable."""
        return bad_tensor(name, what, self.where)

    def unsupported(self, what: str, todo: str) -> UnsupportedError:
        """The error for a sound file of a network that is not offered."""
        return UnsupportedError(what, where=self.where, todo=todo)


@dataclass(slots=True)
class Assembly:
    """A network of ours being put together: its spec, its tensors, where each one came from."""

    spec: NetSpec
    table: TensorTable
    prepare: Callable[[QuantNet], QuantNet] = lambda model: model
    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def put(self, target: str, value: Tensor, origin: str) -> None:
        """Make ``value`` the network's ``target``; ``origin`` is its name in the file."""
        self.tensors[target] = value
        self.origins[target] = origin

    def copy(self, origin: str, target: str, shape: tuple[int, ...] | None = None) -> None:
        """Take ``origin`` as it is."""
        self.put(target, self.table.take(origin, shape), origin)

    def norm(self, origin: str, target: str, channels: int) -> None:
        """Take a batch norm."""
        for name, value in self.table.norm(origin, channels).items():
            self.put(f"{target}.{name}", value, f"{origin}.{name}")
