"""The roofline: each layer's rate against how much it multiplies per byte, under the peak."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold.benchmark import BenchReport


def draw_roofline(report: "BenchReport") -> bytes:
    """A PNG of the layers that multiply, their area by time, under compute and memory roofs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    layers = [layer for layer in report.layers if layer.macs and layer.bytes]
    ends = [1.0, 2.0]
    for op in sorted({layer.op for layer in layers}):
        chosen = [layer for layer in layers if layer.op == op]
        intensities = [layer.macs / layer.bytes for layer in chosen]
        areas = [20 + 600 * layer.share for layer in chosen]
        axes.scatter(intensities, [each.gmac_per_s for each in chosen], areas, alpha=0.6, label=op)
        ends += intensities
    if report.peak is not None:
        peak, grid = report.peak.gmac_per_s, (min(ends) / 2, max(ends) * 2)
        axes.axhline(peak, color="k", lw=1, label=f"{report.peak.isa} in registers")
        roofs = {"cache": report.peak.cache_gb_per_s, "memory": report.peak.memory_gb_per_s}
        for (name, bandwidth), style in zip(roofs.items(), ("--", ":"), strict=True):
            # A roof rises until it meets the peak.
            xs = (grid[0], max(grid[0], peak / bandwidth)) if bandwidth else ()
            axes.plot(xs, [min(peak, x * bandwidth) for x in xs], f"k{style}", lw=1, label=name)
    axes.set(xscale="log", yscale="log", ylabel="GMAC/s, one thread")
    axes.set_xlabel("multiply-accumulates per byte of input, output and packed weights")
    axes.set_title(report.cpu, fontsize="small")
    axes.legend(fontsize="small")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()
