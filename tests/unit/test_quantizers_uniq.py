"""UniQ: the golden vectors, ties, printed gradients, calibration (arithmetic.md, eq. 17 and 18)."""

import math
from fractions import Fraction

import pytest
import torch

from bitfold.models.quantizers import UniqActivation, UniqInput, UniqWeight

pytestmark = pytest.mark.torch

GOLDEN = torch.tensor([-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1])
BITS = [1, 2, 3, 4, 8]


def _with_step(quantizer, step):
    quantizer.delta.data.fill_(step)
    return quantizer


def _gradients(quantizer, x):
    """Gradient of the input, and of the step before its scaling (one element at a time)."""
    leaf = x.clone().requires_grad_()
    out = quantizer(leaf)
    (to_x,) = torch.autograd.grad(out.sum(), leaf, retain_graph=True)
    to_step = [float(torch.autograd.grad(o, quantizer.delta, retain_graph=True)[0]) for o in out]
    return to_x.tolist(), to_step


def test_weights_give_the_golden_codes():
    quantizer = _with_step(UniqWeight(2), 0.5)
    assert quantizer.codes(GOLDEN).tolist() == [-3, -3, -3, -1, 1, 1, 1, 3, 3]
    assert quantizer.exact_scales(GOLDEN) == (Fraction(1, 4),)
    assert quantizer(GOLDEN).tolist() == [
        -0.75, -0.75, -0.75, -0.25, 0.25, 0.25, 0.25, 0.75, 0.75,
    ]  # fmt: skip


@pytest.mark.parametrize(("bits", "code"), [(1, -1), (2, 1), (3, 1), (4, 1), (8, 1)])
def test_a_weight_of_zero_takes_the_even_index(bits, code):
    assert _with_step(UniqWeight(bits), 0.5).codes(torch.zeros(1)).tolist() == [code]


@pytest.mark.parametrize(
    ("bits", "x", "code"), [(2, 0.5, 0), (2, 1.5, 2), (2, 2.5, 2), (2, 3.5, 3), (2, -1, 0)]
)
def test_activations_round_ties_to_even(bits, x, code):
    assert _with_step(UniqActivation(bits), 1.0).codes(torch.tensor([float(x)])).tolist() == [code]


def test_a_one_bit_activation_rises_just_above_half_a_step():
    quantizer = _with_step(UniqActivation(1), 0.3)
    half = quantizer.delta.detach() / 2
    above = torch.nextafter(half, torch.tensor(1.0))
    assert quantizer.codes(torch.stack([half, above])).tolist() == [0, 1]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", [UniqWeight, UniqInput])
def test_mid_rise_forward_is_one_product_of_code_and_half_step(kind, bits):
    x = torch.randn(4096, generator=torch.Generator().manual_seed(bits))
    x = torch.cat([x, torch.zeros(1), torch.tensor([-50.0, 50.0])])
    quantizer = _with_step(kind(bits), 0.3137)
    codes = quantizer.codes(x)
    assert set(codes.tolist()) <= set(range(1 - 2**bits, 2**bits, 2))
    assert torch.equal(quantizer(x), codes.float() * (quantizer.delta * 0.5))


@pytest.mark.parametrize("bits", BITS)
def test_activation_forward_is_one_product_of_code_and_step(bits):
    x = torch.randn(4096, generator=torch.Generator().manual_seed(bits)) * 3
    quantizer = _with_step(UniqActivation(bits), 0.1371)
    codes = quantizer.codes(x)
    assert int(codes.min()) >= 0
    assert int(codes.max()) <= 2**bits - 1
    assert torch.equal(quantizer(x), codes.float() * quantizer.delta)


def test_weights_of_a_network_in_float64_keep_their_float32_codes():
    weight = torch.randn(1 << 16, generator=torch.Generator().manual_seed(1))
    quantizer = _with_step(UniqWeight(2), 0.123)
    # Ties of float32 that are no ties in float64: α rounds.
    weight = torch.cat([weight, quantizer.delta.detach() * torch.arange(-3, 4)])
    codes = quantizer.codes(weight)
    quantizer.double()
    assert torch.equal(quantizer.codes(weight.double()), codes)
    assert torch.equal(quantizer(weight.double()), codes * (quantizer.delta * 0.5))


def test_weight_gradients_are_the_printed_ones():
    quantizer = _with_step(UniqWeight(2), 0.5)
    w = torch.tensor([-2.0, -0.6, 0.1, 0.3, 2.0])
    to_w, to_step = _gradients(quantizer, w)
    assert to_w == [0, 1, 1, 1, 0]
    factor = 1 / math.sqrt(5)
    values = quantizer(w).tolist()
    inside = [(v - x) / 0.5 for v, x in zip(values, w.tolist(), strict=True)]
    wanted = [-1.5, *inside[1:4], 1.5]
    # float32 of a handful of operations
    assert to_step == pytest.approx([factor * g for g in wanted], abs=1e-6)


def test_activation_gradients_are_the_printed_ones():
    quantizer = _with_step(UniqActivation(2), 0.5)
    x = torch.tensor([-1.0, 0.1, 0.4, 1.2, 4.0])
    to_x, to_step = _gradients(quantizer, x)
    assert to_x == [0, 1, 1, 1, 0]
    factor = 1 / math.sqrt(5 * 3)
    wanted = [0, 0 - 0.2, 1 - 0.8, 2 - 2.4, 3]
    assert to_step == pytest.approx([factor * g for g in wanted], abs=1e-6)


