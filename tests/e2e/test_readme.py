"""The README's Python block does what it says, on an embedded checkpoint."""

import re
from pathlib import Path

import numpy as np
import pytest

import bitfold
from bitfold.ir import to_text
from bitfold.models import load_images

pytestmark = [pytest.mark.torch]

ROOT = Path(bitfold.__file__).parents[1]


def test_the_python_block_runs(tmp_path, monkeypatch):
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    checkpoint = Path(bitfold.__file__).parent / "data" / "resnet20_w2a2.pt"
    (tmp_path / "resnet20.pt").write_bytes(checkpoint.read_bytes())
    monkeypatch.chdir(tmp_path)
    images = load_images("embedded").images[:8]
    names = {"images": images}
    exec(block[1], names)  # the README is ours
    assert names["logits"].shape == (8, 10)
    assert names["report"].cycles > 0
    folded = bitfold.export.from_checkpoint("resnet20.pt")
    assert to_text(names["graph"]) == to_text(folded)
    with bitfold.Session("resnet20.onnx") as session:
        (again,) = session.run(None, {session.get_inputs()[0].name: images})
    assert np.array_equal(again, names["logits"])


@pytest.mark.parametrize(("name", "least"), [("resnet20_w2a2", 0.93), ("resnet20_w4a4", 0.93)])
def test_an_embedded_network_classifies_the_embedded_images(name, least):
    graph = bitfold.export.from_checkpoint(Path(bitfold.__file__).parent / "data" / f"{name}.pt")
    sample = load_images("embedded")
    with bitfold.Session(graph) as session:
        top1 = session.run(sample.images).argmax(1)
    assert (top1 == sample.labels).mean() >= least
