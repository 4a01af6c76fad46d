"""STTN checkpoints (WeixiangXu/STTN; Xu et al., IJCAI 2020): ResNets of ternary blocks.

    features.0.weight (O, C, 7, 7), features.1.* batch norm, features.2.weight PReLU
    features.{4…}.{bn1, conv1, bn_add1, prelu1, bn2, conv2, bn_add2, prelu2}
    fc.{weight, bias}

A training file has two latent kernels a convolution, ``conv1_1`` and ``conv1_2``, each with a
bias; a merged file one kernel on {−s, 0, s} a filter. Latents are clamped to [−1, 1] first, as
the published code does before every forward pass.
"""

from itertools import groupby, pairwise

import torch
from torch import Tensor

from bitfold.models.nets import QuantNet
from bitfold.models.nets.stages import DEPTHS
from bitfold.models.nets.sttn_resnet import SttnResNet, merge_ternary
from bitfold.models.published.layout import Assembly, PublishedOptions, TensorTable
from bitfold.models.spec import NetSpec

FIRST_BLOCK = 4  # features.3 is the max-pool
STEM_KERNEL = 7
NUM_STAGES = 4
TERNARY_BITS = (2, 2)


def recognise_branches(table: TensorTable) -> bool:
    """Whether the names are those of a training file."""
    return f"features.{FIRST_BLOCK}.conv1_1.weight" in table


def recognise_merged(table: TensorTable) -> bool:
    """Whether the names are those of a merged file."""
    return {f"features.{FIRST_BLOCK}.{n}.weight" for n in ("conv1", "bn_add1")} <= set(table.values)


def convert_branches(table: TensorTable, options: PublishedOptions) -> Assembly:
    """Spec and tensors of a training file; raises as ``import_published``."""
    assembly = _convert(table, options, first_kernel="conv1_1")
    for i, name in _convolutions(assembly):
        source = f"features.{i + FIRST_BLOCK}.{name}"
        kernels = [table.take(f"{source}_{branch}.weight").clamp_(-1, 1) for branch in (1, 2)]
        if kernels[0].shape != kernels[1].shape:
            raise table.fault(f"{source}_2.weight", f"has another shape than {source}_1.weight")
        for branch, kernel in enumerate(kernels, 1):
            _refuse_zeros(table, f"{source}_{branch}.weight", kernel)
        biases = [table.take(f"{source}_{branch}.bias", kernels[0].shape[:1]) for branch in (1, 2)]
        target = f"blocks.{i}.{name}"
        assembly.put(f"{target}.weight", torch.stack(kernels), f"{source}_1.weight")
        assembly.put(f"{target}.bias", biases[0] + biases[1], f"{source}_1.bias")
    return assembly


def convert_merged(table: TensorTable, options: PublishedOptions) -> Assembly:
    """Spec and tensors of a merged file; raises as ``import_published``."""
    assembly = _convert(table, options, first_kernel="conv1")
    assembly.prepare = _with_merged_weights
    for i, name in _convolutions(assembly):
        source, target = f"features.{i + FIRST_BLOCK}.{name}", f"blocks.{i}.{name}"
        weight = table.take(f"{source}.weight")
        _refuse_other_levels(table, f"{source}.weight", weight)
        assembly.put(f"{target}.weight", weight, f"{source}.weight")
        assembly.copy(f"{source}.bias", f"{target}.bias")
    return assembly


