"""Options that say of a checkpoint what its file does not; shared by the verbs that read one."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from bitfold.cli.shell import one_of, parse_pair
from bitfold.errors import UsageError

if TYPE_CHECKING:
    from bitfold.models import PublishedOptions
    from bitfold.models.spec import PublishedPreprocessing

EDGES = {"8bit": 8, "16bit": 16}

GenomeOption = Annotated[
    str | None,
    typer.Option(
        "--genome", metavar="5,3,…|FILE",
        help="BASQ: the branch each block takes, or a JSON file with a genome.",
    ),
]  # fmt: skip
EdgesOption = Annotated[
    str | None,
    typer.Option(
        "--edges", help="Weights of first and last layers trained in float: 8bit or 16bit.",
    ),
]  # fmt: skip
InputOption = Annotated[
    str | None,
    typer.Option("--input", metavar="HxWxC", help="Image size."),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        "--mean", metavar="M,…", help="Mean of pixel/255, one or one a channel.",
    ),
]  # fmt: skip
StdOption = Annotated[
    str | None,
    typer.Option(
        "--std", metavar="S,…", help="Standard deviation of pixel/255, one or one a channel.",
    ),
]  # fmt: skip
PublishedBitsOption = Annotated[
    str | None,
    typer.Option(
        "--bits", metavar="W,A", help="PACT: bits of weights and activations.",
    ),
]  # fmt: skip
CalibrationOption = Annotated[
    str | None,
    typer.Option(
        "--calib", metavar="SPEC", help="Images to calibrate an 8-bit input of a float last layer.",
    ),
]  # fmt: skip


def published_options(
    *,
    genome: str | None,
    edges: str | None,
    input_shape: str | None,
    mean: str | None,
    std: str | None,
    bits: str | None,
    calib: str | None,
) -> "PublishedOptions":
    """The options as one value; raises UsageError for text that is none, InputError for files."""
    from bitfold.cli.inputs import parse_shape
    from bitfold.models import PublishedOptions, load_images

    shape = None if input_shape is None else parse_shape(input_shape)
    return PublishedOptions(
        input_shape=shape,
        preprocessing=_preprocessing(mean, std, channels=3 if shape is None else shape[2]),
        genome=None if genome is None else branches_of(genome),
        edge_bits=None if edges is None else EDGES[one_of(edges, tuple(EDGES), option="--edges")],
        bits=None if bits is None else parse_pair(bits, option="--bits"),
        calibration=None if calib is None else load_images(calib, "train", size=shape).images,
    )


def branches_of(genome: str) -> tuple[int, ...]:
    """The branches that ``genome``, text or a file, names; UsageError where it names bits too."""
    from bitfold.cli.inputs import parse_genome

    branches, bits = parse_genome(genome)
    if bits:
        raise UsageError(
            "the genome also chooses the bits of each block; its network has to be trained first",
            where=f"--genome {genome}",
            todo="`bitfold train --genome FILE --init SUPERNET`, then export its result.",
        )
    return branches


def _preprocessing(
    mean: str | None, std: str | None, *, channels: int
) -> "PublishedPreprocessing | None":
    from bitfold.models.spec import PublishedPreprocessing

    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise UsageError(
            "--mean and --std go together",
            where="options --mean, --std",
            todo="Give both, in units of pixel/255.",
        )
    return PublishedPreprocessing(
        _numbers(mean, channels, option="--mean"), _numbers(std, channels, option="--std")
    )


def _numbers(text: str, channels: int, *, option: str) -> tuple[float, ...]:
    """One or ``channels`` finite numbers; one counts for all channels."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, channels) or not all(map(math.isfinite, numbers)):
        raise UsageError(
            f"{option} needs one number or {channels} as in 0.485,0.456,0.406, got {text!r}",
            where=f"option {option}",
        )
    return numbers if len(numbers) == channels else numbers * channels
