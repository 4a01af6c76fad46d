"""FINN's analytical numbers of the foldings that its examples ship (bnn-pynq)."""

import pytest

from bitfold.fpga_sim.finn import Folding, Unit, simulate_folding

# (rows, columns, vectors) of every matrix unit.
CNV = (
    (64, 27, 900), (64, 576, 784), (128, 576, 144), (128, 1152, 100), (256, 1152, 9),
    (256, 2304, 1), (512, 256, 1), (512, 512, 1), (10, 512, 1),
)  # fmt: skip
TFC = ((64, 784, 1), (64, 64, 1), (64, 64, 1), (10, 64, 1))
CNV_W1 = ((16, 3), (32, 32), (16, 32), (16, 32), (4, 32), (1, 32), (1, 4), (1, 8), (5, 1))
CNV_W2 = ((8, 3), (16, 16), (8, 16), (8, 16), (4, 8), (1, 8), (1, 2), (2, 2), (5, 1))
TFC_ANY = ((16, 49), (8, 8), (8, 8), (10, 8))
# network, folding, weight bits -> interval, sum, images/s at 100 MHz, BRAM18 by the width rule.
ANCHORS = [
    (CNV, CNV_W1, 1, 32_768, 215_888, 3_052, 146),
    (CNV, CNV_W2, 1, 115_200, 664_608, 868, 112),
    (CNV, CNV_W2, 2, 115_200, 664_608, 868, 219),
    (TFC, TFC_ANY, 1, 64, 200, 1_562_500, 29),
    (TFC, TFC_ANY, 2, 64, 200, 1_562_500, 57),
]


@pytest.mark.parametrize("anchor", ANCHORS, ids=str)
def test_a_shipped_folding_has_finns_cycles_and_block_ram(anchor):
    shapes, folding, bits, interval, total, images, blocks = anchor
    units = [Unit(str(i), *shape, bits) for i, shape in enumerate(shapes)]
    foldings = {i: Folding(*pair) for i, pair in enumerate(folding)}
    report = simulate_folding(units, (foldings, {}), clock_mhz=100, where="test")
    assert (report.interval, report.critical_path) == (interval, total)
    assert round(report.to_dict()["images_per_s"]) == images
    assert report.bram18 == blocks
