"""The demo's picture: latency of both engines for every network."""

import io
from collections.abc import Sequence


def draw_summary(bars: Sequence[tuple[str, float, float]]) -> bytes:
    """A PNG of grouped bars; ``bars`` holds (network, our median ms, their median ms)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = range(len(bars))
    axes.bar([p - 0.2 for p in places], [ours for _, ours, _ in bars], 0.4, label="bitfold")
    axes.bar(
        [p + 0.2 for p in places], [theirs for _, _, theirs in bars], 0.4, label="ONNX Runtime int8"
    )
    axes.set_xticks(list(places), [name for name, _, _ in bars])
    axes.set_ylabel("ms per image (median, 1 thread)")
    figure.legend(loc="outside upper center", ncols=2)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()
