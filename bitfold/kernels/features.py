"""CPU features of this machine, as the kernel table names them."""

from pathlib import Path

from bitfold.kernels.c_library import find_library, load_library

_CPU_INFO = Path("/proc/cpuinfo")


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
