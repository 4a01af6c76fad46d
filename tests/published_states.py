"""Published checkpoints made from networks of ours: the same numbers under the papers' names.

The names and shapes are written down here a second time, from the papers' own code, so that a slip
in the importer does not cancel out.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bitfold.models import NetSpec, PublishedPreprocessing, new_network
from bitfold.models.layers import QuantConv2d, QuantLinear
from bitfold.models.quantizers import UniqActivation, UniqInput, UniqWeight

PREPROCESSING = PublishedPreprocessing((0.5, 0.4, 0.3), (0.25, 0.3, 0.2))
CLASSES = tuple(map(str, range(5)))
NORM_FIELDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
FLOAT_MAX_VAL = 4294967296.0


def random_network(net: str, method: str, bits: tuple[int, int], side: int, **fields):
    """A network of random weights whose norms and slopes all differ, images (side, side, 3)."""
    spec = NetSpec(net, method, bits, (side, side, 3), CLASSES, PREPROCESSING, **fields)
    model = new_network(spec, seed=3)
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            module.weight.data.mul_(torch.rand(count, generator=generator) + 0.5)
            module.bias.data.add_(torch.randn(count, generator=generator) * 0.2)
        if isinstance(module, nn.PReLU):
            module.weight.data.copy_(torch.rand(module.weight.shape, generator=generator) - 0.2)
    return model


def pixels(side: int, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator).float()


def norm_state(module: nn.BatchNorm2d, name: str) -> dict[str, Tensor]:
    return {f"{name}.{field}": getattr(module, field).detach().clone() for field in NORM_FIELDS}


# UniQ -----------------------------------------------------------------------------------------


def imagenet_name(name: str) -> str:
    """presnet18."""
    name = re.sub(r"^bn$", "bn2", name)
    return re.sub(r"shortcut$", "shortcut.0", name)


def cifar_name(name: str) -> str:
    """presnet32."""
    return re.sub(r"shortcut$", "downsample.0", name)


def gluon_name(name: str) -> str:
    """presnet34 and glouncv-mobilenetv2_w1."""
    block = re.match(r"layer(\d)\.(\d+)\.(\w+)$", name)
    if block:
        stage, unit, part = block[1], int(block[2]) + 1, block[3]
        inner = {"bn1": "body.conv1.bn", "conv1": "body.conv1.conv", "bn2": "body.conv2.bn",
                 "conv2": "body.conv2.conv", "shortcut": "identity_conv"}[part]  # fmt: skip
        return f"features.stage{stage}.unit{unit}.{inner}"
    plain = {"conv1": "features.init_block.conv", "bn1": "features.init_block.bn",
             "bn": "features.post_activ.bn", "fc": "output"}  # fmt: skip
    if name in plain:
        return plain[name]
    unit = re.match(r"stages\.(stage\d)\.(\d+)\.(.*)$", name)
    if unit:
        return f"features.{unit[1]}.unit{int(unit[2]) + 1}.{unit[3]}"
    return "features." + name.removeprefix("stages.")


def act_of(conv: str) -> str:
    """The quantizer in front of a convolution of ours."""
    if conv in ("conv1", "fc"):
        return {"conv1": "input_act", "fc": "act"}[conv]
    if conv.endswith(".conv"):
        return conv.removesuffix("conv") + "act"
    return re.sub(r"shortcut$", "shortcut_act", re.sub(r"conv(\d)$", r"act\1", conv))


def uniq_quantizer(name: str, bits: int, delta: Tensor) -> dict[str, Tensor]:
    return {
        f"{name}.delta": delta,
        f"{name}.init_state": torch.tensor(1),
        f"{name}.min_val": torch.tensor(0.0),
        f"{name}.max_val": torch.tensor(FLOAT_MAX_VAL if bits == 32 else 2.0**bits - 1),
    }


def uniq_state(model: nn.Module, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """A float layer's quantizers hold NaN: what the published code leaves there is not defined."""
    state: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            state |= norm_state(module, rename(name))
        if isinstance(module, QuantConv2d | QuantLinear):
            state |= _uniq_layer(model, name, rename(name))
    return state


def _uniq_layer(model: nn.Module, name: str, target: str) -> dict[str, Tensor]:
    module, act = model.get_submodule(name), model.get_submodule(act_of(name))
    state = {f"{target}.weight": module.weight.detach().clone()}
    if module.bias is not None:
        state[f"{target}.bias"] = module.bias.detach().clone()
    weight_bits, act_bits = 32, 32
    weight_delta = act_delta = torch.tensor(float("nan"))
    if isinstance(module.weight_quantizer, UniqWeight):
        weight_bits, weight_delta = module.weight_quantizer.bits, module.weight_quantizer.delta
        if weight_delta.dim():
            weight_delta = weight_delta.view(-1, *[1] * (module.weight.dim() - 1))
    if isinstance(act, UniqActivation | UniqInput):
        act_bits, act_delta = act.bits, act.delta
    state |= uniq_quantizer(f"{target}.quan_w", weight_bits, weight_delta.detach().clone())
    return state | uniq_quantizer(f"{target}.quan_a", act_bits, act_delta.detach().clone())


