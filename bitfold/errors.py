"""Errors a user can act on: what is wrong, where, what to do; each class carries its exit code.

0 done · 1 a comparison failed · 2 wrong usage or unreadable input · 3 readable, not supported
"""

from typing import Self


class BitfoldError(Exception):
    """Base of every error raised on purpose.

    ``what`` states the fact with its numbers, ``where`` names file, node or attribute, ``todo``
    the next step. ``str(error)`` joins the three, one line each.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what = what
        self.where = where
        self.todo = todo
        super().__init__("\n".join(part for part in (what, where, todo) if part))

    def within(self, place: str) -> Self:
        """The same error with ``place`` named in front of ``where``."""
        where = ", ".join(part for part in (place, self.where) if part)
        return type(self)(self.what, where=where, todo=self.todo)


class UsageError(BitfoldError):
    """The request itself makes no sense: an unknown name, an impossible combination."""


class InputError(BitfoldError):
    """A file or folder is missing, truncated, damaged or of the wrong kind."""


class OutputError(BitfoldError):
    """A result could not be written: disk full, no permission, no such folder."""


class MissingDependencyError(BitfoldError):
    """A package or program that this verb needs is not installed."""


class UnsupportedError(BitfoldError):
    """The model is readable, but something in it is not supported."""

    exit_code = 3


class MismatchError(BitfoldError):
    """Two forms of one network disagree."""

    exit_code = 1


class GraphError(BitfoldError):
    """An invariant of the integer graph is broken; one subclass an invariant (docs/ir.md)."""

    exit_code = 3


class OrderError(GraphError):
    """Invariant 1: names unique, every input defined before use, one input, one output."""


class ShapeError(GraphError):
    """Invariant 1: shapes are static and fit their operation."""


class DomainError(GraphError):
    """Invariant 1: an operation reads a tensor of a kind it does not take."""


class OffGridError(GraphError):
    """Invariant 2: a constant is not on its grid."""


class RangeError(GraphError):
    """Invariant 2: a proven range does not fit int32."""


class ScaleError(GraphError):
    """Invariant 3 and 6: a scale is not positive and finite, or operands disagree."""


class PaddingError(GraphError):
    """Invariant 4: zero padding of a grid without code 0."""


class ThresholdError(GraphError):
    """Invariant 5: thresholds do not ascend, or their count is not levels − 1."""
