"""Networks with random weights and sane statistics: to benchmark before anything is trained."""

import torch
from torch import Tensor, nn

from bitfold.models.nets import PreActResNet, build_network
from bitfold.models.quantizers import PactActivation
from bitfold.models.spec import NetSpec

# Unsigned step of least mean square error for a rectified N(0, 1), by bits: the table of UniQ's
# published code (phuocphn/uniq; paper: IEEE Access 9:47194, 2021).
GAUSSIAN_STEP = {
    1: 1.223992,
    2: 0.650770,
    3: 0.353410,
    4: 0.193249,
    5: 0.105488,
    6: 0.0572659,
    7: 0.0308713,
    8: 0.0165292,
}
CALIBRATION_PIXELS = 65536
LEAST_CLIP = 1e-3


def new_network(spec: NetSpec, seed: int = 0) -> PreActResNet:
    """A network in eval mode whose weights are drawn from ``seed``; torch's generator is kept.

    One forward pass over uniform random pixels sets batch-norm statistics, SAWB clips, and each
    PACT clip to the best one for a rectified Gaussian of the power that it sees.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(spec)
        height, width, channels = spec.input_shape
        count = min(64, max(2, CALIBRATION_PIXELS // (height * width)))
        pixels = torch.randint(0, 256, (count, channels, height, width)).float()
    _calibrate(model, pixels)
    return model.eval()


@torch.no_grad()
def _calibrate(model: nn.Module, pixels: Tensor) -> None:
    handles = [
        module.register_forward_pre_hook(_fit_clip)
        for module in model.modules()
        if isinstance(module, PactActivation)
    ]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    model(pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for handle in handles:
        handle.remove()


def _fit_clip(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(module, PactActivation)
    power = 2 * torch.relu(inputs[0]).square().mean()
    best = power.sqrt() * (GAUSSIAN_STEP[module.bits] * module.grid.hi)
    module.clip.data.copy_(best.clamp(min=LEAST_CLIP))
