"""The hub's library with a hub on this machine that refuses requests, and with no hub."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from file_server import serving

from webllm.artifacts import hub

SOURCE = str(Path(hub.__file__).parents[2])

LOCATE = """
import json, sys
from webllm.artifacts.hub import locate
from webllm.artifacts.source import parse_source

for source in sys.argv[1:]:
    try:
        print(json.dumps([locate(parse_source(source)).url, ""]))
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""

# Repositories of this hub: status, the hub's error code, the error that we make of it.
ANSWERS = {
    "gated": (403, "GatedRepo", "FetchError", "accept the licence on the page of o/gated"),
    "private": (401, "RepoNotFound", "ModelNotFoundError", "needs a login (hf auth login)"),
    "absent": (404, "EntryNotFound", "ModelNotFoundError", "does not exist"),
    "revision": (404, "RevisionNotFound", "ModelNotFoundError", "does not exist"),
    "forbidden": (403, "", "FetchError", "log in (hf auth login)"),
    "often": (429, "", "FetchError", "try again later"),
    "broken": (500, "", "FetchError", "try again later"),
}


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        status, code, _, _ = ANSWERS[self.path.split("/")[2]]
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", "the hub's\twords")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Hub)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def located(home: Path, *sources: str, **environment: str) -> list[tuple[str, str]]:
    """Returns the name and text of each source's error, from a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", LOCATE, *sources],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE, "HF_HOME": str(home), **environment},
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return [tuple(json.loads(line)) for line in ended.stdout.splitlines()]


def test_what_the_hub_refuses(endpoint: str, tmp_path: Path) -> None:
    sources = [f"hf:o/{name}@refs/pr/1/m.gguf" for name in ANSWERS]
    found = located(tmp_path, *sources, HF_ENDPOINT=endpoint)
    for source, (_, _, kind, said), (name, text) in zip(
        sources, ANSWERS.values(), found, strict=True
    ):
        assert (name, "\n" in text) == (kind, False), text
        assert said in text
        assert source in text


def test_without_a_hub(endpoint: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    for environment, said in [
        ({"HF_ENDPOINT": f"http://{closed}"}, "check the network"),
        ({"HTTPS_PROXY": f"http://{closed}", "NO_PROXY": ""}, "check the network and its proxies"),
        ({"HTTPS_PROXY": "nonsense://x", "NO_PROXY": ""}, "Unknown scheme for proxy"),
        ({"HF_ENDPOINT": "http://nowhere.invalid"}, "name a file on this disk"),
        ({"HF_ENDPOINT": endpoint.replace("http:", "https:")}, "check the network"),  # no TLS
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
    ]:
        ((name, text),) = located(tmp_path, "hf:o/r/m.gguf", **environment)
        assert (name, "\n" in text) == ("FetchError", False), text
        assert said in text
