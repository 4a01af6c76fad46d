"""Every example runs as it stands."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.ort]

ROOT = Path(__file__).parents[2]
EXPECTED = {
    "quickstart.py": ["equal when read back: True", "classified  500 images", "all equal: True"],
    "estimate_fpga.py": ["zu3eg", "16x16"],
}


def test_every_example_has_an_expectation():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_runs_and_prints_what_it_promises(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for text in EXPECTED[name]:
        assert text in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
