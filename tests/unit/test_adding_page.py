"""docs/adding.md and SECURITY.md name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from webllm.workers.messages import KINDS, EngineMessages, Kind

ROOT = Path(__file__).parents[2]
ADDING = (ROOT / "docs" / "adding.md").read_text()
SECURITY = (ROOT / "SECURITY.md").read_text()
PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)+)`")
PACKAGE = ROOT / "src" / "webllm"
METHOD_KINDS = [kind for kind in KINDS.values() if kind.method in vars(EngineMessages)]


def _section(heading: str) -> list[str]:
    """Returns the paths that a section of docs/adding.md names."""
    return PATH.findall(ADDING.split(f"## {heading}\n")[1].split("\n## ")[0])


@pytest.mark.parametrize("path", sorted(set(PATH.findall(ADDING))))
def test_adding_names_files_that_exist(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", sorted(set(PATH.findall(SECURITY))))
def test_security_names_files_that_exist(path: str) -> None:
    """Paths without a top folder begin in the package."""
    assert (ROOT / path).is_file() or (PACKAGE / path).is_file()


@pytest.mark.parametrize(
    "heading", ["A model", "An op", "A storage type", "A message kind", "A host"]
)
def test_every_addition_has_a_section(heading: str) -> None:
    assert len(_section(heading)) >= 5


@pytest.mark.parametrize("kind", METHOD_KINDS, ids=lambda kind: kind.name)
def test_a_message_kind_is_spelled_in_the_files_that_the_page_names(kind: Kind[object]) -> None:
    """`EngineMessages` has the kinds that are one call of the engine's method."""
    assert kind.method is not None
    files = {"interface.py", "engine.py", "blocking.py", "messages.py", "messages.ts"}
    named = [path for path in _section("A message kind") if Path(path).name in files]
    assert len(named) == len(files)
    for path in named:
        word = kind.name if path.endswith(".ts") else kind.method
        assert re.search(rf"\b{word}\b", (ROOT / path).read_text()), path
