"""First convolutions straight from pixels, and weights that keep their sums."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from bitfold.models import PublishedPreprocessing
from bitfold.models.layers import PixelConv2d, PixelNorm
from bitfold.models.quantizers import FullPrecisionWeight, MinMaxWeight
from bitfold.models.quantizers.minmax import TWO_DIGITS, SumPreservingWeight

pytestmark = pytest.mark.torch

PUBLISHED = PublishedPreprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GRAY = PublishedPreprocessing((0.286,), (0.353,))


def pixel_conv(preprocessing=PUBLISHED, *, quantizer=None, kernel=3, stride=1):
    torch.manual_seed(3)
    return PixelConv2d(
        preprocessing, 4, kernel, weight_quantizer=quantizer or FullPrecisionWeight(), stride=stride
    )


def images(channels=3, size=(6, 5)):
    return torch.randint(0, 256, (2, channels, *size), generator=torch.Generator().manual_seed(0))


def normalized_then_convolved(conv, pixels):
    """The published order: normalize, pad with zeros, convolve."""
    x = PixelNorm(conv.preprocessing)(pixels.double())
    return functional.conv2d(x, conv.weight.double(), None, conv.stride, conv.padding)


@pytest.mark.parametrize("preprocessing", [PUBLISHED, GRAY])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (6, 5)])
def test_it_is_the_normalized_convolution_at_every_pixel(preprocessing, kernel, stride, size):
    conv = pixel_conv(preprocessing, kernel=kernel, stride=stride)
    pixels = images(len(preprocessing.means), size)
    want = normalized_then_convolved(conv, pixels)
    assert torch.allclose(conv(pixels.double()), want, atol=2e-5)


def test_without_a_channel_of_ones_the_border_would_be_wrong():
    """The constant part differs where the window leaves the image: no bias can replace it."""
    conv = pixel_conv()
    black = torch.zeros(1, 3, 5, 5, dtype=torch.float64)
    values = normalized_then_convolved(conv, black)[0, 0]
    assert abs(values[0, 0] - values[2, 2]) > 0.1
    assert torch.allclose(conv(black)[0, 0], values, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 16])
def test_quantized_weights_err_least_around_the_mean_colour(bits):
    """What rounding changes on an image of mean colour is taken off again, away from borders."""
    conv = pixel_conv(quantizer=MinMaxWeight(bits))
    mean = torch.tensor(PUBLISHED.means, dtype=torch.float64).view(1, 3, 1, 1) * 255
    values = conv(mean.expand(1, 3, 5, 5).contiguous())
    assert abs(values[0, :, 2, 2]).max() < 1e-5
    assert abs(conv.mean_error()).max() > (1e-3 if bits == 8 else 1e-6)


def test_float64_images_meet_the_integer_graphs_weights_without_float32_rounding():
    quantizer = MinMaxWeight(8)
    conv = pixel_conv(quantizer=quantizer)
    latent = conv.pixel_weight().detach()
    scales = torch.tensor([float(s) for s in quantizer.exact_scales(latent)], dtype=torch.float64)
    weight = quantizer.codes(latent).double() * scales.view(-1, 1, 1, 1)
    pixels = images().double()
    with_one = torch.cat([pixels, torch.full_like(pixels[:, :1], 255)], 1)
    bias = -conv.mean_error().double()
    want = functional.conv2d(with_one, weight, bias, conv.stride, conv.padding)
    assert torch.allclose(conv.double()(pixels), want, rtol=0, atol=1e-12)


def test_a_gradient_reaches_the_latent_weights():
    conv = pixel_conv(quantizer=MinMaxWeight(8))
    conv(images().float()).sum().backward()
    free = pixel_conv()
    free(images().float()).sum().backward()
    assert torch.allclose(conv.weight.grad, free.weight.grad)


def latent(shape=(6, 3, 3, 3), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [8, 16])
def test_the_sum_over_a_kernel_is_kept_to_half_a_step(bits):
    weight = latent()
    quantizer = SumPreservingWeight(bits)
    steps = weight / quantizer.scale(weight).view(-1, 1, 1, 1)
    errors = (quantizer.codes(weight) - steps).sum((2, 3))
    assert abs(errors).max() <= 0.5 + 1e-3
    plain = (MinMaxWeight(bits).codes(weight) - steps).sum((2, 3))
    assert abs(plain).max() > 0.6


def test_every_weight_goes_to_one_of_its_two_neighbours():
    weight = latent()
    quantizer = SumPreservingWeight(8)
    steps = weight / quantizer.scale(weight).view(-1, 1, 1, 1)
    codes = quantizer.codes(weight)
    assert ((codes == torch.floor(steps)) | (codes == torch.ceil(steps))).all()
    assert (codes.min() >= -127, codes.max() <= 127) == (True, True)


def test_a_1x1_kernel_is_rounded_to_nearest():
    weight = latent((5, 4, 1, 1))
    assert torch.equal(SumPreservingWeight(8).codes(weight), MinMaxWeight(8).codes(weight))


def test_forward_is_code_times_scale():
    weight = latent()
    for quantizer in (SumPreservingWeight(8), MinMaxWeight(16)):
        scale = quantizer.scale(weight).view(-1, 1, 1, 1)
        assert torch.equal(quantizer(weight), quantizer.codes(weight).float() * scale)


def test_sixteen_bits_are_what_two_digits_hold():
    assert MinMaxWeight(16).grid.hi == TWO_DIGITS == 127 * 255 + 127
    codes = MinMaxWeight(16).codes(latent())
    assert np.array_equal(codes.abs().flatten(1).amax(1), [TWO_DIGITS] * 6)


def test_a_zero_filter_has_a_scale():
    weight = torch.zeros(2, 1, 3, 3)
    for quantizer in (MinMaxWeight(8), SumPreservingWeight(8)):
        assert quantizer.scale(weight).tolist() == [pytest.approx(1 / 127)] * 2
        assert not quantizer.codes(weight).any()
        assert quantizer.faults(weight) == []


def test_a_weight_too_small_for_a_scale_is_a_fault():
    weight = torch.full((1, 1, 1, 1), 1e-45)
    assert MinMaxWeight(8).faults(weight) == ["weight is too small to have a scale"]
