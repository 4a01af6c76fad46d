"""Networks by name, and the bit widths that each quantization method offers for them."""

from bitfold.models.nets.base import QuantNet
from bitfold.models.nets.catalogue import build_network, count_genes
from bitfold.models.nets.preact_resnet import PreActResNet
from bitfold.models.nets.scheme import Scheme
from bitfold.models.offered import METHODS, NETS, MethodBits

__all__ = [
    "METHODS",
    "NETS",
    "MethodBits",
    "PreActResNet",
    "QuantNet",
    "Scheme",
    "build_network",
    "count_genes",
]
