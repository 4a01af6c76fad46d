"""A developer's question: how long does one image take on each backend? Run with `make bench`."""

import numpy as np
import pytest

from bitfold.kernels import forced_choices
from bitfold.runtime import Session

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module")
def graph():
    from bitfold.export import fold_network
    from bitfold.models import NetSpec, Preprocessing, new_network

    spec = NetSpec.with_default_grid(
        net="resnet20",
        method="pact-sawb",
        bits=(2, 2),
        input_shape=(32, 32, 3),
        class_names=tuple("0123456789"),
        preprocessing=Preprocessing(120, 64),
    )
    return fold_network(new_network(spec, seed=0)).graph


@pytest.mark.parametrize("choice", forced_choices(), ids=":".join)
def test_one_image_through_resnet20(benchmark, graph, choice):
    backend, force = choice
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    with Session(graph, backend=backend, force=force) as session:
        logits = benchmark(session.run, image)
    assert logits.shape == (1, 10)
