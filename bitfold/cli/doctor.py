"""``bitfold doctor``: what is installed, what this CPU can do, and a self-test."""

import importlib.metadata
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bitfold.cli.shell import Shell, Verb
from bitfold.errors import BitfoldError, MismatchError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bitfold.cli.selftest import SelfTest

PACKAGES = (
    "bitfold", "numpy", "cffi", "numba", "torch", "onnx", "onnx-ir", "onnxruntime", "typer", "rich",
    "matplotlib",
)  # fmt: skip
COMPILERS = ("cc", "gcc", "clang", "cmake", "ninja")
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def doctor(shell: Shell) -> None:
    """Say what is installed; run a self-test.

    The self-test runs a tiny graph on every kernel this CPU has; exit code 1 if one is wrong.
    """
    from bitfold.benchmark import cpu_name
    from bitfold.cli.selftest import run_self_test
    from bitfold.kernels import host_features, kernel_rows

    results = run_self_test(shell.seed)
    ok = bool(results) and all(result.ok for result in results)
    fields: dict[str, object] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": installed(),
        "cpu": cpu_name(),
        "cpu_features": sorted(host_features()),
        "compilers": {name: shutil.which(name) for name in COMPILERS},
        "c_kernels": sum(row.backend == "c" for row in kernel_rows()),
        "data": {"embedded": embedded_found(), "fashion-mnist": FASHION_MNIST.is_dir()},
        "self_test": [
            {
                "backend": result.backend,
                "force": result.force,
                "values": result.values,
                "mismatches": result.mismatches,
            }
            for result in results
        ],
        "ok": ok,
    }
    shell.emit(fields, lambda: _render(fields, results))
    if not ok:
        raise _failure(results)


def installed() -> dict[str, str | None]:
    """Version of every package of interest, None where it is absent; nothing is imported."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def embedded_found() -> bool:
    """Whether the images that come with the package can be read."""
    from bitfold.models import load_images

    try:
        return len(load_images("embedded").images) > 0
    except BitfoldError:
        return False


def _failure(results: tuple["SelfTest", ...]) -> MismatchError:
    broken = [f"{r.backend}:{r.force}" for r in results if not r.ok]
    return MismatchError(
        "the self-test failed on " + (", ".join(broken) or "this machine: no kernel can run"),
        where="self-test",
        todo="report it with the output of bitfold doctor --json",
    )


def _render(fields: dict[str, object], results: tuple["SelfTest", ...]) -> list["RenderableType"]:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for key in ("python", "platform", "cpu"):
        table.add_row(key, str(fields[key]))
    features = fields["cpu_features"]
    table.add_row("cpu features", " ".join(features) if isinstance(features, list) else "")
    for group in ("packages", "compilers"):
        entries = fields[group]
        for name, found in entries.items() if isinstance(entries, dict) else ():
            table.add_row(name, str(found or "not found"))
    table.add_row("C kernels", str(fields["c_kernels"] or "none found: the numba kernels answer"))
    data = fields["data"]
    for name, found in data.items() if isinstance(data, dict) else ():
        table.add_row(f"data {name}", "found" if found else "not found")
    for result in results:
        verdict = "equal" if result.ok else f"{result.mismatches} of {result.values} DIFFER"
        table.add_row(f"self-test {result.backend} {result.force}", verdict)
    return [table]


VERB = Verb("doctor", doctor, ("bitfold doctor", "bitfold doctor --json"))
