"""Networks by name, and the bit widths that each quantization method offers for them."""

from bitfold.models.nets.catalogue import METHODS, NETS, MethodBits, build_network
from bitfold.models.nets.preact_resnet import PreActResNet

__all__ = ["METHODS", "NETS", "MethodBits", "PreActResNet", "build_network"]
