"""The TypeScript client under Node, and its types against the Python they are generated from."""

from __future__ import annotations

import re
import runpy
import subprocess

import pytest

from browser.site_server import ROOT
from webllm.workers.messages import KINDS

JS = ROOT / "js"
NAMES = [
    *("client", "starting", "streams", "malformed", "service_worker", "conversation_db"),
    *(
        "journal",
        "recovery",
        "signals",
        "service_worker_engine",
        "webllm_workers",
        "answering",
        "homes",
        "extension_ports",
        "foreigners",
        "format",
    ),
]
TESTS = [f"tests/{name}.test.mjs" for name in NAMES]
MADE = runpy.run_path(str(JS / "client_types.py"))["files"]()


def test_the_client_in_front_of_a_fake_worker() -> None:
    command = ["node", "--expose-gc", "--test", *TESTS]
    done = subprocess.run(command, cwd=JS, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"make site builds the client that fails here:\n{done.stdout}"


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_from_python_is_up_to_date(name: str) -> None:
    there = (JS / "src" / "client" / name).read_text()
    assert there == MADE[name], f"run make generated, which writes {name}"


def test_every_kind_of_the_npm_package_is_in_the_table() -> None:
    declared = JS / "node_modules" / "@mlc-ai" / "web-llm" / "lib" / "message.d.ts"
    [kinds] = re.findall(r"type RequestKind = (.*?);", declared.read_text(), re.DOTALL)
    assert set(re.findall(r'"(\w+)"', kinds)) <= {*KINDS, "keepAlive"}


METHODS = sorted({kind.method for kind in KINDS.values() if kind.method})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_table_is_one_of_the_client(method: str) -> None:
    source = (JS / "src" / "client" / "engine.ts").read_text() + MADE["messages.ts"]
    methods = re.findall(r"^  (?:async |readonly )?(\w+)(?:\(| = \(async)", source, re.MULTILINE)
    first, *others = method.split("_")
    spelled = "".join([first, *(word.capitalize() for word in others)])
    assert {spelled.lower(), f"get{spelled}".lower()} & {name.lower() for name in methods}
