"""Sources of the Chrome extension: what they use of Chrome's API is what its manifest asks for."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from remote_code import REMOTE_CODE
from webllm.cli.extension_manifest import PERMISSIONS, Kind

SOURCES = Path(__file__).parents[2] / "js" / "src"
FOLDERS = [*SOURCES.glob("extension*"), SOURCES / "page"]
# The permissions that each API needs. `tabs` and `windows` need none for what is no page's content;
# without activeTab, `scripting` may touch no page.
NEEDED = {
    "action": set(),
    "commands": set(),
    "i18n": set(),
    "offscreen": {"offscreen"},
    "runtime": set(),
    "scripting": {"activeTab", "scripting"},
    "storage": {"storage"},
    "tabs": set(),
    "windows": set(),
}
_ENTRIES = {
    Kind.POPUP: ("extension/popup.ts", "boot.ts", "tab.ts"),
    Kind.BACKGROUND: (
        *("extension/popup.ts", "boot.ts", "extension/background.ts", "extension/consent.ts"),
        *("extension/offscreen.ts", "offscreen_worker.ts"),
    ),
}
_IMPORT = re.compile(r"""(?:\bfrom|\bimport)\s*\(?\s*"(\.[^"]+)\"""")
# Comments, texts and regular expressions.
_COMMENT_OR_TEXT = re.compile(
    r"""(?<!:)//[^\n]* | /\*.*?\*/
    | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
    | (?<=[=(,:!&|?\s])/(?![/*\s])(?:\\.|\[(?:\\.|[^]\\\n])+\]|[^[/\\\n])+/(?=[a-z]*[\s.;,)])""",
    re.DOTALL | re.VERBOSE,
)
_CHROME = r"(?<![\w.$-])(?:globalThis\s*\??\.\s*)?chrome(?![\w-])"
_TAKEN_APART = re.compile(rf"\{{([^{{}}]*)\}}\s*=\s*{_CHROME}\s*(?:\?\?\s*\{{\}}|!)?")
_USE = re.compile(rf"{_CHROME}(?:\s*!?\s*\??\.\s*(\w+))?")


def apis(source: str) -> set[str]:
    """Returns the names after `chrome.` in TypeScript; fails if `chrome` itself is passed on."""
    code = _COMMENT_OR_TEXT.sub(lambda text: '""' if text[0][0] in "\"'" else " ", source)
    found = set()
    for names in _TAKEN_APART.findall(code):
        found |= {name.partition(":")[0].strip() for name in names.split(",") if name.strip()}
    used = _USE.findall(_TAKEN_APART.sub("", code))
    assert "" not in used, "chrome is passed on as a whole: use it as chrome.name"
    return found | set(used)


def imported(entries: Iterable[Path]) -> set[Path]:
    """Returns the files and all that they import."""
    found: set[Path] = set()
    waiting = list(entries)
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in _IMPORT.findall(file.read_text()):
            target = (file.parent / name).resolve()
            candidates = (target, target.with_name(f"{target.name}.ts"), target / "index.ts")
            waiting += [each for each in candidates if each.is_file()][:1]
    return found


def permissions(files: Iterable[Path]) -> set[str]:
    needed = set()
    for file in files:
        for api in apis(file.read_text()):
            assert api in NEEDED, f"{file}: which permission does chrome.{api} need?"
            needed |= NEEDED[api]
    return needed


def sources(folders: Iterable[Path] = FOLDERS) -> Iterator[Path]:
    for folder in folders:
        for file in [folder] if folder.is_file() else folder.rglob("*"):
            if file.suffix in (".ts", ".js", ".html", ".css") and not file.name.endswith(".d.ts"):
                yield file


@pytest.mark.parametrize("kind", Kind)
def test_permissions_are_those_that_the_sources_use(kind: Kind) -> None:
    entries = [SOURCES / name for name in _ENTRIES[kind]]
    files = imported(entries)
    if kind is Kind.BACKGROUND:
        files |= {file for file in sources() if file.suffix in (".ts", ".js")}
    needed = permissions(files)
    if kind is Kind.POPUP:
        needed.discard("offscreen")  # the popup uses it where there is a background
    assert needed == {*PERMISSIONS[kind]}


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("await chrome!.storage!.local.get();", {"storage"}),
        ("globalThis.chrome?.offscreen; chrome.tabs.query({})", {"offscreen", "tabs"}),
        ("const { runtime, offscreen: own } = chrome ?? {};", {"runtime", "offscreen"}),
        ("const { i18n } = globalThis.chrome!;", {"i18n"}),
        ('import "./chrome"; // chrome.history', set()),
        ('const a = "chrome.tabs"; /* chrome\n.tabs */', set()),
        ("`chrome-extension://${chrome.runtime.id}`", {"runtime"}),
        ("this.chrome.tabs; chromeless.tabs", set()),
        ('const STORE = /^https:\\/\\/chrome\\.a([/"?])/; a / chrome.tabs.b / c', {"tabs"}),
    ],
)
def test_uses_are_found(source: str, used: set[str]) -> None:
    assert apis(source) == used


def test_chrome_itself_is_not_passed_on() -> None:
    with pytest.raises(AssertionError, match="passed on"):
        apis("const api = chrome; api.history.search()")


def test_superfluous_and_missing_permissions_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text('import { b } from "./b";\nchrome!.storage!.local;')
    (tmp_path / "b.ts").write_text("export const b = chrome.scripting;")
    files = imported([tmp_path / "a.ts"])
    assert permissions(files) == {"activeTab", "scripting", "storage"}
    (tmp_path / "b.ts").write_text("export const b = chrome.history;")
    with pytest.raises(AssertionError, match=r"which permission does chrome\.history need"):
        permissions(files)


def test_no_source_has_remote_code() -> None:
    for file in sources():
        found = REMOTE_CODE.search(file.read_text())
        assert not found or "@import" in found[0], f"{file}: {found and found[0]}"


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://a.example/b.js"></script>',
        '<link rel="stylesheet" href="//a.example/b.css">',
        'import("https://a.example/b.js")',
        'import a from "https://a.example/b.js"',
        'new Worker("https://a.example/b.js")',
        "body { background: url(https://a.example/b.png) }",
        '"matches": ["<all_urls>"]',
    ],
)
def test_remote_code_is_found(text: str) -> None:
    assert REMOTE_CODE.search(text)
