"""The server of `webllm web`: static files for browsers on this machine, nothing else.

Pages are cross-origin isolated, so that WebAssembly may use threads, and under a strict content
security policy. Files have ranges, so that downloads resume, and entity tags (RFC 9110).
"""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' https:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
}
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".whl": "application/zip",
    ".woff2": "font/woff2",
    ".zip": "application/zip",
}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """What a path names: a file, or bytes that are in no file."""

    type: str
    size: int  # bytes
    tag: str
    source: Path | bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


class SiteServer(ThreadingHTTPServer):
    """Serves `folder`, and under the paths of `extra` what is elsewhere. Port 0 is any free one.

    Raises OSError if the port cannot be had.
    """

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere it would share a port in use

    def __init__(self, port: int, folder: Path, extra: Mapping[str, Path | bytes]) -> None:
        self.folder = folder.resolve()
        self.extra = extra
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def content(self, target: str) -> Content | None:
        """What a request's target names; None if nothing."""
        path = unquote(urlsplit(target).path)
        source = self.extra.get(path) or self._file(path)
        suffix = ".html" if path.endswith("/") else PurePosixPath(path).suffix
        type_ = TYPES.get(suffix, "application/octet-stream")
        if isinstance(source, bytes):
            return Content(type_, len(source), f'"{zlib.crc32(source):x}"', source)
        if source is None or not source.is_file():
            return None
        about = source.stat()
        return Content(type_, about.st_size, f'"{about.st_mtime_ns:x}-{about.st_size:x}"', source)

    def _file(self, path: str) -> Path | None:
        """A file of the folder; nothing hidden, nothing beside it."""
        parts = path.split("/")[1:]
        if "\0" in path or any(part.startswith(".") or "\\" in part for part in parts):
            return None
        file = self.folder.joinpath(*parts)
        return file / "index.html" if path.endswith("/") else file


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SiteServer

    def do_GET(self) -> None:
        with suppress(ConnectionError):  # a browser may end a download
            self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        content = self.server.content(self.path)
        if content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        if self.headers.get("If-None-Match") == content.tag:
            self._begin(HTTPStatus.NOT_MODIFIED, content, None)
            return
        asked = self._range(content)
        if asked is not None and not asked:
            self._begin(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, content, asked)
            return
        self._begin(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK, content, asked)
        if with_body:
            self._send(content, asked or range(content.size))

    def _range(self, content: Content) -> range | None:
        """The bytes asked for; None: all."""
        if self.headers.get("If-Range", content.tag) != content.tag:
            return None
        return byte_range(self.headers.get("Range"), content.size)

    def _begin(self, status: HTTPStatus, content: Content, asked: range | None) -> None:
        self.send_response(status)
        self.send_header("ETag", content.tag)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-cache")
        if status is HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.send_header("Content-Range", f"bytes */{content.size}")
            self.send_header("Content-Length", "0")
        elif status is not HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", content.type)
            self.send_header("Content-Length", str(content.size if asked is None else len(asked)))
            if asked is not None:
                span = f"bytes {asked.start}-{asked.stop - 1}/{content.size}"
                self.send_header("Content-Range", span)
        self.end_headers()

    def _send(self, content: Content, wanted: range) -> None:
        with content.open() as file:
            file.seek(wanted.start)
            left = len(wanted)
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                self.wfile.write(chunk)
                left -= len(chunk)
        self.close_connection |= left > 0  # the file was cut meanwhile

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def byte_range(header: str | None, size: int) -> range | None:
    """The bytes that a Range header names, empty if there are none; None where it does not count.

    Several ranges at once do not count here, nor does what cannot be read (RFC 9110, 14.2).
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        return range(max(0, size - int(match[2])), size)
    first, last = int(match[1]), int(match[2] or size)
    if match[2] and last < first:
        return None
    return range(min(first, size), min(last + 1, size))
