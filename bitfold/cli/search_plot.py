"""The search's picture: accuracy against latency, the front and the winner."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold.models.search import Scored


def draw_pareto(front: "Sequence[Scored]", *, chosen: "Scored") -> bytes:
    """A PNG of the front, fastest first, with the winner marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    latencies = [point.latency_ms or 0.0 for point in front]
    axes.step(latencies, [100 * p.accuracy for p in front], where="post", marker="o", label="front")
    axes.plot([chosen.latency_ms or 0.0], [100 * chosen.accuracy], "r*", ms=14, label="chosen")
    axes.set_xlabel("latency, ms per image (additive estimate)")
    axes.set_ylabel("accuracy at the supernet's weights, %")
    axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()
