"""BASQ networks: the units' dataflow, flexible skips, branches, genomes, widths, odd sizes."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import fx

from bitfold.errors import UsageError
from bitfold.models import NetSpec, Preprocessing
from bitfold.models.nets.basq_mobilenet import BasqMobileNetV1, BasqMobileNetV2
from bitfold.models.nets.basq_resnet import BasqResNet
from bitfold.models.nets.basq_units import BranchPlan, BranchUnit, FlexSkip, PointwiseUnit, extract
from bitfold.models.nets.scheme import Scheme
from bitfold.models.protocol import ActivationQuantizer, WeightQuantizer

pytestmark = pytest.mark.torch

NETS = {
    "mobilenetv2": (BasqMobileNetV2, 17),
    "mobilenetv1": (BasqMobileNetV1, 13),
    "resnet8": (BasqResNet, 6),
    "resnet20": (BasqResNet, 18),
    "resnet18": (BasqResNet, 16),
}
V2_TINY = (2, 2, *[4] * 2, *[4] * 3, *[6] * 4, *[6] * 3, *[8] * 3, 8, 16)


def spec_of(net="resnet8", **changed):
    fields = {
        "net": net,
        "method": "basq",
        "bits": (2, 2),
        "input_shape": (16, 16, 3),
        "class_names": tuple("abcdefghij"),
        "preprocessing": Preprocessing(73, 90),
        "width": 0.125,
    }
    if net == "mobilenetv2":
        fields["channels"] = V2_TINY
    return NetSpec(**(fields | changed))


def build(net="resnet8", **changed):
    return NETS[net][0](spec_of(net, **changed))


def logits_of(model, shape=(16, 16, 3)):
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (2, shape[2], *shape[:2]), generator=generator).float()
    with torch.no_grad():
        return model.eval()(pixels)


def randomized(model):
    """Every batch norm and clip different, so that a mix-up of branches shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not name.endswith("bin") and tensor.is_floating_point() and tensor.dim() < 2:
                tensor.copy_(tensor + 0.2 * torch.rand(tensor.shape, generator=generator))
    return model


def test_flex_sums_groups_of_channels_and_pads_the_last():
    x = torch.tensor([1.0, 2, 3, 4, 5]).view(1, 5, 1, 1)
    assert FlexSkip(5, 2)(x).flatten().tolist() == [1 + 3 + 5, 2 + 4]


def test_flex_repeats_the_whole_group():
    x = torch.tensor([1.0, 2]).view(1, 2, 1, 1)
    assert FlexSkip(2, 6)(x).flatten().tolist() == [1, 2, 1, 2, 1, 2]


def test_flex_of_equal_channels_is_the_identity():
    x = torch.randn(2, 3, 4, 4)
    assert FlexSkip(3, 3)(x) is x


def test_flex_refuses_to_repeat_part_of_a_group():
    with pytest.raises(UsageError, match="4 channels cannot be repeated to 6"):
        FlexSkip(4, 6)


def test_a_pointwise_unit_adds_its_skip_behind_the_relu():
    unit = randomized(PointwiseUnit(2, 4, scheme=Scheme.of(spec_of()))).eval()
    x = torch.randn(1, 2, 3, 3)
    branch = unit.bn_out(unit.conv(unit.act(unit.bn_in(x)))).clamp(min=0)
    assert torch.equal(unit(x), unit.bn_last(branch + x.repeat(1, 2, 1, 1)))


def test_a_branch_unit_reads_the_selected_branch_alone():
    plan = BranchPlan(2, 4, 2, (4, 4), Scheme.of(spec_of()), tuple(range(7)))
    unit = randomized(BranchUnit(plan, depthwise=False)).eval()
    x = torch.randn(1, 2, 4, 4)
    skip = torch.nn.functional.avg_pool2d(x, 2).repeat(1, 2, 1, 1)
    for gene in range(7):
        own = unit.branches[str(gene)]
        sums = unit.conv(own.act(own.bn_in(x)))
        unit.selected = gene
        assert torch.equal(unit(x), own.bn_last(own.bn_out(sums).clamp(min=0) + skip))


@pytest.mark.parametrize("net", NETS)
def test_networks_have_a_gene_a_branch_unit_and_a_logit_a_class(net):
    model = build(net)
    assert (model.num_blocks, model.genome) == (NETS[net][1], (0,) * NETS[net][1])
    assert logits_of(model).shape == (2, 10)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("stem", ["small", "large"])
def test_odd_maps_are_halved_on_the_skip_as_by_the_convolution(net, stem):
    shape = (25, 30, 3)
    assert logits_of(build(net, input_shape=shape, stem=stem), shape).shape == (2, 10)


@pytest.mark.parametrize("net", ["mobilenetv1", "mobilenetv2"])
@pytest.mark.parametrize("width", [0.1, 0.25, 0.35, 0.5, 0.75, 1.0, 1.4])
def test_each_mobilenet_width_is_one_that_the_skips_can_serve(net, width):
    with torch.device("meta"):
        model = build(net, width=width, channels=())
    skips = [module for module in model.modules() if isinstance(module, FlexSkip)]
    assert model.conv1.out_channels == int(32 * width)
    assert all(b % a == 0 or b < a for a, b in ((s.in_channels, s.out_channels) for s in skips))


