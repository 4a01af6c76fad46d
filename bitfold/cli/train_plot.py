"""The curves of a training: loss and accuracy by epoch."""

import io
from collections.abc import Mapping, Sequence


def draw_curves(history: Sequence[Mapping[str, float]]) -> bytes:
    """A PNG of the training loss and of both accuracies; ``history`` has one record an epoch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    losses, accuracies = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    losses.plot(epochs, [entry["loss"] for entry in history], marker=".")
    losses.set_ylabel("training loss")
    for name, label in (("train_accuracy", "training"), ("test_accuracy", "test")):
        tested = [(entry["epoch"], 100 * entry[name]) for entry in history if name in entry]
        if tested:
            accuracies.plot(*zip(*tested, strict=True), marker=".", label=label)
    accuracies.set_ylabel("accuracy [%]")
    accuracies.legend()
    for axes in (losses, accuracies):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()
