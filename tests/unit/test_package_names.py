"""The names that `webllm` exports."""

import subprocess
import sys

import pytest

import webllm


def test_a_star_import_gives_every_name() -> None:
    names: dict[str, object] = {}
    exec("from webllm import *", names)
    assert set(webllm.__all__) <= names.keys()


def test_a_name_for_browsers_only_explains_its_import_error() -> None:
    with pytest.raises(ImportError, match=r"in a browser only.*create_worker_process"):
        from webllm import WebWorkerMLCEngine  # noqa: F401
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        webllm.Nonsense  # noqa: B018


def test_importing_webllm_loads_no_submodule() -> None:
    code = "import sys, webllm; print([name for name in sys.modules if name.startswith('webllm.')])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout == "[]\n"
