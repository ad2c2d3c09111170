"""Drives Firefox by Marionette, its own protocol under WebDriver, over a socket."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser.engines.processes import connected, free_port, running
from browser.engines.webdriver import CAPABILITIES, Browser, Command


@contextmanager
def firefox(**preferences: Any) -> Iterator[Browser]:
    """Starts Firefox without a window, and without WebGPU, which only some builds have.

    In the names of preferences "_" stands for ".".
    """
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    assert path, "these tests need Firefox: apt-get install firefox-esr"
    port = free_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        wanted = {"marionette_port": port, "dom_webgpu_enabled": False, **preferences}
        write_preferences(Path(profile), wanted)
        command = [path, "--headless", "--marionette", "--no-remote", "--profile", profile]
        with running(*command) as process, connected(process, port) as connection:
            marionette = Marionette(connection)
            marionette.send("WebDriver:NewSession", {})
            marionette.send("WebDriver:SetTimeouts", CAPABILITIES["timeouts"])
            yield Browser("Firefox", marionette.value)


def write_preferences(profile: Path, preferences: dict[str, Any]) -> None:
    named = {name.replace("_", "."): value for name, value in preferences.items()}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(to)});" for name, to in named.items()]
    (profile / "user.js").write_text("\n".join(lines))


class Marionette:
    """A connection; each message is its length in decimal digits, a colon and JSON."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._answers = connection, connection.makefile("rb")
        self._receive()  # a greeting

    def value(self, command: Command, parameters: dict[str, Any]) -> Any:
        return self.send(command.value.in_firefox, parameters).get("value")

    def send(self, name: str, parameters: dict[str, Any]) -> Any:
        message = json.dumps([0, 0, name, parameters]).encode()
        self._connection.sendall(b"%d:%b" % (len(message), message))
        _, _, error, result = self._receive()
        assert error is None, (name, error)
        return result

    def _receive(self) -> Any:
        length = b""
        while (byte := self._answers.read(1)) != b":":
            assert byte, "Firefox has ended"
            length += byte
        return json.loads(self._answers.read(int(length)))
