"""The names of `webllm` itself."""

import subprocess
import sys

import pytest

import webllm


def test_a_star_import_gives_every_name() -> None:
    names: dict[str, object] = {}
    exec("from webllm import *", names)
    assert set(webllm.__all__) <= names.keys()


def test_names_of_browsers_say_that_they_are() -> None:
    with pytest.raises(ImportError, match=r"in a browser only.*create_worker_process"):
        from webllm import WebWorkerMLCEngine  # noqa: F401
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        webllm.Nonsense  # noqa: B018


def test_importing_costs_nothing() -> None:
    loaded = (
        "import sys, webllm; print([name for name in sys.modules if name.startswith('webllm.')])"
    )
    ended = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True)
    assert ended.stdout == "[]\n"
