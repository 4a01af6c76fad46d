"""The sweep's picture: latency against LUT and BRAM, the front marked."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold.fpga_sim.explore import Exploration


def draw_front(found: "Exploration") -> bytes:
    """A PNG: every point grey where it does not fit, the front coloured by accuracy if given.

    Bars at the front are the errors of the model.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    front = found.front
    accuracies = [point.get("accuracy") for point in front]
    coloured = None not in accuracies and front
    panels = figure.subplots(1, 2)
    for axes, key, name in zip(panels, ("lut", "bram36"), ("LUT", "BRAM36"), strict=True):
        for fits, colour in ((False, "lightgrey"), (True, "tab:blue")):
            some = [point for point in found.points if bool(point["fits"]) == fits]
            axes.scatter([p[key] for p in some], [p["latency_ms"] for p in some], s=6, c=colour,
                         label="fits" if fits else "does not fit")  # fmt: skip
        shown = axes.scatter(
            [p[key] for p in front], [p["latency_ms"] for p in front], marker="*", s=50,
            c=accuracies if coloured else "tab:red", label="front",
        )  # fmt: skip
        axes.errorbar(
            [p[key] for p in front], [p["latency_ms"] for p in front], fmt="none", ecolor="tab:red",
            xerr=[p[key] * p[f"{key}_error"] for p in front], elinewidth=0.6,
            yerr=[p["latency_ms"] * p["cycles_error"] for p in front],
        )  # fmt: skip
        axes.set(xlabel=name, ylabel="ms per image (model)", xscale="symlog", yscale="log")
        axes.legend()
        if coloured:
            figure.colorbar(shown, ax=axes, label="accuracy")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
