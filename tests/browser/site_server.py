"""Serves the built site, the pages of these tests and model files on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit


class SiteServer(ThreadingHTTPServer):
    """`folders` maps the first part of a path to a folder; "" is for all others."""

    daemon_threads = True

    def __init__(self, folders: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders = folders
        self.requested: list[str] = []
        self.cut_after_bytes: int | None = None  # of model files
        self.isolated = False  # pages from other origins: what threads need

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SiteServer

    def translate_path(self, path: str) -> str:
        first, _, rest = urlsplit(path).path.lstrip("/").partition("/")
        folders = self.server.folders
        if first in folders:
            return str(folders[first] / rest)
        return str(folders[""] / first / rest)

    def send_head(self):
        self.server.requested.append(self.path)
        return super().send_head()

    def end_headers(self) -> None:
        if self.server.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def copyfile(self, source: BinaryIO, outputfile: BinaryIO) -> None:
        cut = self.server.cut_after_bytes
        if cut is None or not self.path.startswith("/models/"):
            with suppress(ConnectionError):  # a page may cancel
                super().copyfile(source, outputfile)
        else:
            outputfile.write(source.read(cut))
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what a test needs is in `requested`."""


@contextmanager
def serving(folders: dict[str, Path]) -> Iterator[SiteServer]:
    with SiteServer(folders) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
