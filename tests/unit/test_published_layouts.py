"""Published layouts without a file of their own: written from a network of ours and read back."""

import pytest
import torch
from torch import nn

from bitfold.models import PublishedOptions
from bitfold.models.nets.basq_units import extract
from bitfold.models.nets.sttn_resnet import merge_ternary
from bitfold.models.published import import_published
from bitfold.models.quantizers import PactActivation, SawbWeight
from tests.published_states import (
    PREPROCESSING,
    basq_state,
    cifar_name,
    gluon_name,
    imagenet_name,
    pact_state,
    pixels,
    random_network,
    sttn_state,
    uniq_state,
)

pytestmark = pytest.mark.torch
BASQ = {"channels": (4,) * 18 + (8,), "per_channel": True, "stem": "large"}
GENOME = (5, 3, 2, 2, 1, 1, 6, 6, 1, 2, 4, 6, 0, 3, 3, 5, 5)


def read(content, side, **options):
    options = PublishedOptions((side, side, 3), PREPROCESSING, **options)
    return import_published(content, options, where="file net.pth")


def assert_same_logits(loaded, model):
    """Equal, not close: the same operations on the same numbers."""
    image = pixels(model.spec.input_shape[0])
    with torch.no_grad():
        assert torch.equal(loaded.model(image), model(image))
    assert loaded.spec == model.spec
    assert not loaded.model.training


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("per_kernel", [False, True], ids=["layer-wise", "kernel-wise"])
@pytest.mark.parametrize(
    ("net", "rename", "stem", "channels"),
    [
        ("resnet20", cifar_name, "small", (4, 6, 8)),
        ("resnet18", imagenet_name, "large", (4, 6, 8, 10)),
        ("resnet34", gluon_name, "large", (4, 4, 6, 8)),
        (
            "mobilenetv2", gluon_name, "large",
            (4, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 16),
        ),
    ],
    ids=["presnet20", "presnet18", "presnet34", "mobilenetv2"],
)  # fmt: skip
def test_a_uniq_layout_gives_the_network_it_was_written_from(
    net, rename, stem, channels, per_kernel, bits
):
    fields = {"channels": channels, "stem": stem, "per_kernel": per_kernel}
    model = random_network(net, "uniq", (bits, bits), 32, **fields)
    state = uniq_state(model, rename)
    if net == "mobilenetv2":  # the published classifier is a 1x1 convolution without a bias
        model.fc.bias.data.zero_()
        del state["output.bias"]
        kernels = ("output.weight", "output.quan_w.delta")
        state |= {name: state[name].view(*state[name].shape, 1, 1) for name in kernels[:1]}
    parallel = {f"module.{name}": value for name, value in state.items()}
    assert_same_logits(read({"net": parallel, "acc": 71.5}, 32), model)


def test_uniq_depths_are_counted():
    model = random_network("resnet32", "uniq", (2, 2), 16, channels=(3, 4, 5), stem="small")
    assert_same_logits(read({"net": uniq_state(model, cifar_name)}, 16), model)


@pytest.mark.parametrize(("bits", "stem"), [(2, "small"), (1, "large")])
def test_a_stem_may_have_a_width_of_its_own(bits, stem):
    channels = (2, 3, 4, 5)
    model = random_network("resnet8", "uniq", (bits, bits), 16, channels=channels, stem=stem)
    loaded = read(uniq_state(model, imagenet_name), 16)
    assert_same_logits(loaded, model)
    assert loaded.model.layer1[0].shortcut.stride == (1, 1)


def test_the_stem_of_a_pact_file_may_have_a_width_of_its_own():
    fields = {"channels": (2, 3, 4, 5), "stem": "small", "weight_grid": "narrow"}
    model = random_network("resnet8", "pact-sawb", (2, 4), 16, **fields)
    for block in (model.layer1[0], model.layer2[0], model.layer3[0]):
        block.shortcut_act = nn.ReLU()
    loaded = read({"state_dict": pact_state(model.eval(), cifar_name)}, 16, bits=(2, 4))
    assert_same_logits(loaded, model)


def test_a_state_dict_without_a_wrapper_is_read():
    model = random_network("resnet8", "uniq", (2, 2), 16, channels=(3, 4, 5), stem="small")
    assert_same_logits(read(uniq_state(model, cifar_name), 16), model)


@pytest.mark.parametrize("edge_bits", [8, 16])
def test_edge_bits_go_to_layers_that_were_trained_in_float(edge_bits):
    fields = {"channels": (3, 4, 5), "stem": "small", "edge_bits": edge_bits}
    model = random_network("resnet8", "uniq", (1, 1), 16, **fields)
    loaded = read(uniq_state(model, cifar_name), 16, edge_bits=edge_bits)
    assert_same_logits(loaded, model)
    assert loaded.model.fc.weight_quantizer.bits == edge_bits


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_basq_supernet_gives_the_network_of_each_genome(bits):
    supernet = random_network("mobilenetv2", "basq", (bits, bits), 32, **BASQ)
    content = {"iter": 3, "model_state_dict": basq_state(supernet), "best_top1_acc": 1.5}
    image = pixels(32)
    for genome in (GENOME, GENOME[::-1]):
        loaded = read(content, 32, genome=genome)
        with torch.no_grad():
            assert torch.equal(loaded.model(image), extract(supernet, genome).eval()(image))
        assert loaded.spec.bits == (bits, bits)
        assert loaded.spec.genome == genome
        assert loaded.record == {"published": "BASQ", "iter": 3, "best_top1_acc": 1.5}


