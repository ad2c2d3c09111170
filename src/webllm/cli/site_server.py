"""The server of `webllm web`: static files for browsers on this machine.

Pages are cross-origin isolated, so that WebAssembly may use threads, and have a strict content
security policy. Byte ranges let downloads resume; entity tags tell versions apart (RFC 9110).

Only files that existed at the start are served: no path of a request reaches the file system. A
request must name this server as its host, because other sites may point their names at this address
(DNS rebinding). Slow clients are cut off, and the number of connections is limited.
"""

from __future__ import annotations

import io
import math
import os
import re
import socket
import stat
import sys
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import BoundedSemaphore
from time import monotonic
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from webllm.cli.site import site_files

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' https:; "
    "img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
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
_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_LONGEST_POSITION = 18  # digits; int() refuses those of thousands
_CHUNK_BYTES = 1 << 20
_MAX_CONNECTIONS = 64  # a browser opens six
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Retry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a path: a file, or bytes in memory."""

    type: str
    size: int  # bytes
    tag: str
    source: Path | bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


class SiteServer(ThreadingHTTPServer):
    """Serves the files of `folder`, and those of `extra` by path. Port 0 picks a free one.

    Files added to the folder later are not served, nor are links that lead out of it. Raises
    OSError if the port is not available.
    """

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere it would share a port in use
    timeout_s = 60.0  # to receive a request, counted from the last answer; to send one MB

    def __init__(self, port: int, folder: Path, extra: Mapping[str, Path | bytes]) -> None:
        self.files = {f"/{name}": folder / name for name in site_files(folder)}
        self.extra = extra
        self._free_connections = BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def is_host(self, host: str) -> bool:
        """Returns whether a Host header names this server."""
        name, _, port = host.lower().rpartition(":")
        if self.server_port == 80 and host.lower() in _HOSTS:
            return True
        return name in _HOSTS and port == str(self.server_port)

    def content(self, path: str) -> Content | None:
        """Returns the content of a path, or None."""
        file_path = f"{path}index.html" if path.endswith("/") else path
        source = self.extra.get(path) or self.files.get(file_path)
        type_ = TYPES.get(PurePosixPath(file_path).suffix, "application/octet-stream")
        if isinstance(source, bytes):
            return Content(type_, len(source), f'"{zlib.crc32(source):x}"', source)
        try:
            about = source.stat() if source else None
        except OSError:  # deleted meanwhile
            return None
        if source is None or about is None or not stat.S_ISREG(about.st_mode):
            return None
        return Content(type_, about.st_size, f'"{about.st_mtime_ns:x}-{about.st_size:x}"', source)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free_connections.acquire(blocking=False):
            with suppress(OSError):
                request.sendall(_BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free_connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free_connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a lost client is not a bug
            super().handle_error(request, client_address)


class _ClientReader(io.RawIOBase):
    """Reads from a client; raises TimeoutError after `deadline`, even while bytes arrive."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.deadline = math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self.deadline - monotonic()
        if left_s <= 0:
            raise TimeoutError("the request took too long to arrive")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s: %(explain)s\n"
    server: SiteServer

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._reader = _ClientReader(self.connection)
        self.rfile = io.BufferedReader(self._reader)

    def handle_one_request(self) -> None:
        self._reader.deadline = monotonic() + self.server.timeout_s
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Reads the head of a request. Returns false if it was answered with an error."""
        if not super().parse_request():
            return False
        self.connection.settimeout(self.server.timeout_s)
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            reason = f"a request has one Host header, not {len(hosts)}"
            self.send_error(HTTPStatus.BAD_REQUEST, explain=reason)
            return False
        try:
            target = urlsplit(self.path)
        except ValueError as error:
            self.send_error(
                HTTPStatus.BAD_REQUEST, explain=f"{self.path!r} is not a valid target: {error}"
            )
            return False
        if not self.server.is_host(target.netloc or hosts[0]):
            reason = f"{target.netloc or hosts[0]!r} is not served here, only {self.server.url}"
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, explain=reason)
            return False
        self._target_path = unquote(target.path)
        return True

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if "Transfer-Encoding" in self.headers or self.headers.get("Content-Length", "0") != "0":
            self.close_connection = True  # the request has a body, which is not read
        content = self.server.content(self._target_path)
        try:
            file = content.open() if content else None
        except OSError:
            file = None
        if content is None or file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            self._answer(content, file)

    def _answer(self, content: Content, file: BinaryIO) -> None:
        if self.headers.get("If-None-Match") == content.tag:
            self._begin(HTTPStatus.NOT_MODIFIED, content, None)
            return
        part = self._range(content)
        if part is not None and not part:
            self._begin(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, content, part)
            return
        self._begin(HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK, content, part)
        if self.command != "HEAD":
            self._send(file, part or range(content.size))

    def _range(self, content: Content) -> range | None:
        """Returns the requested range of bytes; None means all."""
        if self.headers.get("If-Range", content.tag) != content.tag:
            return None
        return byte_range(self.headers.get("Range"), content.size)

    def _begin(self, status: HTTPStatus, content: Content, part: range | None) -> None:
        self.send_response(status)
        self.send_header("ETag", content.tag)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-cache")
        if self.close_connection:
            self.send_header("Connection", "close")
        if status is HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.send_header("Content-Range", f"bytes */{content.size}")
            self.send_header("Content-Length", "0")
        elif status is not HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", content.type)
            self.send_header("Content-Length", str(content.size if part is None else len(part)))
            if part is not None:
                span = f"bytes {part.start}-{part.stop - 1}/{content.size}"
                self.send_header("Content-Range", span)
        self.end_headers()

    def _send(self, file: BinaryIO, wanted: range) -> None:
        file.seek(wanted.start)
        left = len(wanted)
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            self.wfile.write(chunk)
            left -= len(chunk)
        self.close_connection |= left > 0  # the file became shorter meanwhile

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


def byte_range(header: str | None, size: int) -> range | None:
    """Reads a Range header (RFC 9110, section 14.2).

    Returns an empty range if it lies beyond the file, and None if the header is ignored: it cannot
    be read or names several ranges.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        return range(max(0, size - _position(match[2])), size)
    first, last = _position(match[1]), _position(match[2]) if match[2] else size
    if match[2] and last < first:
        return None
    return range(min(first, size), min(last + 1, size))


def _position(digits: str) -> int:
    """Reads a number; one with too many digits becomes huge."""
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= _LONGEST_POSITION else sys.maxsize
