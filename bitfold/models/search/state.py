"""The state of an unfinished search: every fitness counted so far, written whole or not at all.

A search is a function of its request and of the counted hits; going on means running it again with
the known hits looked up instead of counted.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitfold.errors import InputError, UsageError
from bitfold.files import write_atomically
from bitfold.models.search.genome import Genome
from bitfold.models.search.pareto import LatencyTable

STATE_FORMAT = "bitfold/search-state/1"
STATE_TODO = "Repeat the interrupted command as it was, or delete this file to start afresh."


@dataclass(slots=True)
class SearchState:
    """``hits[fold, genome]``: images of the fold that the genome classifies right."""

    path: Path
    identity: Mapping[str, object]
    latency: LatencyTable | None = None
    hits: dict[tuple[int, Genome], int] = field(default_factory=dict)

    def save(self) -> None:
        """Write beside and rename; raises OutputError and leaves an older file as it was."""
        by_fold: dict[str, dict[str, int]] = {}
        for (fold, genome), count in self.hits.items():
            by_fold.setdefault(str(fold), {})[genome.key] = count
        content = {
            "format": STATE_FORMAT,
            "identity": self.identity,
            "latency": None if self.latency is None else self.latency.to_dict(),
            "hits": by_fold,
        }
        write_atomically(self.path, json.dumps(content, allow_nan=False).encode())


def open_state(path: Path, identity: Mapping[str, object]) -> SearchState:
    """The state in ``path`` if there is such a file, else a fresh one.

    Raises InputError for a damaged file and UsageError for the state of another search.
    """
    plain: dict[str, object] = json.loads(json.dumps(identity, allow_nan=False))
    if not path.exists():
        return SearchState(path, plain)
    content = _content(path)
    stored = content["identity"]
    if stored != plain:
        known = stored if isinstance(stored, dict) else {}
        differing = sorted(name for name in plain if known.get(name) != plain[name])
        raise UsageError(
            f"an interrupted search lies here, with other settings: {', '.join(differing)}",
            where=f"file {path}",
            todo=STATE_TODO,
        )
    try:
        hits = {
            (int(fold), Genome.from_key(key)): int(count)
            for fold, counts in content["hits"].items()
            for key, count in counts.items()
        }
        table = content["latency"]
        latency = None if table is None else LatencyTable.from_dict(table)
    except (AttributeError, TypeError, ValueError, InputError) as error:
        raise _damaged(path, error) from error
    return SearchState(path, plain, latency, hits)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    known = isinstance(content, dict) and content.get("format") == STATE_FORMAT
    if not known or not {"identity", "latency", "hits"} <= content.keys():
        raise InputError("not the state of a search", where=f"file {path}", todo=STATE_TODO)
    return dict(content)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"the state of the search is damaged: {error}", where=f"file {path}", todo=STATE_TODO
    )
