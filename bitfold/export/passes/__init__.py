"""Fold passes, one a file: pure functions from ``QGraph`` to ``QGraph``."""

from bitfold.export.passes.absorb_relu import absorb_relu
from bitfold.export.passes.fold_batchnorm import fold_batchnorm
from bitfold.export.passes.widen_residuals import widen_residuals

__all__ = ["absorb_relu", "fold_batchnorm", "widen_residuals"]
