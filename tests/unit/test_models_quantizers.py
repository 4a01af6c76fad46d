"""Quantizers: golden vectors, ties, gradients, and codes · scale = forward."""

import numpy as np
import pytest
import torch

from bitfold.models import ActivationQuantizer, WeightQuantizer
from bitfold.models.quantizers import (
    BranchActivation,
    DorefaWeight,
    LsqActivation,
    LsqWeight,
    MinMaxWeight,
    PactActivation,
    SawbWeight,
    StqnActivation,
    StqnWeight,
    SttnActivation,
    SttnWeight,
    UniqActivation,
    UniqInput,
    UniqWeight,
)

pytestmark = pytest.mark.torch

GOLDEN = torch.tensor([-1, -0.6, -0.3, -0.1, 0, 0.1, 0.2, 0.4, 0.7, 1.2])


@pytest.mark.parametrize(
    ("grid_kind", "clip", "codes"),
    [
        ("odd", 0.92256, [-3, -1, -1, -1, 1, 1, 1, 1, 3, 3]),
        ("narrow", 0.7734, [-1, -1, 0, 0, 0, 0, 0, 1, 1, 1]),
    ],
)
def test_sawb_gives_the_golden_codes(grid_kind, clip, codes):
    quantizer = SawbWeight(2, grid_kind=grid_kind)
    quantizer(GOLDEN)
    assert float(quantizer.clip) == pytest.approx(clip, abs=1e-6)  # float32 moments
    assert quantizer.codes(GOLDEN).tolist() == codes


def test_sawb_clip_falls_back_to_the_largest_weight():
    quantizer = SawbWeight(4, grid_kind="odd")
    quantizer(torch.tensor([0.5, -0.5, 0.5, -0.5]))
    assert float(quantizer.clip) == 0.5


def test_sawb_keeps_its_clip_in_eval_mode():
    quantizer = SawbWeight(2)
    quantizer(GOLDEN)
    before = float(quantizer.clip)
    quantizer.eval()(GOLDEN * 3)
    assert float(quantizer.clip) == before


def test_sawb_gradient_is_zero_outside_the_clip():
    quantizer = SawbWeight(2)
    weight = GOLDEN.clone().requires_grad_()
    quantizer(weight).sum().backward()
    inside = GOLDEN.abs() <= quantizer.clip
    assert torch.equal(weight.grad, inside.float())


@pytest.mark.parametrize(
    ("x", "code"), [(0.5, 0), (1.5, 2), (2.5, 2), (3.5, 3), (-1, 0), (0.51, 1), (9, 3)]
)
def test_pact_rounds_ties_to_even(x, code):
    quantizer = PactActivation(2, clip=3.0)
    assert quantizer.codes(torch.tensor([float(x)])).tolist() == [code]


def test_pact_gradient_is_an_indicator():
    quantizer = PactActivation(2, clip=3.0)
    x = torch.tensor([-1.0, 0.4, 2.9, 3.1, 7.0], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0, 0]
    assert float(quantizer.clip.grad) == 2


def test_minmax_reaches_its_ends_and_keeps_zero_filters():
    weight = torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    quantizer = MinMaxWeight(8)
    assert quantizer.codes(weight).tolist() == [[64, -127], [0, 0]]
    assert torch.isfinite(quantizer(weight)).all()


@pytest.mark.parametrize("quantizer", [PactActivation(2), SawbWeight(2), MinMaxWeight(8)])
def test_every_quantizer_follows_the_protocol(quantizer):
    assert isinstance(quantizer, ActivationQuantizer | WeightQuantizer)


def _scaled_codes(quantizer, x):
    given = (x,) if isinstance(quantizer, WeightQuantizer) else ()
    scales = np.array([float(scale) for scale in quantizer.exact_scales(*given)])
    return quantizer.codes(x).numpy() * scales[:, None]


@pytest.mark.parametrize(
    "quantizer",
    [PactActivation(bits, clip=2.7) for bits in (1, 2, 3, 4, 8)]
    + [SawbWeight(bits, grid_kind=kind) for bits in (2, 3, 4) for kind in ("odd", "narrow")]
    + [MinMaxWeight(8)],
    ids=repr,
)
def test_codes_times_scale_is_the_forward_value(quantizer):
    x = torch.randn(16, 40, generator=torch.Generator().manual_seed(3)) * 2
    quantizer.train()(x)
    quantizer.eval()
    with torch.no_grad():
        forward = quantizer(x).double().numpy()
    codes = quantizer.codes(x)
    grid = quantizer.grid
    assert grid.lo <= int(codes.min())
    assert int(codes.max()) <= grid.hi
    assert torch.equal((codes - grid.lo) % grid.step, torch.zeros_like(codes))
    # forward is float32: the product and the straight-through sum round once each.
    assert np.abs(forward - _scaled_codes(quantizer, x)).max() <= 4 * 2.0**-23 * float(
        x.abs().max()
    )


