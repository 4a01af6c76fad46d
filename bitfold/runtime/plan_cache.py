"""Packed plans kept between processes: a second start neither reads the ONNX file nor packs.

A plan is believed only from a file that this user wrote (``plan_file``), for this very model, CPU,
kernel library and code, and after every size and place in it was checked again. Whatever else is
found is passed over, as if there were nothing. ADR 0019 says why plans are kept, and not graphs.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from bitfold.errors import BitfoldError
from bitfold.kernels.c_library import Library, find_library, load_library
from bitfold.kernels.c_program import CProgram, bind_program
from bitfold.kernels.packed_step import PackedProgram
from bitfold.kernels.program import Program
from bitfold.kernels.stored_program import (
    Array,
    buffer_document,
    named,
    program_document,
    read_buffer,
    read_program,
    text,
    whole,
)
from bitfold.kernels.tuning.cache import cache_folder, times_path
from bitfold.kernels.tuning.identity import machine_identity
from bitfold.runtime.outline import Outline, OutlinedStep, OutlinedTensor
from bitfold.runtime.plan_file import file_bytes, read_file

SCHEMA = "bitfold/plan/1"
MOST_KEPT_BYTES = 1 << 28
# Whose code decides what a plan holds.
CODE = (
    "ir",
    "kernels",
    "kernels/layouts",
    "kernels/tuning",
    "runtime",
    "export",
    "export/onnx",
    "export/foreign",
)
TIMED, REMEMBERED, NOT_TIMED = "timed: ", "remembered: ", "not timed"


class Stored(NamedTuple):
    """A program, and what its steps and tensors are called."""

    outline: Outline
    program: CProgram


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Where the plan of a model is kept, and what must be written there for it to be that."""

    path: Path
    identity: Mapping[str, str]
    times: Path
    kernels: Library


def plan_key(model: str) -> PlanKey | None:
    """The key of the model with digest ``model``; None without a cache folder or C kernels."""
    folder = cache_folder()
    try:
        found = find_library()
        if folder is None or found is None:
            return None
        library = load_library(found)
        machine = machine_identity(library)
        identity = {"schema": SCHEMA, "model": model, "code": _code_stamp(), **machine}
    except (OSError, BitfoldError):  # packing anew says what is wrong
        return None
    name = sha256(repr(sorted(identity.items())).encode()).hexdigest()[:16]
    return PlanKey(folder / f"plan-{name}.bin", identity, times_path(folder, machine), library)


def _code_stamp() -> str:
    """Changes when a file does that plans depend on: names, sizes and times of all of them."""
    root = Path(__file__).parents[1]
    entries = sorted(
        (entry.path, entry.stat().st_size, entry.stat().st_mtime_ns)
        for folder in CODE
        for entry in os.scandir(root / folder)
        if entry.name.endswith(".py")
    )
    return sha256(repr(entries).encode()).hexdigest()


def recall(key: PlanKey, *, threads: int) -> Stored | None:
    """The plan kept under ``key``, bound for ``threads``; None where there is none to believe."""
    try:
        document, arrays = read_file(key.path)
        if document["identity"] != dict(key.identity):
            return None
        packed = read_program(document["program"], arrays, key.kernels)
        outline = _read_outline(document["outline"], packed)
        if any(why.startswith(REMEMBERED) for why in packed.reasons) and not key.times.is_file():
            return None  # the times were deleted to choose anew
        return Stored(outline, bind_program(key.kernels, packed, threads=threads))
    except (
        OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError,
        BitfoldError,
    ):  # fmt: skip
        return None


def keep(key: PlanKey, outline: Outline, program: Program) -> None:
    """Write a plan under ``key``; never raises. Only C programs are kept, of rows well chosen."""
    if not isinstance(program, CProgram) or any(map(_is_untimed, program.reasons)):
        return
    arrays: list[Array] = []
    document = {
        "identity": dict(key.identity),
        "outline": _outline_document(outline),
        "program": program_document(program.packed, arrays),
    }
    for step in document["program"]["steps"]:
        step["why"] = step["why"].replace(TIMED, REMEMBERED)
    from bitfold.files import write_atomically

    try:
        key.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(key.path, file_bytes(document, arrays))
        key.path.chmod(0o600)
        _make_room(key.path)
    except (OSError, ValueError, BitfoldError) as error:
        from logging import getLogger

        getLogger(__name__).info("the plan is not kept: %s", error)


def _is_untimed(why: str) -> bool:
    return why.endswith(NOT_TIMED)


def _make_room(newest: Path) -> None:
    """Delete the oldest plans beside ``newest`` until they take no more than 256 MiB."""
    plans = sorted(newest.parent.glob("plan-*.bin"), key=lambda p: -p.stat().st_mtime_ns)
    kept = 0
    for path in plans:
        kept += path.stat().st_size
        if kept > MOST_KEPT_BYTES and path != newest:
            path.unlink(missing_ok=True)


def _outline_document(outline: Outline) -> dict[str, Any]:
    return {
        "image": outline.image,
        "steps": [[step.name, step.op, step.macs] for step in outline.steps],
        "tensors": {
            name: [buffer_document(tensor.buffer), tensor.ready, tensor.codes]
            for name, tensor in outline.tensors.items()
        },
    }


def _read_outline(document: Mapping[str, Any], packed: PackedProgram) -> Outline:
    steps = tuple(
        OutlinedStep(text(name), text(op), whole(macs)) for name, op, macs in document["steps"]
    )
    tensors = {
        name: OutlinedTensor(
            read_buffer(buffer, arena_bytes=packed.arena_bytes),
            whole(ready, least=-1),
            None if codes is None else _code_pair(*codes),
        )
        for name, (buffer, ready, codes) in named(document["tensors"]).items()
    }
    outline = Outline(steps, tensors, text(document["image"]))
    if len(steps) != len(packed.steps) or outline.input != packed.input:
        raise ValueError("the outline is that of another program")
    return outline


def _code_pair(lo: object, step: object) -> tuple[int, int]:
    return whole(lo, least=-(1 << 31)), whole(step, least=1)
