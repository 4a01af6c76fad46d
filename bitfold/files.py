"""Writing files whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path

from bitfold.errors import OutputError


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write ``data`` beside ``path`` and rename it into place.

    Raises OutputError where ``path`` is a folder or a device, and on any failure (disk full, no
    permission, no such folder); an existing file keeps its content and no temporary file stays.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise OutputError(
            "not a regular file",
            where=f"file {target}",
            todo="Name a file: a folder or a device is never replaced.",
        )
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}.", suffix=".part"
        )
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101  # mkstemp makes it private
        Path(temporary).replace(target)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot write {len(data)} bytes: {error}",
            where=f"file {target}",
            todo="Check that the folder exists, is writable and has room.",
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _umask() -> int:
    """The process's file mode mask; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
