"""Options and fixtures that every test may use."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# `--hypothesis-profile long` overrides the default: the same examples on every run.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, database=None, max_examples=40, **COMMON)
settings.register_profile("long", max_examples=2000, **COMMON)
settings.load_profile("ci")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden``."""
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden; review the diff"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Weights that a test or its fixtures draw do not depend on the tests before it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def kernel_times(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is known of the speed of kernels stays out of the user's cache folder."""
    folder = tmp_path_factory.mktemp("kernel_times")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITFOLD_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``check_golden(file, text)``: ``text`` equals tests/golden/``file``, or rewrites it."""
    update = request.config.getoption("--update-golden")

    def check(file: str, text: str) -> None:
        path = GOLDEN / file
        if update:
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing: run pytest --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return check