# Every class, with a latent weight or an input that it takes.
ACTIVATIONS = [
    (lambda: UniqActivation(2), (4, 6, 5, 5)),
    (lambda: UniqInput(), (4, 6, 5, 5)),
    (lambda: BranchActivation(2), (4, 6, 5, 5)),
    (lambda: LsqActivation(3), (4, 6, 5, 5)),
    (lambda: LsqActivation(2, channels=6), (4, 6, 5, 5)),
    (lambda: LsqActivation(8, signed=True), (4, 6)),
    (lambda: SttnActivation(), (4, 6, 5, 5)),
    (lambda: StqnActivation(3), (4, 6, 5, 5)),
    (lambda: PactActivation(4), (4, 6, 5, 5)),
]
WEIGHTS = [
    (lambda: UniqWeight(1), (6, 4, 3, 3)),
    (lambda: UniqWeight(2, out_channels=6), (6, 4, 3, 3)),
    (lambda: LsqWeight(2, out_channels=6), (6, 1, 3, 3)),
    (lambda: SttnWeight(), (2, 6, 4, 3, 3)),
    (lambda: StqnWeight(3), (6, 5, 4, 3, 3)),
    (lambda: SawbWeight(2), (6, 4, 3, 3)),
    (lambda: SawbWeight(3, out_channels=6), (6, 4)),
    (lambda: DorefaWeight(1), (6, 4)),
    (lambda: DorefaWeight(3), (6, 4, 3, 3)),
    (lambda: MinMaxWeight(8), (6, 4, 3, 3)),
    (lambda: MinMaxWeight(16), (6, 4)),
]
EVERY = [pytest.param(*case, id=repr(case[0]())) for case in ACTIVATIONS + WEIGHTS]


def _input(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(11))


@pytest.mark.parametrize(("make", "shape"), EVERY)
def test_every_quantizer_is_built_without_memory(make, shape):
    with torch.device("meta"):
        quantizer = make()
    assert all(tensor.is_meta for tensor in quantizer.state_dict().values())
    quantizer.load_state_dict(make().state_dict(), assign=True)
    assert torch.equal(quantizer.train()(_input(shape)), make().train()(_input(shape)))


@pytest.mark.parametrize(("make", "shape"), EVERY)
def test_every_quantizer_is_one_compiled_graph(make, shape):
    x = _input(shape).requires_grad_()
    plain, whole = make().train(), make().train()
    compiled = torch.compile(whole, backend="aot_eager", fullgraph=True)
    plain_value, value = plain(x), compiled(x)
    assert torch.equal(value, plain_value)
    weights = _input(value.shape)
    leaves = [x, *plain.parameters()], [x, *whole.parameters()]
    wanted = torch.autograd.grad(plain_value, leaves[0], weights)
    got = torch.autograd.grad(value, leaves[1], weights)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize(("make", "shape"), EVERY)
def test_calibrated_quantizers_have_no_faults_and_restore_from_their_state(make, shape):
    quantizer, x = make().train(), _input(shape)
    quantizer.calibrate(x)
    given = (x,) if isinstance(quantizer, WeightQuantizer) else ()
    assert quantizer.faults(*given) == []
    restored = make().eval()
    restored.load_state_dict(quantizer.state_dict())
    assert restored.exact_scales(*given) == quantizer.exact_scales(*given)
    assert torch.equal(restored.codes(x), quantizer.codes(x))
    assert torch.equal(restored(x), quantizer.eval()(x))


@pytest.mark.parametrize(("make", "shape"), EVERY)
def test_every_code_is_on_its_grid_and_both_ends_are_reached(make, shape):
    quantizer, x = make().train(), _input(shape)
    quantizer.calibrate(x)
    if not isinstance(
        quantizer, SttnWeight | StqnWeight | MinMaxWeight | SawbWeight | DorefaWeight
    ):
        x = x * 1000
    codes = quantizer.codes(x).flatten().tolist()
    grid = quantizer.grid
    assert set(codes) <= set(range(grid.lo, grid.hi + 1, grid.step))
    if not isinstance(quantizer, MinMaxWeight | StqnWeight | DorefaWeight):
        assert {min(codes), max(codes)} == {grid.lo, grid.hi}


@pytest.mark.parametrize(("make", "shape"), [p for p in EVERY if p.values in WEIGHTS])
def test_weights_of_a_float64_network_keep_codes_and_scales(make, shape):
    quantizer, weight = make().train(), _input(shape)
    quantizer.calibrate(weight)
    codes, scales = quantizer.codes(weight), quantizer.exact_scales(weight)
    quantizer.double().eval()
    assert torch.equal(quantizer.codes(weight.double()), codes)
    assert quantizer.exact_scales(weight.double()) == scales
    shaped = np.array([float(s) for s in scales]).reshape(-1, *[1] * (codes.dim() - 1))
    value = quantizer(weight.double()).detach().numpy()
    # float64 rounds a handful of operations.
    assert np.abs(value - codes.numpy() * shaped).max() <= 1e-14
