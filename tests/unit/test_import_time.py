import subprocess
import sys

import pytest

import bitfold

PROBE = """
import sys
{statement}
print(*sorted({{'torch', 'onnx', 'onnx_ir', 'numba', 'cffi'}} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import bitfold",
        "import bitfold.runtime",
        "from bitfold import Session",
        "import bitfold.ir",
    ],
)
def test_import_loads_no_heavy_package(statement):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == []


def test_importing_bitfold_alone_loads_no_subpackage():
    probe = "import bitfold, sys; print(*(m for m in sys.modules if m.startswith('bitfold.')))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_lazy_names_are_listed_and_unknown_ones_refused():
    assert {"Session", "load", "export", "ir", "fpga_sim"} <= set(dir(bitfold))
    with pytest.raises(AttributeError, match="no attribute 'sesion'"):
        _ = bitfold.sesion


def test_lazy_session_is_the_runtime_s():
    from bitfold.runtime import Session

    assert bitfold.Session is Session
