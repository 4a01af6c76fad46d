"""Training in several processes: who does what, and batch norm over the whole batch.

Each process computes on its share of every batch. Statistics of batch norm are those of the whole
batch, gradients are averaged, and steps whose gradient depends on the number of images are brought
to that of the whole batch: up to the rounding of float sums, N processes take the steps of one.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from bitfold.errors import UsageError
from bitfold.models.quantizers.basq import LsqActivation
from bitfold.models.quantizers.uniq import UniqActivation, UniqInput

# The gradient of their steps counts the images of the whole batch.
BATCH_SCALED = (LsqActivation, UniqActivation, UniqInput)
WORLD_VARIABLE, LOCAL_RANK_VARIABLE = "WORLD_SIZE", "LOCAL_RANK"
PATIENCE = timedelta(hours=2)  # the first process tests the network while the others wait


@dataclass(frozen=True, slots=True)
class Share:
    """Process ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process reads and writes files for all."""
        return self.rank == 0

    def of(self, count: int) -> slice:
        """This process's part of ``count`` things; all parts are equally large."""
        part = count // self.size
        return slice(self.rank * part, (self.rank + 1) * part)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[Share]:
    """The group that torchrun started this process in, left again at the end; alone without one."""
    if dist.is_initialized():
        yield Share(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get(WORLD_VARIABLE, "1")) == 1:
        yield Share()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Share(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """``auto`` is a GPU where there is one; raises UsageError for a GPU that is not there."""
    available = torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}", where="device", todo="auto, cpu or cuda.")
    if name == "cuda" and not available:
        raise UsageError("there is no GPU that torch can use", where="device", todo="Use cpu.")
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get(LOCAL_RANK_VARIABLE, "0")))


def check_batch(batch_size: int, share: Share) -> None:
    """Raise UsageError unless a batch splits evenly."""
    if batch_size % share.size:
        raise UsageError(
            f"a batch of {batch_size} images does not split among {share.size} processes",
            where="batch size",
            todo=f"Use a multiple of {share.size}.",
        )


def from_first(value: object, share: Share) -> object:
    """What the first process passes, in every process."""
    if share.size == 1:
        return value
    box = [value if share.is_first else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def average(values: Tensor, share: Share) -> Tensor:
    """Mean of ``values`` over all processes."""
    if share.size > 1:
        dist.all_reduce(values)
        values /= share.size
    return values


def parallel(model: nn.Module, share: Share, *, some_unused: bool) -> nn.Module:
    """``model`` itself, or wrapped so that gradients are averaged over all processes."""
    if share.size == 1:
        return model
    share_batch_norms(model)
    for module in model.modules():
        if isinstance(module, BATCH_SCALED):
            module.batch_shards = share.size
    return DistributedDataParallel(
        model, forward_sync_buffers=False, find_unused_parameters=some_unused
    )


def share_batch_norms(model: nn.Module) -> None:
    """Let every batch norm of ``model`` use statistics of the whole batch in training."""
    for name, module in list(model.named_modules()):
        kind = SHARED_KINDS.get(type(module))
        if kind is None:
            continue
        assert isinstance(module, _BatchNorm)
        shared = kind(module.num_features, eps=module.eps, momentum=module.momentum)
        shared.weight, shared.bias = module.weight, module.bias
        shared.running_mean, shared.running_var = module.running_mean, module.running_var
        shared.num_batches_tracked = module.num_batches_tracked
        shared.train(module.training)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, shared)


class _SumOverProcesses(torch.autograd.Function):
    """y = Σ_r x_r on every process; dL/dx_r = Σ_s dL_s/dy, L_s the loss of process s."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401  # torch's signature
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401  # torch's signature
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def _shared_batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """(x − μ)·γ/√(σ² + ε) + β, μ and σ² over all processes' images; the running ones follow."""
    dims = [i for i in range(x.dim()) if i != 1]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    count = x.numel() // x.shape[1] * dist.get_world_size()
    mean = _over_processes(x.sum(dims)) / count
    centred = x - mean.view(shape)
    variance = _over_processes(centred.square().sum(dims)) / count
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return centred * scale.view(shape) + norm.bias.view(shape)


def _over_processes(values: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]
    return total


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with statistics over all processes, on CPU as on GPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), the same shape out."""
        return _shared_batch_norm(self, x) if self.training else super().forward(x)


class SharedBatchNorm1d(nn.BatchNorm1d):
    """Batch norm with statistics over all processes, on CPU as on GPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C), the same shape out."""
        return _shared_batch_norm(self, x) if self.training else super().forward(x)


SHARED_KINDS: dict[type[nn.Module], type[SharedBatchNorm1d] | type[SharedBatchNorm2d]] = {
    nn.BatchNorm1d: SharedBatchNorm1d,
    nn.BatchNorm2d: SharedBatchNorm2d,
}
