"""BASQ checkpoints (HanByulKim/BASQ; Kim, Park & Yoo, ECCV 2022): MobileNet-V2, any width.

    feature.0.{conv1,bn1}            stem                feature.18.*   last unit
    feature.{1…17}.bn_qconv_bn_relu_0.{0,1.s,2.weights,2.w_quantize.s,3}, bn0_last    expansion
    feature.{i}.branch_bn_q_1.{j}.{0,1.bin,1.upper_bound}, conv1, branch_bn_1.{j}.0, bn1_last.{j}
    feature.{i}.bn_qconv_bn_relu_2.*, bn2_last                                        projection
    classifier.1.{weight,bias}

Weights are stored flat, (O·I·KH·KW, 1). The bit width shows in ``bin`` alone, which is used as it
is stored: 1 − bin in float32 is one ulp below 1/(2^b − 1). The genome is in no file: it comes with
the options, and the tensors of the branches that it does not name are left out.
"""

import math

from torch import Tensor

from bitfold.errors import UsageError
from bitfold.models.loaded_net import shortened
from bitfold.models.published.layout import Assembly, PublishedOptions, TensorTable
from bitfold.models.spec import NetSpec

NUM_BLOCKS = 17
LAST = NUM_BLOCKS + 1
NUM_BRANCHES = 7
OFFERED_BITS = (2, 3, 4)
STEPS = "w_quantize.s"


def recognise(table: TensorTable) -> bool:
    """Whether the names are BASQ's."""
    return any(".branch_bn_q_1." in name for name in table.values)


def convert(table: TensorTable, options: PublishedOptions) -> Assembly:
    """Spec and tensors of one genome's network; raises as ``import_published``."""
    input_shape, preprocessing = options.require_input()
    genome = _genome(table, options)
    channels = _channels(table)
    num_classes = table.shape("classifier.1.weight", 2)[0]
    spec = NetSpec(
        net="mobilenetv2",
        method="basq",
        bits=_bits(table, genome, options),
        input_shape=input_shape,
        class_names=options.names_of(num_classes),
        preprocessing=preprocessing,
        channels=channels,
        genome=genome,
        edge_bits=options.float_edge_bits,
        per_channel=True,
        stem="large",
    )
    assembly = Assembly(spec, table)
    assembly.copy("feature.0.conv1.weight", "conv1.weight", (channels[0], input_shape[2], 3, 3))
    assembly.norm("feature.0.bn1", "bn1", channels[0])
    for i, gene in enumerate(genome):
        _block(assembly, i, gene)
    _pointwise(
        assembly, (f"feature.{LAST}.bn_qconv_bn_relu_0", f"feature.{LAST}.bn0_last"),
        f"blocks.{NUM_BLOCKS}", channels[-2:],
    )  # fmt: skip
    assembly.copy("classifier.1.weight", "fc.weight", (num_classes, channels[-1]))
    assembly.copy("classifier.1.bias", "fc.bias", (num_classes,))
    _note_mirrored(assembly)
    return assembly


def _genome(table: TensorTable, options: PublishedOptions) -> tuple[int, ...]:
    if options.genome is None:
        raise UsageError(
            "a BASQ checkpoint does not say which branch each block takes",
            where="option --genome",
            todo=f"Give {NUM_BLOCKS} numbers 0…{NUM_BRANCHES - 1} as in --genome 1,4,5,…, or a "
            "JSON file with a genome; the search's log has them.",
        )
    genome = options.genome
    for i, gene in enumerate(genome):
        if not 0 <= gene < NUM_BRANCHES:
            raise UsageError(
                f"gene {i} of the genome is {gene}; branches are 0…{NUM_BRANCHES - 1}",
                where="option --genome",
                todo="Give one branch a block.",
            )
    if len(genome) != NUM_BLOCKS:
        raise UsageError(
            f"the genome has {len(genome)} genes for {NUM_BLOCKS} blocks",
            where="option --genome",
            todo=f"Give {NUM_BLOCKS} numbers, one a block.",
        )
    return genome


def _channels(table: TensorTable) -> tuple[int, ...]:
    found = {int(name.split(".")[1]) for name in table.values if _is_block(name)}
    if found != set(range(1, NUM_BLOCKS + 1)):
        raise table.unsupported(
            f"a BASQ network with branches in blocks {sorted(found)}",
            todo=f"The published MobileNet-V2 has them in 1…{NUM_BLOCKS}; no other is known.",
        )
    stem = table.shape("feature.0.conv1.weight", 4)[0]
    blocks = (table.shape(f"feature.{i}.bn2_last.weight", 1)[0] for i in range(1, NUM_BLOCKS + 1))
    return (stem, *blocks, table.shape(f"feature.{LAST}.bn0_last.weight", 1)[0])


def _is_block(name: str) -> bool:
    feature, number, *rest = [*name.split("."), "", ""]
    return feature == "feature" and number.isdecimal() and rest[0] == "branch_bn_q_1"


def _bits(
    table: TensorTable, genome: tuple[int, ...], options: PublishedOptions
) -> tuple[int, int]:
    """(weights, activations): the latter from ``bin``; the code gives both the same width."""
    names = [f"feature.{i + 1}.branch_bn_q_1.{gene}.1.bin" for i, gene in enumerate(genome)]
    bits = [_bits_of(table, name) for name in names]
    for name, other in zip(names, bits, strict=True):
        if other != bits[0]:
            raise table.unsupported(
                f"{name} says {other} bits, {names[0]} {bits[0]}",
                todo="Networks of one activation width are read.",
            )
    given = options.bits or (bits[0], bits[0])
    if given[1] != bits[0]:
        raise UsageError(
            f"--bits says {given[1]}-bit activations, {names[0]} {bits[0]}-bit ones",
            where="option --bits",
            todo="Leave it out; the checkpoint knows.",
        )
    return given


