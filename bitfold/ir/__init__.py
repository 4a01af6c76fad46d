"""The integer graph."""

from bitfold.ir.grid import Grid

__all__ = ["Grid"]
