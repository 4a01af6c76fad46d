"""``bitfold new``: a network with random weights, to benchmark and estimate before training."""

from typing import Annotated

import typer

from bitfold.cli.inputs import (
    BitsOption,
    MethodOption,
    NetOption,
    OutputOption,
    WidthOption,
    known_method,
    parse_shape,
    require_folder_of,
)
from bitfold.cli.shell import Shell, Verb, parse_pair

ShapeOption = Annotated[str, typer.Option("--input", metavar="HxWxC", help="Shape of an image.")]
ClassesOption = Annotated[int, typer.Option("--classes", min=1, help="Number of classes.")]


def new(
    shell: Shell,
    *,
    net: NetOption,
    output: OutputOption,
    bits: BitsOption,
    method: MethodOption = "pact-sawb",
    input_shape: ShapeOption = "28x28x1",
    classes: ClassesOption = 10,
    width: WidthOption = 1.0,
) -> None:
    """Write a checkpoint with random weights.

    Batch-norm statistics and clips are sane, so that it can be measured before it is trained.
    """
    known_method(method)
    require_folder_of(output)
    shape, pair = parse_shape(input_shape), parse_pair(bits, option="--bits")
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
    shell.emit(fields, lambda: [f"{output}: {net} W{pair[0]}A{pair[1]}, random weights"])


VERB = Verb(
    "new",
    new,
    (
        "bitfold new --net resnet20 --bits 2,2 -o random.pt",
        "bitfold new --net resnet8 --bits 4,4 --input 32x32x3 --classes 100 -o random.pt",
    ),
)
