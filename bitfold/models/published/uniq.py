"""UniQ checkpoints (phuocphn/uniq; IEEE Access 9:47194, 2021): ResNets and MobileNet-V2.

    <layer>.weight, <layer>.bias (classifier of the ResNets)
    <layer>.quan_w.{delta, init_state, min_val, max_val}     delta [] or one a kernel [O, 1, 1, 1]
    <layer>.quan_a.{delta, init_state, min_val, max_val}     delta []

``max_val`` is 2^b − 1 and so gives the bits; 2^32 marks a layer that stays in float, whose other
numbers mean nothing (a kernel-wise one may even hold uninitialized memory). ``init_state`` 1 says
that the step was calibrated.
"""

import math
from dataclasses import dataclass

import torch

from bitfold.errors import UsageError
from bitfold.models.nets.stages import DEPTHS
from bitfold.models.published.layout import Assembly, PublishedOptions, TensorTable
from bitfold.models.published.resnet_names import ResNetShape, find_naming, read_shape
from bitfold.models.spec import NetSpec

EDGE_BITS = 8
BODY_BITS = (1, 2, 3, 4, 8)
BYPASS = 2.0**32
FLOAT = 32
DONE = 1
MOBILENET_UNITS = (1, 2, 3, 7, 4)  # units a stage
LARGE_KERNEL, SMALL_KERNEL = 7, 3


def recognise(table: TensorTable) -> bool:
    """Whether the names are UniQ's."""
    return any(name.endswith(".quan_w.delta") for name in table.values)


def convert(table: TensorTable, options: PublishedOptions) -> Assembly:
    """Spec and tensors; raises as ``import_published``."""
    if "features.stage1.unit1.conv3.conv.weight" in table:
        return _mobilenet(table, options)
    names = find_naming(table)
    if names is None:
        raise table.unsupported(
            "a UniQ network whose layers have other names than the known ones",
            todo="Known: presnet18, presnet32 and its depths, presnet34, mobilenetv2.",
        )
    return _resnet(table, options, read_shape(table, names))


@dataclass(frozen=True, slots=True)
class Layer:
    """A quantized layer: its name in the file, its convolution's and its quantizer's in ours."""

    source: str
    conv: str
    act: str
    bits: int
    per_kernel: bool = False


def _resnet(table: TensorTable, options: PublishedOptions, shape: ResNetShape) -> Assembly:
    names = shape.names
    body = names.of_block(0, 0).conv1
    spec = _spec(table, options, body, classes=shape.num_classes)
    spec = _with(
        spec, _net_of(table, shape), shape.channels, large=shape.stem_kernel == LARGE_KERNEL
    )
    assembly = Assembly(spec, table)
    _layer(assembly, Layer(names.stem, "conv1", "input_act", _edge_bits(spec)))
    if spec.stem == "large":
        assembly.norm(names.stem_norm, "bn1", shape.stem)
    for stage, block, before, width in shape.blocks():
        parts, target = names.of_block(stage, block), f"layer{stage + 1}.{block}"
        assembly.norm(parts.norm1, f"{target}.bn1", before)
        _layer(assembly, _body(spec, parts.conv1, f"{target}.conv1", f"{target}.act1"))
        assembly.norm(parts.norm2, f"{target}.bn2", width)
        _layer(assembly, _body(spec, parts.conv2, f"{target}.conv2", f"{target}.act2"))
        if before != width or (stage > 0 and block == 0):
            _layer(assembly, _shortcut(spec, parts.shortcut, target))
    assembly.norm(names.tail_norm, "bn", shape.widths[-1])
    _layer(assembly, Layer(names.last, "fc", "act", _edge_bits(spec)))
    assembly.copy(f"{names.last}.bias", "fc.bias", (shape.num_classes,))
    return assembly


def _mobilenet(table: TensorTable, options: PublishedOptions) -> Assembly:
    stages = enumerate(MOBILENET_UNITS)
    places = [(i, j) for i, count in stages for j in range(count)]
    units = [f"features.stage{i + 1}.unit{j + 1}" for i, j in places]
    stem = table.shape("features.init_block.conv.weight", 4)[0]
    widths = [table.shape(f"{unit}.conv3.conv.weight", 4)[0] for unit in units]
    last = table.shape("features.final_block.conv.weight", 4)[0]
    classes = table.shape("output.weight", 4)[0]
    spec = _spec(table, options, f"{units[0]}.conv1.conv", classes=classes)
    spec = _with(spec, "mobilenetv2", (stem, *widths, last), large=True)
    assembly = Assembly(spec, table)
    edge = Layer("features.init_block.conv", "init_block.conv", "init_block.act", _edge_bits(spec))
    _layer(assembly, edge)
    assembly.norm("features.init_block.bn", "init_block.bn", stem)
    for unit, (i, j) in zip(units, places, strict=True):
        for part in ("conv1", "conv2", "conv3"):
            _unit(assembly, f"{unit}.{part}", f"stages.stage{i + 1}.{j}.{part}")
    _unit(assembly, "features.final_block", "stages.final_block")
    _layer(assembly, Layer("output", "fc", "act", _edge_bits(spec)))
    # The published classifier is a 1x1 convolution without a bias.
    weight = assembly.tensors["fc.weight"]
    assembly.put("fc.weight", weight.flatten(1), "output.weight")
    assembly.put("fc.bias", torch.zeros(classes), "output.weight")
    return assembly