def _bits_of(table: TensorTable, name: str) -> int:
    """The b where 1/(1 − bin) rounds to 2^b − 1."""
    beta = 1 - table.number(name)
    levels = round(1 / beta) if 0 < beta <= 1 else 0
    bits = int(math.log2(levels + 1))
    if bits not in OFFERED_BITS or 2**bits - 1 != levels:
        raise table.unsupported(
            f"{name} is {1 - beta:g}, that is {levels} steps",
            todo="Known: 1 − 1/(2^b − 1) for b = " + ", ".join(map(str, OFFERED_BITS)) + ".",
        )
    return bits


def _block(assembly: Assembly, i: int, gene: int) -> None:
    widths = assembly.spec.channels
    source, target = f"feature.{i + 1}", f"blocks.{i}"
    hidden = assembly.table.shape(f"{source}.conv1.{STEPS}", 1)[0]
    if i > 0:
        parts = (f"{source}.bn_qconv_bn_relu_0", f"{source}.bn0_last")
        _pointwise(assembly, parts, f"{target}.expand", (widths[i], hidden))
    _branch(assembly, source, f"{target}.depthwise", gene=gene, channels=hidden)
    parts = (f"{source}.bn_qconv_bn_relu_2", f"{source}.bn2_last")
    _pointwise(assembly, parts, f"{target}.project", (hidden, widths[i + 1]))
    for branches in ("branch_bn_q_1", "branch_bn_1", "bn1_last"):
        for j in range(NUM_BRANCHES):
            assembly.table.drop(f"{source}.{branches}.{j}.")


def _pointwise(
    assembly: Assembly, parts: tuple[str, str], target: str, channels: tuple[int, ...]
) -> None:
    unit, last = parts
    in_channels, out_channels = channels
    assembly.norm(f"{unit}.0", f"{target}.bn_in", in_channels)
    _conv(assembly, f"{unit}.2", f"{target}.conv", (out_channels, in_channels, 1, 1))
    signs = _steps(assembly, f"{unit}.1.s", f"{target}.act.s", in_channels)
    # s·rne(clamp(x/s, 0, L)) with s < 0 is −|s|·rne(clamp(−x/|s|, 0, L)): −x comes from the batch
    # norm in front, the other sign goes into the weights, whose grid is symmetric. All exact.
    for mirrored in ("bn_in.weight", "bn_in.bias", "conv.weight"):
        value = assembly.tensors[f"{target}.{mirrored}"]
        value.mul_(signs.view(-1, 1, 1) if value.dim() > 1 else signs)
    assembly.norm(f"{unit}.3", f"{target}.bn_out", out_channels)
    assembly.norm(last, f"{target}.bn_last", out_channels)


def _steps(assembly: Assembly, source: str, target: str, count: int) -> Tensor:
    """Put the steps' magnitudes and return their signs; a step of 0 divides by zero."""
    steps = assembly.table.take(source, (count,))
    if bool((steps == 0).any()):
        raise assembly.table.fault(source, "holds a step of 0")
    assembly.put(target, steps.abs(), source)
    return steps.sign()


def _note_mirrored(assembly: Assembly) -> None:
    steps = [name for name in assembly.origins.values() if name.endswith(".s")]
    negative = {name: int((assembly.table.values[name] < 0).sum()) for name in steps}
    found = [f"{name} ({count})" for name, count in negative.items() if count]
    if found:
        note = f"negative steps, read as mirrored, in {shortened(found)}"
        assembly.table.notes.append(note)


def _branch(assembly: Assembly, source: str, target: str, *, gene: int, channels: int) -> None:
    own = f"{target}.branches.{gene}"
    quantizer = f"{source}.branch_bn_q_1.{gene}.1"
    assembly.norm(f"{source}.branch_bn_q_1.{gene}.0", f"{own}.bn_in", channels)
    bound = assembly.table.positive(f"{quantizer}.upper_bound", ())
    assembly.put(f"{own}.act.upper_bound", bound, f"{quantizer}.upper_bound")
    fraction = assembly.table.take(f"{quantizer}.bin", (1,)).reshape(())
    assembly.put(f"{own}.act.bin", fraction, f"{quantizer}.bin")
    _conv(assembly, f"{source}.conv1", f"{target}.conv", (channels, 1, 3, 3))
    assembly.norm(f"{source}.branch_bn_1.{gene}.0", f"{own}.bn_out", channels)
    assembly.norm(f"{source}.bn1_last.{gene}", f"{own}.bn_last", channels)


def _conv(assembly: Assembly, source: str, target: str, shape: tuple[int, int, int, int]) -> None:
    weights = assembly.table.take(f"{source}.weights", (math.prod(shape), 1))
    assembly.put(f"{target}.weight", weights.reshape(shape), f"{source}.weights")
    # A symmetric grid is its own mirror image: the sign of a weight step changes nothing.
    _steps(assembly, f"{source}.{STEPS}", f"{target}.weight_quantizer.s", shape[0])
