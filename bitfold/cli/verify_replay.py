"""``bitfold verify --replay``: a certificate made again, and the first thing that changed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bitfold.cli.certificate_table import render_certificate
from bitfold.cli.inputs import require_file
from bitfold.cli.shell import Shell, write_json
from bitfold.cli.verify_request import DEFAULT_LIMIT, OPTIONS, Request, load
from bitfold.errors import InputError, MismatchError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bitfold.certify import Certificate, Change, FileRecord, RecordedCertificate

SHOWN_NOTES = 8


def replay(
    shell: Shell,
    path: Path,
    *,
    model: Path | None,
    data: str | None,
    checkpoint: Path | None,
    output: Path | None,
) -> None:
    """Make the certificate in ``path`` again; MismatchError names the first change.

    ``model``, ``data`` and ``checkpoint`` say where the inputs are now, where they have moved.
    """
    from bitfold.certify import read_certificate

    require_file(path, kind="certificate")
    recorded = read_certificate(path)
    request = _request(recorded, path, model=model, data=data, checkpoint=checkpoint)
    certificate, changes = _again(shell, recorded, request)
    fields = _fields(path, certificate, changes)
    if output is not None:
        write_json(output, {"schema": shell.schema, **fields})
    shell.emit(fields, lambda: _render(path, certificate, changes))
    first = next((change for change in changes if change.decides), None)
    if first is not None:
        raise MismatchError(
            f"not the same: {first}", where=f"certificate {path}", todo=_advice(first)
        )
    if certificate is not None and not certificate.ok:
        raise MismatchError(
            "the same as the certificate says, which is not equal everywhere",
            where=f"certificate {path}",
        )


def _advice(change: "Change") -> str:
    if "cannot be run here" in change.now:
        return "replay on a machine that has it, or certify anew here"
    if change.what.startswith("SHA-256"):
        return "give the file the certificate was made from, or certify anew"
    return "what was proved does not hold here: compare versions, and report it with the model"


def _request(
    recorded: "RecordedCertificate",
    path: Path,
    *,
    model: Path | None,
    data: str | None,
    checkpoint: Path | None,
) -> Request:
    """What to run again, from the certificate where the command line does not say."""
    inputs = recorded.inputs
    unknown = [key for key in inputs.options if key not in OPTIONS]
    if inputs.model is None or (inputs.data is None and data is None) or unknown:
        what = f"option {unknown[0]!r} is unknown" if unknown else "it names no model or no data"
        raise InputError(
            f"not a certificate that can be replayed: {what}",
            where=f"file {path}, inputs",
            todo="Write it again with `bitfold verify MODEL --data SPEC -o FILE`.",
        )
    if inputs.checkpoint is None and checkpoint is not None:
        raise UsageError(
            "the certificate was made without a checkpoint",
            where="option --checkpoint",
            todo="Leave it out, or certify anew with it.",
        )
    found = checkpoint
    if found is None and inputs.checkpoint is not None:
        found = _located(inputs.checkpoint, path, kind="checkpoint")
    return Request(
        model or _located(inputs.model, path, kind="model"),
        data or _located_data(str(inputs.data), path),
        found,
        DEFAULT_LIMIT if inputs.limit is None else inputs.limit,
        inputs.options,
    )


def _places(name: str, certificate: Path) -> Iterator[Path]:
    """Where a recorded path may lie now: as it says, from the certificate's folder, beside it."""
    yield Path(name)
    yield certificate.parent / name
    yield certificate.parent / Path(name).name


def _located(record: "FileRecord", certificate: Path, *, kind: str) -> Path:
    for place in _places(record.path, certificate):
        if place.is_file():
            return place
    option = "MODEL" if kind == "model" else "--checkpoint"
    raise InputError(
        f"the {kind} of the certificate is not there",
        where=f"file {record.path}",
        todo=f"Say where it is now: {option} PATH.",
    )


def _located_data(spec: str, certificate: Path) -> str:
    """``spec`` with its path, if it has one, where that lies now; checked when it is read."""
    kind, colon, rest = spec.partition(":")
    prefix, name = (f"{kind}:", rest) if colon and kind in ("folder", "fashion-mnist") else ("", "")
    if spec.endswith((".npz", ".npy")) and not prefix:
        name = spec
    found = next((str(p) for p in _places(name, certificate) if name and p.exists()), None)
    return spec if found is None else prefix + found


def _again(
    shell: Shell, recorded: "RecordedCertificate", request: Request
) -> tuple["Certificate | None", tuple["Change", ...]]:
    """The new certificate and all changes; none is made where an input changed."""
    from bitfold.certify import FileRecord, compare_certificates, compare_file, compare_inputs

    was = recorded.inputs
    for key, before, now in (
        ("model", was.model, request.model),
        ("checkpoint", was.checkpoint, request.checkpoint),
    ):
        if now is not None:
            require_file(now, kind=key)
        found = None if now is None else FileRecord.of(now)
        if changes := tuple(compare_file(key, before, found)):
            return None, changes
    loaded = load(request)
    if changes := compare_inputs(was, loaded.inputs()):
        return None, changes
    certificate = loaded.certificate(shell)
    return certificate, compare_certificates(recorded, certificate)


def _fields(
    path: Path, certificate: "Certificate | None", changes: Sequence["Change"]
) -> Mapping[str, object]:
    """The new certificate (nothing proved where an input changed), and how it compares."""
    first = next((asdict(change) for change in changes if change.decides), None)
    compared = {
        "certificate": str(path),
        "same": first is None,
        "first": first,
        "changes": [asdict(change) for change in changes],
    }
    empty: dict[str, object] = {
        "images": 0, "stages": [], "accumulators_proved": 0, "requant_pairs_checked": 0, "ok": False
    }  # fmt: skip
    made = empty if certificate is None else certificate.to_dict()
    return {key: value for key, value in made.items() if key != "schema"} | {"replay": compared}


def _render(
    path: Path, certificate: "Certificate | None", changes: Sequence["Change"]
) -> list["RenderableType"]:
    lines: list[RenderableType] = [] if certificate is None else render_certificate(certificate)
    notes = [change for change in changes if not change.decides]
    lines += [f"note: {note}" for note in notes[:SHOWN_NOTES]]
    if len(notes) > SHOWN_NOTES:
        lines.append(f"note: {len(notes) - SHOWN_NOTES} more, see --json")
    broken = [change for change in changes if change.decides]
    verdict = "the same" if not broken else f"NOT THE SAME in {len(broken)} places"
    return [*lines, f"{path}: {verdict}"]


def without_overrides(options: Mapping[str, str], *, limit: int | None) -> None:
    """UsageError where options are given that the certificate itself says."""
    given = [*options, *(["limit"] if limit is not None else [])]
    if given:
        raise UsageError(
            "the certificate says this itself",
            where=f"option --{given[0].replace('input_shape', 'input')}",
            todo="With --replay give only MODEL, --data and --checkpoint, where they have moved.",
        )
