"""The self-test of ``bitfold doctor``: a tiny graph on every backend, against the oracle."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bitfold.ir import Conv2d, IntGraph, Thresholds

Backend = Literal["c", "numba"]

SIDE, CHANNELS, CLASSES, IMAGES = 8, 16, 4, 3


@dataclass(frozen=True, slots=True)
class SelfTest:
    """One kernel of one backend against the oracle."""

    backend: Backend
    force: str
    values: int
    mismatches: int

    @property
    def ok(self) -> bool:
        """Whether every value is equal."""
        return self.mismatches == 0


def _conv(generator: "np.random.Generator", name: str, x: str, channels: int) -> "Conv2d":
    import numpy as np

    from bitfold.ir import Conv2d, Grid

    weight = generator.integers(-1, 2, (CHANNELS, 3, 3, channels))
    bias = np.zeros(CHANNELS, np.int64)
    return Conv2d(name, x, weight, Grid.narrow(2), (1.0,), bias, padding=(1, 1, 1, 1))


def _thresholds(generator: "np.random.Generator", name: str, x: str, spread: int) -> "Thresholds":
    import numpy as np

    from bitfold.ir import Grid, Thresholds

    table = np.sort(generator.integers(-spread, spread, (CHANNELS, 3)), axis=1)
    sign = np.where(np.arange(CHANNELS) % 4 == 1, -1, 1)
    return Thresholds(name, x, table, sign, Grid.unsigned(2), 1.0)


def tiny_graph(seed: int) -> "IntGraph":
    """Two ternary 3x3 convolutions with 2-bit codes and a classifier, from ``seed``."""
    import numpy as np

    from bitfold.ir import Dequantize, Grid, IntGraph, Linear, Quantize, Reshape

    generator = np.random.default_rng(seed)
    size = SIDE * SIDE * CHANNELS
    weight = generator.integers(-1, 2, (CLASSES, size))
    bias = np.arange(CLASSES)
    return IntGraph.of(
        (
            Quantize("image", (SIDE, SIDE, 1), Grid.pixels(73), 1.0),
            _conv(generator, "conv1", "image", 1),
            _thresholds(generator, "act1", "conv1", 300),
            _conv(generator, "conv2", "act1", CHANNELS),
            _thresholds(generator, "act2", "conv2", 20),
            Reshape("flat", "act2", (size,)),
            Linear("fc", "flat", weight, Grid.narrow(2), (1.0,), bias),
            Dequantize("logits", "fc"),
        )
    )


def _compare(
    graph: "IntGraph", images: "NDArray[np.uint8]", *, backend: Backend, force: str
) -> SelfTest:
    from bitfold.ir import run_oracle
    from bitfold.runtime import Session

    want = run_oracle(graph, images)
    with Session(graph, backend=backend, force=force) as session:
        got = session.run(images)
    return SelfTest(backend, force, want.size, int((got != want).sum()))


def run_self_test(seed: int) -> tuple[SelfTest, ...]:
    """Every kernel choice this machine offers, on random images."""
    import numpy as np

    from bitfold.kernels import forced_choices

    graph = tiny_graph(seed)
    shape = (IMAGES, SIDE, SIDE, 1)
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return tuple(
        _compare(graph, images, backend=backend, force=force) for backend, force in forced_choices()
    )
