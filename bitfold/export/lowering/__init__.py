"""QGraph → IntGraph: every real-valued node becomes integers with proven ranges."""

from bitfold.export.lowering.builder import Decision, LayerReport
from bitfold.export.lowering.lower import Folded, lower, lower_with_decisions

__all__ = ["Decision", "LayerReport", "Folded", "lower", "lower_with_decisions"]
