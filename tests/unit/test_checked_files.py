"""mypy passes silently on files that it does not see: count them."""

from pathlib import Path

from mypy.main import process_options

ROOT = Path(__file__).parents[2]


def test_mypy_checks_every_file_of_the_package(monkeypatch):
    monkeypatch.chdir(ROOT)
    sources, _ = process_options(["--config-file", "pyproject.toml"])
    checked = {
        Path(source.path).resolve() for source in sources if (source.path or "").endswith(".py")
    }
    present = {path.resolve() for path in (ROOT / "bitfold").rglob("*.py")}
    assert checked == present
    assert len(present) > 20
