"""The rules of CONTRIBUTING.md that no other tool checks."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bitfold"
CSRC = PACKAGE / "kernels" / "csrc"
LARGEST_FILE = 500  # lines
LARGEST_ADR = 60  # lines
LARGEST_CONTRIBUTING = 110  # lines: two printed pages
LARGEST_FUNCTION = 40  # lines, without its docstring
SOURCE_SUFFIXES = {".py", ".c", ".h", ".inc"}
TEXT_SUFFIXES = SOURCE_SUFFIXES | {".md", ".toml", ".txt", ".yaml", ".json", ""}
BANNED_WORDS = {"util", "utils", "helper", "helpers", "misc", "manager"}
BANNED_ENDINGS = ("_old", "_new", "_v2")
PACKAGES = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))


def listed_files() -> list[Path]:
    """Files that git tracks or would track."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / line for line in listing.stdout.splitlines()]
    return [path for path in paths if path.is_file()]


FILES = listed_files()
SOURCES = [path for path in FILES if path.suffix in SOURCE_SUFFIXES]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def words_of(name: str) -> set[str]:
    """``ArenaManager`` → arena, manager."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+(?![a-z])|\d+", name)}


def defined_names(tree: ast.Module) -> Iterator[str]:
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return (node.name for node in ast.walk(tree) if isinstance(node, definitions))


def test_no_source_file_is_longer_than_500_lines():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {p.name: n for p, n in lengths.items() if n > LARGEST_FILE}


def test_no_function_is_longer_than_40_lines():
    too_long = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                documented = ast.get_docstring(node, clean=False) is not None
                body = node.body[1:] if documented and len(node.body) > 1 else node.body
                length = (node.end_lineno or node.lineno) - body[0].lineno + 1
                if length > LARGEST_FUNCTION:
                    too_long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = length
    assert not too_long


def test_every_folder_with_code_is_a_package():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert folders == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_package_lists_its_public_names_once_each(package):
    lists = [
        node.value
        for node in tree_of(package / "__init__.py").body
        if isinstance(node, ast.Assign)
        and [getattr(target, "id", None) for target in node.targets] == ["__all__"]
    ]
    assert len(lists) == 1
    names = ast.literal_eval(lists[0])
    assert names
    assert len(set(names)) == len(names)
    assert not [n for n in names if n.startswith("_") and not n.startswith("__")]


def is_catch_all(name: str) -> bool:
    return bool(words_of(name) & BANNED_WORDS) or name.endswith(BANNED_ENDINGS)


def test_no_name_is_a_catch_all():
    guilty = named([path for path in SOURCES if is_catch_all(path.stem)])
    guilty += [
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        if path.suffix == ".py"
        for name in defined_names(tree_of(path))
        if is_catch_all(name)
    ]
    assert not guilty


@pytest.mark.parametrize("name", ["ArenaManager", "string_utils", "fold_v2", "run_old"])
def test_a_catch_all_is_recognized(name):
    assert is_catch_all(name)


@pytest.mark.parametrize("folder", ["ir", "kernels", "runtime"])
def test_integer_packages_hold_no_float_literal(folder):
    literals = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for path in (PACKAGE / folder).rglob("*.py")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, float)
    ]
    assert not literals


def test_a_pass_has_a_file_of_its_own_name():
    for path in (PACKAGE / "export" / "passes").glob("*.py"):
        if path.name == "__init__.py":
            continue
        public = [
            node.name
            for node in tree_of(path).body
            if isinstance(node, ast.FunctionDef) and node.args.args[:1]
            and ast.unparse(node.args.args[0].annotation or ast.Constant(None)) == "QGraph"
            and not node.name.startswith("_")
        ]  # fmt: skip
        assert public == [path.stem]


def test_every_kernel_of_the_manifest_is_defined_in_one_file_of_its_own():
    manifest = (CSRC / "kernels.inc").read_text(encoding="utf-8")
    rows = re.findall(r"KERNEL\((\w+), (\w+), (\w+), \"[^\"]*\", (\w+)\)", manifest)
    assert len(rows) == manifest.count("KERNEL(") - manifest.count("/* The manifest: KERNEL(")
    for op, layout, isa, symbol in rows:
        assert symbol == f"bf_{op}_{layout}__{isa}"
    symbols = {symbol for _, _, _, symbol in rows}
    assert len(symbols) == len(rows)
    machinery = {"host.c", "peak.c", "pool.c", "run.c", "table.c"}
    defined = []
    for path in CSRC.glob("*.c"):
        found = set(re.findall(r"\bbf_\w+__\w+\b", path.read_text(encoding="utf-8"))) & symbols
        assert len(found) == (0 if path.name in machinery else 1), path.name
        defined += found
    assert sorted(defined) == sorted(symbols)


def test_git_holds_no_built_file():
    tests = ROOT / "tests"
    handwritten = (CSRC, PACKAGE / "fpga_sim", tests / "golden", tests / "replay")
    generated = [
        path
        for path in FILES
        if path.suffix in {".so", ".o", ".pyc", ".whl"}
        or (path.suffix == ".c" and not any(path.is_relative_to(home) for home in handwritten))
    ]
    assert not named(generated)


def adrs() -> list[Path]:
    return sorted((ROOT / "docs" / "adr").glob("*.md"))


def test_decision_records_are_numbered_without_a_gap():
    assert [path.name[:4] for path in adrs()] == [f"{i + 1:04}" for i in range(len(adrs()))]
    assert len(adrs()) >= 9


def test_the_index_lists_every_decision() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert [path.name for path in adrs() if f"(adr/{path.name})" not in index] == []


@pytest.mark.parametrize("path", adrs(), ids=lambda p: p.stem)
def test_a_decision_record_has_the_one_form(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(rf"# ADR {path.name[:4]}: \S.*", lines[0])
    assert lines[1] == ""
    assert re.fullmatch(r"Status: (accepted|superseded by ADR \d{4})", lines[2])
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == ["## Context", "## Decision", "## Consequences"]
    assert len(lines) <= LARGEST_ADR


def test_contributing_fits_two_pages():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LARGEST_CONTRIBUTING


def test_links_between_documents_lead_somewhere():
    dead = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in FILES
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert not dead


def test_the_project_speaks_of_itself_alone():
    places = re.compile(r"(?<![\w.])/(?:work|root|home)/|[.]pyenv|[.]library\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in FILES
        if path.suffix in TEXT_SUFFIXES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if places.search(line)
    ]
    assert not found


def test_nothing_is_left_for_later():
    marks = re.compile(r"\b(?:TO" "DO|FIX" r"ME)\b")
    found = [path for path in FILES if path.suffix in TEXT_SUFFIXES]
    found = [path for path in found if marks.search(path.read_text(encoding="utf-8"))]
    assert not named(found)


def test_ruff_asks_for_docstrings_and_annotations_everywhere_but_in_tests():
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    exempt = lint["lint"]["per-file-ignores"]
    assert {"D", "ANN", "C901", "FBT"} <= set(lint["lint"]["select"])
    assert [glob for glob, rules in exempt.items() if {"D", "ANN"} & set(rules)] == ["tests/**"]


def test_every_development_tool_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = project["optional-dependencies"]["dev"]
    assert [pin for pin in pins if "==" not in pin] == []


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    face = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{version}"' in face
    assert f"## [{version}]" in changelog
    assert "## [Unreleased]" in changelog


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("bitfold.fpga_sim", ["torch", "onnx", "onnx_ir", "onnxruntime"]),
        ("bitfold.cli", ["torch", "onnx", "onnx_ir", "onnxruntime", "numba"]),
    ],
)
def test_an_import_loads_no_heavy_stranger(module, strangers):
    program = (
        f"import sys, {module}\nprint([name for name in {strangers!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
