"""Holds the package to the tables of docs/layout.md."""

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "webllm"
LAYOUT = (ROOT / "docs" / "layout.md").read_text()


def _name(file: Path) -> str:
    """Returns "engine.engine" for engine/engine.py, "engine" for its __init__.py, or "webllm"."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "webllm"


MODULES = {_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def _table(heading: str) -> list[list[str]]:
    """Returns the rows of the table under a heading of docs/layout.md, without backquotes."""
    section = LAYOUT.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows]


ALLOWED = {
    folder: set() if allowed == "nothing" else set(re.split(r",\s*", allowed))
    for folder, _, allowed in _table("Folders")
}


def _folder(module: str) -> str:
    """Returns the table's row for a module: that of the innermost folder with a row."""
    path = MODULES[module].relative_to(PACKAGE)
    rows = [f"{folder.as_posix()}/" for folder in path.parents[:-1]]
    return next((row for row in rows if row in ALLOWED), rows[-1] if rows else path.name)


PLACES = {package: re.split(r",\s*", places) for package, places in _table("Packages")}


def _imports(file: Path) -> Iterator[str]:
    """Returns every module or name imported anywhere in a file, dotted."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _internal(file: Path) -> set[str]:
    """Returns this package's modules that a file imports: `from webllm.a import b` is a.b or a."""
    found = set()
    for name in _imports(file):
        if name.split(".")[0] == "webllm":
            inner = name.partition(".")[2]
            while inner and inner not in MODULES:
                inner = inner.rpartition(".")[0]
            found.add(inner or "webllm")
    return found


def test_the_table_names_every_folder_and_no_other() -> None:
    assert set(ALLOWED) == {_folder(module) for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_the_way_the_table_says(module: str) -> None:
    here = _folder(module)
    for imported in _internal(MODULES[module]):
        ok = _folder(imported) == here or any(
            imported == allowed or imported.startswith(f"{allowed}.") for allowed in ALLOWED[here]
        )
        assert ok, f"{module} imports {imported}; {here} may import {ALLOWED[here] or 'nothing'}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: _internal(file) - {module} for module, file in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES)
def test_packages_are_imported_in_their_places_only(module: str) -> None:
    file = MODULES[module]
    path = file.relative_to(PACKAGE).as_posix()
    for package in {name.split(".")[0] for name in _imports(file)}:
        if package in sys.stdlib_module_names or package in ("webllm", "msgspec"):
            continue
        assert package in PLACES, f"{module} imports {package}, which has no row in docs/layout.md"
        ok = any(fnmatch(path, f"{place}*") for place in PLACES[package])
        assert ok, f"{module} imports {package}, whose place is {PLACES[package]}"


@pytest.mark.parametrize("module", MODULES)
def test_one_module_asks_which_host_it_runs_on(module: str) -> None:
    assert ("emscripten" in MODULES[module].read_text()) is (module == "host")


@pytest.mark.parametrize("module", [name for name in MODULES if ".browser" in name])
def test_in_a_browser_files_are_read_as_resources(module: str) -> None:
    """In a browser the package is in an archive: `__file__` names no file."""
    nodes = ast.walk(ast.parse(MODULES[module].read_text()))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    assert "__file__" not in names, f"{module} uses __file__; use importlib.resources.files"
