"""A certificate made again beside the one on file: the first thing that is not the same.

Everything that decides a verdict must come out equal: digests of the inputs, each stage whose
integers are exact, counts and places, and the proofs. Numbers of stages that do not decide, of
float32 on another machine, are *notes*: they are told and do not count. A stage on file that cannot
run here is a change: what was proved there was not proved here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from itertools import zip_longest

from bitfold.certify.certificate import Certificate
from bitfold.certify.inputs import FileRecord, Inputs
from bitfold.certify.recorded import RecordedCertificate
from bitfold.certify.stages import Stage

LONGEST = 300
STAGE_FIELDS = ("against", "compared", "mismatches", "max_abs_diff", "exact")


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is not as the certificate says; a *note* where it decides nothing."""

    what: str
    was: str
    now: str
    decides: bool = True

    def __str__(self) -> str:
        return f"{self.what}: was {self.was}, is {self.now}"


def compare_file(key: str, was: FileRecord | None, now: FileRecord | None) -> Iterator[Change]:
    """Whether an input file has the recorded bytes; its path may differ."""
    if was is None or now is None:
        if was is not now:
            yield Change(f"{key} file", _path(was), _path(now))
        return
    if was.sha256 != now.sha256:
        sizes = f"{was.bytes} bytes", f"{now.bytes} bytes"
        pair = [f"{r.sha256} ({s})" for r, s in zip((was, now), sizes, strict=True)]
        yield Change(f"SHA-256 of the {key} {now.path}", pair[0], pair[1])


def _path(record: FileRecord | None) -> str:
    return "none" if record is None else record.path


def compare_inputs(was: Inputs, now: Inputs) -> tuple[Change, ...]:
    """Digests that changed, files first."""
    changes = [
        *compare_file("model", was.model, now.model),
        *compare_file("checkpoint", was.checkpoint, now.checkpoint),
    ]
    for key, label in (
        ("images_shape", "shape of the images"),
        ("images_sha256", "SHA-256 of the images"),
        ("labels_sha256", "SHA-256 of the labels"),
        ("graph_sha256", "SHA-256 of the integer graph"),
    ):
        pair = getattr(was, key), getattr(now, key)
        if pair[0] != pair[1]:
            changes.append(Change(label, str(pair[0]), str(pair[1])))
    return tuple(changes)


def compare_certificates(was: RecordedCertificate, now: Certificate) -> tuple[Change, ...]:
    """All changes, deciding ones first, each in the order of the certificate on file."""
    found = [
        *compare_inputs(was.inputs, now.inputs),
        *_stage_changes(was.stages, now.stages),
        *_fact_changes(was.facts, now),
        *_environment_notes(was.environment, now.environment),
    ]
    return tuple(sorted(found, key=lambda change: not change.decides))


def _stage_changes(was: tuple[Stage, ...], now: tuple[Stage, ...]) -> Iterator[Change]:
    again = {stage.name: stage for stage in now}
    for stage in was:
        found = again.pop(stage.name, None)
        if found is None:
            what, here = f"stage {stage.name!r}", "cannot be run here"
            yield Change(what, f"{stage.compared} compared", here)
        else:
            yield from _field_changes(stage, found)
    for stage in again.values():
        run = f"{stage.compared} compared, {stage.mismatches} mismatches"
        # A difference found only here decides through the verdict of the new certificate.
        yield Change(f"stage {stage.name!r}", "not in the certificate", run, decides=False)


def _field_changes(was: Stage, now: Stage) -> Iterator[Change]:
    if was.compared and not now.compared:
        here = f"cannot be run here: {now.detail}"
        yield Change(f"stage {was.name!r}", f"{was.compared} compared", here)
        return
    decides = was.exact or now.exact
    for key in STAGE_FIELDS:
        pair = getattr(was, key), getattr(now, key)
        if pair[0] != pair[1]:
            what = f"{key} of stage {was.name!r}"
            yield Change(what, str(pair[0]), str(pair[1]), decides or key == "compared")
            return
    if was.first != now.first:
        what = f"first difference of stage {was.name!r}"
        yield Change(what, str(was.first), str(now.first), decides)


def _fact_changes(was: Mapping[str, object], now: Certificate) -> Iterator[Change]:
    for key, value in was.items():
        found = json_values(getattr(now, key))
        if found != value:
            yield Change(key, *_parted(value, found))


def _parted(was: object, now: object) -> tuple[str, str]:
    """Both as text; of two lists the first entries that differ."""
    if isinstance(was, list) and isinstance(now, list):
        for a, b in zip_longest(was, now):
            if a != b:
                return _short(a), _short(b)
    return _short(was), _short(now)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def json_values(value: object) -> object:
    """What ``value`` is once it has been written as JSON and read again."""
    if isinstance(value, tuple | list):
        return [json_values(entry) for entry in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: json_values(getattr(value, f.name)) for f in fields(value)}
    return value


def _environment_notes(was: Mapping[str, object], now: Mapping[str, object]) -> Iterator[Change]:
    for key, value in now.items():
        before = was.get(key)
        if before != value:
            yield Change(f"environment, {key}", _short(before), _short(value), decides=False)
