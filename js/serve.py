"""Serves the built chat page with a model of this machine, on localhost.

    python js/serve.py [--model SmolLM2-135M-Instruct] [--port 8000]

The model is fetched into the artifact store if it is not there; the browser takes it from here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import webbrowser
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.store import DirectoryStore
from webllm.config import DEFAULT_MODEL_ID, ModelRecord, prebuilt_app_config

SITE = Path(__file__).parent / "dist"
MODEL_PATH = "/models/model.gguf"


class Handler(SimpleHTTPRequestHandler):
    """The site's files; the model and the catalogue that names it come from elsewhere."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, model: Path, catalogue: bytes, **kwargs: Any) -> None:
        self.model, self.catalogue = model, catalogue
        super().__init__(*args, directory=str(SITE), **kwargs)

    def translate_path(self, path: str) -> str:
        return str(self.model) if path == MODEL_PATH else super().translate_path(path)

    def do_GET(self) -> None:
        if self.path != "/models.json":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.catalogue)))
        self.end_headers()
        self.wfile.write(self.catalogue)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def catalogue(record: ModelRecord) -> bytes:
    """A list of this one model, to be fetched from here."""
    here = msgspec.structs.replace(record, model=MODEL_PATH)
    return json.dumps({"model_list": [msgspec.to_builtins(here)]}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL_ID)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--no-open", action="store_true", help="open no browser")
    options = parser.parse_args()
    record = prebuilt_app_config().find(options.model)
    model = asyncio.run(ensure_artifact(record.source, DirectoryStore()))
    handler = partial(Handler, model=model, catalogue=catalogue(record))
    with ThreadingHTTPServer(("127.0.0.1", options.port), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        print(f"{record.model_id} at {address}; Ctrl-C ends it", flush=True)
        if not options.no_open:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
