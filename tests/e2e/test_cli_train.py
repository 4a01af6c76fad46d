"""Options of ``bitfold train`` that change what a network is."""

import numpy as np
import pytest

from bitfold.cli import main
from bitfold.models import load_checkpoint

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("words", "steps", "count"),
    [
        (
            ("--net", "resnet8", "--method", "uniq", "--per-kernel", "--width", "0.25"),
            "layer1.0.conv1.weight_quantizer.delta", 4,
        ),
        (
            ("--net", "mobilenetv1", "--method", "basq", "--per-channel", "--width", "0.125",
             "--genome", "0,1,2,3,4,5,6,0,1,2,3,4,5"),
            "blocks.1.1.act.s", 8,
        ),
    ],
    ids=["uniq", "basq"],
)  # fmt: skip
def test_train_gives_each_kernel_or_channel_a_step(tmp_path, words, steps, count):
    images = np.random.default_rng(1).integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)
    np.savez(tmp_path / "train.npz", images=images, labels=np.arange(24) % 2)
    common = ["--bits", "2,2", "--no-compile", "--epochs", "1", "--batch-size", "10", "-q"]
    places = ["--data", str(tmp_path / "train.npz"), "-o", str(tmp_path / "t.pt")]
    assert main(["train", *words, *common, *places]) == 0
    state = load_checkpoint(tmp_path / "t.pt").model.state_dict()
    assert state[steps].shape == (count,)
    assert len(set(state[steps].tolist())) > 1
