"""For which machine, kernel library and bitfold something was timed or packed."""

from functools import cache
from hashlib import sha256
from pathlib import Path

from bitfold import __version__
from bitfold.kernels.c_library import Library
from bitfold.kernels.features import cpu_model


def machine_identity(library: Library) -> dict[str, str]:
    """CPU, digest of the kernel library's file, version of bitfold."""
    return {
        "cpu": f"{cpu_model()}; {' '.join(sorted(library.features))}",
        "library": _digest(library.path),
        "bitfold": __version__,
    }


@cache
def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
