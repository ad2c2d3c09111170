"""The server of `webllm web` under requests that no browser of this machine's user would send."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_server import serving

from webllm.cli import site_server
from webllm.cli.site import site_files
from webllm.cli.site_server import SiteServer

WEIGHTS = bytes(range(256)) * 4
SECRET = b"not for everybody"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "deep").mkdir(parents=True)
    (folder / "index.html").write_text("index")
    (folder / "deep" / "file.js").write_text("file")
    (folder / ".hidden").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.gguf").write_bytes(WEIGHTS)
    (tmp_path / "link.gguf").symlink_to(tmp_path / "model.gguf")
    return tmp_path / "link.gguf"


@pytest.fixture
def server(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[SiteServer]:
    """Starts a server; checks afterwards that it still answers and logged no traceback."""
    with serving(SiteServer(0, folder, {"/models/m.gguf": model})) as server:
        yield server
        server.timeout_s = 60.0
        assert asked(server, "/").startswith(b"HTTP/1.1 200 ")
    assert capsys.readouterr() == ("", "")


def connected(server: SiteServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=60)


def all_of(connection: socket.socket) -> bytes:
    """Returns all bytes until the server closes the connection."""
    received = b""
    try:
        while piece := connection.recv(1 << 16):
            received += piece
    except ConnectionResetError:  # closed with bytes of ours unread
        pass
    return received


def sent(server: SiteServer, request: bytes) -> bytes:
    with connected(server) as connection:
        connection.sendall(request)
        return all_of(connection)


def asked(server: SiteServer, target: str, *headers: str, host: str | None = None) -> bytes:
    lines = [f"GET {target} HTTP/1.1", f"Host: {host or f'127.0.0.1:{server.server_port}'}"]
    text = "\r\n".join([*lines, *headers, "Connection: close", "", ""])
    return sent(server, text.encode("latin-1"))


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost", "[::1]"])
def test_names_of_this_machine_are_served(server: SiteServer, name: str) -> None:
    assert status_of(asked(server, "/", host=f"{name}:{server.server_port}")) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost.evil.example:{port}",
        "user@127.0.0.1:{port}",
        "[::1",
        "\x1b[31m",
        "x" * 5000,
    ],
)
@pytest.mark.parametrize("target", ["/", "/models/m.gguf"])
def test_other_hosts_are_refused(server: SiteServer, host: str, target: str) -> None:
    answer = asked(server, target, host=host.format(port=server.server_port))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == 421
    assert b"text/plain" in head
    assert server.url.encode() in body  # the way out
    assert WEIGHTS not in answer


def test_a_request_names_one_host(server: SiteServer) -> None:
    host = f"Host: 127.0.0.1:{server.server_port}\r\n"
    assert status_of(sent(server, b"GET / HTTP/1.1\r\n\r\n")) == 400
    assert status_of(sent(server, f"GET / HTTP/1.1\r\n{host}{host}\r\n".encode())) == 400
    assert status_of(sent(server, b"GET / HTTP/1.0\r\n\r\n")) == 400
    assert b"one Host header" in sent(server, b"GET /\r\n\r\n")  # HTTP/0.9 has no status


def test_a_host_in_the_target_counts(server: SiteServer) -> None:
    own = server.url.rstrip("/")
    assert status_of(asked(server, f"{own}/deep/file.js", host="evil.example")) == 200
    assert status_of(asked(server, "http://evil.example/")) == 421
    assert status_of(asked(server, f"http://user:password@{own.removeprefix('http://')}/")) == 421


@pytest.mark.parametrize(
    "target",
    [
        "/../secret",
        "/%2e%2e/secret",
        "/deep/..%2f..%2fsecret",
        "/deep%2ffile.js/../../secret",
        "/..%5csecret",
        "/deep\\file.js",
        "/C:/Windows/win.ini",
        "/D:/x",
        "/C:secret",
        "/%5c%5chost%5cshare%5cx",
        "/index.html::$DATA",
        "/index.html%00.js",
        "/index.html.",
        "/index.html/",
        "/CON",
        "/.hidden",
        "/deep/./file.js",
        "/deep",
        "/%ff%fe",
        "*",
        "file:///etc/passwd",
        "/" + "x" * 5000,
        "/" + "x/" * 5000,
    ],
)
def test_no_path_leaves_the_folder(server: SiteServer, target: str) -> None:
    answer = asked(server, target)
    assert status_of(answer) == 404
    assert SECRET not in answer


def test_links_that_lead_out_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "out.txt").symlink_to(tmp_path / "secret")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "inside.js").symlink_to(folder / "deep" / "file.js")
    (folder / "dangling").symlink_to(tmp_path / "absent")
    assert set(site_files(folder)) == {"index.html", "deep/file.js", "inside.js"}
    with SiteServer(0, folder, {}) as server:
        for path in ("/out.txt", "/outside/secret", "/dangling"):
            assert server.content(path) is None
        assert server.content("/inside.js") is not None


def test_a_model_may_be_a_link(server: SiteServer) -> None:
    assert asked(server, "/models/m.gguf").endswith(WEIGHTS)


def test_a_file_that_is_gone_or_locked_is_not_found(
    server: SiteServer, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "deep" / "file.js").unlink()
    assert status_of(asked(server, "/deep/file.js")) == 404
    opened = Path.open

    def refuse(path: Path, *arguments: Any) -> Any:
        if path == model:
            raise PermissionError(13, "not for you")
        return opened(path, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    assert status_of(asked(server, "/models/m.gguf")) == 404


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET http://[::1/ HTTP/1.1", 400),
        ("GET //[::1/ HTTP/1.1", 404),
        ("GET / HTTP/1.1 extra", 400),
        ("GET / HTTQ/1.1", 400),
        ("GET / HTTP/1.x", 400),
        ("GET / HTTP/1." + "1" * 5000, 400),
        ("GET / HTTP/9.9", 505),
        ("GET", 400),
        ("\x16\x03\x01 TLS", 400),
        ("BREW / HTTP/1.1", 501),
        ("GET /" + "x" * 70_000 + " HTTP/1.1", 414),
    ],
)
def test_malformed_requests(server: SiteServer, request_line: str, status: int) -> None:
    host = f"127.0.0.1:{server.server_port}"
    request = f"{request_line}\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    answer = sent(server, request.encode("latin-1"))
    text = answer.split(b"\r\n\r\n")[-1]
    assert (status_of(answer) if answer.startswith(b"HTTP/") else int(text[:3])) == status


def test_too_many_or_too_long_headers(server: SiteServer) -> None:
    assert status_of(asked(server, "/", *(f"X-{i}: x" for i in range(200)))) == 431
    assert status_of(asked(server, "/", "X: " + "x" * 70_000)) == 431


@pytest.mark.parametrize(
    ("header", "status", "size"),
    [
        ("bytes=" + "9" * 5000 + "-", 416, 0),
        ("bytes=0-" + "9" * 5000, 206, 1024),
        ("bytes=-" + "9" * 5000, 206, 1024),
        ("bytes=" + "0" * 5000 + "1000-", 206, 24),
        ("bytes=" + ",".join(["0-0"] * 5000), 200, 1024),
        ("bytes=\xb2-", 200, 1024),
        ("bytes=--5", 200, 1024),
    ],
)
def test_ranges_without_reason(server: SiteServer, header: str, status: int, size: int) -> None:
    answer = asked(server, "/models/m.gguf", f"Range: {header}")
    assert (status_of(answer), len(answer.partition(b"\r\n\r\n")[2])) == (status, size)


def test_a_body_is_no_second_request(server: SiteServer) -> None:
    host = f"Host: 127.0.0.1:{server.server_port}\r\n"
    inner = f"GET /models/m.gguf HTTP/1.1\r\n{host}\r\n"
    for header in (f"Content-Length: {len(inner)}", "Transfer-Encoding: chunked"):
        answer = sent(server, f"GET / HTTP/1.1\r\n{host}{header}\r\n\r\n{inner}".encode())
        assert answer.count(b"HTTP/1.1 ") == 1


def test_idle_connections_are_closed(server: SiteServer) -> None:
    server.timeout_s = 0.05
    assert sent(server, b"") == b""
    assert sent(server, b"GET / HTTP/1.1\r\nHo") == b""
    answered = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n"
    assert status_of(sent(server, answered.encode())) == 200  # then idle


def test_a_request_that_trickles_in_is_cut_off(server: SiteServer) -> None:
    server.timeout_s = 0.3
    with connected(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        connection.settimeout(0.01)
        while True:  # a byte every 10 ms
            try:
                connection.sendall(b"x")
                assert connection.recv(1) == b""
                break
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break


def test_a_client_that_does_not_read_is_cut_off(
    server: SiteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 64 << 20
    server.extra = {"/large": bytes(size)}
    server.timeout_s = 0.05
    ended = threading.Event()
    shut = server.shutdown_request

    def shutdown_request(request: Any) -> None:
        shut(request)
        ended.set()

    monkeypatch.setattr(server, "shutdown_request", shutdown_request)
    with connected(server) as connection:
        host = f"127.0.0.1:{server.server_port}"
        connection.sendall(f"GET /large HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert ended.wait(60)
        assert len(all_of(connection)) < size


def test_connections_are_bounded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(site_server, "_MAX_CONNECTIONS", 2)
    with SiteServer(0, folder, {}) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        get = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode()
        first, second = connected(server), connected(server)
        for held in (first, second):
            held.sendall(get)
            assert status_of(held.recv(1 << 16)) == 200
        assert status_of(sent(server, b"")) == 503
        first.close()
        while status_of(asked(server, "/")) == 503:  # until its thread has ended
            pass
        second.close()
        server.shutdown()
        thread.join()
    assert capsys.readouterr().err == ""
