"""Timed choice: which of the rows that fit a layer is fastest on this machine, remembered.

The modules load the kernel library's loader; the words for ``tune`` alone are to be had without.
"""

from bitfold.kernels.tuning.mode import TUNE_VARIABLE, TuneMode, tune_mode

__all__ = ["TUNE_VARIABLE", "TuneMode", "tune_mode"]
