"""Where a network's first weights come from, and what its quantizers make of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from bitfold.errors import UsageError
from bitfold.models.batches import Batches
from bitfold.models.calibration import calibrate
from bitfold.models.checkpoints import load_checkpoint
from bitfold.models.loaded_net import shortened
from bitfold.models.nets import QuantNet
from bitfold.models.nets.basq_units import BranchedNet
from bitfold.models.parameter_groups import QUANTIZERS
from bitfold.models.protocol import WeightQuantizer
from bitfold.models.quantizers.pact import PactActivation
from bitfold.models.recipe import TrainConfig
from bitfold.models.search.fitness import assemble
from bitfold.models.search.genome import Genome
from bitfold.models.spec import NetSpec

PACT = ("pact-sawb", "pact-dorefa")


def prepare(model: QuantNet, batches: Batches, config: TrainConfig, *, init: Path | None) -> None:
    """First weights from ``init``, if any; quantizers calibrated on batches where they need it.

    Calibration runs in train mode without a gradient; batch norms keep their statistics.
    """
    if init is not None and start_from(model, init):
        return
    # PACT begins with a wide clip and lets decay and gradient narrow it (paper, section 3).
    wide = {} if init is not None else _pact_clips(model)
    first = next(model.parameters())
    count = min(config.calibration_batches, batches.steps_per_epoch)
    pixels = (batches.batch(step)[0].to(first.device, first.dtype) for step in range(count))
    calibrate(model, pixels, norm_statistics=False)
    with torch.no_grad():
        for module, clip in wide.items():
            module.clip.copy_(clip)


def start_from(model: QuantNet, checkpoint: Path) -> bool:
    """Copy the weights of the same network; returns whether its quantizers are set as well.

    From the same method at the same bits everything is taken over (of a supernet, the branches
    that ``model`` has); between widths of PACT all but the weight quantizers; else the quantizers
    start anew. Raises UsageError unless network, width, input and number of classes agree.
    """
    loaded = load_checkpoint(checkpoint)
    spec = model.spec
    _check_same_network(spec, loaded.spec, checkpoint)
    state = loaded.model.state_dict()
    alike = _agree(spec, loaded.spec, "method", "bits", "per_channel")
    if alike and spec.genome and isinstance(loaded.model, BranchedNet) and not loaded.spec.genome:
        chosen = assemble(loaded.model, Genome(spec.genome, spec.block_bits))
        _copy(model, chosen.state_dict(), set(), checkpoint)
        return True
    if alike and _agree(spec, loaded.spec, "weight_grid", "block_bits", "per_kernel"):
        _copy(model, state, set(), checkpoint)
        return True
    if spec.method in PACT and loaded.spec.method in PACT:
        _copy(model, state, _states_under(model, WeightQuantizer), checkpoint)
        return True
    _copy(model, state, _states_under(model, QUANTIZERS), checkpoint)
    return False


def _pact_clips(model: nn.Module) -> dict[PactActivation, Tensor]:
    return {m: m.clip.detach().clone() for m in model.modules() if isinstance(m, PactActivation)}


def _agree(first: NetSpec, second: NetSpec, *names: str) -> bool:
    return all(getattr(first, name) == getattr(second, name) for name in names)


def _check_same_network(want: NetSpec, got: NetSpec, checkpoint: Path) -> None:
    for name in ("net", "width", "input_shape", "preprocessing"):
        if getattr(want, name) != getattr(got, name):
            raise UsageError(
                f"the first weights are of another network: "
                f"{name} {getattr(got, name)}, not {getattr(want, name)}",
                where=f"file {checkpoint}",
                todo="Start from a checkpoint of the same network, or from scratch.",
            )
    if len(want.class_names) != len(got.class_names):
        raise UsageError(
            f"the first weights have {len(got.class_names)} classes, "
            f"the data {len(want.class_names)}",
            where=f"file {checkpoint}",
            todo="Start from a network with the same classes.",
        )


def _copy(
    model: nn.Module, state: Mapping[str, Tensor], skipped: set[str], checkpoint: Path
) -> None:
    wanted = {name: t for name, t in model.state_dict().items() if name not in skipped}
    unfit = [n for n, t in wanted.items() if n not in state or state[n].shape != t.shape]
    if unfit:
        raise UsageError(
            f"the first weights do not fit; missing or of another shape: {shortened(unfit)}",
            where=f"file {checkpoint}",
            todo="Start from the same network; its method may give it other layers.",
        )
    with torch.no_grad():
        model.load_state_dict({name: state[name] for name in wanted}, strict=False)


def _states_under(model: nn.Module, kinds: type | tuple[type, ...]) -> set[str]:
    """Names of all states of the quantizers of these ``kinds``."""
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, kinds)
        for name in cast(nn.Module, module).state_dict()
    }
