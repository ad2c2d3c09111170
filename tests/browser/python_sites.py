"""Serves the site that the browser examples describe: Pyodide, PyScript, wheels and models.

npm has Pyodide's runtime but not its full release. The packages of the release that webllm needs
come from PyPI here.
"""

from __future__ import annotations

import asyncio
import json
import runpy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from browser.site_server import SiteServer, serving
from golden import compare

ROOT = Path(__file__).parents[2]
NODE_MODULES = ROOT / "js" / "node_modules"
RUNTIME = NODE_MODULES / "pyodide"
WHEELS = ROOT / "js" / "dist" / "wheels"
EXAMPLES = ROOT / "examples" / "browser"
download = runpy.run_path(str(ROOT / "js" / "wheels.py"))["download"]
COLLECTED = ("msgspec", "jinja2", "markupsafe")


@contextmanager
def example_site(folder: Path, *packages: str, **more: Path) -> Iterator[SiteServer]:
    """Serves examples/browser and its needs, these tests' pages in /tests/, and `more` folders.

    It has `packages` of Pyodide's release, besides micropip and those that webllm needs.
    """
    models = folder / "models"
    models.mkdir()
    (models / "smollm2.gguf").symlink_to(asyncio.run(compare.model_path("smollm2-135m")))
    folders = {
        "": EXAMPLES,
        "pyodide": pyodide_release(folder / "pyodide", "micropip", *packages),
        "pyscript": NODE_MODULES / "@pyscript" / "core" / "dist",
        "wheels": WHEELS,
        "webllm": ROOT / "js" / "dist",
        "models": models,
        "tests": Path(__file__).parent / "pages",
        **more,
    }
    with serving(folders) as server:
        yield server


def pyodide_release(folder: Path, *packages: str) -> Path:
    """Fills a folder; fetches `packages` of the lock file in the locked versions."""
    shutil.copytree(RUNTIME, folder)
    lock = json.loads((RUNTIME / "pyodide-lock.json").read_text())
    for name in packages:
        download(folder, "any", f"{name}=={lock['packages'][name]['version']}")
    for name in COLLECTED:
        (wheel,) = WHEELS.glob(f"{name}-*.whl")
        shutil.copy(wheel, folder)
    for wheel in folder.glob("*.whl"):
        _enter(wheel, lock["packages"])
    (folder / "pyodide-lock.json").write_text(json.dumps(lock))
    return folder


def _enter(wheel: Path, packages: dict[str, Any]) -> None:
    name, version = wheel.name.split("-")[:2]
    entry = packages[name.lower().replace("_", "-")]
    digest = sha256(wheel.read_bytes()).hexdigest()
    entry.update(file_name=wheel.name, version=version, sha256=digest)
