"""Every published checkpoint that must be refused, and the tensor that the message names."""

import re

import pytest
import torch

from bitfold.errors import InputError, UnsupportedError, UsageError
from bitfold.models import PublishedOptions, PublishedPreprocessing, load_checkpoint
from bitfold.models.published import import_published
from tests.published_states import (
    PREPROCESSING,
    basq_state,
    cifar_name,
    pact_state,
    random_network,
    sttn_state,
    uniq_state,
)

pytestmark = pytest.mark.torch
GENOME = (0,) * 17
SIDES = {"uniq": 16, "basq": 32, "sttn": 32, "pact": 16}
FIELDS = {"channels": (3, 4, 5), "stem": "small"}
NAN, INFINITY = float("nan"), float("inf")


def make_uniq():
    return uniq_state(random_network("resnet8", "uniq", (2, 2), 16, **FIELDS), cifar_name)


def make_uniq_per_kernel():
    model = random_network("resnet8", "uniq", (2, 2), 16, per_kernel=True, **FIELDS)
    return uniq_state(model, cifar_name)


def make_basq():
    fields = {"channels": (4,) * 18 + (8,), "per_channel": True, "stem": "large"}
    return basq_state(random_network("mobilenetv2", "basq", (2, 2), 32, **fields))


def make_sttn(*, merged):
    fields = {"channels": (3, 6, 12, 24), "stem": "large"}
    return sttn_state(random_network("resnet18", "sttn", (2, 2), 32, **fields), merged=merged)


def make_pact():
    model = random_network("resnet8", "pact-sawb", (2, 2), 16, weight_grid="narrow", **FIELDS)
    return pact_state(model, cifar_name)


MAKERS = {
    "uniq": make_uniq,
    "uniq kernels": make_uniq_per_kernel,
    "basq": make_basq,
    "sttn": lambda: make_sttn(merged=False),
    "sttn merged": lambda: make_sttn(merged=True),
    "pact": make_pact,
}


@pytest.fixture(scope="module")
def states():
    return {family: make() for family, make in MAKERS.items()}


def options_of(family, **changes):
    side = SIDES[family.split()[0]]
    fields = {"input_shape": (side, side, 3), "preprocessing": PREPROCESSING}
    fields |= {"genome": GENOME} if family == "basq" else {}
    fields |= {"bits": (2, 2)} if family == "pact" else {}
    return PublishedOptions(**fields | changes)


def error_of(state, family, kind, **changes):
    with pytest.raises(kind) as caught:
        import_published(state, options_of(family, **changes), where="file net.pth")
    assert "file net.pth" in caught.value.where
    assert caught.value.todo
    return caught.value.what


def entry(name, value):
    """A change that sets the first element of a tensor."""

    def change(state):
        state[name] = state[name].clone()
        state[name].view(-1)[0] = value

    return change


def replaced(name, value):
    return lambda state: state.update({name: value})


def removed(name):
    return lambda state: state.pop(name)


BRANCH = "feature.3.branch_bn_q_1.0"
POINT = "feature.3.bn_qconv_bn_relu_2"
BLOCK = "module.features.5"

