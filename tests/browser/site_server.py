"""Serves the built site, the pages of these tests and model files on this machine."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
DIST = ROOT / "js" / "dist"
PIECE_BYTES = 1 << 16


@dataclass
class ModelAnswers:
    """Settings for the next answers with model files, and a record of the requests."""

    takes_ranges: bool = True
    has_length: bool = True
    claimed_bytes: int | None = None  # instead of the true length
    etag: str | None = '"1"'
    cut_after_bytes: int | None = None  # of each answer
    pause_s: float = 0  # before each piece of 64 KiB
    is_corrupt: bool = False  # the last byte of each answer is wrong
    num_answers: int | None = None  # more requests are refused, for ten minutes
    ranges: list[str | None] = field(default_factory=list)
    sent_bytes: int = 0


class SiteServer(ThreadingHTTPServer):
    """`folders` maps the first part of a path to a folder; "" is for all others."""

    daemon_threads = True

    def __init__(self, folders: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders = folders
        self.requested: list[str] = []
        self.isolated = False  # pages from other origins: what threads need
        self.allows_all = False  # other origins read its files, as they may Hugging Face's
        self.models = ModelAnswers()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def url_at(self, host: str) -> str:
        """Returns the site's address under another name of this machine."""
        return f"http://{host}:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SiteServer

    def translate_path(self, path: str) -> str:
        first, _, rest = urlsplit(path).path.lstrip("/").partition("/")
        folders = self.server.folders
        if first in folders:
            return str(folders[first] / rest)
        return str(folders[""] / first / rest)

    def send_head(self) -> Any:
        self.server.requested.append(self.path)
        file = Path(self.translate_path(self.path))
        if not self.path.startswith("/models/") or not file.is_file():
            return super().send_head()
        models = self.server.models
        if len(models.ranges) == models.num_answers:
            self.send_response(503)
            self.send_header("Retry-After", "600")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        models.ranges.append(self.headers["Range"])
        return self._send_model_head(file, models)

    def _send_model_head(self, file: Path, models: ModelAnswers) -> BinaryIO:
        size = file.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        first, end = 0, size
        if models.takes_ranges and asked is not None:
            first, end = int(asked[1]), int(asked[2] or size - 1) + 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        else:
            self.send_response(200)
        if models.takes_ranges:
            self.send_header("Accept-Ranges", "bytes")
        if models.etag:
            self.send_header("ETag", models.etag)
        if models.has_length:
            self.send_header("Content-Length", str(models.claimed_bytes or end - first))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        source = file.open("rb")
        source.seek(first)
        self._left = end - first
        return source

    def end_headers(self) -> None:
        self.send_header("Service-Worker-Allowed", "/")
        if self.server.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        if self.server.allows_all:
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Expose-Headers", "Accept-Ranges, Content-Range, ETag")
        super().end_headers()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with suppress(ConnectionError):  # a page may cancel
            if self.path.startswith("/models/"):
                self._copy_model(source, outputfile, self.server.models)
            else:
                super().copyfile(source, outputfile)

    def _copy_model(self, source: BinaryIO, output: BinaryIO, models: ModelAnswers) -> None:
        left = self._left
        if models.cut_after_bytes is not None and models.cut_after_bytes < left:
            left = models.cut_after_bytes
            self.close_connection = True
        while left:
            time.sleep(models.pause_s)
            piece = source.read(min(PIECE_BYTES, left))
            left -= len(piece)
            if models.is_corrupt and not left:
                piece = piece[:-1] + bytes([piece[-1] ^ 1])
            output.write(piece)
            models.sent_bytes += len(piece)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: tests read `requested`."""


@contextmanager
def serving(folders: dict[str, Path]) -> Iterator[SiteServer]:
    with SiteServer(folders) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
