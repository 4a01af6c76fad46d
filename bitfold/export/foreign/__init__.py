"""Models that other tools wrote, read into integer graphs (docs/onnx.md)."""

from bitfold.export.foreign.reader import (
    ForeignModel,
    NodeReport,
    Survey,
    read_model,
    survey_model,
)

__all__ = ["ForeignModel", "NodeReport", "Survey", "read_model", "survey_model"]
