"""The TypeScript client under Node, and its types against the Python that they are made from."""

from __future__ import annotations

import runpy
import subprocess

import pytest

from browser.site_server import ROOT

JS = ROOT / "js"
TESTS = [f"tests/{name}.test.mjs" for name in ("client", "starting", "streams", "malformed")]
MADE = runpy.run_path(str(JS / "client_types.py"))["files"]()


def test_the_client_in_front_of_a_fake_worker() -> None:
    command = ["node", "--expose-gc", "--test", *TESTS]
    done = subprocess.run(command, cwd=JS, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_from_python_is_up_to_date(name: str) -> None:
    there = (JS / "src" / "client" / name).read_text()
    assert there == MADE[name], f"run python js/client_types.py, which makes {name}"
