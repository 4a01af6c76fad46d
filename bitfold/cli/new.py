"""``bitfold new``: a network with random weights, to benchmark and estimate before training."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bitfold.cli.inputs import (
    BitsOption,
    GenomeOption,
    MethodOption,
    NetOption,
    OutputOption,
    PerChannelFlag,
    PerKernelFlag,
    WidthOption,
    known_bits,
    parse_genome,
    parse_shape,
    require_folder_of,
    require_method_of_steps,
)
from bitfold.cli.shell import Shell, Verb, one_of

if TYPE_CHECKING:
    from bitfold.models import NetSpec

Stem = Literal["auto", "large", "small"]
STEMS: tuple[Stem, ...] = ("auto", "large", "small")

ShapeOption = Annotated[str, typer.Option("--input", metavar="HxWxC", help="Shape of an image.")]
ClassesOption = Annotated[int, typer.Option("--classes", min=1, help="Number of classes.")]
StemOption = Annotated[
    str, typer.Option("--stem", help="auto, large (strides, as for ImageNet) or small.")
]


def new(
    shell: Shell,
    *,
    net: NetOption,
    output: OutputOption,
    bits: BitsOption = None,
    method: MethodOption = "pact-sawb",
    input_shape: ShapeOption = "28x28x1",
    classes: ClassesOption = 10,
    width: WidthOption = 1.0,
    stem: StemOption = "auto",
    genome: GenomeOption = None,
    per_kernel: PerKernelFlag = False,
    per_channel: PerChannelFlag = False,
) -> None:
    """Write a checkpoint with random weights.

    Batch-norm statistics, steps and clips are sane, so that it can be measured before it is
    trained. A BASQ network has branch 0 everywhere unless ``--genome`` says otherwise.
    """
    pair = known_bits(bits, net=net, method=method)
    require_method_of_steps(method, per_kernel=per_kernel, per_channel=per_channel)
    require_folder_of(output)
    shape = parse_shape(input_shape)
    chosen_stem = one_of(stem, STEMS, option="--stem")
    from bitfold.models import NetSpec, Preprocessing, new_network, save_checkpoint

    spec = NetSpec.with_default_grid(
        net=net,
        method=method,
        bits=pair,
        input_shape=shape,
        class_names=tuple(f"class{i}" for i in range(classes)),
        preprocessing=Preprocessing(128, 64),
        width=width,
    )
    spec = replace(spec, stem=chosen_stem, per_kernel=per_kernel, per_channel=per_channel)
    spec = _with_genome(spec, genome)
    save_checkpoint(output, new_network(spec, seed=shell.seed), record={})
    fields: dict[str, object] = {
        "checkpoint": str(output),
        "method": method,
        "net": net,
        "bits": {"w": pair[0], "a": pair[1]},
        "input": list(shape),
        "classes": classes,
        "width": width,
        "seed": shell.seed,
    }
    if spec.genome:
        fields["genome"] = list(spec.genome)
    shell.emit(fields, lambda: [f"{output}: {net} W{pair[0]}A{pair[1]}, random weights"])


def _with_genome(spec: "NetSpec", genome: str | None) -> "NetSpec":
    from bitfold.models import count_genes

    if genome is None:
        return replace(spec, genome=(0,) * count_genes(spec))
    branches, bits = parse_genome(genome)
    return replace(spec, genome=branches, block_bits=bits)


VERB = Verb(
    "new",
    new,
    (
        "bitfold new --net resnet20 --bits 2,2 -o random.pt",
        "bitfold new --net resnet8 --bits 4,4 --input 32x32x3 --classes 100 -o random.pt",
        "bitfold new --net resnet18 --method sttn --input 224x224x3 --classes 1000 -o random.pt",
    ),
)