def test_a_finetuned_basq_file_may_hold_the_chosen_branches_alone():
    fields = {**BASQ, "genome": GENOME}
    model = random_network("mobilenetv2", "basq", (2, 2), 32, **fields)
    loaded = read({"epoch": 2, "model_state_dict": basq_state(model)}, 32, genome=GENOME)
    image = pixels(32)
    with torch.no_grad():
        assert torch.equal(loaded.model(image), model(image))


def test_negative_steps_are_read_as_the_published_code_computes_them():
    state = basq_state(random_network("mobilenetv2", "basq", (2, 2), 32, **BASQ))
    name = "feature.18.bn_qconv_bn_relu_0"
    state[f"{name}.1.s"][::3] *= -1
    state[f"{name}.2.w_quantize.s"][::5] *= -1
    loaded = read({"model_state_dict": state}, 32, genome=GENOME)
    unit = loaded.model.blocks[17]

    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    norm = nn.BatchNorm2d(4).eval()
    norm.load_state_dict({f: state[f"{name}.0.{f}"] for f in norm.state_dict()})
    steps = state[f"{name}.1.s"].view(1, -1, 1, 1)
    scales = state[f"{name}.2.w_quantize.s"].view(-1, 1, 1, 1)
    weight = state[f"{name}.2.weights"].reshape(8, 4, 1, 1)
    with torch.no_grad():
        published = nn.functional.conv2d(
            torch.round(torch.clamp(norm(x) / steps, 0, 3)) * steps,
            torch.round(torch.clamp(weight / scales, -1, 1)) * scales,
        )
        ours = unit.conv(unit.act(unit.bn_in(x)))
    # The same products, but the convolution may add them in another order.
    assert torch.allclose(ours, published, rtol=1e-5, atol=1e-6)
    found = f"{name}.2.w_quantize.s (2), {name}.1.s (2)"
    assert loaded.notes == (f"negative steps, read as mirrored, in {found}",)


@pytest.mark.parametrize("net", ["resnet18", "resnet34"])
@pytest.mark.parametrize("merged", [False, True], ids=["training", "merged"])
def test_an_sttn_layout_gives_the_network_it_was_written_from(net, merged):
    fields = {"channels": (3, 6, 12, 24), "stem": "large"}
    model = random_network(net, "sttn", (2, 2), 32, **fields)
    state = sttn_state(model, merged=merged)
    if merged:
        merge_ternary(model)
    loaded = read({"state_dict": state}, 32)
    image = pixels(32)
    with torch.no_grad():
        # b/4 + 3b/4 may miss b by an ulp, which the ternary activations hide or amplify.
        assert torch.allclose(loaded.model(image), model(image), atol=1e-4)
    assert loaded.spec == model.spec


def test_sttn_latents_outside_one_are_clamped_first():
    model = random_network("resnet18", "sttn", (2, 2), 32, channels=(3, 6, 12, 24), stem="large")
    state = sttn_state(model, merged=False)
    state["module.features.4.conv1_1.weight"].mul_(1000)
    loaded = read({"state_dict": state}, 32)
    assert float(loaded.model.blocks[0].conv1.weight.detach().abs().max()) == 1


def with_fms_shortcuts(model, *, is_quantized):
    """Shortcuts as that code has them: quantizers of their own, or float behind the ReLU."""
    for block in (model.layer2[0], model.layer3[0]):
        block.shortcut_act = nn.ReLU()
        if is_quantized:
            block.shortcut_act = PactActivation(model.spec.bits[1], clip=1.5)
            block.shortcut.weight_quantizer = SawbWeight(model.spec.bits[0], grid_kind="narrow")
            block.shortcut.weight_quantizer.calibrate(block.shortcut.weight)
    return model


@pytest.mark.parametrize("is_quantized", [False, True], ids=["float", "quantized"])
@pytest.mark.parametrize("rename", [cifar_name, imagenet_name, gluon_name])
def test_a_pact_layout_gives_the_network_it_was_written_from(rename, is_quantized):
    fields = {"channels": (3, 4, 5), "stem": "small", "weight_grid": "narrow"}
    model = random_network("resnet20", "pact-sawb", (2, 4), 16, **fields)
    model = with_fms_shortcuts(model, is_quantized=is_quantized).eval()
    loaded = read({"state_dict": pact_state(model, rename)}, 16, bits=(2, 4))
    assert_same_logits(loaded, model)
    assert loaded.model.layer1[0].conv1.weight_quantizer.grid.levels == 3


def test_pact_weights_may_have_a_clip_a_filter():
    fields = {"channels": (3, 4, 5), "stem": "small", "weight_grid": "narrow"}
    model = random_network("resnet8", "pact-sawb", (4, 4), 16, **fields)
    for block in (model.layer1[0], model.layer2[0], model.layer3[0]):
        for conv in (block.conv1, block.conv2):
            count = conv.out_channels
            conv.weight_quantizer = SawbWeight(4, grid_kind="narrow", out_channels=count)
            conv.weight_quantizer.calibrate(conv.weight)
    model = with_fms_shortcuts(model, is_quantized=False).eval()
    assert_same_logits(read(pact_state(model, cifar_name), 16, bits=(4, 4)), model)
