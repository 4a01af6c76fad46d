"""Reading a certificate file: every field is checked, nothing in it is trusted or executed."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitfold.certify.certificate import SCHEMA
from bitfold.certify.inputs import FileRecord, Inputs
from bitfold.certify.stages import FirstDifference, Stage
from bitfold.errors import InputError

MAX_BYTES = 1 << 26
COUNTS = ("accumulators_proved", "requant_pairs_checked")
COMPARED = ("accumulators", "requantization", "top1")
SHA256 = re.compile(r"[0-9a-f]{64}")
AGAIN = "Write it again with `bitfold verify MODEL --data SPEC -o FILE`."


@dataclass(frozen=True, slots=True)
class RecordedCertificate:
    """What a certificate file claims. ``facts`` are its other comparable fields by name."""

    images: int
    stages: tuple[Stage, ...]
    inputs: Inputs
    environment: Mapping[str, object]
    facts: Mapping[str, object]


class _Fields:
    """A JSON object whose fields are taken by type; InputError names file and field."""

    def __init__(self, values: object, *, file: Path, place: str = "") -> None:
        self.file, self.place = file, place
        if not isinstance(values, dict):
            raise self.damaged("an object is expected", place or "the whole file")
        self.values: dict[str, object] = values

    def damaged(self, what: str, place: str) -> InputError:
        return InputError(
            f"not a certificate that can be replayed: {what}",
            where=f"file {self.file}, {place}",
            todo=AGAIN,
        )

    def path_of(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def get(self, key: str) -> object:
        if key not in self.values:
            raise self.damaged("the field is missing", self.path_of(key))
        return self.values[key]

    def integer(self, key: str) -> int:
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.damaged(f"a count is expected, got {_shown(value)}", self.path_of(key))
        return value

    def number(self, key: str) -> float:
        value = self.get(key)
        if value is None:
            # JSON has no infinity.
            return float("inf")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.damaged(f"a number is expected, got {_shown(value)}", self.path_of(key))
        try:
            return float(value)
        except OverflowError as error:
            raise self.damaged("the number is too large", self.path_of(key)) from error

    def flag(self, key: str) -> bool:
        value = self.get(key)
        if not isinstance(value, bool):
            raise self.damaged(f"true or false is expected, got {_shown(value)}", self.path_of(key))
        return value

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str) or "\0" in value:
            raise self.damaged(f"a text is expected, got {_shown(value)}", self.path_of(key))
        return value

    def digest(self, key: str) -> str:
        value = self.text(key)
        if not SHA256.fullmatch(value):
            raise self.damaged("64 hexadecimal digits are expected", self.path_of(key))
        return value

    def entries(self, key: str) -> Sequence[object]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self.damaged(f"a list is expected, got {_shown(value)}", self.path_of(key))
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        listed = self.entries(key)
        numbers = [n for n in listed if isinstance(n, int) and not isinstance(n, bool)]
        if len(numbers) != len(listed):
            raise self.damaged("integers are expected", self.path_of(key))
        return tuple(numbers)

    def within(self, key: str) -> "_Fields":
        return _Fields(self.get(key), file=self.file, place=self.path_of(key))

    def each(self, key: str) -> "list[_Fields]":
        return [
            _Fields(entry, file=self.file, place=f"{self.path_of(key)}[{i}]")
            for i, entry in enumerate(self.entries(key))
        ]


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, int) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."


def read_certificate(path: Path) -> RecordedCertificate:
    """The certificate in ``path``; InputError names the field that is missing or wrong."""
    fields = _Fields(_parsed(path), file=path)
    if fields.values.get("schema") != SCHEMA:
        found = _shown(fields.values.get("schema"))
        raise fields.damaged(f"{SCHEMA!r} is expected, got {found}", "schema")
    return RecordedCertificate(
        fields.integer("images"),
        tuple(_stage(entry) for entry in fields.each("stages")),
        _inputs(fields.within("inputs")),
        fields.within("environment").values,
        {key: fields.integer(key) for key in COUNTS} | {key: fields.get(key) for key in COMPARED},
    )


def _parsed(path: Path) -> object:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"more than {MAX_BYTES} bytes", where=f"file {path}", todo=AGAIN)
        return json.loads(data)
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror}", where=f"file {path}") from error
    # A ValueError is also what broken UTF-8 and numbers of thousands of digits give.
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"not a certificate that can be replayed: no JSON: {error}",
            where=f"file {path}",
            todo=AGAIN,
        ) from error


def _stage(fields: _Fields) -> Stage:
    first = None if fields.get("first") is None else _first(fields.within("first"))
    return Stage(
        fields.text("name"), fields.text("against"), fields.integer("compared"),
        fields.integer("mismatches"), fields.number("max_abs_diff"), first,
        fields.flag("exact"), fields.text("detail"),
    )  # fmt: skip


def _first(fields: _Fields) -> FirstDifference:
    return FirstDifference(
        fields.text("layer"), fields.integers("index"), fields.number("got"),
        fields.number("want"), fields.text("cause"), fields.text("why"),
    )  # fmt: skip


def _inputs(fields: _Fields) -> Inputs:
    options = fields.within("options")
    labels = None if fields.get("labels_sha256") is None else fields.digest("labels_sha256")
    return Inputs(
        _file(fields, "model"),
        _file(fields, "checkpoint"),
        None if fields.get("data") is None else fields.text("data"),
        None if fields.get("limit") is None else fields.integer("limit"),
        {key: options.text(key) for key in options.values},
        fields.digest("graph_sha256"),
        fields.integers("images_shape"),
        fields.digest("images_sha256"),
        labels,
    )


def _file(fields: _Fields, key: str) -> FileRecord | None:
    if fields.get(key) is None:
        return None
    entry = fields.within(key)
    return FileRecord(entry.text("path"), entry.integer("bytes"), entry.digest("sha256"))