@pytest.mark.parametrize(
    ("quantizer", "x"),
    [(UniqWeight(3), -9.0), (UniqWeight(3), 9.0), (UniqActivation(3), 9.0), (UniqInput(4), 30.0)],
)
def test_step_gradient_beyond_the_ends_is_the_finite_difference(quantizer, x):
    quantizer.double()
    point = torch.tensor([x], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(quantizer(point).sum(), quantizer.delta)
    difference = []
    step, width = float(quantizer.delta.detach()), 2.0**-10
    for sign in (1, -1):
        difference.append(float(_with_step(quantizer, step + sign * width)(point).detach()))
    slope = (difference[0] - difference[1]) / (2 * width)
    mid_rise = not isinstance(quantizer, UniqActivation)
    steps = 2 ** (quantizer.bits - 1) - 1 if mid_rise else quantizer.grid.hi
    assert float(gradient) * math.sqrt(steps) == pytest.approx(slope, rel=1e-6)


def test_kernel_wise_gradients_count_the_elements_of_one_kernel():
    weight = torch.full((2, 3, 3, 3), 50.0)
    quantizer = UniqWeight(2, out_channels=2)
    quantizer(weight).sum().backward()
    assert quantizer.delta.grad.tolist() == pytest.approx([27 * 1.5 / math.sqrt(27)] * 2)


def test_activation_gradients_count_the_whole_batch_of_all_processes():
    x = torch.full((4, 9), 50.0)
    alone, shared = UniqActivation(2), UniqActivation(2)
    shared.batch_shards = 4
    alone(x).sum().backward()
    shared(x).sum().backward()
    assert float(alone.delta.grad) == pytest.approx(36 * 3 / math.sqrt(36 * 3))
    assert float(shared.delta.grad) == pytest.approx(float(alone.delta.grad) / 2)


def test_gradient_scaling_leaves_the_step_as_it_is():
    quantizer = UniqActivation(1)
    steps = torch.rand(2000, generator=torch.Generator().manual_seed(0))
    for step in steps.tolist():
        _with_step(quantizer, step)
        assert quantizer(torch.tensor([5.0])).item() == float(quantizer.delta.detach())


@pytest.mark.parametrize(("bits", "factor"), [(1, 1.595769), (2, 0.995687), (4, 0.335201)])
def test_weight_calibration_multiplies_the_unbiased_deviation(bits, factor):
    weight = torch.randn(4, 5, 3, 3, generator=torch.Generator().manual_seed(2))
    layer, kernels = UniqWeight(bits), UniqWeight(bits, out_channels=4)
    layer.calibrate(weight)
    kernels.calibrate(weight)
    assert float(layer.delta.detach()) == pytest.approx(float(weight.std()) * factor, rel=1e-6)
    wanted = [float(kernel.std()) * factor for kernel in weight]
    assert kernels.delta.tolist() == pytest.approx(wanted, rel=1e-6)


def test_a_kernel_without_spread_keeps_its_step():
    quantizer = UniqWeight(2, out_channels=2)
    weight = torch.tensor([[1.0, 1.0], [1.0, 2.0]])
    before = float(quantizer.delta[0].detach())
    quantizer.calibrate(weight)
    assert float(quantizer.delta[0].detach()) == before
    assert quantizer.faults(weight) == []


def test_activation_calibration_keeps_the_greatest_batch():
    quantizer = UniqActivation(2)
    batches = [torch.tensor([0.1, -0.2]), torch.tensor([3.0, 4.0]), torch.tensor([1.0, 1.0])]
    steps = []
    for batch in batches:
        quantizer.calibrate(batch)
        steps.append(float(quantizer.delta.detach()))
    power = [float(2 * batch.square().mean()) for batch in batches]
    assert steps == pytest.approx([0.650770 * math.sqrt(power[i]) for i in (0, 1, 1)], rel=1e-6)


def test_input_calibration_follows_the_last_batch():
    quantizer = UniqInput()
    quantizer.calibrate(torch.tensor([-10.0, 10.0, 3.0]))
    last = torch.tensor([0.0, 1.0, 2.0])
    quantizer.calibrate(last)
    assert float(quantizer.delta.detach()) == pytest.approx(0.0307624, rel=1e-6)


def test_the_step_tables_are_best_for_a_gaussian():
    """The mid-rise and the rectified step of least square error, by integration on a fine grid."""
    x = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    density = torch.exp(-x * x / 2)
    for bits in (1, 2, 3, 4):
        for kind in (UniqWeight, UniqActivation):
            rectified = torch.relu(x) if kind is UniqActivation else x
            best = float(kind(bits).delta.detach())
            error = [
                float(
                    (
                        density * (_with_step(kind(bits), s)(rectified).detach() - rectified) ** 2
                    ).sum()
                )
                for s in (0.99 * best, best, 1.01 * best)
            ]
            assert error[1] < min(error[0], error[2])


@pytest.mark.parametrize(("step", "shown"), [(0.0, "0"), (-0.5, "-0.5"), (math.nan, "nan")])
def test_a_step_that_is_not_positive_is_a_fault(step, shown):
    weight = torch.ones(2, 1)
    for quantizer in (UniqActivation(2), UniqInput()):
        faults = _with_step(quantizer, step).faults()
        assert faults == [f"delta is {shown}, must be positive"]
    kernels = UniqWeight(2, out_channels=2)
    kernels.delta.data[1] = step
    assert kernels.faults(weight) == [f"weight_quantizer.delta[1] is {shown}, must be positive"]
