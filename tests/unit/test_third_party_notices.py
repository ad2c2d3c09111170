"""THIRD_PARTY_NOTICES.md has an entry, with its license, for each package that the site carries."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTICES = (ROOT / "THIRD_PARTY_NOTICES.md").read_text()
HEADINGS = set(re.findall(r"^## (.+)$", NOTICES, re.MULTILINE))
JS = ROOT / "js"
IMPORT = re.compile(r'(?:from\s+|import\s+|url\()"([^."][^"]*)"')
NPM = json.loads((JS / "package.json").read_text())["dependencies"]
# The wheels that wheels.py collects are written as "name==version".
WHEELS = re.findall(r'"([a-z0-9]+)==([0-9.]+)"', (JS / "wheels.py").read_text())
SHIPPED = [f"{name} {version}" for name, version in (*NPM.items(), *WHEELS)]


def test_the_packages_are_found() -> None:
    assert {name for name, _ in WHEELS} == {"msgspec", "jinja2", "markupsafe"}


@pytest.mark.parametrize("package", SHIPPED)
def test_a_package_has_an_entry_with_its_version(package: str) -> None:
    assert package in HEADINGS
    assert f"| {package} |" in NOTICES


def test_no_entry_is_of_a_package_that_is_gone() -> None:
    rows = re.findall(r"^\| (\S+ [0-9.]+) \| ", NOTICES, re.MULTILINE)
    others = {row for row in rows if row not in SHIPPED}
    assert {row.split()[0] for row in others} == {"CPython"}  # in Pyodide
    assert others <= HEADINGS


def test_every_license_has_its_text() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| ", NOTICES, re.MULTILINE)
    named = set(re.findall(r"[A-Za-z]+[0-9]?-[0-9]\S*|BSD-\S+|MIT|zlib", " ".join(rows)))
    elsewhere = {"Apache-2.0", "MPL-2.0", "MPL-2.0)"}  # in LICENSE; at the address of its entry
    assert "MIT" in named
    assert named - elsewhere <= HEADINGS


def test_the_site_bundles_no_other_package() -> None:
    """`dependencies` of package.json are the packages that scripts and styles of js/src import."""
    files = [path for kind in ("ts", "css") for path in (JS / "src").rglob(f"*.{kind}")]
    files = [path for path in files if "peers" not in path.parts]  # no part of the site
    imported = {name for path in files for name in IMPORT.findall(path.read_text())}
    packages = {name for name in imported if not name.startswith("node:")}
    unknown = {name for name in packages if not any(_is_of(name, known) for known in NPM)}
    assert unknown == set()


def _is_of(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}/")
