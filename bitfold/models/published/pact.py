"""PACT with SAWB weights as foundation-model-stack/fms-model-optimizer saves it; ResNets.

    <conv>.weight                            latent
    <conv>.quantize_feature.clip_val  [1]    PACT's alpha (Choi et al. 2018, arXiv 1805.06085)
    <conv>.quantize_weight.clip_val   [1] or [O]    SAWB's clip, a layer or a filter

No tensor holds the bits: they come with the options. Its ``sawb`` modes use the zero-aligned grid,
−1, 0, 1 at 2 bits. Layers without clips stay in float. The network is the pre-activation ResNet of
both papers, in any of the published namings; other layouts with clips are named and refused.
"""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn

from bitfold.errors import UsageError
from bitfold.models.nets import QuantNet
from bitfold.models.nets.preact_resnet import PreActBlock
from bitfold.models.nets.stages import DEPTHS
from bitfold.models.published.layout import Assembly, PublishedOptions, TensorTable
from bitfold.models.published.resnet_names import ResNetShape, find_naming, read_shape
from bitfold.models.quantizers.pact import PactActivation
from bitfold.models.quantizers.sawb import SawbWeight
from bitfold.models.spec import NetSpec

FEATURE, WEIGHT = "quantize_feature", "quantize_weight"
FOREIGN = {
    ".float_weight": "distiller's, with `float_weight` beside a fake-quantized `weight`",
    ".clip_lo": "quantlib's, with `clip_lo` and `clip_hi`",
}
STEMS = {3: "small", 7: "large"}


def recognise(table: TensorTable) -> bool:
    """Whether any name is of the PACT family."""
    endings = (".clip_val", *FOREIGN)
    return any(name.endswith(endings) for name in table.values)


def convert(table: TensorTable, options: PublishedOptions) -> Assembly:
    """Spec and tensors; raises as ``import_published``."""
    _refuse_foreign(table)
    names = find_naming(table)
    if names is None:
        raise table.unsupported(
            "a PACT network that is no pre-activation ResNet of a known naming",
            todo="Known: conv1, layer1.0.bn1, …, bn or bn2, fc; features.init_block, …, output.",
        )
    shape = read_shape(table, names)
    spec = _spec(table, options, shape)
    assembly = Assembly(spec, table)
    _float_layer(assembly, names.stem, "conv1")
    if spec.stem == "large":
        assembly.norm(names.stem_norm, "bn1", shape.stem)
    shortcuts = {}
    for stage, block, before, width in shape.blocks():
        parts, target = names.of_block(stage, block), f"layer{stage + 1}.{block}"
        assembly.norm(parts.norm1, f"{target}.bn1", before)
        _layer(assembly, parts.conv1, (f"{target}.conv1", f"{target}.act1"))
        assembly.norm(parts.norm2, f"{target}.bn2", width)
        _layer(assembly, parts.conv2, (f"{target}.conv2", f"{target}.act2"))
        if before != width or (stage > 0 and block == 0):
            shortcuts[target] = _shortcut(assembly, parts.shortcut, target)
    assembly.norm(names.tail_norm, "bn", shape.widths[-1])
    _float_layer(assembly, names.last, "fc")
    assembly.copy(f"{names.last}.bias", "fc.bias", (shape.num_classes,))
    assembly.prepare = _with_shapes_of(assembly, shortcuts)
    return assembly


def _refuse_foreign(table: TensorTable) -> None:
    for name, (ending, layout) in product(table.values, FOREIGN.items()):
        if name.endswith(ending):
            raise table.unsupported(
                f"{name} shows another layout of PACT: {layout}",
                todo=f"Known: fms-style, <conv>.{FEATURE}.clip_val and <conv>.{WEIGHT}.clip_val.",
            )
    for name in table.values:
        if name.endswith("clip_val") and name.split(".")[-2] not in (FEATURE, WEIGHT):
            raise table.unsupported(
                f"{name} shows another layout of PACT: a clip of a layer of its own",
                todo=f"Known: fms-style, <conv>.{FEATURE}.clip_val and <conv>.{WEIGHT}.clip_val.",
            )


