"""BASQ: branch clips and LSQ steps (arithmetic.md, eq. 19 and 20)."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from bitfold.errors import UsageError
from bitfold.models.quantizers import (
    BRANCH_DECAYS,
    BranchActivation,
    LsqActivation,
    LsqWeight,
)

pytestmark = pytest.mark.torch


def _elementwise(out, parameter):
    """Gradient of ``parameter``, a scalar, from each output element."""
    return [float(torch.autograd.grad(o, parameter, retain_graph=True)[0]) for o in out]


@pytest.mark.parametrize(
    ("x", "code"),
    [(0.99, 0), (1.0, 1), (2.99, 1), (3.0, 2), (5.0, 3), (6.0, 3), (9.0, 3), (-1.0, 0)],
)
def test_branch_clip_gives_the_golden_codes(x, code):
    assert BranchActivation(2).codes(torch.tensor([x])).tolist() == [code]


def test_branch_step_is_the_float32_product_an_ulp_below_two():
    quantizer = BranchActivation(2)
    assert quantizer.exact_scales() == (Fraction(2) - Fraction(1, 2**23),)
    assert quantizer(torch.tensor([9.0])).item() == np.float32(5.9999995)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_stored_share_is_an_ulp_below_one_over_the_levels(bits):
    share = 1 - BranchActivation(bits).bin.numpy()
    assert share == np.nextafter(np.float32(1 / (2**bits - 1)), np.float32(0))


def test_branch_step_has_its_two_special_cases():
    one_bit, eight_bits = BranchActivation(1), BranchActivation(8)
    assert one_bit.exact_scales() == (Fraction(6),)
    assert eight_bits.exact_scales() == (Fraction(float(np.float32(6) / np.float32(255))),)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_branch_forward_is_one_product_of_code_and_step(bits):
    quantizer = BranchActivation(bits)
    quantizer.upper_bound.data.fill_(2.7182)
    x = torch.randn(4096, generator=torch.Generator().manual_seed(4)) * 3
    step = quantizer.step()
    x = torch.cat([x, step * (torch.arange(2**bits) + 0.5), quantizer.upper_bound.detach()[None]])
    codes = quantizer.codes(x)
    assert int(codes.min()) == 0
    assert int(codes.max()) == 2**bits - 1
    assert torch.equal(quantizer(x), codes.float() * step)


def test_branch_step_stays_float32_in_a_float64_network():
    quantizer = BranchActivation(3)
    before = quantizer.exact_scales()
    assert quantizer.double().exact_scales() == before


def test_branch_gradient_is_plain_pact():
    quantizer = BranchActivation(2)
    x = torch.tensor([-1.0, 0.0, 0.4, 3.3, 6.0, 6.1, 9.0], requires_grad=True)
    out = quantizer(x)
    assert torch.autograd.grad(out.sum(), x, retain_graph=True)[0].tolist() == [0, 0, 1, 1, 0, 0, 0]
    assert _elementwise(out, quantizer.upper_bound) == [0, 0, 0, 0, 0, 1, 1]


def test_branch_clip_gradient_beyond_the_clip_is_the_finite_difference():
    values = []
    for clip in (6.5, 5.5):
        quantizer = BranchActivation(2)
        quantizer.upper_bound.data.fill_(clip)
        values.append(float(quantizer(torch.tensor([9.0])).detach()))
    # D·L is an ulp below u.
    assert values[0] - values[1] == pytest.approx(1, rel=1e-6)


def test_a_stored_share_is_used_as_it_is():
    quantizer = BranchActivation(2)
    quantizer.bin.fill_(0.6666666)
    assert quantizer.faults() == []
    share = np.float32(1) - np.float32(0.6666666)
    assert quantizer.exact_scales() == (Fraction(float(np.float32(6) * share)),)


@pytest.mark.parametrize(("clip", "shown"), [(0.0, "0"), (-1.0, "-1"), (math.nan, "nan")])
def test_a_clip_that_is_not_positive_is_a_fault(clip, shown):
    quantizer = BranchActivation(2)
    quantizer.upper_bound.data.fill_(clip)
    assert quantizer.faults() == [f"upper_bound is {shown}, must be positive"]


@pytest.mark.parametrize(("share", "shown"), [(0.5, "0.5"), (1.0, "1"), (math.nan, "nan")])
def test_a_share_of_another_width_is_a_fault(share, shown):
    quantizer = BranchActivation(2)
    quantizer.bin.fill_(share)
    assert quantizer.faults() == [f"bin is {shown}, must be 1 − 1/3"]


def test_seven_branches_differ_by_their_decay():
    assert BRANCH_DECAYS == (1e-2, 5e-3, 1e-3, 5e-4, 1e-4, 5e-5, 1e-5)


def test_lsq_weights_give_the_golden_codes():
    quantizer = LsqWeight(2, out_channels=1)
    quantizer.s.data.fill_(0.1)
    weight = torch.tensor([[-0.051, -0.05, 0.05, 0.0501, 0.15]])
    assert quantizer.codes(weight).tolist() == [[-1, 0, 0, 1, 1]]
    assert quantizer.exact_scales(weight) == (Fraction(float(np.float32(0.1))),)


@pytest.mark.parametrize(
    ("quantizer", "shape"),
    [
        (LsqWeight(2, out_channels=3), (3, 1, 3, 3)),
        (LsqWeight(4, out_channels=3), (3, 20)),
        (LsqActivation(2), (5, 3, 4, 4)),
        (LsqActivation(3, channels=3), (5, 3, 4, 4)),
        (LsqActivation(8, channels=3, signed=True), (5, 3)),
    ],
    ids=repr,
)
def test_lsq_forward_is_one_product_of_code_and_step(quantizer, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(5)) * 2
    with torch.no_grad():
        quantizer.s.copy_(
            torch.linspace(0.3, 1.1, max(quantizer.s.numel(), 1)).view_as(quantizer.s)
        )
    axis = 0 if isinstance(quantizer, LsqWeight) else 1
    step = quantizer.s.view([-1 if i == axis else 1 for i in range(x.dim())])
    codes = quantizer.codes(x)
    assert quantizer.grid.lo <= int(codes.min())
    assert int(codes.max()) <= quantizer.grid.hi
    assert torch.equal(quantizer(x), codes.float() * step)


def test_lsq_gradients_are_the_printed_ones():
    quantizer = LsqActivation(2)
    quantizer.s.data.fill_(0.5)
    x = torch.tensor([-1.0, 0.1, 0.4, 1.2, 4.0], requires_grad=True)
    out = quantizer(x)
    assert torch.autograd.grad(out.sum(), x, retain_graph=True)[0].tolist() == [0, 1, 1, 1, 0]
    factor = 1 / math.sqrt(5 * 3)
    wanted = [factor * g for g in (0, 0 - 0.2, 1 - 0.8, 2 - 2.4, 3)]
    assert _elementwise(out, quantizer.s) == pytest.approx(wanted, abs=1e-6)


def test_lsq_step_gradients_count_the_whole_tensor():
    weight, x = torch.full((2, 9), 50.0), torch.full((5, 2, 3, 3), 50.0)
    weights, steps = LsqWeight(3, out_channels=2), LsqActivation(2, channels=2)
    weights(weight).sum().backward()
    steps(x).sum().backward()
    assert weights.s.grad.tolist() == pytest.approx([9 * 3 / math.sqrt(18 * 3)] * 2)
    assert steps.s.grad.tolist() == pytest.approx([45 * 3 / math.sqrt(90 * 3)] * 2)


def test_lsq_step_gradient_beyond_the_ends_is_the_finite_difference():
    quantizer = LsqActivation(2, signed=True).double()
    x = torch.tensor([-7.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(quantizer(x).sum(), quantizer.s)
    values = []
    for step in (1.5, 0.5):
        quantizer.s.data.fill_(step)
        values.append(float(quantizer(x).detach()))
    assert float(gradient) == values[0] - values[1]


def test_weights_pass_as_they_are_in_the_first_stage():
    quantizer = LsqWeight(2, out_channels=2)
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    quantizer.enabled = False
    assert torch.equal(quantizer(weight), weight)
    quantizer.enabled = True
    assert not torch.equal(quantizer(weight), weight)


def test_calibration_takes_twice_the_mean_magnitude():
    weight = torch.tensor([[1.0, -3.0], [0.0, 0.0]])
    weights = LsqWeight(3, out_channels=2)
    weights.calibrate(weight)
    assert weights.s.tolist() == pytest.approx([2 * 2 / math.sqrt(3), 1])  # a zero kernel keeps 1
    x = torch.stack([weight.T, weight.T])  # (2, 2, 2): mean |x| is 1/2 and 3/2 on axis 1
    channels, tensor = LsqActivation(2, channels=2), LsqActivation(2)
    channels.calibrate(x)
    tensor.calibrate(x)
    assert channels.s.tolist() == pytest.approx([1 / math.sqrt(3), 3 / math.sqrt(3)])
    assert float(tensor.s.detach()) == pytest.approx(2 / math.sqrt(3))


def test_a_negative_step_names_its_channel():
    steps, weights = LsqActivation(2, channels=3), LsqWeight(2, out_channels=3)
    steps.s.data[2] = -0.25
    weights.s.data[0] = math.inf
    assert steps.faults() == ["s[2] is -0.25, must be positive"]
    assert weights.faults(torch.ones(3, 1)) == ["weight_quantizer.s[0] is inf, must be positive"]


def test_one_bit_leaves_no_symmetric_grid():
    with pytest.raises(UsageError, match="1 bits leave no code but 0 on a symmetric grid"):
        LsqWeight(1, out_channels=2)


def test_a_negative_weight_step_means_its_mirror():
    weight = torch.linspace(-0.4, 0.4, 18).view(2, 3, 3, 1)
    quantizer = LsqWeight(3, out_channels=2).eval()
    with torch.no_grad():
        quantizer.s.copy_(torch.tensor([0.1, 0.07]))
        wanted = quantizer(weight), quantizer.codes(weight), quantizer.exact_scales(weight)
        quantizer.s.mul_(-1)
        assert torch.equal(quantizer(weight), wanted[0])
    assert torch.equal(quantizer.codes(weight), wanted[1])
    assert quantizer.exact_scales(weight) == wanted[2]
    assert quantizer.faults(weight) == []


def test_a_step_that_an_optimizer_drives_below_zero_is_brought_back():
    quantizer = LsqActivation(2)
    with torch.no_grad():
        quantizer.s.fill_(-0.3)
    quantizer.constrain()
    assert quantizer.s.item() > 0
    assert quantizer.faults() == []
