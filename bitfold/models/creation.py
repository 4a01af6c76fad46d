"""Networks with random weights and sane statistics: to benchmark before anything is trained."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bitfold.models.calibration import calibrate
from bitfold.models.nets import QuantNet, build_network
from bitfold.models.nets.basq_units import NUM_BRANCHES, BranchedNet
from bitfold.models.spec import NetSpec

CALIBRATION_PIXELS = 65536
MOST_IMAGES = 64


def new_network(spec: NetSpec, seed: int = 0) -> QuantNet:
    """A network in eval mode whose weights are drawn from ``seed``; torch's generator is kept.

    One forward pass over uniform random pixels (one a branch, in a supernet) sets batch-norm
    statistics, steps and clips: ``calibrate``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(spec)
        height, width, channels = spec.input_shape
        count = min(MOST_IMAGES, max(2, CALIBRATION_PIXELS // (height * width)))
        pixels = torch.randint(0, 256, (count, channels, height, width)).float()
        calibrate(model, _passes(model, pixels), norm_statistics=True)
    return model.eval()


def _passes(model: QuantNet, pixels: Tensor) -> Iterator[Tensor]:
    """``pixels`` once, or once for every branch of a supernet."""
    if not isinstance(model, BranchedNet) or model.spec.genome:
        yield pixels
        return
    before = model.genome
    for branch in range(NUM_BRANCHES):
        model.select((branch,) * model.num_blocks)
        yield pixels
    model.select(before)
