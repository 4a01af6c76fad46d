"""Quantizers, one paper a file; all follow ``bitfold.models.protocol``."""

from bitfold.models.quantizers.basq import (
    BRANCH_DECAYS,
    BranchActivation,
    LsqActivation,
    LsqWeight,
)
from bitfold.models.quantizers.dorefa import DorefaWeight
from bitfold.models.quantizers.identity import FullPrecisionActivation, FullPrecisionWeight
from bitfold.models.quantizers.minmax import MinMaxWeight, SumPreservingWeight
from bitfold.models.quantizers.pact import PactActivation
from bitfold.models.quantizers.sawb import SawbWeight
from bitfold.models.quantizers.sttn import (
    MergedTernaryWeight,
    StqnActivation,
    StqnWeight,
    SttnActivation,
    SttnWeight,
)
from bitfold.models.quantizers.uniq import UniqActivation, UniqInput, UniqWeight

__all__ = [
    # UniQ
    "UniqActivation",
    "UniqInput",
    "UniqWeight",
    # BASQ
    "BRANCH_DECAYS",
    "BranchActivation",
    "LsqActivation",
    "LsqWeight",
    # STTN, and n bits
    "MergedTernaryWeight",
    "StqnActivation",
    "StqnWeight",
    "SttnActivation",
    "SttnWeight",
    # PACT with SAWB or DoReFa weights
    "DorefaWeight",
    "PactActivation",
    "SawbWeight",
    # edges of a network
    "MinMaxWeight",
    "SumPreservingWeight",
    # no quantization
    "FullPrecisionActivation",
    "FullPrecisionWeight",
]
