"""Times that were measured before: in this process, and in the user's cache folder.

A file is believed in nothing but times, and only where it was written by this bitfold, with this
kernel library, on this CPU. Whatever else is found there is passed over.
"""

import json
import os
import stat
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from threading import Lock

from bitfold.errors import OutputError

CACHE_VARIABLE = "BITFOLD_CACHE_DIR"
SCHEMA = "bitfold/tuning/1"
MAX_BYTES = 1 << 22
MAX_LAYERS = 4096
MAX_ROWS = 64
MAX_NS = 10**12

Times = dict[str, int]  # nanoseconds by symbol


def cache_folder() -> Path | None:
    """BITFOLD_CACHE_DIR, else ``bitfold`` in the user's cache folder; None where there is none."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    home = os.environ.get("HOME", "")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        base = f"{home}/Library/Caches" if home else ""
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not Path(base).is_absolute():  # as the XDG specification asks
            base = f"{home}/.cache" if home else ""
    return Path(base) / "bitfold" if base and Path(base).is_absolute() else None


def times_path(folder: Path, identity: Mapping[str, str]) -> Path:
    """The file in ``folder`` with the times of the machine and library that ``identity`` names."""
    text = json.dumps(dict(identity), sort_keys=True)
    return folder / f"kernels-{sha256(text.encode()).hexdigest()[:16]}.json"


class Memory:
    """Times by layer for one machine and library; ``identity`` says which. Safe for threads."""

    def __init__(self, folder: Path | None, identity: Mapping[str, str]) -> None:
        """Read what the file in ``folder`` knows; without a folder nothing outlives the process."""
        self._identity = dict(identity)
        self.path = times_path(folder, identity) if folder else None
        self._known = self._read()
        self._new: dict[str, Times] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        """Layers whose times are known."""
        return len(self._known)

    def recall(self, layer: str) -> Times | None:
        """Times of ``layer``, if known."""
        return self._known.get(layer)

    def learn(self, layer: str, times: Times) -> None:
        """Times of ``layer``, from now on."""
        with self._lock:
            self._known[layer] = self._new[layer] = times

    def save(self) -> None:
        """Write what was learned into the file, if there can be one; never raises."""
        with self._lock:
            new, self._new = self._new, {}
        if not new or self.path is None:
            return
        layers = (self._read() | new).items()  # another process may have written meanwhile
        document = {"schema": SCHEMA, **self._identity, "layers": dict([*layers][-MAX_LAYERS:])}
        from logging import getLogger

        from bitfold.files import write_atomically  # loads more than all else that a start needs

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(document, indent=0).encode())
        except (OSError, ValueError, OutputError) as error:
            getLogger(__name__).info("times of kernels are not remembered: %s", error)

    def _read(self) -> dict[str, Times]:
        """What the file holds, as far as it can be believed."""
        try:
            document = json.loads(_content(self.path)) if self.path else None
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(document, dict):
            return {}
        layers = document.get("layers")
        header = {"schema": SCHEMA, **self._identity}
        if any(document.get(key) != value for key, value in header.items()):
            return {}
        if not isinstance(layers, dict) or len(layers) > MAX_LAYERS:
            return {}
        return {layer: times for layer, times in layers.items() if _believable(times)}


def _content(path: Path) -> bytes:
    """Bytes of a regular file of bounded size; raises OSError or ValueError on anything else."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe must not block
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("not a regular file")
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError("too large")
    return data


def _believable(times: object) -> bool:
    return (
        isinstance(times, dict)
        and 0 < len(times) <= MAX_ROWS
        and all(type(ns) is int and 0 < ns < MAX_NS for ns in times.values())
    )