def _unit(assembly: Assembly, source: str, target: str) -> None:
    channels = assembly.table.shape(f"{source}.conv.weight", 4)[0]
    _layer(assembly, _body(assembly.spec, f"{source}.conv", f"{target}.conv", f"{target}.act"))
    assembly.norm(f"{source}.bn", f"{target}.bn", channels)


def _spec(table: TensorTable, options: PublishedOptions, body: str, *, classes: int) -> NetSpec:
    """Spec whose network is still to be named; ``body`` is a layer of the method's own bits."""
    input_shape, preprocessing = options.require_input()
    bits = _bits_of(table, f"{body}.quan_w.max_val")
    if bits not in BODY_BITS:
        raise table.unsupported(
            f"{body}.quan_w.max_val says {bits} bits",
            todo="Known: " + ", ".join(map(str, BODY_BITS)) + ".",
        )
    if options.bits is not None and options.bits != (bits, bits):
        raise UsageError(
            f"--bits says {options.bits[0]},{options.bits[1]}, {body}.quan_w.max_val {bits},{bits}",
            where="option --bits",
            todo="Leave it out; the checkpoint knows.",
        )
    deltas = (name for name in table.values if name.endswith(".quan_w.delta"))
    return NetSpec(
        net="resnet20",
        method="uniq",
        bits=(bits, bits),
        input_shape=input_shape,
        class_names=options.names_of(classes),
        preprocessing=preprocessing,
        edge_bits=options.float_edge_bits,
        per_kernel=any(table.values[name].dim() > 0 for name in deltas),
    )


def _net_of(table: TensorTable, shape: ResNetShape) -> str:
    known = {blocks: net for net, blocks in DEPTHS.items()}
    if shape.depths not in known or shape.stem_kernel not in (LARGE_KERNEL, SMALL_KERNEL):
        raise table.unsupported(
            f"a ResNet with stages of {shape.depths} blocks and a stem of {shape.stem_kernel}x"
            f"{shape.stem_kernel}",
            todo="Known: " + ", ".join(known.values()) + ", stems of 3x3 and 7x7.",
        )
    return known[shape.depths]


def _with(spec: NetSpec, net: str, channels: tuple[int, ...], *, large: bool) -> NetSpec:
    fields = {"net": net, "channels": channels, "stem": "large" if large else "small"}
    return NetSpec.from_dict({**spec.to_dict(), **fields})


def _edge_bits(spec: NetSpec) -> int:
    return FLOAT if spec.bits[0] == 1 else EDGE_BITS


def _body(spec: NetSpec, source: str, conv: str, act: str) -> Layer:
    return Layer(source, conv, act, spec.bits[0], spec.per_kernel)


def _shortcut(spec: NetSpec, source: str, block: str) -> Layer:
    conv, act = f"{block}.shortcut", f"{block}.shortcut_act"
    return Layer(source, conv, act, FLOAT) if spec.bits[0] == 1 else _body(spec, source, conv, act)


def _layer(assembly: Assembly, layer: Layer) -> None:
    """Take one layer's weight and steps; its bits must be those that its place has."""
    table, source = assembly.table, layer.source
    assembly.copy(f"{source}.weight", f"{layer.conv}.weight")
    for quantizer in ("quan_w", "quan_a"):
        bits = _bits_of(table, f"{source}.{quantizer}.max_val")
        if bits != layer.bits:
            raise table.unsupported(
                f"{source}.{quantizer}.max_val says {bits} bits; this place has {layer.bits}",
                todo="From 2 bits on, first and last layers have 8 bits; with 1 bit, these and the "
                "shortcuts are float (32).",
            )
    if layer.bits == FLOAT:
        table.drop(f"{source}.quan_")
        return
    out_channels = assembly.tensors[f"{layer.conv}.weight"].shape[0]
    kernels = out_channels if layer.per_kernel else 0
    _step(assembly, f"{source}.quan_w", f"{layer.conv}.weight_quantizer.delta", kernels=kernels)
    _step(assembly, f"{source}.quan_a", f"{layer.act}.delta")


def _step(assembly: Assembly, source: str, target: str, *, kernels: int = 0) -> None:
    """Take a calibrated step: (), or (``kernels``,) of any shape with so many elements."""
    table = assembly.table
    state = table.number(f"{source}.init_state")
    if state != DONE:
        raise table.fault(
            f"{source}.init_state", f"is {state:g}, not {DONE}: the step was never calibrated"
        )
    lowest = table.number(f"{source}.min_val")
    if lowest != 0:
        raise table.fault(f"{source}.min_val", f"is {lowest:g}, not 0")
    delta = table.positive(f"{source}.delta")
    if delta.numel() not in (1, kernels):
        wanted = f"1 or {kernels}" if kernels else "1"
        raise table.fault(f"{source}.delta", f"has shape {tuple(delta.shape)}, not {wanted} steps")
    shape = (kernels,) if kernels else ()
    assembly.put(target, delta.flatten().expand(shape or (1,)).reshape(shape), f"{source}.delta")


def _bits_of(table: TensorTable, name: str) -> int:
    """The b where ``name`` is 2^b − 1 (2^32, its float32 value, for a layer in float)."""
    value = table.number(name)
    if value == BYPASS:
        return FLOAT
    bits = math.log2(value + 1) if value > 0 else 0.0
    if not bits.is_integer() or bits < 1:
        raise table.fault(name, f"is {value:g}, not 2^b − 1")
    return int(bits)