# BASQ -----------------------------------------------------------------------------------------


def basq_state(supernet: nn.Module) -> dict[str, Tensor]:
    state = {"feature.0.conv1.weight": supernet.conv1.weight}
    state |= norm_state(supernet.bn1, "feature.0.bn1")
    *blocks, last = supernet.blocks
    for i, block in enumerate(blocks, 1):
        if block.expand is not None:
            state |= _basq_unit(
                block.expand, f"feature.{i}.bn_qconv_bn_relu_0", f"feature.{i}.bn0_last"
            )
        for j, branch in block.depthwise.branches.items():
            own = f"feature.{i}.branch_bn_q_1.{j}"
            state |= norm_state(branch.bn_in, f"{own}.0")
            state[f"{own}.1.bin"] = branch.act.bin.reshape(1)
            state[f"{own}.1.upper_bound"] = branch.act.upper_bound
            state |= norm_state(branch.bn_out, f"feature.{i}.branch_bn_1.{j}.0")
            state |= norm_state(branch.bn_last, f"feature.{i}.bn1_last.{j}")
        state |= _basq_conv(block.depthwise.conv, f"feature.{i}.conv1")
        state |= _basq_unit(
            block.project, f"feature.{i}.bn_qconv_bn_relu_2", f"feature.{i}.bn2_last"
        )
    state |= _basq_unit(last, "feature.18.bn_qconv_bn_relu_0", "feature.18.bn0_last")
    state |= {"classifier.1.weight": supernet.fc.weight, "classifier.1.bias": supernet.fc.bias}
    return {name: value.detach().clone() for name, value in state.items()}


def _basq_unit(unit: nn.Module, name: str, last: str) -> dict[str, Tensor]:
    return {
        **norm_state(unit.bn_in, f"{name}.0"),
        f"{name}.1.s": unit.act.s,
        **_basq_conv(unit.conv, f"{name}.2"),
        **norm_state(unit.bn_out, f"{name}.3"),
        **norm_state(unit.bn_last, last),
    }


def _basq_conv(conv: QuantConv2d, name: str) -> dict[str, Tensor]:
    return {
        f"{name}.weights": conv.weight.detach().reshape(-1, 1),
        f"{name}.w_quantize.s": conv.weight_quantizer.s,
    }


# STTN -----------------------------------------------------------------------------------------


def sttn_state(model: nn.Module, *, merged: bool) -> dict[str, Tensor]:
    state = {"features.0.weight": model.conv1.weight, "features.2.weight": model.prelu.weight}
    state |= norm_state(model.bn1, "features.1")
    for i, block in enumerate(model.blocks, 4):
        for name in ("bn1", "bn_add1", "bn2", "bn_add2"):
            state |= norm_state(getattr(block, name), f"features.{i}.{name}")
        for name in ("prelu1", "prelu2"):
            state[f"features.{i}.{name}.weight"] = getattr(block, name).weight
        for name in ("conv1", "conv2"):
            state |= _sttn_conv(getattr(block, name), f"features.{i}.{name}", merged=merged)
    state |= {"fc.weight": model.fc.weight, "fc.bias": model.fc.bias}
    return {f"module.{name}": value.detach().clone() for name, value in state.items()}


def _sttn_conv(conv: QuantConv2d, name: str, *, merged: bool) -> dict[str, Tensor]:
    if merged:
        return {f"{name}.weight": conv.weight_quantizer(conv.weight), f"{name}.bias": conv.bias}
    return {
        f"{name}_1.weight": conv.weight[0], f"{name}_1.bias": conv.bias / 4,
        f"{name}_2.weight": conv.weight[1], f"{name}_2.bias": conv.bias * 3 / 4,
    }  # fmt: skip


# PACT -----------------------------------------------------------------------------------------


def pact_state(model: nn.Module, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Layers with a SAWB quantizer carry clips, the others do not."""
    state: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            state |= norm_state(module, rename(name))
        if isinstance(module, QuantConv2d | QuantLinear):
            target = rename(name)
            state[f"{target}.weight"] = module.weight
            if module.bias is not None:
                state[f"{target}.bias"] = module.bias
            clip = getattr(module.weight_quantizer, "clip", None)
            if clip is not None:
                act = model.get_submodule(act_of(name))
                state[f"{target}.quantize_weight.clip_val"] = clip.reshape(-1)
                state[f"{target}.quantize_feature.clip_val"] = act.clip.reshape(1)
    return {name: value.detach().clone() for name, value in state.items()}
