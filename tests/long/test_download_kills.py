"""Downloads in another process, killed at many points: the next resumes, and the file is right.

The file's server counts the bytes that it sends, so the test knows the point, and the bytes that
were fetched twice, whatever the download does: in one request or in several at a time.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from file_server import serving

from long.figures import SEED, AddFigures, count

NUM_POINTS = count("POINTS", 30)
BODY = random.Random(0).randbytes((64 << 20) + 12_345)
PIECE = 64 << 10  # bytes, sent and counted as one
SPEEDS = (0, 40e6, 3e6)  # bytes per second of each connection; 0: as many as it takes
LONGEST_S = 120.0
DOWNLOAD = """
import asyncio, sys
from pathlib import Path
from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.store import DirectoryStore

print(asyncio.run(ensure_artifact(sys.argv[1], DirectoryStore(Path(sys.argv[2])))))
"""


class Server(ThreadingHTTPServer):
    """Serves BODY at every path, whole or in ranges."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/model.gguf"
        self.speed = 0.0
        self.num_sent = 0  # bytes of bodies
        self.kill_at = sys.maxsize
        self.reached = threading.Event()
        self._lock = threading.Lock()

    def begin(self, speed: float, kill_at: int) -> None:
        """Counts from 0 again, and sets `reached` once `kill_at` bytes are sent."""
        self.speed, self.num_sent, self.kill_at = speed, 0, kill_at
        self.reached.clear()

    def count(self, num_bytes: int) -> None:
        with self._lock:
            self.num_sent += num_bytes
            if self.num_sent >= self.kill_at:
                self.reached.set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores clients that are gone."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(BODY)

    def answer(self, body: bytes) -> None:
        start, end, size = 0, len(BODY), len(BODY)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.headers.get("If-Range") in (None, '"v1"'):
            start, end = int(wanted[1]), min(int(wanted[2] or size - 1) + 1, size)
            self.send_response(206 if start < size else 416)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("ETag", '"v1"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(max(0, end - start)))
        self.end_headers()
        for at in range(start, end if body else start, PIECE):
            piece = body[at : min(at + PIECE, end)]
            self.wfile.write(piece)
            self.server.count(len(piece))
            if self.server.speed:
                time.sleep(len(piece) / self.server.speed)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server


def test_a_killed_download_resumes(server: Server, tmp_path: Path, add_figures: AddFigures) -> None:
    """Points lie from the first byte to some milliseconds after the last one."""
    rng = random.Random(SEED)
    at_kill, sent_twice, ends = list[int](), list[int](), max(1, NUM_POINTS // 6)
    for point in range(NUM_POINTS):
        where = min(len(BODY), 1 + len(BODY) * point // (NUM_POINTS - ends))
        delay_s = rng.uniform(0, 0.1) if where == len(BODY) else 0.0
        case = f"seed {SEED}, killed {delay_s:.3f} s after byte {where}"
        server.begin(rng.choice(SPEEDS), kill_at=where)
        store = tmp_path / str(point)
        with download(server, store) as child:
            assert server.reached.wait(LONGEST_S), f"{case}: it fetches nothing"
            time.sleep(delay_s)
            child.kill()
        at_kill.append(server.num_sent)
        with download(server, store) as child:
            printed, _ = child.communicate(timeout=LONGEST_S)
        assert child.returncode == 0, case
        assert Path(printed.strip()).read_bytes() == BODY, case
        kept = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
        assert kept < 1.01 * len(BODY), f"{case}: {kept} bytes are left"
        sent_twice.append(server.num_sent - len(BODY))
        shutil.rmtree(store)
    # Much less than if each had begun anew.
    assert sum(sent_twice) < 0.5 * sum(at_kill), (at_kill, sent_twice)
    figures = {"kills": NUM_POINTS, "file (MB)": len(BODY) / 1e6}
    figures |= {"sent twice, mean (MB)": sum(sent_twice) / NUM_POINTS / 1e6}
    figures |= {"sent twice, most (MB)": max(sent_twice) / 1e6}
    add_figures("download kills", figures)


@contextmanager
def download(server: Server, store: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", DOWNLOAD, server.url, str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()
