"""The one function that builds a network from a spec; what is offered stands in ``offered``."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import torch

from bitfold.models.nets.alexnet import AlexNet
from bitfold.models.nets.base import QuantNet
from bitfold.models.nets.basq_mobilenet import BasqMobileNetV1, BasqMobileNetV2
from bitfold.models.nets.basq_resnet import BasqResNet
from bitfold.models.nets.basq_units import BranchedNet
from bitfold.models.nets.mlp import Mlp
from bitfold.models.nets.mobilenet import MobileNetV1, MobileNetV2
from bitfold.models.nets.preact_resnet import PreActResNet
from bitfold.models.nets.stages import BOTTLENECK_DEPTHS, DEPTHS
from bitfold.models.nets.sttn_resnet import SttnResNet
from bitfold.models.nets.vgg import VggSmall
from bitfold.models.offered import check_offered
from bitfold.models.spec import NetSpec

Builder = Callable[[NetSpec], QuantNet]

PLAIN_NETS: Mapping[str, Builder] = MappingProxyType(
    {
        **dict.fromkeys((*DEPTHS, *BOTTLENECK_DEPTHS), PreActResNet),
        "mobilenetv1": MobileNetV1,
        "mobilenetv2": MobileNetV2,
        "vgg-small": VggSmall,
        "alexnet": AlexNet,
        "mlp": Mlp,
    }
)
BASQ_MOBILENETS: Mapping[str, Builder] = MappingProxyType(
    {"mobilenetv1": BasqMobileNetV1, "mobilenetv2": BasqMobileNetV2}
)


def build_network(spec: NetSpec) -> QuantNet:
    """An untrained network, weights drawn from torch's global generator; may raise UsageError."""
    check_offered(spec.net, spec.method, spec.bits)
    return builder_of(spec.net, spec.method)(spec)


def count_genes(spec: NetSpec) -> int:
    """Length of a BASQ genome for ``spec`` (its own genome is not read); 0 for other methods."""
    with torch.device("meta"):
        model = build_network(replace(spec, genome=()))
    return model.num_blocks if isinstance(model, BranchedNet) else 0


def builder_of(net: str, method: str) -> Builder:
    """The class of an offered pair."""
    if method in ("sttn", "stqn"):
        return SttnResNet
    if method == "basq":
        return BASQ_MOBILENETS.get(net, BasqResNet)
    return PLAIN_NETS[net]
