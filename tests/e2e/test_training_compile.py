"""torch.compile computes what eager mode computes."""

import shutil

import pytest
import torch

from bitfold.models import NetSpec, Preprocessing, new_network

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_compiled_and_eager_networks_give_the_same_logits():
    spec = NetSpec.with_default_grid(
        net="resnet8",
        method="pact-sawb",
        bits=(4, 4),
        input_shape=(8, 8, 1),
        class_names=("a", "b"),
        preprocessing=Preprocessing(73, 90),
        width=0.25,
    )
    model = new_network(spec, seed=0)
    pixels = torch.randint(0, 256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        eager, compiled = model(pixels), torch.compile(model)(pixels)
    # float32 sums in another order may move a code by one step; none does on this batch.
    assert torch.allclose(eager, compiled, rtol=1e-4, atol=1e-4)
