"""The names that `webllm` exports, and its version."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import webllm
from webllm.host import BROWSER

JS = Path(__file__).parents[2] / "js"


def test_a_star_import_gives_every_name() -> None:
    names: dict[str, object] = {}
    exec("from webllm import *", names)
    assert set(webllm.__all__) <= names.keys()


def test_a_name_for_browsers_only_explains_its_import_error() -> None:
    with pytest.raises(ImportError, match=r"in a browser only.*create_worker_process"):
        from webllm import WebWorkerMLCEngine  # noqa: F401
    assert "create_service_worker_mlc_engine" in webllm.__all__
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        webllm.Nonsense  # noqa: B018


def test_a_name_for_cpython_only_explains_its_import_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webllm, "THIS_HOST", BROWSER)
    with pytest.raises(ImportError, match=r"for CPython .*create_service_worker_mlc_engine"):
        webllm.DaemonMLCEngine  # noqa: B018


def test_importing_webllm_loads_no_submodule_but_the_host() -> None:
    code = "import sys, webllm; print([name for name in sys.modules if name.startswith('webllm.')])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout == "['webllm.host']\n"


def test_the_npm_package_has_the_same_version() -> None:
    """`make generated` writes it."""
    lock = json.loads((JS / "package-lock.json").read_text())
    versions = [
        json.loads((JS / "package.json").read_text())["version"],
        lock["version"],
        lock["packages"][""]["version"],
    ]
    assert versions == [webllm.__version__] * 3
