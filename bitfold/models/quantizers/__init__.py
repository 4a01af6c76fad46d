"""Quantizers, one paper a file; all follow ``bitfold.models.protocol``."""

from bitfold.models.quantizers.minmax import MinMaxWeight
from bitfold.models.quantizers.pact import PactActivation
from bitfold.models.quantizers.sawb import SawbWeight

__all__ = ["MinMaxWeight", "PactActivation", "SawbWeight"]
