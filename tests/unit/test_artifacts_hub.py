"""The hub's library with a hub on this machine that refuses requests, and with no hub."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from file_server import serving

from webllm.artifacts import hub

SOURCE = str(Path(hub.__file__).parents[2])

LOCATE = """
import json, sys
from webllm.artifacts.hub import address, list_files, locate
from webllm.artifacts.source import parse_source

for source in map(parse_source, sys.argv[1:]):
    try:
        if source.filename:
            print(json.dumps([locate(source).url, ""]))
            continue
        root, files = list_files(source).folder(source)
        found = [[each.name, each.size, each.sha256] for each in files.values()]
        file = address(root.beside("m.gguf"))
        print(json.dumps([str(root), json.dumps([found, file.url, dict(file.headers)])]))
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


LFS = {"size": 5, "sha256": "ab" * 32, "pointerSize": 130}
REPOSITORY = {
    "id": "o/r",
    "sha": "c0ffee",
    "siblings": [
        {"rfilename": "config.json", "size": 4, "blobId": "1"},
        {"rfilename": "sub/m.gguf", "size": 5, "blobId": "2", "lfs": LFS},
    ],
}


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._refuse(self.path.split("/")[2])

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        refused = re.search(r"/api/models/o/(\w+)/revision/v1$", path.path)
        if refused or (path.path, path.query) != ("/api/models/o/r/revision/a%2Fb", "blobs=true"):
            self._refuse(refused[1] if refused else "absent")
            return
        body = json.dumps(REPOSITORY).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, name: str) -> None:
        status, code, _, _ = ANSWERS[name]
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


def test_the_files_of_a_repository(endpoint: str, tmp_path: Path) -> None:
    found = located(tmp_path, "hf:o/r@a%2Fb", HF_ENDPOINT=endpoint, HF_TOKEN="hf_secret")
    [(root, text)] = found
    files, url, headers = json.loads(text)
    assert root == "hf:o/r@c0ffee"
    assert files == [["config.json", 4, None], ["sub/m.gguf", 5, "ab" * 32]]
    assert url == f"{endpoint}/o/r/resolve/c0ffee/m.gguf"
    assert headers == {"Authorization": "Bearer hf_secret"}
    sources = [f"hf:o/{name}@v1" for name in ANSWERS]
    found = located(tmp_path, *sources, HF_ENDPOINT=endpoint)
    for source, (_, _, kind, said), (name, error) in zip(
        sources, ANSWERS.values(), found, strict=True
    ):
        assert (source, name) == (source, kind), error
        assert said in error
        assert source in error


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