def _convert(table: TensorTable, options: PublishedOptions, *, first_kernel: str) -> Assembly:
    """All but the ternary convolutions."""
    input_shape, preprocessing = options.require_input()
    stem, _, kernel, _ = table.shape("features.0.weight", 4)
    if kernel != STEM_KERNEL:
        raise table.unsupported(
            f"features.0.weight has a {kernel}x{kernel} kernel", todo="The published stem has 7x7."
        )
    widths = _block_widths(table, first_kernel)
    num_classes = table.shape("fc.weight", 2)[0]
    spec = NetSpec(
        net=_net_of(table, widths),
        method="sttn",
        bits=TERNARY_BITS,
        input_shape=input_shape,
        class_names=options.names_of(num_classes),
        preprocessing=preprocessing,
        channels=tuple(width for width, _ in groupby(widths)),
        edge_bits=options.float_edge_bits,
        stem="large",
    )
    if stem != widths[0]:
        raise table.fault("features.0.weight", f"has {stem} outputs, the first block {widths[0]}")
    assembly = Assembly(spec, table)
    assembly.copy("features.0.weight", "conv1.weight", (stem, input_shape[2], kernel, kernel))
    assembly.norm("features.1", "bn1", stem)
    assembly.copy("features.2.weight", "prelu.weight", (stem,))
    for i, (before, width) in enumerate(pairwise((stem, *widths))):
        _block(assembly, i, (before, width))
    assembly.copy("fc.weight", "fc.weight", (num_classes, widths[-1]))
    assembly.copy("fc.bias", "fc.bias", (num_classes,))
    return assembly


def _block_widths(table: TensorTable, first_kernel: str) -> list[int]:
    widths: list[int] = []
    while f"features.{len(widths) + FIRST_BLOCK}.bn1.weight" in table:
        name = f"features.{len(widths) + FIRST_BLOCK}.{first_kernel}.weight"
        widths.append(table.shape(name, 4)[0])
    return widths


def _net_of(table: TensorTable, widths: list[int]) -> str:
    """Network whose stages have as many blocks as there are of each width."""
    depths = tuple(len(list(group)) for _, group in groupby(widths))
    known = {blocks: net for net, blocks in DEPTHS.items() if len(blocks) == NUM_STAGES}
    doubling = all(after in (before, 2 * before) for before, after in pairwise(widths))
    if depths not in known or not doubling:
        raise table.unsupported(
            f"an STTN network of blocks with {', '.join(map(str, widths))} channels",
            todo="Known: stages of " + " or ".join(map(str, known)) + " blocks, each twice as wide "
            "as the one before.",
        )
    return known[depths]


def _block(assembly: Assembly, i: int, channels: tuple[int, int]) -> None:
    source, target = f"features.{i + FIRST_BLOCK}", f"blocks.{i}"
    in_channels, out_channels = channels
    assembly.norm(f"{source}.bn1", f"{target}.bn1", in_channels)
    for name in ("bn_add1", "bn2", "bn_add2"):
        assembly.norm(f"{source}.{name}", f"{target}.{name}", out_channels)
    for name in ("prelu1", "prelu2"):
        assembly.copy(f"{source}.{name}.weight", f"{target}.{name}.weight", (out_channels,))


def _convolutions(assembly: Assembly) -> list[tuple[int, str]]:
    count = sum(DEPTHS[assembly.spec.net])
    return [(i, name) for i in range(count) for name in ("conv1", "conv2")]


def _refuse_zeros(table: TensorTable, name: str, kernel: Tensor) -> None:
    """A latent of exactly 0 has no sign: its level would be ±m, off the ternary grid."""
    zeros = (kernel == 0).nonzero()
    if len(zeros):
        raise table.fault(
            name, f"is 0 at {tuple(zeros[0].tolist())}: without a sign the weight is not ternary"
        )


def _refuse_other_levels(table: TensorTable, name: str, weight: Tensor) -> None:
    flat = weight.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    wrong = ((flat != 0) & (flat.abs() != largest)).nonzero()
    if len(wrong):
        filter_index, at = wrong[0].tolist()
        value, scale = float(flat[filter_index, at]), float(largest[filter_index, 0])
        raise table.fault(
            name,
            f"is not ternary: filter {filter_index} holds {value:g} beside ±{scale:g} and 0",
        )


def _with_merged_weights(model: QuantNet) -> QuantNet:
    assert isinstance(model, SttnResNet)
    merge_ternary(model)
    return model
