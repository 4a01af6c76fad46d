"""bitfold: fold quantized networks to integers, pack them to bits, run and prove them.

Names are loaded when they are first used: ``import bitfold`` itself loads numpy at most.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold import export, fpga_sim, ir, kernels, models, runtime
    from bitfold.certify import certify
    from bitfold.export import read_onnx as load
    from bitfold.runtime import Session

__version__ = "0.1.0"

_LAZY: dict[str, tuple[str, str | None]] = {
    "Session": ("bitfold.runtime", "Session"),
    "load": ("bitfold.export", "read_onnx"),
    "certify": ("bitfold.certify", None),
    "export": ("bitfold.export", None),
    "fpga_sim": ("bitfold.fpga_sim", None),
    "ir": ("bitfold.ir", None),
    "kernels": ("bitfold.kernels", None),
    "models": ("bitfold.models", None),
    "runtime": ("bitfold.runtime", None),
}

__all__ = [
    "Session",
    "__version__",
    "certify",
    "export",
    "fpga_sim",
    "ir",
    "kernels",
    "load",
    "models",
    "runtime",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'bitfold' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return sorted(__all__)