def _spec(table: TensorTable, options: PublishedOptions, shape: ResNetShape) -> NetSpec:
    input_shape, preprocessing = options.require_input()
    if options.bits is None:
        raise UsageError(
            "a PACT checkpoint does not say its bits",
            where="option --bits",
            todo="Give the bits of weights and activations as in --bits 2,2.",
        )
    known = {blocks: net for net, blocks in DEPTHS.items()}
    if shape.depths not in known or shape.stem_kernel not in STEMS:
        raise table.unsupported(
            f"a ResNet with stages of {shape.depths} blocks and a stem of {shape.stem_kernel}x"
            f"{shape.stem_kernel}",
            todo="Known: " + ", ".join(known.values()) + ", stems of 3x3 and 7x7.",
        )
    return NetSpec(
        net=known[shape.depths],
        method="pact-sawb",
        bits=options.bits,
        input_shape=input_shape,
        class_names=options.names_of(shape.num_classes),
        preprocessing=preprocessing,
        weight_grid="narrow",
        channels=shape.channels,
        edge_bits=options.float_edge_bits,
        stem="large" if STEMS[shape.stem_kernel] == "large" else "small",
    )


def _float_layer(assembly: Assembly, source: str, target: str) -> None:
    table = assembly.table
    for quantizer in (FEATURE, WEIGHT):
        if f"{source}.{quantizer}.clip_val" in table:
            raise table.unsupported(
                f"{source}.{quantizer}.clip_val: a quantized first or last layer",
                todo="Networks whose first and last layers stay in float are read.",
            )
    assembly.copy(f"{source}.weight", f"{target}.weight")


def _layer(assembly: Assembly, source: str, targets: tuple[str, str]) -> None:
    """Take a quantized convolution: latent weight and both clips."""
    conv, act = targets
    table = assembly.table
    assembly.copy(f"{source}.weight", f"{conv}.weight")
    out_channels = assembly.tensors[f"{conv}.weight"].shape[0]
    name = f"{source}.{FEATURE}.clip_val"
    assembly.put(f"{act}.clip", table.positive(name, (1,)).reshape(()), name)
    name = f"{source}.{WEIGHT}.clip_val"
    clips = table.positive(name)
    if tuple(clips.shape) not in ((1,), (out_channels,)):
        raise table.fault(name, f"has shape {tuple(clips.shape)}, not (1,) or ({out_channels},)")
    shape = () if clips.numel() == 1 else (out_channels,)
    assembly.put(f"{conv}.weight_quantizer.clip", clips.reshape(shape), name)
    _check_lower_clip(table, f"{source}.{WEIGHT}.clip_valn", -clips)
    _check_lower_clip(table, f"{source}.{FEATURE}.clip_valn", torch.zeros(1))


def _check_lower_clip(table: TensorTable, name: str, wanted: Tensor) -> None:
    """A stored lower clip must be the one that PACT (0) and SAWB (−clip_val) have."""
    if name in table and not torch.equal(table.take(name).flatten(), wanted.flatten()):
        raise table.unsupported(
            f"{name} is not {'−clip_val' if wanted.any() else '0'}: an asymmetric quantizer",
            todo="Networks with PACT activations and symmetric SAWB weights are read.",
        )


def _shortcut(assembly: Assembly, source: str, block: str) -> bool:
    """Take a shortcut's convolution; True where it is quantized as the body is."""
    if f"{source}.{WEIGHT}.clip_val" in assembly.table:
        _layer(assembly, source, (f"{block}.shortcut", f"{block}.shortcut_act"))
        return True
    assembly.copy(f"{source}.weight", f"{block}.shortcut.weight")
    return False


def _with_shapes_of(
    assembly: Assembly, shortcuts: dict[str, bool]
) -> Callable[[QuantNet], QuantNet]:
    """Give the network what this file has and training here has not.

    That is one clip a filter where the file has so many, and shortcuts with quantizers of their
    own, or that read the float ReLU.
    """
    w_bits, a_bits = assembly.spec.bits

    def prepare(model: QuantNet) -> QuantNet:
        for name, is_quantized in shortcuts.items():
            block = model.get_submodule(name)
            assert isinstance(block, PreActBlock)
            assert block.shortcut is not None
            block.shortcut_act = PactActivation(a_bits) if is_quantized else nn.ReLU()
            if is_quantized:
                block.shortcut.weight_quantizer = SawbWeight(w_bits, grid_kind="narrow")
        for target, value in assembly.tensors.items():
            conv, _, attribute = target.rpartition(".weight_quantizer.")
            if attribute == "clip" and value.dim() > 0:
                quantizer = SawbWeight(w_bits, grid_kind="narrow", out_channels=len(value))
                model.get_submodule(conv).weight_quantizer = quantizer
        return model

    return prepare
