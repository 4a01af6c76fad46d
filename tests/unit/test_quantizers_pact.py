"""PACT with SAWB or DoReFa weights, and full precision (arithmetic.md, eq. 2, 3 and 23)."""

import math
from fractions import Fraction

import pytest
import torch

from bitfold.errors import UnsupportedError, UsageError
from bitfold.models.quantizers import (
    DorefaWeight,
    FullPrecisionActivation,
    FullPrecisionWeight,
    PactActivation,
    SawbWeight,
)
from bitfold.models.quantizers.sawb import COEFFICIENTS, coefficients, sawb_clip
from bitfold.models.quantizers.uniq import WEIGHT_STEP

pytestmark = pytest.mark.torch

GAUSS = torch.randn(8, 50, generator=torch.Generator().manual_seed(7))


def test_pact_gradient_at_the_clip_belongs_to_the_clip():
    quantizer = PactActivation(2, clip=3.0)
    x = torch.tensor([0.0, 3.0], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad.tolist() == [1, 0]
    assert float(quantizer.clip.grad) == 1


def test_pact_clip_gradient_is_the_finite_difference_above_the_clip():
    values = [float(PactActivation(2, clip=c)(torch.tensor([9.0])).detach()) for c in (3.5, 2.5)]
    assert values[0] - values[1] == 1


def test_pact_calibration_widens_to_the_greatest_batch():
    quantizer = PactActivation(2)
    quantizer.calibrate(torch.tensor([-5.0, 1.0]))
    first = float(quantizer.clip.detach())
    assert first == pytest.approx(3 * 0.650770 * math.sqrt(2 * 0.5), rel=1e-6)
    quantizer.calibrate(torch.tensor([0.1, 0.1]))
    assert float(quantizer.clip.detach()) == first
    quantizer.calibrate(torch.tensor([2.0, 2.0]))
    assert float(quantizer.clip.detach()) == pytest.approx(3 * 0.650770 * math.sqrt(8), rel=1e-6)


@pytest.mark.parametrize(
    ("source", "levels", "pair"),
    [
        ("fms-model-optimizer", 4, (3.12, 2.064)),
        ("fms-model-optimizer", 15, (12.035, 12.03)),
        ("quantlib", 255, (35.48044, 40.89530)),
        ("quoted", 4, (3.212, 2.178)),
        ("least-squares", 16, (12.10, 12.17)),
        ("quantlib-twos-complement", 8, (8.26900, 7.36509)),
        (None, 2, (0, -1)),
        (None, 7, (6.99146, 6.34798)),
        (None, 16, (12.68, 12.80)),
    ],
)
def test_every_source_of_coefficients_is_there(source, levels, pair):
    assert coefficients(levels, source) == pair


def test_coefficients_that_no_source_has_are_refused():
    with pytest.raises(UsageError, match="no SAWB coefficients for 64 levels"):
        SawbWeight(6, grid_kind="odd")
    with pytest.raises(UsageError, match="coefficients of quoted"):
        SawbWeight(4, source="quoted")


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_every_row_clips_a_gaussian_near_its_best_clip(bits):
    """Half the span of the best mid-rise quantizer, which UniQ's table gives."""
    levels = 2**bits
    best = WEIGHT_STEP[bits] * (levels - 1) / 2
    for source, table in COEFFICIENTS.items():
        if levels in table and source != "quantlib-twos-complement":
            c1, c2 = table[levels]
            # E[w²] = 1 and E|w| = sqrt(2/pi); the rows fit several distributions at once.
            assert c1 - c2 * math.sqrt(2 / math.pi) == pytest.approx(best, rel=0.05)


def test_one_bit_sawb_is_the_mean_magnitude():
    quantizer = SawbWeight(1)
    quantizer.calibrate(GAUSS)
    assert float(quantizer.clip.detach()) == float(GAUSS.abs().mean())
    assert quantizer.codes(torch.tensor([-0.1, 0.1])).tolist() == [-1, 1]


def test_sawb_per_channel_is_sawb_of_every_filter():
    scaled = GAUSS * torch.arange(1, 9).view(-1, 1)
    quantizer = SawbWeight(2, out_channels=8)
    value = quantizer(scaled)
    alone = [SawbWeight(2) for _ in scaled]
    assert torch.allclose(value, torch.stack([q(w) for q, w in zip(alone, scaled, strict=True)]))
    wanted = [Fraction(float(clip)) / 3 for clip in sawb_clip(scaled, 4, per_channel=True)]
    assert list(quantizer.exact_scales(scaled)) == wanted


def test_sawb_falls_back_filter_by_filter():
    weight = torch.stack([GAUSS[0], torch.full((50,), 0.5)])
    clips = sawb_clip(weight, 16, per_channel=True)
    assert float(clips[1]) == 0.5
    assert float(clips[0]) == pytest.approx(float(sawb_clip(GAUSS[0], 16)), rel=1e-6)


def test_a_clip_that_was_never_set_is_a_fault():
    quantizer = SawbWeight(2, out_channels=8)
    assert quantizer.faults(GAUSS) == ["weight_quantizer.clip[0] is 0, must be positive"]


def test_dorefa_levels_are_odd_over_the_largest():
    quantizer = DorefaWeight(2)
    weight = torch.tensor([-2.0, -0.1, 0.0, 0.1, 2.0])
    assert quantizer.codes(weight).tolist() == [-3, -1, 1, 1, 3]  # rne(3/2) = 2
    assert quantizer.exact_scales(weight) == (Fraction(1, 3),)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_dorefa_forward_is_the_nearest_float_to_code_times_scale(bits):
    quantizer = DorefaWeight(bits)
    codes = quantizer.codes(GAUSS)
    (scale,) = quantizer.exact_scales(GAUSS)
    assert set(codes.unique().tolist()) <= set(range(1 - 2**bits, 2**bits, 2))
    wanted = torch.tensor([float(int(code) * scale) for code in codes.flatten()]).view_as(GAUSS)
    assert torch.equal(quantizer(GAUSS), wanted)


def test_one_bit_dorefa_gives_zero_a_sign_and_passes_its_gradient():
    weight = torch.tensor([-3.0, 0.0, 3.0], requires_grad=True)
    value = DorefaWeight(1)(weight)
    assert value.tolist() == [-2, 2, 2]
    value.sum().backward()
    assert weight.grad.tolist() == [1, 1, 1]


def test_dorefa_gradient_is_that_of_the_unrounded_weight():
    weight = torch.tensor([-1.2, -0.3, 0.2, 0.9], dtype=torch.float64)
    upstream = torch.tensor([0.3, -1.0, 0.7, 2.0], dtype=torch.float64)

    def unrounded(w):
        bent = torch.tanh(w)
        return float((upstream * bent / bent.abs().max()).sum())

    leaf = weight.clone().requires_grad_()
    DorefaWeight(3)(leaf).backward(upstream)
    width = 1e-6
    for i in range(4):
        shift = torch.zeros(4, dtype=torch.float64)
        shift[i] = width
        slope = (unrounded(weight + shift) - unrounded(weight - shift)) / (2 * width)
        # the quantizer works in float32
        assert float(leaf.grad[i]) == pytest.approx(slope, abs=1e-5)


def test_dorefa_names_weights_without_a_scale():
    assert DorefaWeight(1).faults(torch.zeros(3)) == ["mean of |weight| is 0, must be positive"]
    assert DorefaWeight(2).faults(torch.zeros(3)) == []
    assert DorefaWeight(2).faults(torch.tensor([math.nan])) == [
        "mean of |weight| is nan, must be positive"
    ]


def test_full_precision_passes_and_has_no_grid():
    weight, relu = FullPrecisionWeight(), FullPrecisionActivation(relu=True)
    assert torch.equal(weight(GAUSS), GAUSS)
    assert torch.equal(relu(GAUSS), torch.relu(GAUSS))
    assert torch.equal(FullPrecisionActivation(relu=False)(GAUSS), GAUSS)
    for ask in (
        lambda: weight.grid,
        lambda: weight.codes(GAUSS),
        lambda: weight.exact_scales(GAUSS),
        lambda: relu.grid,
        lambda: relu.codes(GAUSS),
        relu.exact_scales,
    ):
        with pytest.raises(UnsupportedError, match="full precision: there are no codes"):
            ask()
