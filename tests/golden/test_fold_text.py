"""The embedded networks fold to the same integers everywhere and for ever."""

from pathlib import Path

import pytest

import bitfold
from bitfold.export import from_checkpoint
from bitfold.ir import to_text

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", ["resnet20_w2a2", "resnet20_w4a4"])
def test_embedded_network_folds_to_its_golden_text(name, check_golden):
    checkpoint = Path(bitfold.__file__).parent / "data" / f"{name}.pt"
    check_golden(f"folded_{name}.txt", to_text(from_checkpoint(checkpoint)))
