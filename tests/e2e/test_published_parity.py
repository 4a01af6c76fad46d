"""Imported checkpoints against what the papers' own code computed (tests/data/published)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitfold.models import PublishedOptions, load_checkpoint
from bitfold.models.quantizers import FullPrecisionWeight, MinMaxWeight
from tests.published_images import PREPROCESSING, images_of

pytestmark = [pytest.mark.torch, pytest.mark.slow]
DATA = Path(__file__).parents[1] / "data" / "published"
BATCH = 100


def logits_with_float_edges(loaded, images):
    """Logits (N, 10) with first and last weights as they were trained, in float."""
    for module in list(loaded.model.modules()):
        if isinstance(getattr(module, "weight_quantizer", None), MinMaxWeight):
            module.weight_quantizer = FullPrecisionWeight()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        return torch.cat([loaded.model(batch) for batch in pixels.split(BATCH)]).numpy()


@pytest.mark.parametrize(
    ("file", "wanted", "side", "flipped"),
    [
        ("basq_mbv2_w025_2bit.pth", "basq_mbv2_w025_2bit.npz", 32, 0.0),
        ("sttn_resnet18_w16_ter.pth.tar", "sttn_resnet18_w16.npz", 64, 0.05),
        ("sttn_resnet18_w16_bwx2.pth.tar", "sttn_resnet18_w16.npz", 64, 0.05),
        ("uniq_presnet20_2bit.pth", "uniq_presnet20_2bit.npz", 32, 0.05),
    ],
)
def test_logits_are_those_of_the_published_code(file, wanted, side, flipped):
    """Within 2e-5, a few float32 ulps of the logits, on all images but the share ``flipped``.

    On those, float32 summation order moved an activation across a threshold somewhere, and a whole
    code with it; the class stays.
    """
    published = np.load(DATA / wanted)
    genome = tuple(map(int, published["selections"])) if "selections" in published else None
    options = PublishedOptions((side, side, 3), PREPROCESSING, genome=genome)
    logits = logits_with_float_edges(
        load_checkpoint(DATA / file, published=options), images_of(side)
    )
    difference = np.abs(logits - published["logits"]).max(1)
    assert (difference > 2e-5).mean() <= flipped
    assert (logits.argmax(1) == published["logits"].argmax(1)).all()


def test_calibration_gives_the_classifier_an_eight_bit_input():
    options = PublishedOptions((64, 64, 3), PREPROCESSING, calibration=images_of(64)[:64])
    loaded = load_checkpoint(DATA / "sttn_resnet18_w16_ter.pth.tar", published=options)
    assert loaded.model.act.bits == 8
    assert loaded.notes == ("the classifier's input has 8 signed bits, calibrated on 64 images",)
