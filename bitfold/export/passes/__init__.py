"""Fold passes, one a file: pure functions from ``QGraph`` to ``QGraph``."""

from bitfold.export.passes.commute_max_pool import commute_max_pool
from bitfold.export.passes.fold_batchnorm import fold_batchnorm

__all__ = ["commute_max_pool", "fold_batchnorm"]
