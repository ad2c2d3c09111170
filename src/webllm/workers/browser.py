"""Web Workers: a port over `postMessage`, the worker's end and the page's.

In a worker script:     handler = WebWorkerMLCEngineHandler()
in its page:            engine = await create_web_worker_mlc_engine(worker, "SmolLM2-135M-Instruct")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import js
import msgspec
from pyodide.ffi import create_proxy

from webllm.api.interface import MLCEngineInterface
from webllm.config import ChatOptions, MLCEngineConfig
from webllm.errors import WorkerLostError
from webllm.workers.handler import MLCEngineHandler, OnCustomRequest
from webllm.workers.port import OnClose, OnMessage
from webllm.workers.proxy import WorkerMLCEngine


class BrowserPort:
    """See `Port`. `endpoint` has `postMessage`: a Worker, or a worker's own global scope.

    Messages cross between the languages as JSON: one call each, however many values they have.
    """

    def __init__(self, endpoint: Any, end: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._end = end
        self._on_message: OnMessage | None = None
        self._on_close: OnClose | None = None
        self._waiting: list[object] = []
        self._listeners = {
            "message": create_proxy(self._receive),
            "error": create_proxy(self._fail),
        }
        for kind, listener in self._listeners.items():
            endpoint.addEventListener(kind, listener)

    def listen(self, on_message: OnMessage, on_close: OnClose) -> None:
        self._on_message, self._on_close = on_message, on_close
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            on_message(message)

    def post(self, message: object) -> None:
        if not self._listeners:
            raise WorkerLostError("the port is closed; open a new one")
        self._endpoint.postMessage(js.JSON.parse(msgspec.json.encode(message).decode()))

    async def close(self) -> None:
        self._close("the port was closed")

    def _receive(self, event: Any) -> None:
        text = js.JSON.stringify(event.data)
        if text is None:
            return  # `undefined`, no message of ours
        message = msgspec.json.decode(text)
        if self._on_message is None:
            self._waiting.append(message)
        else:
            self._on_message(message)

    def _fail(self, event: Any) -> None:
        self._close(f"its script failed: {event.message or 'it could not be loaded'}")

    def _close(self, reason: str) -> None:
        listeners, self._listeners = self._listeners, {}
        for kind, listener in listeners.items():
            self._endpoint.removeEventListener(kind, listener)
            listener.destroy()
        if listeners:
            self._end()
            if self._on_close is not None:
                self._on_close(reason)


class WebWorkerMLCEngineHandler(MLCEngineHandler):
    """Serves the page that made this worker, from its construction on."""

    def __init__(
        self,
        engine: MLCEngineInterface | None = None,
        config: MLCEngineConfig | None = None,
        *,
        on_custom_request: OnCustomRequest | None = None,
    ) -> None:
        super().__init__(engine, config, on_custom_request=on_custom_request)
        self.serve(BrowserPort(js.self, js.self.close))


class WebWorkerMLCEngine(WorkerMLCEngine):
    """The engine in `worker`, a JavaScript Worker whose script makes a handler."""

    def __init__(self, worker: Any, config: MLCEngineConfig | None = None) -> None:
        super().__init__(BrowserPort(worker, worker.terminate), config)


async def create_web_worker_mlc_engine(
    worker: Any,
    model_id: str | Sequence[str],
    config: MLCEngineConfig | None = None,
    chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
) -> WebWorkerMLCEngine:
    """A `WebWorkerMLCEngine` with models loaded; raises what `MLCEngine.reload` raises."""
    engine = WebWorkerMLCEngine(worker, config)
    await engine.reload(model_id, chat_options)
    return engine
