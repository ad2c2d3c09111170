"""Drives WebKitGTK by WebDriver over HTTP, on its own X display."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from browser.chromium import TIMEOUT_S
from browser.engines.processes import connected, free_port, running
from browser.engines.webdriver import CAPABILITIES, Browser, Command, LostPageError

PYTHON = "/usr/bin/python3"  # of the system, which has the bindings to GTK
WINDOW = Path(__file__).with_name("webkit_window.py")
NO_RESULT = "Could not parse script result"  # of a script whose page, or its process, is gone
PACKAGES = "webkit2gtk-driver xvfb python3-gi gir1.2-webkit2-4.1"


@contextmanager
def webkit() -> Iterator[Browser]:
    driver = shutil.which("WebKitWebDriver")
    assert driver, f"these tests need WebKitGTK: apt-get install {PACKAGES}"
    port = free_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, display() as name:
        environment = {**os.environ, "DISPLAY": name, "NO_AT_BRIDGE": "1"}
        with running(driver, f"--port={port}", env=environment) as process:
            connected(process, port).close()
            with closing(HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as connection:
                yield Browser("WebKitGTK", Session(connection, profile).value)


@contextmanager
def display() -> Iterator[str]:
    """Starts an X display without a screen; yields its name."""
    xvfb = shutil.which("Xvfb")
    assert xvfb, f"these tests need a display: apt-get install {PACKAGES}"
    readable, writable = os.pipe()
    options = ["-displayfd", str(writable), "-screen", "0", "1400x1000x24", "-nolisten", "tcp"]
    with os.fdopen(readable) as output, running(xvfb, *options, pass_fds=[writable]):
        os.close(writable)
        yield f":{output.readline().strip()}"


class Session:
    """One WebDriver session, with one window."""

    def __init__(self, connection: HTTPConnection, profile: str) -> None:
        self._connection, self._path = connection, "/session"
        options = {"binary": PYTHON, "args": [str(WINDOW), profile]}
        wanted = {**CAPABILITIES, "webkitgtk:browserOptions": options}
        started = self._post("", {"capabilities": {"alwaysMatch": wanted}})
        self._path += f"/{started['sessionId']}"

    def value(self, command: Command, parameters: dict[str, Any]) -> Any:
        return self._post(command.value.path, parameters)

    def _post(self, path: str, parameters: dict[str, Any]) -> Any:
        self._connection.request("POST", self._path + path, json.dumps(parameters))
        with self._connection.getresponse() as response:
            value = json.load(response)["value"]
            if response.status == 500 and value["message"] == NO_RESULT:
                raise LostPageError(path)
            assert response.status == 200, (path, value)
        return value
