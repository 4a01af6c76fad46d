"""The simulation's picture: cycles a layer, and how busy each PE is."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold.fpga_sim import Report

BOUND_COLOURS = {
    "compute": "tab:blue",
    "bandwidth": "tab:red",
    "fill/drain": "tab:orange",
    "depthwise": "tab:purple",
}


def draw_report(report: "Report") -> bytes:
    """A PNG: a bar a layer, coloured by what bounds it with stalls hatched, beside a heat map."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from bitfold.fpga_sim.timeline import pe_utilisation

    figure = Figure(figsize=(12, 2 + 0.2 * len(report.layers)), layout="constrained")
    FigureCanvasAgg(figure)
    bars, heat = figure.subplots(1, 2, width_ratios=(3, 2))
    names = [layer.name for layer in report.layers]
    compute = [layer.compute_cycles for layer in report.layers]
    colours = [BOUND_COLOURS[layer.bound] for layer in report.layers]
    bars.barh(names, compute, color=colours)
    bars.barh(names, [layer.stall_cycles for layer in report.layers], left=compute,
              color="none", edgecolor="black", hatch="////", label="stall")  # fmt: skip
    for bound in sorted({layer.bound for layer in report.layers}):
        bars.barh([], [], color=BOUND_COLOURS[bound], label=bound)
    bars.invert_yaxis()
    bars.set_xlabel(f"cycles ({report.cycles} in all)")
    bars.legend()
    shown = heat.imshow(pe_utilisation(report), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    heat.set_title(f"share of cycles a PE multiplies (mean {report.utilisation:.1%} with lanes)")
    heat.set_xlabel("column")
    heat.set_ylabel("row")
    figure.colorbar(shown, ax=heat)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
