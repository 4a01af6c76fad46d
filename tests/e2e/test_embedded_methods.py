"""The small networks that come with the package, one a method and width: they fold and work."""

from pathlib import Path

import pytest

import bitfold
from bitfold.export import fold_network
from bitfold.models import evaluate, load_checkpoint, load_images
from bitfold.runtime import Session

pytestmark = pytest.mark.torch
FOLDER = Path(bitfold.__file__).parent / "data" / "methods"
QUANTIZED = sorted(path.stem for path in FOLDER.glob("*.pt") if "float" not in path.stem)


def test_every_method_comes_with_a_network():
    methods = {load_checkpoint(FOLDER / f"{name}.pt").spec.method for name in QUANTIZED}
    assert methods >= {"uniq", "pact-sawb", "sttn", "basq"}


@pytest.mark.parametrize("name", QUANTIZED)
def test_the_integers_are_as_accurate_as_the_trained_network(name):
    """Within a point on 500 images: a code near a threshold may flip, an answer seldom does."""
    net, images = load_checkpoint(FOLDER / f"{name}.pt"), load_images("embedded")
    with Session(fold_network(net.model).graph) as session:
        logits = session.run(images.images)
    integers = float((logits.argmax(1) == images.labels).mean())
    assert integers == pytest.approx(evaluate(net.model, images), abs=0.01)
    assert net.record["test_accuracy"] == pytest.approx(integers, abs=0.05)
