"""The results of a sweep as they come in: lines are only ever appended, so a kill costs the last.

The first line says which sweep it is; every further line is one point. What follows the first line
that is not whole is dropped and measured again.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitfold.errors import InputError, OutputError, UsageError

FORMAT = "bitfold/explore-results/2"
RESULTS_TODO = "Repeat the interrupted command as it was, or delete this file to start afresh."
Row = dict[str, Any]


@dataclass(slots=True)
class ResultFile:
    """``rows[model, number]``: what is known of each point; ``dropped`` bytes were not whole."""

    path: Path
    rows: dict[tuple[int, int], Row] = field(default_factory=dict)
    dropped: int = 0

    def append(self, rows: Sequence[Row]) -> None:
        """Add points and see them on the disk; raises OutputError."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        _write(self.path, text, mode="ab")
        self.rows.update({_key(row): row for row in rows})


def _key(row: Row) -> tuple[int, int]:
    return int(row["model"]), int(row["number"])


def _write(path: Path, text: str, *, mode: str) -> None:
    try:
        with path.open(mode) as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OutputError(
            f"cannot write results: {error}",
            where=f"file {path}",
            todo="Check that the folder exists, is writable and has room.",
        ) from error


def open_results(path: Path, identity: Mapping[str, object]) -> ResultFile:
    """The results in ``path`` if there is such a file, else an empty one with its first line.

    Raises InputError where the file is not one of results, UsageError for those of another sweep.
    """
    first = {"format": FORMAT, **json.loads(json.dumps(identity))}
    if not path.exists():
        _write(path, json.dumps(first) + "\n", mode="wb")
        return ResultFile(path)
    data = path.read_bytes()
    lines = data.split(b"\n")
    head = _parsed(lines[0])
    if len(lines) == 1 and (head is None or not data):
        # Killed while the first line was written: nothing is lost.
        _write(path, json.dumps(first) + "\n", mode="wb")
        return ResultFile(path, dropped=len(data))
    if head is None or head.get("format") != FORMAT:
        raise InputError(
            f"not the results of a sweep in the form {FORMAT}",
            where=f"file {path}",
            todo=RESULTS_TODO,
        )
    if head != first:
        differing = sorted(key for key in first if head.get(key) != first[key])
        raise UsageError(
            f"another sweep's results lie here: {', '.join(differing)} differ",
            where=f"file {path}",
            todo=RESULTS_TODO,
        )
    return _read_rows(path, data, lines)


def _read_rows(path: Path, data: bytes, lines: list[bytes]) -> ResultFile:
    rows: dict[tuple[int, int], Row] = {}
    whole = len(lines[0]) + 1
    for line in lines[1:-1]:
        row = _parsed(line)
        if row is None or not {"model", "number"} <= set(row):
            break
        rows[_key(row)] = row
        whole += len(line) + 1
    if whole != len(data):
        try:
            os.truncate(path, whole)
        except OSError as error:
            raise OutputError(f"cannot repair: {error}", where=f"file {path}") from error
    return ResultFile(path, rows, dropped=len(data) - whole)


def _parsed(line: bytes) -> Row | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