BROKEN = [
    # steps and clips
    ("uniq", entry("layer2.0.conv1.quan_w.delta", 0.0), "layer2.0.conv1.quan_w.delta falls to 0"),
    ("uniq", entry("fc.quan_a.delta", -0.5), "fc.quan_a.delta falls to -0.5; it must be positive"),
    ("uniq", entry("conv1.quan_a.delta", NAN), "conv1.quan_a.delta holds NaN or infinity"),
    ("basq", entry(f"{POINT}.1.s", 0.0), f"{POINT}.1.s holds a step of 0"),
    ("basq", entry("feature.3.conv1.w_quantize.s", 0.0), "feature.3.conv1.w_quantize.s holds a st"),
    ("basq", entry(f"{BRANCH}.1.upper_bound", 0.0), f"{BRANCH}.1.upper_bound falls to 0; it must"),
    ("basq", entry(f"{BRANCH}.1.upper_bound", -1.0), f"{BRANCH}.1.upper_bound falls to -1"),
    ("pact", entry("layer1.0.conv1.quantize_feature.clip_val", -1.0), "layer1.0.conv1.quantize_fe"),
    ("pact", entry("layer1.0.conv1.quantize_weight.clip_val", 0.0), "layer1.0.conv1.quantize_weig"),
    # states and widths
    ("uniq", entry("layer1.0.conv2.quan_w.init_state", 0),
     "layer1.0.conv2.quan_w.init_state is 0, not 1: the step was never calibrated"),
    ("uniq", entry("layer1.0.conv2.quan_w.init_state", -1),
     "layer1.0.conv2.quan_w.init_state is -1, not 1"),
    ("uniq", entry("layer1.0.conv2.quan_a.min_val", -1.0), "layer1.0.conv2.quan_a.min_val is -1"),
    ("uniq", entry("layer1.0.conv2.quan_a.max_val", 5.0),
     "layer1.0.conv2.quan_a.max_val is 5, not 2^b − 1"),
    ("uniq kernels", replaced("layer1.0.conv2.quan_w.delta", torch.ones(2, 1, 1, 1)),
     "layer1.0.conv2.quan_w.delta has shape (2, 1, 1, 1), not 1 or 3 steps"),
    # weights
    ("uniq", entry("layer1.0.conv1.weight", INFINITY), "layer1.0.conv1.weight holds NaN or inf"),
    ("sttn", entry(f"{BLOCK}.conv1_2.weight", 0.0),
     "features.5.conv1_2.weight is 0 at (0, 0, 0, 0): without a sign the weight is not ternary"),
    ("sttn", replaced(f"{BLOCK}.conv1_2.weight", torch.ones(2, 3, 3, 3)),
     "features.5.conv1_2.weight has another shape than features.5.conv1_1.weight"),
    ("sttn merged", entry(f"{BLOCK}.conv2.weight", 1e-3),
     "features.5.conv2.weight is not ternary: filter 0 holds"),
    ("basq", replaced("feature.3.conv1.weights", torch.ones(7, 1)),
     "feature.3.conv1.weights has shape (7, 1), not"),
    # batch norms
    ("uniq", entry("layer3.0.bn1.running_var", -1.0),
     "layer3.0.bn1.running_var falls to -1; variance + eps ≤ 0"),
    ("sttn", entry(f"{BLOCK}.bn_add1.running_var", -1e-5), "features.5.bn_add1.running_var falls"),
    ("basq", entry(f"{BRANCH}.0.running_mean", NAN), f"{BRANCH}.0.running_mean holds NaN"),
    # names, shapes, dtypes
    ("uniq", removed("layer3.0.conv1.quan_a.delta"), "layer3.0.conv1.quan_a.delta is missing"),
    ("uniq", removed("layer3.0.downsample.0.weight"), "layer3.0.downsample.0.weight is missing"),
    ("basq", removed(f"{BRANCH}.1.bin"), f"{BRANCH}.1.bin is missing"),
    ("sttn", removed("module.fc.bias"), "fc.bias is missing"),
    ("uniq", replaced("layer9.weight", torch.ones(1)), "has no place for: layer9.weight"),
    ("sttn", replaced("module.extra", torch.ones(1)), "has no place for: extra"),
    ("pact", replaced("bn1.weight", torch.ones(3)), "has no place for: bn1.weight"),
    ("uniq", replaced("fc.bias", torch.ones(4)), "fc.bias has shape (4,), not (5,)"),
    ("uniq", replaced("layer1.0.conv1.weight", torch.ones(3, 9, 3, 3)),
     "layer1.0.conv1.weight is float32 (3, 9, 3, 3) where the network has float32 (3, 3, 3, 3)"),
    ("uniq", replaced("conv1.weight", torch.ones(4, 3, 3, 3)), "layer1.0.bn1.weight has shape"),
    ("uniq", replaced("fc.weight", torch.ones(5, 5, dtype=torch.float64)),
     "fc.weight is float64 (5, 5); float32 is expected"),
    ("uniq", replaced("conv1.weight", torch.ones(3)), "conv1.weight has shape (3,); 4 dimensions"),
    ("uniq", replaced("conv1.weight", torch.ones(0, 3, 3, 3)), "conv1.weight has shape (0, 3"),
    ("uniq", replaced("fc.quan_w.max_val", torch.ones(2)), "fc.quan_w.max_val is float32 (2,); on"),
    ("uniq", replaced("fc.weight", "text"), "fc.weight is a str, not a tensor"),
    ("uniq", replaced(7, torch.ones(1)), "the entry 7 has a name that is no text"),
    ("uniq", replaced("fc.weight", torch.ones(5, 5).to_sparse()), "fc.weight is not a plain"),
    ("uniq", replaced("fc.weight", torch.ones(1).expand(10**6, 10**6)),
     "fc.weight claims shape (1000000, 1000000) with fewer bytes stored"),
    ("uniq", replaced("fc.weight", torch.ones(5, 5, device="meta")), "fc.weight is not a plain"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "change", "message"), BROKEN, ids=[f"{row[0]}: {row[2][:60]}" for row in BROKEN]
)
def test_a_broken_tensor_is_named(states, family, change, message):
    state = dict(states[family])
    change(state)
    assert message in error_of(state, family, InputError)


