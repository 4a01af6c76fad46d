"""CPU features of this machine, as the kernel table names them, and the CPU's name."""

import platform
from functools import cache
from pathlib import Path

from bitfold.kernels.c_library import find_library, load_library

_CPU_INFO = Path("/proc/cpuinfo")
# Lines that say which CPU it is: x86 has a name, ARM has numbers.
_MODEL_LINES = ("model name", "CPU implementer", "CPU variant", "CPU part")


def host_features() -> frozenset[str]:
    """Feature names: asked from the C library by cpuid, from the system without that library."""
    path = find_library()
    if path is not None:
        return load_library(path).features
    return parse_cpu_info(_CPU_INFO.read_text()) if _CPU_INFO.exists() else frozenset()


def parse_cpu_info(text: str) -> frozenset[str]:
    """The ``flags`` line of a /proc/cpuinfo text; ``avx512_vnni`` becomes ``avx512vnni``."""
    for line in text.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return frozenset(flag.replace("_", "") for flag in flags.split())
    return frozenset()


@cache
def cpu_model() -> str:
    """What the system calls this CPU; the machine's architecture where it gives no name."""
    try:
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    return parse_cpu_model(lines) or platform.machine()


def parse_cpu_model(lines: list[str]) -> str:
    """The model lines of a /proc/cpuinfo, each once; empty where there is none."""
    pairs = (line.partition(":") for line in lines)
    found = (value.strip() for name, _, value in pairs if name.strip() in _MODEL_LINES)
    return ", ".join(dict.fromkeys(found))
