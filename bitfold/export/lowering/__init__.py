"""QGraph → IntGraph: every real-valued node becomes integers with proven ranges."""

from bitfold.export.lowering.builder import LayerReport
from bitfold.export.lowering.lower import lower

__all__ = ["LayerReport", "lower"]
