"""The state of torch that makes two trainings equal, set for a while."""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import nn

# torch 2.13.0: oneDNN's weight gradient of a strided 1x1 convolution, channels last, writes out of
# bounds at 4 input channels or fewer (7 were seen to be right): without oneDNN below 8.
LEAST_ONEDNN_CHANNELS = 8
CUBLAS_VARIABLE, CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextlib.contextmanager
def reproducibly(threads: int | None) -> Iterator[None]:
    """Deterministic algorithms, a generator of its own and ``threads`` threads, then as before."""
    before = torch.are_deterministic_algorithms_enabled()
    threads_before = torch.get_num_threads()
    os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_WORKSPACE)
    with torch.random.fork_rng(devices=[]):
        torch.use_deterministic_algorithms(True)  # noqa: FBT003  # torch's signature
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            torch.set_num_threads(threads_before)


@contextlib.contextmanager
def sound_convolutions(model: nn.Module) -> Iterator[None]:
    """Without oneDNN for a network so narrow that its gradients would be wrong, then as before."""
    narrow = any(
        isinstance(m, nn.Conv2d)
        and m.kernel_size == (1, 1)
        and m.in_channels < LEAST_ONEDNN_CHANNELS
        for m in model.modules()
    )
    if not narrow:
        yield
        return
    # Without the last argument this setter changes the precision as well.
    flags = torch.backends.mkldnn.set_flags
    before, *_ = flags(_enabled=False, _fp32_precision=None)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        flags(_enabled=before, _fp32_precision=None)  # type: ignore[no-untyped-call]
