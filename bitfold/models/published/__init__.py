"""Checkpoints that the papers' own code wrote: recognised by tensor names, checked, mapped."""

from bitfold.models.published.importing import import_published
from bitfold.models.published.last_input import quantize_last_input
from bitfold.models.published.layout import PublishedOptions

__all__ = ["PublishedOptions", "import_published", "quantize_last_input"]
