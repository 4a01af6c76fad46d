"""STTN and its n-bit form: ties, sign kernels, the rewritten gradient (eq. 21 and 22)."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from bitfold.models.quantizers import (
    MergedTernaryWeight,
    StqnActivation,
    StqnWeight,
    SttnActivation,
    SttnWeight,
)

pytestmark = pytest.mark.torch


def _latent(bits=2, shape=(4, 3, 3, 3), seed=0):
    kernels = 2**bits - 2
    return torch.randn(kernels, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("x", "code"), [(-0.50000006, -1), (-0.5, 0), (0.49999997, 0), (0.5, 1), (-9, -1), (9, 1)]
)
def test_ternary_ties_go_up(x, code):
    quantizer = SttnActivation()
    assert quantizer.ties == "up"
    assert quantizer.codes(torch.tensor([float(x)])).tolist() == [code]
    assert quantizer(torch.tensor([float(x)])).tolist() == [code]


def test_ternary_gradient_passes_up_to_one():
    x = torch.tensor([-1.1, -1.0, -0.2, 0.6, 1.0, 1.1], requires_grad=True)
    SttnActivation()(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]


def test_ternary_scale_is_one():
    assert SttnActivation().exact_scales() == (Fraction(1),)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_stqn_like_ties_go_up_at_every_threshold(bits):
    quantizer = StqnActivation(bits)
    (scale,) = quantizer.exact_scales()
    hi = quantizer.grid.hi
    crossings = torch.tensor([float(scale * (2 * k + 1) / 2) for k in range(-hi, hi)])
    below = torch.nextafter(crossings, torch.tensor(-math.inf))
    assert quantizer.codes(crossings).tolist() == list(range(1 - hi, hi + 1))
    assert quantizer.codes(below).tolist() == list(range(-hi, hi))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_activation_codes_times_scale_are_the_forward_value(bits):
    quantizer = StqnActivation(bits)
    x = torch.randn(4096, generator=torch.Generator().manual_seed(bits)) * 2
    assert torch.equal(quantizer(x), quantizer.codes(x) * float(quantizer.exact_scales()[0]))


def test_two_signs_make_one_ternary_weight():
    signs = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1]]) * torch.tensor([0.5, 0.25, 0.25, 1])
    latent = signs.reshape(2, 1, 4)
    quantizer = SttnWeight()
    assert quantizer.codes(latent).tolist() == [[1, 0, 0, -1]]
    assert quantizer.exact_scales(latent) == (Fraction(1),)  # 2m with m = 1/2
    assert quantizer(latent).tolist() == [[1, 0, 0, -1]]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_weight_codes_times_scale_are_the_forward_value(bits):
    quantizer, latent = StqnWeight(bits), _latent(bits)
    codes = quantizer.codes(latent)
    assert quantizer.kernels == len(latent)
    assert quantizer.grid.hi == len(latent) // 2
    assert codes.shape == latent.shape[1:]
    assert int(codes.abs().max()) <= quantizer.grid.hi
    scales = torch.tensor([float(s) for s in quantizer.exact_scales(latent)]).view(-1, 1, 1, 1)
    assert torch.equal(quantizer(latent), codes * scales)


def test_the_sum_of_the_binary_kernels_is_the_weight():
    latent = _latent()
    mean = sum(k.abs().flatten(1).sum(1) for k in latent) / (2 * latent[0][0].numel())
    binary = mean.view(-1, 1, 1, 1) * torch.sign(latent)
    assert torch.equal(SttnWeight()(latent), binary[0] + binary[1])


def test_the_scale_stays_float32_in_a_float64_network():
    latent = _latent()
    before = SttnWeight().exact_scales(latent)
    assert SttnWeight().exact_scales(latent.double()) == before


@pytest.mark.parametrize("bits", [2, 3])
def test_the_gradient_of_each_kernel_is_the_published_rewrite(bits):
    latent = (_latent(bits) * 1.5).requires_grad_()
    upstream = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(9))
    StqnWeight(bits)(latent).backward(upstream)
    w, g = latent.detach().double(), upstream.double()
    mean = (torch.sign(w) * g).sum((2, 3, 4), keepdim=True) / 27
    wanted = g * (w.abs() <= 1.96) + torch.sign(w) * mean
    assert (w.abs() > 1.96).any()
    # float32 sums of 27 terms
    assert (latent.grad.double() - wanted).abs().max() < 1e-5


def test_latents_are_clamped_before_a_step():
    latent = torch.nn.Parameter(torch.tensor([[[-3.0, 0.5]], [[1.5, -1.0]]]))
    SttnWeight().constrain(latent)
    assert latent.tolist() == [[[-1, 0.5]], [[1, -1]]]


def test_a_latent_of_zero_is_a_fault():
    latent = _latent()
    assert SttnWeight().faults(latent) == []
    latent[0, 0, 0, 0, 0] = 0
    assert SttnWeight().faults(latent) == ["weight is 0 in 1 places, must have a sign"]
    latent[0, 0, 0, 0, 0] = math.nan
    assert SttnWeight().faults(latent) == [
        "weight has numbers that are not finite, must have a scale"
    ]


def test_training_gives_a_latent_of_zero_a_sign():
    latent = _latent()
    latent[1, 0, 0, 0, 0] = 0
    SttnWeight().constrain(latent)
    assert SttnWeight().faults(latent) == []
    assert 0 < float(latent[1, 0, 0, 0, 0]) < 1e-30


def test_merged_weights_decode_exactly():
    merged = SttnWeight()(_latent(seed=3)).detach()
    merged[1] = 0
    quantizer = MergedTernaryWeight()
    assert quantizer.faults(merged) == []
    assert torch.equal(quantizer.codes(merged)[0], SttnWeight().codes(_latent(seed=3))[0])
    assert quantizer.codes(merged)[1].any() == torch.tensor(False)
    assert torch.equal(quantizer(merged), merged)
    assert quantizer.exact_scales(merged)[0] == Fraction(float(merged[0].abs().max()))
    assert quantizer.exact_scales(merged)[1] == 1


@pytest.mark.parametrize(
    "wrong", [float(np.nextafter(np.float32(1), np.float32(0))), 0.5, math.nan]
)
def test_a_filter_that_is_not_ternary_is_a_fault(wrong):
    weight = torch.tensor([[1.0, 0, -1], [1, wrong, -1]])
    assert MergedTernaryWeight().faults(weight) == [
        "weight[1] has values other than −s, 0, s, must be ternary per filter"
    ]


def test_merged_weights_pass_their_gradient():
    weight = torch.tensor([[2.0, 0, -2]], requires_grad=True)
    MergedTernaryWeight()(weight).sum().backward()
    assert weight.grad.tolist() == [[1, 1, 1]]