def test_mobilenet_v2_has_the_published_widths():
    with torch.device("meta"):
        model = build("mobilenetv2", width=1.0, channels=())
    outs = [block.project.conv.out_channels for block in model.blocks[:-1]]
    assert outs == [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320]
    hidden = [block.depthwise.conv.in_channels for block in model.blocks[:-1]]
    assert hidden == [32, *(6 * c for c in outs[:-1])]
    assert [i + 1 for i, block in enumerate(model.blocks[:-1]) if block.adds_input] == [
        3, 5, 6, 8, 9, 10, 12, 13, 15, 16,
    ]  # fmt: skip
    assert model.blocks[-1].conv.weight.shape == (1280, 320, 1, 1)


def test_resnet_widths_double_whatever_the_width():
    model = build("resnet20", width=0.3)
    widths = [unit.conv.out_channels for unit in model.branch_units()]
    assert {b // a for a, b in pairwise(sorted(set(widths)))} == {2}


@pytest.mark.parametrize("net", ["mobilenetv2", "mobilenetv1", "resnet8"])
def test_an_extracted_network_equals_the_supernet_at_its_genome(net):
    supernet = randomized(build(net))
    genome = tuple((3 * i + 5) % 7 for i in range(supernet.num_blocks))
    supernet.select(genome)
    chosen = extract(supernet, genome)
    assert (chosen.spec.genome, chosen.genome, supernet.genome) == (genome,) * 3
    assert set(chosen.state_dict()) < set(supernet.state_dict())
    assert torch.equal(logits_of(chosen), logits_of(supernet))


def test_branches_differ_only_in_what_is_their_own():
    supernet = randomized(build())
    before = logits_of(supernet)
    supernet.select((1, 0, 0, 0, 0, 0))
    assert not torch.equal(logits_of(supernet), before)
    supernet.select((0,) * 6)
    assert torch.equal(logits_of(supernet), before)


@pytest.mark.parametrize(
    ("genome", "message"),
    [
        ((0,) * 5, "5 genes\nBASQ network\nGive 6 genes, one a branch unit."),
        ((0, 0, 7, 0, 0, 0), "gene 2 is 7, of branches 0, 1, 2, 3, 4, 5, 6"),
        ((0, -1, 0, 0, 0, 0), "gene 1 is -1"),
    ],
)
def test_an_impossible_genome_is_refused(genome, message):
    supernet = build()
    extracted = partial(extract, supernet)
    for act in (supernet.select, extracted, lambda genome: build(genome=genome)):
        with pytest.raises(UsageError) as caught:
            act(genome)
        assert message in str(caught.value)
    assert supernet.genome == (0,) * 6


def test_an_empty_genome_extracts_nothing():
    with pytest.raises(UsageError, match="0 genes"):
        extract(build(), ())


def test_a_chosen_network_has_no_other_branch_to_select():
    model = build(genome=(4, 4, 4, 4, 4, 4))
    with pytest.raises(UsageError, match="gene 0 is 0, of branches 4"):
        model.select((0,) * 6)


def test_only_the_selected_branch_gets_a_gradient():
    model = build()
    model.select((2,) * 6)
    model(torch.rand(4, 3, 16, 16) * 255).sum().backward()
    touched = {
        name.split("branches.")[1].split(".")[0]
        for name, parameter in model.named_parameters()
        if "branches." in name and parameter.grad is not None
    }
    assert touched == {"2"}


def test_block_bits_set_both_widths_of_their_block_alone():
    bits = tuple(2 + i % 3 for i in range(17))
    model = build("mobilenetv2", block_bits=bits)
    for block, wanted in zip(model.blocks[:-1], bits, strict=True):
        quantizers = [
            m for m in block.modules() if isinstance(m, ActivationQuantizer | WeightQuantizer)
        ]
        assert {quantizer.bits for quantizer in quantizers} == {wanted}
    assert model.blocks[-1].act.bits == 2


def test_block_bits_of_another_length_are_refused():
    with pytest.raises(UsageError, match="2 block bits"):
        build(block_bits=(2, 3))


def test_pointwise_steps_are_one_a_layer_or_one_an_input_channel():
    assert build("mobilenetv1").blocks[0][1].act.s.shape == ()
    published = build("mobilenetv1", per_channel=True)
    assert published.blocks[0][1].act.s.shape == (4,)


def test_weight_steps_are_those_of_the_initial_weights():
    conv = build("resnet8").blocks[0].conv
    assert torch.equal(conv.weight_quantizer.s, 2 * conv.weight.detach().abs().mean((1, 2, 3)))


def test_channels_are_counted():
    for net, count in (("mobilenetv2", 19), ("mobilenetv1", 14), ("resnet8", 3)):
        with pytest.raises(UsageError, match=f"which has {count}"):
            build(net, channels=(4, 4))


def test_block_bits_that_are_not_offered_are_refused():
    with pytest.raises(UsageError, match=r"block 3 has 5 bits\n.*\nOffered: 2, 3, 4 bits."):
        build(block_bits=(2, 3, 4, 5, 2, 2))


class Tracer(fx.Tracer):
    def is_leaf_module(self, m, qualified_name):
        leaves = (ActivationQuantizer, WeightQuantizer, FlexSkip)
        return isinstance(m, leaves) or super().is_leaf_module(m, qualified_name)


@pytest.mark.parametrize("net", ["mobilenetv2", "mobilenetv1", "resnet8"])
def test_a_chosen_network_can_be_traced(net):
    genes = NETS[net][1]
    model = randomized(build(net, genome=(6,) * genes)).eval()
    traced = fx.GraphModule(model, Tracer().trace(model))
    assert torch.equal(logits_of(traced), logits_of(model))