UNSUPPORTED = [
    ("uniq", entry("layer1.0.conv1.quan_w.max_val", 31.0), "layer1.0.conv1.quan_w.max_val says 5"),
    ("uniq", entry("fc.quan_w.max_val", 15.0), "fc.quan_w.max_val says 4 bits; this place has 8"),
    ("uniq", entry("conv1.quan_a.max_val", 2.0**32), "conv1.quan_a.max_val says 32 bits; this pla"),
    ("uniq", removed("bn.weight"), "whose layers have other names than the known ones"),
    ("uniq", replaced("conv1.weight", torch.ones(3, 3, 5, 5)), "and a stem of 5x5"),
    ("basq", replaced(f"{BRANCH}.1.bin", torch.tensor([0.9])), f"{BRANCH}.1.bin is 0.9, that is"),
    ("basq", replaced(f"{BRANCH}.1.bin", torch.tensor([1.5])), f"{BRANCH}.1.bin is 1.5, that is 0"),
    ("basq", replaced(f"{BRANCH}.1.bin", torch.tensor([1 - 1 / 7])),
     f"{BRANCH}.1.bin says 3 bits, feature.1.branch_bn_q_1.0.1.bin 2"),
    ("basq", replaced("feature.19.branch_bn_q_1.0.1.bin", torch.ones(1)), "branches in blocks [1"),
    ("sttn", replaced("module.features.0.weight", torch.ones(3, 3, 3, 3)),
     "features.0.weight has a 3x3 kernel"),
    ("sttn", replaced("module.features.5.conv1_1.weight", torch.ones(5, 3, 3, 3)),
     "an STTN network of blocks with 3, 5, 6"),
    ("pact", replaced("conv1.quantize_weight.clip_val", torch.ones(1)),
     "conv1.quantize_weight.clip_val: a quantized first or last layer"),
    ("pact", replaced("layer1.0.conv1.quantize_weight.clip_valn", torch.tensor([9.0])),
     "layer1.0.conv1.quantize_weight.clip_valn is not −clip_val: an asymmetric quantizer"),
    ("pact", replaced("layer1.0.conv1.quantize_feature.clip_valn", torch.tensor([-1.0])),
     "layer1.0.conv1.quantize_feature.clip_valn is not 0: an asymmetric quantizer"),
    ("pact", replaced("layer1.0.relu.clip_val", torch.ones(1)),
     "layer1.0.relu.clip_val shows another layout of PACT: a clip of a layer of its own"),
    ("pact", replaced("layer1.0.conv1.float_weight", torch.ones(1)),
     "layer1.0.conv1.float_weight shows another layout of PACT: distiller's"),
    ("pact", replaced("layer1.0.conv1.clip_lo", torch.ones(1)),
     "layer1.0.conv1.clip_lo shows another layout of PACT: quantlib's"),
    ("pact", removed("bn.weight"), "no pre-activation ResNet of a known naming"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "change", "message"),
    UNSUPPORTED,
    ids=[f"{row[0]}: {row[2][:60]}" for row in UNSUPPORTED],
)
def test_a_variant_that_is_not_offered_is_named(states, family, change, message):
    state = dict(states[family])
    change(state)
    assert message in error_of(state, family, UnsupportedError)


