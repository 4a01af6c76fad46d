"""Options that say of a checkpoint what its file does not; shared by the verbs that read one."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfold.cli.shell import one_of, parse_pair
from bitfold.errors import InputError, UsageError

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
        genome=None if genome is None else parse_genome(genome),
        edge_bits=None if edges is None else EDGES[one_of(edges, tuple(EDGES), option="--edges")],
        bits=None if bits is None else parse_pair(bits, option="--bits"),
        calibration=None if calib is None else load_images(calib, "train", size=shape).images,
    )


def parse_genome(text: str) -> tuple[int, ...]:
    """``"5,3,2"``, or the genome in a JSON file that ``text`` names.

    Raises UsageError for text that is neither, InputError for a file without a genome.
    """
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() for part in parts):
        return tuple(map(int, parts))
    path = Path(text)
    if not path.is_file():
        raise UsageError(
            f"--genome needs numbers as in 5,3,2 or a JSON file, got {text!r}",
            where="option --genome",
        )
    return _genome_in(path)


def _genome_in(path: Path) -> tuple[int, ...]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"no JSON: {error}", where=f"file {path}", todo='Write {"genome": [5, 3, …]}.'
        ) from error
    fields = content if isinstance(content, dict) else {"genome": content}
    if fields.get("block_bits"):
        raise UsageError(
            "the genome also chooses the bits of each block; its network has to be trained first",
            where=f"file {path}",
            todo="`bitfold train --genome FILE --init SUPERNET`, then export its result.",
        )
    genome = fields.get("genome")
    if not isinstance(genome, list) or not all(type(gene) is int for gene in genome):
        raise InputError(
            "the file holds no list of whole numbers named genome",
            where=f"file {path}",
            todo='Write {"genome": [5, 3, …]}.',
        )
    return tuple(genome)


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
