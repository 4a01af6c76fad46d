"""Latency tables of BASQ networks."""

import pytest

from bitfold.errors import UnsupportedError, UsageError
from bitfold.latency import cpu_latency, fpga_latency, latency_table
from bitfold.models import NetSpec, Preprocessing

pytestmark = pytest.mark.torch

SPEC = NetSpec("resnet8", "basq", (2, 2), (8, 8, 1), ("a", "b"), Preprocessing(73, 90), width=0.25)
BLOCKS = 6


def test_times_go_to_the_block_that_their_name_lies_in():
    def measure(graph):
        assert graph.nodes
        return {"blocks.0.conv": 1.0, "blocks.0.add": 0.5, "stem": 4.0, "blocks.12.conv": 2.0} | {
            f"blocks.{i}.conv": 2.0 for i in range(1, BLOCKS)
        }

    table = latency_table(SPEC, num_blocks=BLOCKS, measure=measure, source="made up")
    assert table.blocks[0] == {2: 1.5, 3: 1.5, 4: 1.5}
    assert table.blocks[5] == {2: 2.0, 3: 2.0, 4: 2.0}
    assert table.rest == pytest.approx(6.0)  # the mean of three float sums
    assert table.source == "made up"


def test_a_block_without_a_step_is_refused():
    with pytest.raises(UnsupportedError, match="block 0 has no step of its own"):
        latency_table(SPEC, num_blocks=BLOCKS, measure=lambda graph: {"a": 1.0}, source="x")


def test_the_array_takes_four_visits_for_four_bits():
    table = fpga_latency(SPEC, num_blocks=BLOCKS, device="zu3eg")
    for block in table.blocks:
        assert 0 < block[2] < block[3] <= block[4] < 1.02 * block[3]  # the bytes differ alone
        assert block[4] <= 4 * block[2]
    assert table.source == "fpga: zu3eg, estimated"


def test_an_unknown_device_is_refused():
    with pytest.raises(UsageError, match="zu999"):
        fpga_latency(SPEC, num_blocks=BLOCKS, device="zu999")


def test_every_block_takes_time_on_this_machine():
    table = cpu_latency(SPEC, num_blocks=BLOCKS)
    assert [sorted(block) for block in table.blocks] == [[2, 3, 4]] * BLOCKS
    assert min(min(block.values()) for block in table.blocks) > 0
    assert table.rest > 0