WRONG_OPTIONS = [
    ("uniq", {"input_shape": None}, "says neither the image size nor the preprocessing"),
    ("uniq", {"preprocessing": None}, "says neither the image size nor the preprocessing"),
    ("uniq", {"input_shape": (16, 16, 1)}, "3 means and stds for images of 1 channels"),
    ("uniq", {"bits": (4, 4)}, "--bits says 4,4, layer1.0.conv1.quan_w.max_val 2,2"),
    ("uniq", {"class_names": ("a", "b")}, "2 class names for 5 classes"),
    ("basq", {"genome": None}, "a BASQ checkpoint does not say which branch each block takes"),
    ("basq", {"genome": (0,) * 16}, "the genome has 16 genes for 17 blocks"),
    ("basq", {"genome": (7,) * 17}, "gene 0 of the genome is 7; branches are 0…6"),
    ("basq", {"bits": (2, 3)}, "--bits says 3-bit activations"),
    ("pact", {"bits": None}, "a PACT checkpoint does not say its bits"),
    ("pact", {"bits": (7, 7)}, "pact-sawb has no 7-bit weights with 7-bit activations"),
]


@pytest.mark.parametrize(
    ("family", "changes", "message"), WRONG_OPTIONS, ids=[row[2][:50] for row in WRONG_OPTIONS]
)
def test_options_that_are_missing_or_contradict_the_tensors_are_usage_errors(
    states, family, changes, message
):
    assert message in error_of(states[family], family, UsageError, **changes)


def test_images_of_other_channels_than_the_first_weight_are_refused(states):
    grey = PublishedPreprocessing((0.5,), (0.25,))
    what = error_of(states["uniq"], "uniq", InputError, input_shape=(16, 16, 1), preprocessing=grey)
    assert what.startswith("conv1.weight is float32 (3, 3, 3, 3) where the network has float32 (3,")


@pytest.mark.parametrize(
    "content",
    [{}, {"net": {}}, [1], 3, {"state_dict": {"a": 1}}, {1: 2}, None],
)
def test_a_file_without_tensors_is_unsupported(content):
    assert "readable, but neither a checkpoint of bitfold" in error_of(
        content, "uniq", UnsupportedError
    )


def test_tensors_of_no_known_layout_are_listed():
    state = {"conv1.weight": torch.ones(1), "fc.weight": torch.ones(1)}
    message = "tensors of no known published layout: conv1.weight, fc.weight"
    assert error_of(state, "uniq", UnsupportedError) == message


def test_a_gamma_of_zero_is_legal_and_noted(states):
    state = dict(states["uniq"])
    entry("layer2.0.bn1.weight", 0.0)(state)
    loaded = import_published(state, options_of("uniq"), where="file net.pth")
    assert loaded.notes == ("layer2.0.bn1.weight is 0 in 1 channels: their output is constant",)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_published_file_is_refused(states, tmp_path, part, zipped):
    path = tmp_path / "net.pth"
    torch.save({"net": states["uniq"]}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match="truncated, damaged or no checkpoint"):
        load_checkpoint(path, published=options_of("uniq"))


def test_a_file_written_before_torch_1_6_is_read(states, tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"net": states["uniq"]}, path, _use_new_zipfile_serialization=False)
    assert load_checkpoint(path, published=options_of("uniq")).spec.net == "resnet8"


def test_the_error_names_the_file(states, tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"net": states["uniq"]}, path)
    with pytest.raises(UsageError, match=re.escape(f"file {path}")):
        load_checkpoint(path)
