"""Training BASQ's network of all branches: one random branch a unit and step, two stages.

Stage 1 quantizes activations alone; stage 2 begins with weight steps fitted to the trained
weights and a new optimizer, and quantizes both (METHODS: each stage has its own schedule).
"""

from collections.abc import Iterator

import torch
from torch import nn

from bitfold.models.layers import QuantConv2d
from bitfold.models.nets.basq_units import NUM_BRANCHES, BranchedNet
from bitfold.models.quantizers.basq import LsqWeight

NUM_STAGES = 2
GENOME_STRIDE = 6007
TESTED_BRANCH = NUM_BRANCHES // 2  # which branch the accuracy of an epoch is of


def is_supernet(model: nn.Module) -> bool:
    """Whether ``model`` has branches to choose among."""
    return isinstance(model, BranchedNet) and not model.spec.genome


def random_genome(num_units: int, *, seed: int, step: int) -> tuple[int, ...]:
    """One uniformly random branch a unit; a function of seed and step."""
    generator = torch.Generator().manual_seed(seed * GENOME_STRIDE + step)
    return tuple(torch.randint(0, NUM_BRANCHES, (num_units,), generator=generator).tolist())


def select_random(model: nn.Module, *, seed: int, step: int) -> None:
    """Choose the branches of one step."""
    assert isinstance(model, BranchedNet)
    model.select(random_genome(model.num_blocks, seed=seed, step=step))


def select_tested(model: nn.Module) -> None:
    """Choose the genome that the reported accuracy is of: the middle branch everywhere."""
    assert isinstance(model, BranchedNet)
    model.select((TESTED_BRANCH,) * model.num_blocks)


def quantize_weights(model: nn.Module, *, enabled: bool) -> None:
    """Let the branched units compute with quantized weights, or with the latent ones."""
    for layer in _lsq_layers(model):
        layer.weight_quantizer.enabled = enabled


def refit_weight_steps(model: nn.Module) -> None:
    """Weight steps from the weights as they are: s = 2·mean|w|/√Q."""
    with torch.no_grad():
        for layer in _lsq_layers(model):
            layer.weight_quantizer.calibrate(layer.weight)


def _lsq_layers(model: nn.Module) -> Iterator[QuantConv2d]:
    for module in model.modules():
        if isinstance(module, QuantConv2d) and isinstance(module.weight_quantizer, LsqWeight):
            yield module
