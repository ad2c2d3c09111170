"""Serves the site of `webllm web` from this process, with SmolLM2 in it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from webllm.cli import site_server
from webllm.cli.site_models import site_models
from webllm.cli.web import open_server
from webllm.config import DEFAULT_MODEL_ID

EVALUATING_WORKER = b"try { eval('1') } catch {} postMessage('done')"


@dataclass
class Served:
    url: str
    requests: list[tuple[float, str]] = field(default_factory=list)  # seconds since 1970, target
    violations: list[str] = field(default_factory=list)  # of the content security policy


@contextmanager
def serving_site(npm_client: Path) -> Iterator[Served]:
    """Serves also `/blank.html`, `/npm.js` and a worker that breaks the policy."""
    models = asyncio.run(site_models([DEFAULT_MODEL_ID], lambda report: None))
    policy = f"{site_server.CONTENT_SECURITY_POLICY}; report-uri /violations"
    with open_server(models, 0) as server:
        served = Served(server.url)

        class Handler(site_server._Handler):
            def do_GET(self) -> None:  # noqa: N802
                served.requests.append((time.time(), self.path))
                super().do_GET()

            def do_POST(self) -> None:  # noqa: N802
                served.violations.append(
                    self.rfile.read(int(self.headers["Content-Length"])).decode()
                )
                self.send_response(204)
                self.end_headers()

            def send_header(self, name: str, value: str) -> None:
                super().send_header(name, policy if "Policy" in name and "src" in value else value)

        server.RequestHandlerClass = Handler
        server.extra = {
            **server.extra,
            "/blank.html": b'<!doctype html><link rel="icon" href="icon.svg" />',
            "/evaluating_worker.js": EVALUATING_WORKER,
            "/npm.js": npm_client,
        }
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield served
        server.shutdown()
        thread.join()
