"""An HTTP server of one file, or of several, that misbehaves according to a script."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from typing import TypeVar
from urllib.parse import urlsplit

Server = TypeVar("Server", bound=BaseServer)

PART = 4 << 20  # downloads resume at its multiples
BODY = bytes(i * 7 % 251 for i in range(251)) * 35_000  # two parts and a bit
SHA = sha256(BODY).hexdigest()


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Runs a server in a thread of its own, for as long as the block."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Departure:
    """The faults of one response."""

    status: int | None = None
    cut: int | None = None  # close after this many bytes of the body
    extra_length: int = 0  # added to Content-Length
    ignore_range: bool = False
    shift: int = 0  # added to the offset of the body, and stated in its header
    headers: dict[str, str] = field(default_factory=dict)


class FileServer(ThreadingHTTPServer):
    """Serves `body` at every path, or `files` at theirs.

    `script` holds departures for the next requests of any file, `scripts` for those at a path.
    """

    daemon_threads = False  # joined on closing, so that no socket is left open

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.files: dict[str, bytes] | None = None
        self.scripts: dict[str, list[Departure]] = {}
        self.requested: list[str] = []
        self.headers: dict[str, str] = {"ETag": '"v1"'}
        self.script: list[Departure] = []
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/model.gguf"

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of clients that leave before the end."""


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server, path = self.server, urlsplit(self.path).path
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        server.requested.append(path)
        body = server.body if server.files is None else server.files.get(path)
        if body is None:
            return self.answer(404, {"Content-Length": "0"}, b"")
        script = server.scripts.get(path) or server.script
        departure = script.pop(0) if script else Departure()
        if departure.status is not None:
            return self.answer(departure.status, {"Content-Length": "0", **departure.headers}, b"")
        valid = self.headers.get("If-Range") in (None, *server.headers.values())
        if wanted is None or departure.ignore_range or not valid:
            length = str(len(body) + departure.extra_length)
            return self.answer(
                200, {"Content-Length": length, **server.headers}, body[: departure.cut]
            )
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) + departure.shift
        end = min(int(last) + 1, len(body)) if last else len(body)
        if start >= len(body):
            return self.answer(416, {"Content-Length": "0"}, b"")
        rest = body[start:end]
        described = f"bytes {start}-{end - 1}/{len(body)}"
        headers = {"Content-Length": str(len(rest)), "Content-Range": described}
        return self.answer(206, {**headers, **server.headers}, rest[: departure.cut])

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass
